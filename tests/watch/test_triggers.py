"""Each occasion with each act, on a real store: what the owner allows is done, once, and nothing else."""

from dataclasses import replace
from itertools import product

import pytest
from tests.watch.worlds import START, after, released, serve, write_project, write_terms

from overproof.data import ACTS, ALL, OCCASIONS, Alarm, Reading
from overproof.project import load_project
from overproof.store.project_store import open_store
from overproof.watch.duties import Attested, Duties, duties_of
from overproof.watch.teacher import Ends, TeacherState
from overproof.watch.triggers import act, causes, fire, occasion_of

NOBODY = Duties(review=None, attestations=())


def alarm(signal="disagreement", *, slice_name="vip", kind="life", name="a1", release="r1") -> Alarm:
    return Alarm(id=name, task="routing", release_id=release, slice=slice_name, signal=signal, at="2031-03-01", since="2031-02-20", kind=kind,
                 value=0.2, low=0.1, high=0.3, reference=0.05, n=300, words=f"{slice_name or 'all'} is worse")  # fmt: skip


STARVED = Reading(release_id="r1", slice="vip", signal="disagreement", day="2031-03-01", value=None, low=None, high=None, reference=0.05, n=9,
                  method="m", state="starved")  # fmt: skip
LATE = {
    "drift": {"alarms": (alarm("far_share", kind="page"),)},
    "bar": {"alarms": (alarm(),)},
    "teacher_changed": {"teacher": TeacherState(alarms=(alarm("canaries", slice_name=ALL, kind="page", name="canaries-1"),))},
    "teacher_ends": {"teacher": TeacherState(ends=(Ends(model="big", on="2031-02-01", source="page", days_left=-28, warn=True),))},
    "starved": {"readings": (STARVED,)},
    "attestation_expired": {"duties": Duties(review=None, attestations=(Attested(who="[teacher]", record="t", expires="2031-02-01", word="expired", why="ran out"),))},
    "review_overdue": {},
}  # fmt: skip


def seen(store, project, occasion, now=START, **more):
    """What a pass finds where this one thing is so."""
    found = {"alarms": (), "duties": NOBODY, "teacher": TeacherState(), **LATE[occasion], **more}
    if occasion == "review_overdue":
        found["duties"] = duties_of(store, project, release=store.releases.get("r1"), now=now)
    return fire(store, project, now=now, **found)


@pytest.fixture
def world(tmp_path):
    project = write_project(tmp_path)
    with open_store(tmp_path) as store:
        serve(store, released(store, due=after(-5).date().isoformat()))
        yield store, project


@pytest.mark.parametrize(("occasion", "allowed"), list(product(OCCASIONS, ACTS)))
def test_each_occasion_does_what_the_owner_allows(tmp_path, occasion, allowed) -> None:
    """One trigger, opened once; told, held, given back or left for a re-distillation; nothing of the other three."""
    project = write_project(tmp_path, watch=f'on = {{ {occasion} = "{allowed}" }}')
    with open_store(tmp_path) as store:
        serve(store, released(store, due=after(-5).date().isoformat()))
        opened = [one for one in seen(store, project, occasion) if "still so" not in one.why]
        assert [(one.occasion, one.act, one.state) for one in opened] == [(occasion, allowed, "open")]
        (done,) = act(store, project, opened, now=START)
        state, holds = store.rollouts.current("routing"), store.watching.holds("routing")
        assert done.state == ("open" if allowed == "re-distil" else "done")
        assert [one.trigger for one in holds] == ([done.id] if allowed == "hold" else [])
        by_slice = occasion in ("drift", "bar", "starved")
        assert state.suspended == ({"vip"} if allowed == "roll-back" and by_slice else frozenset())
        assert state.stage == ("teacher-only" if allowed == "roll-back" and not by_slice else "full")
        assert ("overproof refresh" in done.why) == (allowed == "re-distil")
        kinds = [d.kind for d in store.decisions.read()]
        assert kinds[1:-1] == {"hold": ["hold"], "roll-back": ["suspension" if by_slice else "rollout"]}.get(allowed, [])[: len(kinds) - 2]
        again = [one for one in seen(store, project, occasion) if "still so" not in one.why]
        if allowed == "roll-back" and occasion == "review_overdue":
            return  # nothing serves now, so nothing is to be reviewed
        assert again == ([replace(done, state="open", outcome="")] if allowed == "re-distil" else [])


def test_an_alarm_of_all_slices_or_of_what_is_not_routed_gives_everything_back(world) -> None:
    """A slice that nothing is routed by can't be given back alone; a release that serves no more is left as it is."""
    store, project = world
    project = replace(project, watch=replace(project.watch, on={"bar": "roll-back", "drift": "roll-back"}))
    (one,) = act(store, project, fire(store, project, alarms=[alarm("clusters", slice_name="tier=gold")], duties=NOBODY, teacher=TeacherState(), now=START), now=START)
    assert (one.outcome, store.rollouts.current("routing").stage) == ("all requests go to the teacher", "teacher-only")
    assert store.rollouts.history("routing")[-1].body["alarms"] == ["a1"]
    (late,) = act(store, project, fire(store, project, alarms=[alarm(name="a2")], duties=NOBODY, teacher=TeacherState(), now=START), now=START)
    assert "serves no more" in late.outcome
    serve(store, released(store, "r2"))
    (other,) = act(store, project, fire(store, project, alarms=[alarm(name="a3", slice_name=ALL)], duties=NOBODY, teacher=TeacherState(), now=START), now=START)
    assert ("serves no more" in other.outcome, store.rollouts.current("routing").release_id) == (True, "r2")


