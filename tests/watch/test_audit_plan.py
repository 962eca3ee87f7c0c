"""The plan of a day's audits: more where it matters, never more than is admitted, and figures that stay unbiased."""

from collections import Counter
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.watch.audited import DAY, live, project_in, release_in, row

from overproof.data import ALL, Alarm, Audit, AuditPlan, SliceDraw
from overproof.measure.monitor import is_audited, settled, weighted_mean
from overproof.store.project_store import open_store
from overproof.watch.audit_plan import History, Volume, chance, expected, plan_day
from overproof.watch.audits import days_of, draw


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path) as opened:
        yield opened


def week(store, *, paying=4, other=60, days=7, before=DAY):
    """A week of answers, a tenth of them unsure."""
    live(store, [
        row(f"{d}-{name}-{i}", day=before - timedelta(days=d), slice_name=name, sure=0.6 + 0.01 * (i % 3) if i % 10 == 0 else 0.95)
        for d in range(1, days + 1) for name, n in (("paying", paying), ("other", other)) for i in range(n)
    ])  # fmt: skip


def page(slice_name, at, name="p", kind="page"):
    return Alarm(
        id=name, task="routing", release_id="r1", slice=slice_name, signal="disagreement", at=at, since=at, kind=kind, value=0.2, low=0.1,
        high=0.3, reference=0.05, n=50, words="worse",
    )  # fmt: skip


def test_rates_come_from_the_week_before_and_critical_slices_get_more(store, tmp_path) -> None:
    """What the day itself holds changes nothing; the least sure tenth is drawn more often, nobody less than half the rate."""
    project, release = project_in(tmp_path, watch="audit_rate = 0.02\nfloor_per_day = 0"), release_in(store)
    week(store)
    live(store, [row(f"today-{i}", slice_name="paying") for i in range(500)])
    plan = plan_day(store, project, release, DAY)
    assert {name: (how.kept_per_day, how.boost) for name, how in plan.slices.items()} == {"paying": (4, 3.0), "other": (60, 1.0)}
    assert plan.low_below == 0.95
    assert plan.low_share == pytest.approx(0.1, abs=0.02)
    assert chance(plan, "other", 0.99) == pytest.approx(0.01)
    assert chance(plan, "other", 0.6) > 0.05
    assert plan.note == ""
    assert plan_day(store, project_in(tmp_path, watch="audit_rate = 0.5"), release, DAY) == plan, "a plan that is written down holds"


def test_a_page_triples_a_slice_for_two_weeks_or_as_long_as_it_stands(store, tmp_path) -> None:
    """A closed page counts for 14 days; a life alarm, and a page on another slice, change nothing."""
    project, release = project_in(tmp_path), release_in(store)
    watching = store.watching
    week(store, days=7, before=DAY + timedelta(days=1))
    boosts = lambda day: {name: how.boost for name, how in plan_day(store, project, release, day).slices.items()}  # noqa: E731
    watching.raise_alarm(page("other", (DAY - timedelta(days=14)).isoformat()), at=1)
    watching.close_alarm("p", by="Dana", why="mended", at=2)
    watching.raise_alarm(page("paying", "2026-11-01", "l", kind="life"), at=3)
    assert boosts(DAY) == {"paying": 3.0, "other": 3.0}
    assert boosts(DAY + timedelta(days=1)) == {"paying": 3.0, "other": 1.0}
    watching.raise_alarm(page(ALL, "2026-10-01", "q"), at=4)
    assert boosts(DAY + timedelta(days=2)) == {"paying": 9.0, "other": 3.0}


def test_above_the_days_limit_every_rate_is_lowered_alike(store, tmp_path) -> None:
    """The plan says so, the expected number keeps to the limit, and the least probability stays at half the rate."""
    project, release = project_in(tmp_path, watch="audit_rate = 0.5\naudits_per_day = 12\nfloor_per_day = 12"), release_in(store)
    week(store)
    plan = plan_day(store, project, release, DAY)
    drawn = 4 * chance(plan, "paying", 0.95) + 54 * chance(plan, "other", 0.95) + 6 * chance(plan, "other", 0.6)
    assert 10 < drawn <= 12.5
    assert plan.pi_min >= plan.rate / 2
    assert "audits_per_day is 12" in plan.note


