"""Who answers, and why: every combination has one reason, and no combination lets an uncertified answer out."""

import itertools
import math
import statistics
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overproof.data import REASONS, STAGES, Stage
from overproof.serve.router import (
    Cause,
    Fault,
    Routed,
    Shown,
    Situation,
    arm,
    before,
    forced_of,
    headers_of,
    route,
    shadowed,
)
from overproof.serve.shapes import BadCall

BOOLS = (False, True)
OUTCOMES = [
    *({"cause": None, "fault": fault} for fault in get_args(Fault)),
    {"cause": None, "fault": ""},
    *({"cause": cause, "fault": "", "suspended": suspended, "unfit": unfit} for cause in get_args(Cause) for suspended in BOOLS for unfit in BOOLS),
]


def situations():
    """Every combination of what can be known before: stages with the caller inside and outside the share, and all marks."""
    for stage, inside, forced in itertools.product(STAGES, BOOLS, ("", "teacher", "student")):
        for matched, released, unsupported, expired, student_down, teacher_down, stand_in in itertools.product(BOOLS, repeat=7):
            yield Situation(
                matched=matched, released=released, stage=stage, share=0.05, arm=0.01 if inside else 0.05, forced=forced,
                unsupported=unsupported, expired=expired, student_down=student_down, teacher_down=teacher_down, stand_in=stand_in,
            )  # fmt: skip


ALL = list(situations())


def test_every_combination_has_one_route_with_a_reason_of_the_list():
    """Nothing falls through, nothing depends on chance, and what was settled before stays settled whatever the student says."""
    seen = set()
    for now in ALL:
        settled = before(now)
        for outcome in OUTCOMES:
            routed = route(now, **outcome)
            assert routed == route(now, **outcome)
            assert settled is None or routed == settled
            assert routed.route in ("student", "teacher")
            seen.add(routed.reason)
    assert seen == set(REASONS)


def test_the_student_answers_only_where_all_of_it_is_certified():
    """Each answer of the student's needs a release, an answer above its threshold, in time, in form, in a slice that stands."""
    by_student = 0
    for now, outcome in itertools.product(ALL, OUTCOMES):
        routed = route(now, **outcome)
        if routed.route == "student":
            by_student += 1
            assert outcome == {"cause": "confident", "fault": "", "suspended": False, "unfit": False}
            assert now.matched
            assert now.released
            assert not any((now.unsupported, now.expired, now.student_down))
            assert now.forced != "teacher"
            assert now.forced == "student" or now.stage in ("canary", "full")
    assert by_student > 0


def test_in_shadow_and_teacher_only_nothing_but_force_brings_the_student():
    """Neither a confident answer nor an outage does, and its reason then says that it was forced."""
    for now, outcome in itertools.product(ALL, OUTCOMES):
        if now.stage in ("teacher-only", "shadow"):
            routed = route(now, **outcome)
            assert routed.route == "teacher" or (now.forced == "student" and routed.reason == "forced")
            assert before(now) is not None or now.forced == "student"


def test_a_caller_outside_the_share_is_the_students_only_in_an_outage_that_the_owner_allows():
    """Then the answer says that it stands in."""
    stood_in = 0
    for now, outcome in itertools.product(ALL, OUTCOMES):
        routed = route(now, **outcome)
        assert routed.degraded == (routed.reason == "outage")
        if routed.degraded:
            stood_in += 1
            assert now.teacher_down
            assert now.stand_in
            assert now.stage == "canary"  # in full the student answers anyway
            assert now.arm >= now.share
        elif routed.route == "student" and now.forced != "student":
            assert now.stage == "full" or now.arm < now.share
    assert stood_in > 0