def test_only_audited_errors_with_the_life_guarantee_cross_a_bar(world) -> None:
    """A page may be about nothing once a year, and takes no release back by the rule for bars."""
    store, project = world
    assert [occasion_of(alarm(kind=kind, signal=signal)) for kind, signal in (("life", "error"), ("page", "error"), ("life", "far_share"), ("page", "teacher_identity"))] == [
        "bar", "drift", "drift", "teacher_changed",
    ]  # fmt: skip
    act(store, project, fire(store, project, alarms=[alarm(kind="page")], duties=NOBODY, teacher=TeacherState(), now=START), now=START)
    assert store.rollouts.current("routing").suspended == frozenset()


def pass_at(store, project, days):
    """One pass with the duties as they are then."""
    now, state = after(days), store.rollouts.current("routing")
    release = None if state.release_id is None else store.releases.get(state.release_id)
    return act(store, project, fire(store, project, alarms=(), duties=duties_of(store, project, release=release, now=now), teacher=TeacherState(), now=now), now=now)


def test_a_lapsed_review_gives_everything_to_the_teacher(world) -> None:
    """Held while it is overdue, back with the teacher on the day of the lapse, and then there is nothing to hold."""
    store, project = world
    assert [one.act for one in pass_at(store, project, 0)] == ["hold"]
    assert pass_at(store, project, 25) == ()
    assert store.rollouts.current("routing").stage == "full"
    (lapsed,) = pass_at(store, project, 26)
    assert (lapsed.act, "lapsed" in lapsed.why, store.rollouts.current("routing").stage) == ("roll-back", True, "teacher-only")
    pass_at(store, project, 27)
    assert store.watching.holds("routing") == []


def test_a_lapsed_review_that_serves_on_says_so_every_day(world) -> None:
    """By the owner's policy, and never in silence; twice on one day is once."""
    store, project = world
    project = replace(project, watch=replace(project.watch, on_lapse="hold"))
    pass_at(store, project, 0)
    told = [len(pass_at(store, project, day)) for day in (26, 26.4, 27, 28)]
    assert told == [1, 0, 1, 1]
    assert store.rollouts.current("routing").stage == "full"
    assert [one.trigger.partition("-")[0] for one in store.watching.holds("routing")] == ["review_overdue"]


def test_an_expired_attestation_holds_until_it_is_renewed_and_is_said_every_day(world) -> None:
    """The hold goes with its cause and comes back with it; one that a person lifts stays lifted."""
    store, project = world
    store.decisions.append("review", actor="Dana Ruiz", subject="r1", body={"next_due": "2999-01-01", "reviewer": "Dana Ruiz"})

    def holds():
        return [one.trigger.partition("-")[0] for one in store.watching.holds("routing")]

    write_terms(project.root, expires=after(10).date().isoformat())
    assert [[one.act for one in pass_at(store, load_project(project.root), day)] for day in (10, 11, 12)] == [[], ["hold", "alarm"], ["alarm"]]
    assert holds() == ["attestation_expired"]
    write_terms(project.root, expires=after(80).date().isoformat())
    assert (pass_at(store, load_project(project.root), 13), holds()) == ((), [])
    write_terms(project.root, expires=after(10).date().isoformat())
    pass_at(store, load_project(project.root), 14)
    assert holds() == ["attestation_expired"]
    store.watching.release_hold("routing", by="Dana", why="a lawyer has looked", at=1.0)
    pass_at(store, load_project(project.root), 15)
    assert holds() == []


def test_a_closed_alarm_lets_the_rollout_go_on(world) -> None:
    """The watch lifts its own hold once a person has closed the alarm."""
    store, project = world
    project = replace(project, watch=replace(project.watch, on={"drift": "hold"}))
    found = {"alarms": (alarm("clusters"),), "duties": NOBODY, "teacher": TeacherState(), "now": START}
    act(store, project, fire(store, project, **found), now=START)
    store.watching.hold("routing", by="Dana", why="a holiday", cause="", at=1.0)
    assert len(store.watching.holds("routing")) == 2
    store.watching.close_alarm("a1", by="Dana", why="known", at=1.0)
    assert fire(store, project, **found) == ()
    assert [one.by for one in store.watching.holds("routing")] == ["Dana"]


def test_every_cause_has_an_id_of_its_own(world) -> None:
    """However many things are so at once, each has its trigger, and its name begins with the occasion."""
    store, project = world
    duties = replace(LATE["attestation_expired"]["duties"], review=duties_of(store, project, release=store.releases.get("r1"), now=after(40)).review)
    teacher = replace(LATE["teacher_changed"]["teacher"], ends=LATE["teacher_ends"]["teacher"].ends)
    made = causes(project, alarms=(alarm(), alarm("far_share", name="a2")), duties=duties, teacher=teacher, now=after(40), release_id="r1", readings=(STARVED,))
    assert {one.occasion for one in made} == set(OCCASIONS)
    ids = [one.id("routing") for one in made]
    assert len(set(ids)) == len(ids) == 9
    assert all(name.startswith(f"{one.occasion}-") for name, one in zip(ids, made, strict=True))
