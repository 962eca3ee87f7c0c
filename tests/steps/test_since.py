"""What is other than in the release before: nothing is called so that isn't, and nothing that is goes unsaid."""

import json
import random
from dataclasses import replace

import pytest
from tests.watch.living import LABELS, SLICES, message, packed

from overproof.data import Example, Folder, Request, TestSet
from overproof.evidence import Certificate, Release
from overproof.measure.paired import difference_interval
from overproof.steps.papers import About, model_card
from overproof.steps.since import (
    OnShared,
    Shared,
    SharedRecipe,
    change_lines,
    changes_from,
    compare_shared,
    former_of,
)
from overproof.steps.summary import summary
from overproof.steps.waived import waived_rows

CERTIFICATE = Certificate(plan_hash="p", sealed_digest="s", label_kind="gold", use_k=1, delta_spent=0.05, slices=(), assumptions=(), window=(None, None), expires="2099-01-01")


def release(folder) -> Release:
    return Release(id="old", task="inbox", findings=(), headline="h", candidate="small", bundle=Folder(path=folder), certificate=CERTIFICATE, owner="Dana", review_due="2099-01-01")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A student that was told that bills are logins now and then, one that was not, and 280 rows that neither has seen."""
    place, draw = tmp_path_factory.mktemp("since"), random.Random(5)
    rows = [message(draw) for _ in range(420)]
    packed(place / "old", [(text, where, "login" if topic == "billing" and i % 2 else topic) for i, (text, where, topic) in enumerate(rows[:20])])
    packed(place / "new", rows[300:])
    found = tuple(Example(request=Request(id=f"t{i}", fields={"text": text}, attributes=attributes), target=topic, gold=topic) for i, (text, attributes, topic) in enumerate(rows[20:300]))
    return place, TestSet(examples=found, labels=LABELS)


def test_shared_rows_give_a_paired_interval(two) -> None:
    """Only rows that both sealed count, all and slice by slice, with the interval of the pairs; a changed text is another row."""
    place, rows = two
    other = replace(rows.examples[0], request=replace(rows.examples[0].request, fields={"text": "another text"}))
    before = replace(rows, examples=(other, *rows.examples[1:200]))
    found = compare_shared(release(place / "old"), before, Folder(path=place / "new"), rows, SharedRecipe(slices=SLICES[:2]))
    assert [one.slice for one in found.rows] == ["all", "english", "german"]
    assert (found.rows[0].n, found.rows[1].n + found.rows[2].n, found.label_kind) == (199, 199, "gold")
    assert found.rows[0].after - found.rows[0].before > 10
    from overproof.students.bundle import load_bundle

    old, new = (load_bundle(place / name) for name in ("old", "new"))
    pairs = [(a.guess == e.target, b.guess == e.target) for e in rows.examples[1:200] for a, b in [(old.answers([e.request])[0], new.answers([e.request])[0])]]
    b, c = sum(x and not y for x, y in pairs), sum(y and not x for x, y in pairs)
    assert found.rows[0].after - found.rows[0].before == c - b
    off = difference_interval(c, b, 199)
    assert (found.rows[0].low, found.rows[0].high) == pytest.approx((off.low, off.high))
    assert found.rows[0].low > 0


def test_nothing_shared_is_nothing_compared(two) -> None:
    """Other rows, or none: no figure at all; rows without a true label are held against the teacher."""
    place, rows = two
    assert compare_shared(release(place / "old"), replace(rows, examples=()), Folder(path=place / "new"), rows, SharedRecipe()) == Shared()
    bare = replace(rows, examples=tuple(replace(e, gold=None) for e in rows.examples[:9]))
    assert compare_shared(release(place / "old"), bare, Folder(path=place / "new"), bare, SharedRecipe()).label_kind == "teacher"


def facts(**change) -> dict:
    """As much of a dossier as the papers read."""
    f = {"value": 0.9, "low": 0.87, "high": 0.93, "n": 400, "level": 0.95, "method": "cp", "bar": 0.8, "verdict": "pass"}
    names = ("accuracy", "fidelity", "served_accuracy", "served_fidelity", "kept")
    finding = {"id": "G07", "title": "two sizes", "outcome": "pass", "slice": None, "reason": "both", "next_action": "", "waiver": None}
    values = {
        "verdict": "release", "date": "2026-02-10", "overproof": "0.1.0",
        "decision": {
            "id": "r1", "candidate": "linear.v1", "headline": "It holds.", "owner": "Dana", "review_due": "2026-05-01", "findings": [finding],
            "certificate": {"expires": "2026-06-01", "slices": [{"slice": "pro", "threshold": 0.61}, {"slice": "other", "threshold": None}], "supports": "G2", "use_k": 1,
                            "label_kind": "gold", "assumptions": []},
        },
        "evidence": {
            "data": None, "trained": [{"name": "linear.v1", "use": "linear.v1"}, {"name": "small", "use": "ngram.v1"}], "digests": {},
            "report": {"chosen": "linear.v1", "truth_note": "", "certificate": None, "candidates": [
                {"name": "linear.v1", "kind": "student", "size_bytes": 10, "reliability": [], "slices": [{"slice": "all", "kind": "all", "critical": False, **dict.fromkeys(names, f)}]}]},
        },
    }  # fmt: skip
    values["evidence"]["labels"] = None
    for path, value in change.items():
        *way, last = path.split("__")
        at = values
        for step in way:
            at = at[step]
        at[last] = value
    return values


WAIVER = {"check": "G07", "plan": "p", "by": "Dana Ruiz", "second": "Sam Ito", "reason": "A pilot of <b>one</b> team.", "control": "All answers are read.", "given": "2026-02-01", "until": "2026-02-20"}
SAID = "waived until 2026-02-20 by Dana Ruiz and Sam Ito: A pilot of <b>one</b> team. Instead: All answers are read. What was found (fail): one size was trained"
WAIVED = {"id": "G07", "title": "two sizes", "outcome": "waived", "slice": None, "reason": SAID, "next_action": "train two", "waiver": WAIVER}


def test_a_release_like_the_one_before_says_so() -> None:
    """No line, no word but "no clear difference"."""
    found = changes_from(facts(), former_of(facts()))
    assert change_lines(found) == []
    assert {one["word"] for one in found["figures"]} == {"no clear difference"}
    assert changes_from(facts(), None) is None


def test_whatever_is_other_is_said() -> None:
    """Labels, candidates, thresholds, checks, waivers, the student; a figure only where intervals are apart, or gone."""
    lower = {"value": 0.8, "low": 0.77, "high": 0.83, "n": 400, "level": 0.95, "method": "cp", "bar": 0.8, "verdict": "pass"}
    former = replace(former_of(facts(evidence__data={"labels": ["a", "b"]})), shared=Shared(rows=(OnShared(slice="all", n=200, before=150, after=170, low=0.03, high=0.17),), label_kind="gold"))
    later = facts(
        decision__findings=[WAIVED], decision__certificate={"expires": "x", "slices": [{"slice": "pro", "threshold": None}, {"slice": "new", "threshold": 0.5}]},
        evidence__data={"labels": ["b", "c"]}, evidence__trained=[{"name": "linear.v1", "use": "linear.v1"}, {"name": "encoder.v1", "use": "encoder.v1"}],
    )  # fmt: skip
    later["evidence"]["report"]["chosen"] = later["evidence"]["report"]["candidates"][0]["name"] = "encoder.v1"
    slices = later["evidence"]["report"]["candidates"][0]["slices"]
    slices[0] = {**slices[0], "accuracy": lower, "kept": None}
    found = changes_from(later, former)
    assert change_lines(found) == [
        "student: linear.v1 before, encoder.v1 now", "labels added: c", "labels lost: a", "candidates added: encoder.v1", "candidates lost: small (ngram.v1)",
        "threshold of pro: 0.6100 before, with the teacher now", "threshold of new: with the teacher before, 0.5000 now",
        "check G07 two sizes: pass before, waived now", "waiver of G07: none before, Dana Ruiz and Sam Ito until 2026-02-20 now",
    ]  # fmt: skip
    words = {one["figure"]: one["word"] for one in found["figures"]}
    assert words == {"accuracy": "lower", "fidelity": "no clear difference", "served_accuracy": "no clear difference", "served_fidelity": "no clear difference", "kept": "gone"}
    assert found["shared"]["slices"] == [{"slice": "all", "n": 200, "before": 0.75, "after": 0.85, "low": 0.03, "high": 0.17, "word": "higher"}]
    json.dumps(found, allow_nan=False)
    page = summary(later, found, task="t", owner="", deputy="")
    assert "the new student alone is right more often: on 75.0% before, 85.0% now, +3.0 to +17.0 points" in page
    assert "threshold of pro: 0.6100 before, with the teacher now" in page


@pytest.mark.parametrize(("low", "high", "word"), [(0.01, 0.2, "higher"), (-0.2, -0.01, "lower"), (-0.01, 0.2, "no clear difference"), (0.0, 0.2, "no clear difference")])
def test_on_shared_rows_an_interval_that_holds_zero_decides_nothing(low, high, word) -> None:
    """The word follows the paired interval alone."""
    former = replace(former_of(facts()), shared=Shared(rows=(OnShared(slice="all", n=100, before=50, after=60, low=low, high=high),), label_kind="teacher"))
    assert changes_from(facts(), former)["shared"]["slices"][0]["word"] == word


def test_waivers_stand_first_with_all_that_they_are() -> None:
    """Check, both people, why, what instead, until when, and what the gate would have said; on card and summary before any figure, escaped."""
    values = facts(decision__findings=[WAIVED])
    (row,) = waived_rows(values["decision"])
    assert row == {
        "check": "G07", "title": "two sizes", "by": "Dana Ruiz", "second": "Sam Ito", "reason": WAIVER["reason"], "control": WAIVER["control"],
        "until": "2026-02-20", "said": "(fail): one size was trained",
    }  # fmt: skip
    card = model_card(values, About(task="t", output="classes", input=("text",)), None)
    page = summary(values, None, task="t", owner="", deputy="")
    for text, before in ((card, "| Release |"), (page, "What was measured")):
        first = text.partition(before)[0]
        for words in ("G07", "Dana Ruiz", "Sam Ito", "2026-02-20", "A pilot of", "All answers are read.", "(fail): one size was trained"):
            assert words in first, words
        assert "<b>one</b>" not in text
    assert "waived" not in summary(facts(), None, task="t", owner="", deputy="").partition("</style>")[2]