@pytest.mark.parametrize(
    ("change", "outcome", "expected"),
    [
        ({}, {"cause": "confident"}, ("student", "confident")),
        ({}, {"cause": "unsure"}, ("teacher", "below_threshold")),
        ({}, {"cause": "uncertified"}, ("teacher", "slice_not_certified")),
        ({}, {"cause": "confident", "suspended": True}, ("teacher", "slice_not_certified")),
        ({}, {"cause": "out_of_scope"}, ("teacher", "out_of_scope")),
        ({}, {"cause": "mixed"}, ("teacher", "mixed")),
        ({}, {"cause": "expired"}, ("teacher", "expired")),
        ({}, {"cause": None, "fault": "deadline"}, ("teacher", "deadline")),
        ({}, {"cause": None, "fault": "busy"}, ("teacher", "deadline")),
        ({}, {"cause": None, "fault": "student_error"}, ("teacher", "student_error")),
        ({}, {"cause": "confident", "unfit": True}, ("teacher", "unsupported")),
        ({"stage": "canary", "share": 0.2, "arm": 0.19}, {"cause": "confident"}, ("student", "confident")),
        ({"stage": "canary", "share": 0.2, "arm": 0.2}, {"cause": "confident"}, ("teacher", "stage")),
        ({"stage": "shadow"}, {"cause": "confident"}, ("teacher", "stage")),
        ({"stage": "shadow", "forced": "student"}, {"cause": "confident"}, ("student", "forced")),
        ({"stage": "shadow", "forced": "student"}, {"cause": "unsure"}, ("teacher", "below_threshold")),
        ({"forced": "teacher"}, {"cause": "confident"}, ("teacher", "forced")),
        ({"released": False, "forced": "student"}, {"cause": "confident"}, ("teacher", "no_release")),
        ({"student_down": True}, {"cause": "confident"}, ("teacher", "student_error")),
        ({"matched": False}, {"cause": "confident"}, ("teacher", "unmatched")),
        ({"teacher_down": True}, {"cause": "unsure"}, ("teacher", "below_threshold")),
    ],
)  # fmt: skip
def test_each_reason_says_what_it_stands_for(change, outcome, expected):
    """One case each, against full with a release that holds."""
    now = msgspec.structs.replace(Situation(released=True, stage="full"), **change)
    routed = route(now, **outcome)
    assert (routed.route, routed.reason) == expected


def test_the_student_is_asked_afterwards_where_the_stage_alone_kept_it_back():
    """In shadow and for the teacher's share of canary, but neither before the first stage nor for what it can't answer."""
    for now in ALL:
        routed = before(now)
        if routed is not None and shadowed(now, routed):
            assert now.stage in ("shadow", "canary")
            assert now.released
            assert not now.unsupported
            assert not now.forced
    asked: list[Stage] = [stage for stage in STAGES if shadowed(now := Situation(released=True, stage=stage), before(now) or Routed(route="student", reason="confident"))]
    assert asked == ["shadow", "canary"]


@given(st.text(max_size=60), st.text(max_size=90))
def test_an_arm_is_the_same_again_and_below_one(key, salt):
    """Two gateways give one caller one arm, whatever the text."""
    assert arm(key, salt) == arm(key, salt)
    assert 0 <= arm(key, salt) < 1


def test_an_arm_stays_what_it_was_and_no_text_breaks_it():
    """A gateway of the next version moves nobody to the other side; half a surrogate pair in a session is a caller like any other."""
    assert [round(arm(key, salt), 12) for key, salt in (("user-1", "r1"), ("user-1", "r2"), ("", ""), ("é", "r1"))] == [
        0.170968118268, 0.922200755752, 0.662336212212, 0.084783863812]  # fmt: skip
    assert arm("\ud800", "\udfff") == arm("?", "?")


def test_arms_are_spread_evenly_and_anew_for_each_release():
    """A share of 5 % is 5 % of the callers, and the next release tries others."""
    one, other = ([arm(f"user-{i}", salt) for i in range(20_000)] for salt in ("r1", "r2"))
    for share in (0.05, 0.5):
        assert abs(statistics.fmean(a < share for a in one) - share) < 0.012  # more than three standard errors
    assert abs(statistics.correlation(one, other)) < 0.03