def test_the_rest_of_the_month_bounds_the_day(store, tmp_path) -> None:
    """With a known price no more is drawn than the money left, spread over the days that are left, can pay."""
    project, release = project_in(tmp_path, watch="audit_rate = 0.5\nusd_per_month = 2.8"), release_in(store)
    week(store)
    bought(store, "2026-11", 0.01)
    plan = plan_day(store, project, release, DAY)
    assert "usd_per_month = 2.8" in plan.note
    history = History(days=1, slices={"paying": Volume(requests=4, sure=[(0.95, 4)]), "other": Volume(requests=60, sure=[(0.95, 54), (0.6, 6)])})
    assert 8 < expected(plan, history) <= (2.8 - 0.01) / 28 / 0.01 + 0.2


def test_a_day_without_money_draws_nothing_and_is_starved_not_quiet(store, tmp_path) -> None:
    """The counts of such a day lack every word, so that a monitor that reads them can't be quiet."""
    project, release = project_in(tmp_path, watch="usd_per_month = 0.02"), release_in(store)
    week(store)
    live(store, [row(f"today-{i}") for i in range(200)])
    bought(store, "2026-11", 0.01)
    plan = plan_day(store, project, release, DAY)
    assert plan.slices == {}
    assert "nothing is drawn" in plan.note
    assert draw(store, project, release, DAY) == []
    found = days_of([], {("other", DAY.isoformat()): 200}, {plan.day: plan})
    assert set(found) == {("other", "disagreement"), (ALL, "disagreement")}
    read = settled(found[ALL, "disagreement"], today=DAY + timedelta(days=20))
    assert read.starved == (DAY,)
    assert read.overdue > 0


def bought(store, month, usd):
    """One answer that the watch has paid for."""
    from overproof.data import Completion
    from overproof.store.labels import Settlement
    from overproof.store.watch import watch_budget

    with store.role("run"):
        run = f"{month}-01-x@{watch_budget(month)}"
        store.ledger.open_run(run, cap_usd=10.0, purse_usd=5.0)
        number = store.ledger.reserve("k", run_id=run, max_micro=50_000)
        answer = Completion(text="login", value="login", model="m")
        store.ledger.settle(Settlement(attempt=number, state="ok", cost_micro=round(usd * 1e6), clearance_id="c", completion=answer))


volumes = st.builds(
    lambda n, low, sure: Volume(requests=n, sure=[(0.5, n * low), (sure, n * (1 - low))]), st.integers(0, 50_000), st.floats(0, 1), st.floats(0.8, 1)
)


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), volumes, min_size=1), st.integers(1, 300), st.floats(0.001, 1), st.integers(0, 50))
def test_no_plan_exceeds_its_limit_and_none_hides_sure_answers(slices, most, rate, floor) -> None:
    """For any traffic: the expected number keeps to the limit, and no request's chance is below half the rate."""
    from overproof.watch.audit_plan import _lowered

    history = History(slices=slices, days=1)
    draws = {name: SliceDraw(kept_per_day=volume.requests, boost=2.0) for name, volume in slices.items()}
    natural = AuditPlan(
        release_id="r", day="2026-11-03", slices=draws, rate=rate, pi_min=rate / 2, floor_per_day=floor, low_below=0.8, low_share=0.1
    )
    plan = natural if expected(natural, history) <= most else _lowered(natural, history, most)
    assert expected(plan, history) <= most + 1e-9
    assert plan.pi_min >= plan.rate / 2
    for name in slices:
        assert all(plan.pi_min <= chance(plan, name, sure) <= 1.0 for sure in (0.0, 0.79, 0.81, 1.0))


RATES = {"paying": 0.15, "other": 0.02}
OVER = AuditPlan(
    release_id="r", day="2026-11-03", rate=0.03, pi_min=0.015, floor_per_day=25, low_below=0.8, low_share=0.1,
    slices={"paying": SliceDraw(kept_per_day=90, boost=3.0), "other": SliceDraw(kept_per_day=2910)},
)  # fmt: skip
EVEN = replace(OVER, rate=0.08, pi_min=0.08, floor_per_day=0, slices={name: SliceDraw(kept_per_day=how.kept_per_day) for name, how in OVER.slices.items()})


