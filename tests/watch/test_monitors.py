"""The audits of a release, read: who is named, how much, since when, how sure."""

import shutil
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from tests.serve.gateways import write_project
from tests.serve.packing import gated, pack

from overproof.data import ALL, Audit, AuditPlan, Completion, Request, SliceDraw, TrafficRecord
from overproof.measure.audited import Draw
from overproof.measure.monitor import AuditDay, AuditDesign, audit_probability
from overproof.project import load_project
from overproof.store.project_store import open_store
from overproof.watch.monitors import Stream, bars_of, read_monitors, read_stream, streams_of

DAY_0 = date(2026, 9, 1)
TRAFFIC = {"paying": 30, "other": 970}  # kept requests a day
DESIGN = AuditDesign(rate=0.05, pi_min=0.025)


def at(number):
    """Noon of a day of the watch."""
    return datetime(2026, 9, 1, 12, tzinfo=UTC) + timedelta(days=number)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "bundle"
    folder.mkdir()
    pack(folder)
    return folder


@pytest.fixture
def world(tmp_path, packed):
    """A project with a release of two slices and a third that stays with the teacher."""
    folder = write_project(tmp_path / "p", "http://127.0.0.1:9")
    with open_store(folder) as store:
        shutil.copytree(packed, folder / "made")
        release = gated(store, folder / "made", {"paying": 0.4, "french": None, "other": 0.4})
        yield store, load_project(folder / "overproof.toml"), release


def live(store, release, rates, *, days, seed=0, first=0, planned=True, late=0):
    """Days of audits as drawn by the plan: a slice's error rate is rates(slice, day number); `late` of each day get no word."""
    rng = np.random.default_rng(seed)
    for number in range(first, first + days):
        day = DAY_0 + timedelta(days=number)
        if planned:
            store.watching.note_plan(AuditPlan(
                release_id=release.id, day=day.isoformat(), slices={name: SliceDraw(kept_per_day=n) for name, n in TRAFFIC.items()},
                rate=DESIGN.rate, pi_min=DESIGN.pi_min, floor_per_day=25, low_below=0.8, low_share=0.1))  # fmt: skip
        for name, n in TRAFFIC.items():
            sure = np.where(rng.random(n) < 0.1, 0.7, 0.95)
            pi = np.array([audit_probability(c, kept_per_day=n, design=DESIGN) for c in sure])
            drawn, wrong = rng.random(n) < pi, rng.random(n) < rates(name, number)
            bad = [float(p) for p in pi[drawn & wrong]]
            counts = tuple((p, bad.count(p)) for p in sorted(set(bad)))
            row = AuditDay(day=day, requests=n, audited=int(drawn.sum()), unlabelled=min(late, int((drawn & ~wrong).sum())), wrong_by_pi=counts)
            store.watching.note_days(release.id, name, "disagreement", [row])
            audits = [Audit(release_id=release.id, request_id=f"{name}-{number}-{i}", day=day.isoformat(), slice=name, source="teacher", pi=float(pi[i]),
                            said="billing", confidence=float(sure[i]), state="labelled", truth="login", wrong=True) for i in np.flatnonzero(drawn & wrong)]  # fmt: skip
            store.traffic.append([TrafficRecord(request=Request(id=a.request_id, fields={"text": f"message {a.request_id}"}, at=at(number).isoformat()),
                                                completion=Completion(text="billing", value="billing", model="student")) for a in audits], "live")  # fmt: skip
            store.watching.note_audits(audits, at=0.0)
            store.watching.settle(audits)


def breaks(slice_name, day, *, to=0.3, usual=0.02):
    """A rate that changes in one slice on a day."""
    return lambda name, number: to if name == slice_name and number >= day else usual


def test_a_slice_of_three_per_cent_that_breaks_is_named_while_the_average_holds(world):
    store, project, release = world
    live(store, release, breaks("paying", 20), days=34)
    found = read_monitors(store, project, release, now=at(34))
    assert {alarm.slice for alarm in found.alarms} == {"paying"}
    first = found.alarms[0]
    assert abs((date.fromisoformat(first.since) - DAY_0).days - 20) <= 2
    assert first.low <= 0.3 <= first.high
    assert first.low > first.reference == 0.05
    by_slice = {one.slice: one for one in found.readings}
    assert by_slice["paying"].state == "alarm"
    assert by_slice["other"].state == by_slice[ALL].state == "quiet"
    assert by_slice[ALL].value < 0.05
    assert "french" not in by_slice


def test_an_alarm_says_where_how_much_since_when_how_sure_and_shows_messages(world):
    store, project, release = world
    live(store, release, breaks("paying", 10, to=0.5), days=20)
    found = read_monitors(store, project, release, now=at(20))
    life = next(alarm for alarm in found.alarms if alarm.kind == "life")
    for part in ("In slice 'paying'", "does not answer as the teacher would", "September 2026", "where at most 5 % is allowed", "at most 5 % of the releases that keep their bars"):
        assert part in life.words, life.words
    assert 1 <= len(life.examples) <= 5
    for one in life.examples:
        assert one.request_id.startswith("paying-")
        assert int(one.request_id.split("-")[1]) >= 9
        assert one.text == f"message {one.request_id}"
        assert (one.said, one.truth) == ("billing", "login")