def test_anybody_may_force_the_teacher_and_only_a_promoter_the_student():
    """Another word is an error and no silence."""
    teacher, student = ([(b"host", b"x"), (b"x-overproof-route", value)] for value in (b"teacher", b"student"))
    assert forced_of([(b"host", b"x")], ()) == ""
    assert forced_of(teacher, ()) == "teacher"
    assert forced_of(student, {"invoke", "promote"}) == "student"
    said = {}
    for headers, scopes in ((student, {"invoke", "admin"}), ([(b"x-overproof-route", b"Student")], {"promote"})):
        with pytest.raises(BadCall) as caught:
            forced_of(headers, scopes)
        assert caught.value.param == "x-overproof-route"
        said[caught.value.status] = (caught.value.what, caught.value.next_action)
    assert said == {
        403: ("this key may not force the student", "use a key with the scope promote"),
        400: ("the header x-overproof-route has an unknown value", "send teacher or student"),
    }


@given(st.lists(st.text(max_size=400), min_size=5, max_size=5), st.one_of(st.none(), st.floats()), st.booleans())
def test_no_value_breaks_a_header(texts, confidence, degraded):
    """Whatever stands in an id or a slice's name, names are known and values are printable ASCII without line ends."""
    request_id, task, stage, release, slice_name = texts
    shown = Shown(request_id=request_id, task=task, stage=stage, release=release, slice=slice_name, confidence=confidence)
    found = headers_of(Routed(route="student", reason="outage", degraded=degraded), shown)
    for name, value in found:
        assert name.startswith(b"x-overproof-")
        assert all(32 <= byte < 127 for byte in value)
        assert value == value.strip()
    assert len({name for name, _ in found}) == len(found)


def test_headers_say_what_was_decided():
    """A plain name stays readable, one with other letters can be decoded, and empty ones are left out."""
    shown = Shown(request_id="op-1", task="inbox", stage="canary", release="r%41", slice="café, 100%\r\nx: y", confidence=0.91234)
    found = dict(headers_of(Routed(route="student", reason="confident"), shown))
    assert found == {
        b"x-overproof-request-id": b"op-1", b"x-overproof-route": b"student", b"x-overproof-reason": b"confident", b"x-overproof-task": b"inbox",
        b"x-overproof-stage": b"canary", b"x-overproof-release": b"r%2541", b"x-overproof-slice": b"caf%C3%A9, 100%25%0D%0Ax: y",
        b"x-overproof-confidence": b"0.9123",
    }  # fmt: skip
    bare = dict(headers_of(Routed(route="teacher", reason="unmatched"), Shown(request_id="op-2")))
    assert set(bare) == {b"x-overproof-request-id", b"x-overproof-route", b"x-overproof-reason"}


@pytest.mark.parametrize(("review", "told"), [("", None), ("due 2026-05-01", None), ("overdue", b"overdue"), ("lapsed", b"lapsed")])
def test_a_review_is_told_once_it_is_overdue(review, told):
    """Callers aren't told of a review that has its day still; a degraded answer says so beside it."""
    found = dict(headers_of(Routed(route="student", reason="outage", degraded=True), Shown(request_id="op-1", review=review)))
    assert found.get(b"x-overproof-review") == told
    assert found[b"x-overproof-degraded"] == b"true"
    assert not {name for name in found if name != name.lower()}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a b", b"a b"), ("100%", b"100%25"), (" pad ", b"pad"), ("x" * 200, b"x" * 200), ("x" * 201, b"x" * 200), ("é" * 201, b"%C3%A9" * 200),
        ("\ud800é", b"?%C3%A9"), ("é \"<>\\ a/b:c;d=e!f#g$h&i'(j)*k+l,m?n@[o]^`{p|q}", b"%C3%A9 %22%3C%3E%5C a/b:c;d=e!f#g$h&i'(j)*k+l,m?n@[o]^`{p|q}"),
    ],
)  # fmt: skip
def test_a_value_is_the_text_where_a_header_can_carry_it(text, value):
    """Plain text stays as it is up to 200 characters; a percent sign, another letter and an end of spaces are encoded or cut."""
    assert dict(headers_of(_TO_TEACHER, Shown(request_id=text)))[b"x-overproof-request-id"] == value


def test_a_confidence_that_is_no_number_is_left_out():
    """Infinite and not a number say nothing to a caller."""
    for odd in (math.inf, math.nan, None):
        assert b"x-overproof-confidence" not in dict(headers_of(_TO_TEACHER, Shown(request_id="op-1", confidence=odd)))


_TO_TEACHER = Routed(route="teacher", reason="unmatched")
