"""The owner's clock and the attestations' on a virtual one: every transition, and no way to turn it back."""

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.watch.worlds import START, after, live, released, serve, write_project, write_terms

from overproof.data import Trigger
from overproof.errors import DataError
from overproof.project import load_project
from overproof.runs import clock_of
from overproof.settings import Owner
from overproof.store.decisions import Decision
from overproof.store.project_store import open_store
from overproof.store.reviews import Review
from overproof.watch.duties import duties_of, review_state
from overproof.watch.signing import looked_at, sign_off

DANA = Owner(name="Dana Ruiz", email="dana@example.com", deputy="Imre Sandoval")


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


@pytest.fixture
def store(project):
    with open_store(project.root) as opened:
        yield opened


def due_on(days: float) -> str:
    return after(days).date().isoformat()


def test_each_state_of_the_review_begins_on_its_day(store) -> None:
    """Current, due 14 days before its day, overdue the day after it, lapsed after 30 days more."""
    made = replace(released(store, due=due_on(90)), owner="Dana Ruiz <dana@example.com>")
    words = {days: review_state(made, [], DANA, after(days)).word for days in (0, 75, 76, 90, 91, 120, 121, 4000)}
    assert words == {0: "current", 75: "current", 76: "due", 90: "due", 91: "overdue", 120: "overdue", 121: "lapsed", 4000: "lapsed"}
    late = review_state(made, [], DANA, after(93))
    assert (late.due, late.lapses) == (due_on(90), due_on(121))
    assert "3 days ago" in late.why


def test_an_owner_who_never_signed_is_overdue_at_once(store) -> None:
    """A new name in the file is overdue until that person signs; no owner is overdue as well."""
    made = released(store, due=due_on(90))
    assert review_state(made, [], None, START).word == "overdue"
    new = replace(DANA, name="Bo Li")
    assert review_state(made, [], new, START).word == "overdue"
    signed = Decision(seq=1, at="", kind="review", actor="Bo Li", subject="r1", body={"next_due": due_on(30), "reviewer": "Bo Li"}, prev="", digest="")
    assert review_state(made, [signed], new, START).word == "current"
    assert review_state(made, [replace(signed, subject="another")], new, START).word == "overdue"
    assert review_state(made, [signed], new, after(31)).word == "overdue"


def test_a_clock_that_was_set_back_renews_nothing(store, project) -> None:
    """What was decided later says which day it is: an overdue review and an expired attestation stay so."""
    made = released(store, due="2020-01-01")
    write_terms(project.root, expires="2020-06-30")
    store.decisions.append("note", actor="x", subject="y", body={})
    back = START.replace(year=2019)
    assert clock_of(store, back) > back + timedelta(days=365)
    found = duties_of(store, load_project(project.root), release=made, now=back)
    assert (found.review.word, found.attestations[0].word) == ("lapsed", "expired")


def test_an_attestation_runs_out_on_its_day(store, project) -> None:
    """Current, due in its last 14 days, expired the day after; without a record it is expired, and the words say which."""
    def word(days):
        (found,) = duties_of(store, load_project(project.root), release=None, now=after(days)).attestations
        return found.word
    assert [word(0), word(4000)] == ["current", "current"]
    write_terms(project.root, expires=due_on(60))
    assert [word(days) for days in (0, 45, 46, 60, 61)] == ["current", "current", "due", "due", "expired"]
    found = duties_of(store, load_project(project.root), release=None, now=after(61))
    assert found.review is None
    assert "ran out on " + due_on(60) in " ".join(found.notes)
    (project.root / "terms.toml").unlink()
    assert word(0) == "expired"


def judge(store, numbers) -> None:
    rows = {one.request.id: one for one in store.traffic.read()}
    store.reviews.append(
        Review(digest=rows[f"live-{n}"].request.digest, request_id=f"live-{n}", label="bug", reviewer="Dana Ruiz", queue="audit") for n in numbers
    )


def test_a_review_is_counted_and_not_typed(store, project) -> None:
    """Too few judged rows are refused with what is missing; enough of them renew the clock, and the next review counts anew."""
    made = released(store, due=due_on(-5))
    serve(store, made)
    rows = [live(i, said="billing" if i % 3 == 0 else "bug", slice_name="vip" if i % 4 == 0 else "other") for i in range(120)]
    store.traffic.append([*rows, live(900, release="other"), live(901, guess=None)], "gateway")
    held = "review_overdue-1"
    store.watching.open_trigger(Trigger(id=held, task="routing", occasion="review_overdue", act="hold", at="", why="late"), at=1.0)
    store.watching.hold("routing", by="watch", why="late", cause=held, at=1.0)
    store.watching.hold("routing", by="watch", why="drift", cause="drift-1", at=1.0)
    assert [(one.what, one.judged, one.there, one.wanted) for one in looked_at(store, project, made)] == [
        ("live rows", 0, 120, 50), ("disagreements", 0, 40, 20), ("slice vip", 0, 30, 10),
    ]  # fmt: skip
    judge(store, range(1, 76))
    with pytest.raises(DataError, match="owner is Dana Ruiz or Imre Sandoval"):
        sign_off(store, project, decision="keep", by="Bo Li", now=START)
    judge(store, range(100))
    signed = sign_off(store, project, decision="keep", by="Dana Ruiz", now=START)
    assert (signed.next_due, [one.judged for one in signed.looked]) == (due_on(90), [100, 34, 25])
    assert [one.trigger for one in store.watching.holds("routing")] == ["drift-1"]
    assert store.watching.triggers("routing") == []
    assert duties_of(store, project, release=made, now=START).review.word == "current"
    with pytest.raises(DataError, match=r"live rows: 0 of 50; disagreements: 0 of 20; slice vip: 0 of 10"):
        sign_off(store, project, decision="keep", by="Dana Ruiz", now=after(80))
    judge(store, range(100, 110))
    assert [one.judged for one in looked_at(store, project, made)] == [10, 3, 3]
    assert store.rollouts.current("routing").release_id == "r1"
    assert sign_off(store, project, decision="retire", by="Imre Sandoval", now=after(80)).next_due == due_on(80)
    assert store.rollouts.current("routing").release_id is None
    with pytest.raises(DataError, match="nothing to review"):
        sign_off(store, project, decision="keep", by="Dana Ruiz", now=after(81))
    assert [d.kind for d in store.decisions.read() if d.kind == "review"] == ["review"] * 2


def test_all_that_there_are_is_enough_where_there_are_few(store, project) -> None:
    """Ten live rows can't become fifty; all ten have to be judged."""
    made = released(store)
    serve(store, made)
    store.traffic.append([live(i) for i in range(10)], "gateway")
    judge(store, range(9))
    with pytest.raises(DataError, match="live rows: 9 of 10"):
        sign_off(store, project, decision="keep", by="Dana Ruiz", now=START)
    judge(store, [9])
    assert sign_off(store, project, decision="keep", by="dana ruiz", now=START).looked[0].judged == 10