def test_a_pass_that_comes_late_finds_the_same_alarms_as_daily_ones(world):
    store, project, release = world
    live(store, release, breaks("paying", 5), days=25)
    daily = {}
    for number in range(1, 26):
        for alarm in read_monitors(store, project, release, now=at(number)).alarms:
            daily.setdefault(alarm.id, (alarm.at, alarm.since, alarm.kind))
            assert store.watching.raise_alarm(alarm, at=float(number)) == (daily[alarm.id] is not None and alarm.at == (DAY_0 + timedelta(days=number - 1)).isoformat())
    late = read_monitors(store, project, release, now=at(25))
    assert {alarm.id: (alarm.at, alarm.since, alarm.kind) for alarm in late.alarms} == daily
    assert daily


def test_a_good_release_raises_nothing_and_its_figures_hold_the_truth(world):
    store, project, release = world
    live(store, release, lambda name, number: 0.03, days=60, seed=3)
    found = read_monitors(store, project, release, now=at(60))
    assert not found.alarms
    assert {one.state for one in found.readings} == {"quiet"}
    assert all(one.low <= 0.03 <= one.high and one.log_e < one.level for one in found.readings)


def test_days_that_wait_do_not_enter_and_starved_ones_are_never_quiet(world):
    store, project, release = world
    live(store, release, lambda name, number: 0.0, days=12, late=3)
    waiting = read_monitors(store, project, release, now=at(7))
    assert all(one.state == "not enough" and one.value is None for one in waiting.readings)
    assert any("wait" in note for note in waiting.notes)
    over = read_monitors(store, project, release, now=at(30))
    assert {one.state for one in over.readings} == {"starved"}
    assert any("count as right" in note for note in over.notes)


def test_days_without_a_plan_say_nothing_instead_of_looking_perfect(world):
    store, project, release = world
    live(store, release, lambda name, number: 0.0, days=30, planned=False)
    found = read_monitors(store, project, release, now=at(30))
    assert all(one.state == "not enough" and one.value is None and one.n == 0 for one in found.readings)
    assert any("never planned" in note for note in found.notes)
    assert read_monitors(store, project, release, now=at(0)).alarms == ()


def stream(rates, a_day=50, *, weight=1.0, seed=0):
    """A stream of plain audits, one rate a day."""
    rng = np.random.default_rng(seed)
    rows = []
    for i, rate in enumerate(rates):
        wrong = int(rng.binomial(a_day, rate))
        rows.append(AuditDay(day=DAY_0 + timedelta(days=i), requests=a_day, audited=a_day, unlabelled=0, wrong_by_pi=((1.0, wrong),) if wrong else ()))
    return Stream(slice="s", signal="disagreement", bar=0.05, days=tuple(rows), draws={row.day: Draw(low=1.0, high=1.0) for row in rows}, weight=weight)


def read(one, *, delta=0.05):
    return read_stream(one, today=DAY_0 + timedelta(days=len(one.days)), deadline_days=7, delta=delta, page_days=365)


def test_a_page_goes_on_while_the_trouble_lasts_and_a_relapse_is_a_new_one():
    rates = [0.03] * 20 + [0.085] * 25 + [0.01] * 40 + [0.085] * 25
    found = read(stream(rates, a_day=60, seed=5), delta=1e-12)
    pages = [one for one in found.episodes if one.kind == "page"]
    assert len(pages) == 2
    assert abs(pages[0].since - 20) <= 8
    assert pages[1].since >= 80
    assert pages[0].last < 85
    for one in pages:
        assert one.earliest <= one.since <= one.latest <= one.at


def test_alarms_at_the_bar_are_as_rare_as_promised():
    runs, n = 300, 60
    alarmed = sum(any(e.kind == "life" for e in read(stream([0.05] * n, seed=i)).episodes) for i in range(runs))
    assert alarmed <= 0.05 * runs + 3 * (0.05 * 0.95 * runs) ** 0.5


def test_shares_of_the_false_alarm_chance_never_pass_one(world):
    _, project, release = world
    found = streams_of(project, release.certificate, {("paying", "error"): [], ("other", "disagreement"): []}, {})
    assert {one.signal for one in found} == {"disagreement", "error"}
    assert sum(one.weight for one in found) == pytest.approx(1.0)
    assert min(one.weight for one in found) > 0.02


def test_bars_come_from_the_certificate_and_truth_is_held_to_the_overall_one(world):
    _, project, release = world
    assert bars_of(project.serve, release.certificate, "disagreement") == pytest.approx({"paying": 0.05, "other": 0.05, ALL: 0.06})
    assert bars_of(project.serve, release.certificate, "error") == pytest.approx({"paying": 0.06, "other": 0.06, ALL: 0.06})