def world(seed=0):
    """A day of answers, most mistakes where the student is unsure; with the truth."""
    rng = np.random.default_rng(seed)
    rows = []
    for name, n in (("paying", 90), ("other", 2910)):
        sure = np.where(rng.random(n) < 0.1, 0.7, 0.95)
        wrong = rng.random(n) < np.where(sure < 0.8, 2.0, 0.9) * RATES[name]
        rows += [(f"{name}-{i}", name, float(c), bool(w)) for i, (c, w) in enumerate(zip(sure, wrong, strict=True))]
    return rows


def estimates(rows, plan, draws):
    """Weighted and unweighted shares of wrong answers, by slice and overall, for many draws."""
    weighted: dict[str, list[float]] = {}
    plain: list[float] = []
    pis = {(name, sure): chance(plan, name, sure) for _, name, sure, _ in rows}
    requests = {(name, plan.day): n for name, n in Counter(name for _, name, _, _ in rows).items()}
    for salt in range(draws):
        audits = [
            Audit(release_id="r", request_id=i, day=plan.day, slice=name, source="teacher", pi=pis[name, sure], said="x", confidence=sure,
                  state="labelled", truth="y", wrong=wrong)
            for i, name, sure, wrong in rows if is_audited(i, str(salt), pis[name, sure])
        ]  # fmt: skip
        for (name, _), (day,) in days_of(audits, requests, {plan.day: plan}).items():
            weighted.setdefault(name, []).append(weighted_mean(dict(day.wrong_by_pi), day.requests))
        plain.append(sum(bool(a.wrong) for a in audits) / max(1, len(audits)))
    return weighted, plain


def test_estimates_are_unbiased_though_rare_slices_and_unsure_answers_are_drawn_more() -> None:
    """Over 300 draws of one day the mean estimate is the truth, overall and per slice; the plain share is far off."""
    rows = world()
    weighted, plain = estimates(rows, OVER, 300)
    for name in ("paying", "other", ALL):
        of = [wrong for _, where, _, wrong in rows if name in (where, ALL)]
        truth, found = sum(of) / len(of), np.array(weighted[name])
        assert abs(found.mean() - truth) <= 4 * found.std(ddof=1) / np.sqrt(len(found)), name
    overall = sum(wrong for *_, wrong in rows) / len(rows)
    assert np.mean(plain) > 1.8 * overall


def test_uniform_and_over_sampled_plans_agree_and_the_rare_slice_is_known_better() -> None:
    """Two designs, one truth: the means agree within their noise, and the rare slice's estimate varies far less."""
    rows = world(1)
    (over, _), (even, _) = estimates(rows, OVER, 300), estimates(rows, EVEN, 300)
    for name in ("paying", "other", ALL):
        a, b = np.array(over[name]), np.array(even[name])
        noise = np.hypot(a.std(ddof=1), b.std(ddof=1)) / np.sqrt(len(a))
        assert abs(a.mean() - b.mean()) <= 4 * noise, name
    assert np.std(over["paying"]) < 0.5 * np.std(even["paying"])


def test_rows_that_stand_for_many_count_as_many(store, tmp_path) -> None:
    """A row kept with chance 1/4 counts as four requests, and its audit carries the chance of both draws."""
    project, release = project_in(tmp_path, watch="floor_per_day = 500"), release_in(store)
    live(store, [row(f"w{i}", weight=4.0) for i in range(30)])
    plan_day(store, project, release, DAY)
    drawn = draw(store, project, release, DAY)
    assert len(drawn) == 30
    assert {audit.pi for audit in drawn} == {0.25}
    from overproof.watch.audits import count_day

    count_day(store, release, DAY)
    ((day,),) = [rows for (name, _), rows in store.watching.days("r1").items() if name == ALL]
    assert (day.requests, day.audited, day.day) == (120, 30, date(2026, 11, 3))
