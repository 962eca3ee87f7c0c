"""Waivers, own checks, the computed table: nothing ships that two people, in time and in words, have not taken upon themselves."""

import ast
import inspect
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overproof.data import Folder
from overproof.evidence import Refusal, Release
from overproof.evidence.waivers import Waiver, in_force, waiver_problems
from overproof.measure.intervals import judge
from overproof.steps import gate as gate_module
from overproof.steps.checks.table import OwnCheck
from overproof.steps.checks.waiving import waived_by
from overproof.steps.collect import Evidence
from overproof.steps.disparities import DisparityBars
from overproof.steps.gate import ASKED, CHECKS, GateRecipe, WatchPlan, gate, run_checks, ships, table_of
from overproof.steps.probe_checks import CHECKED
from overproof.steps.register import Mistake, Register, Share

RECIPE = GateRecipe(task="ticket-routing", owner="Dana Ruiz", deputy="Sam Ito", review_every_days=90, today="2026-02-10")


@pytest.fixture(scope="module")
def found(tmp_path_factory, make_world) -> Evidence:
    """Evidence in which all is well but for G07, one size, and without a bundle."""
    world = make_world(tmp_path_factory.mktemp("rules"))
    evidence = world.evidence(world.report())
    return replace(evidence, trained=evidence.trained[:1])


@pytest.fixture
def passing(monkeypatch) -> None:
    """A table whose bundle check passes: bundles are tested elsewhere, and here nothing else may stop a release."""
    rows = tuple(replace(row, check=gate_module.keepers.owner) if row.id == "G22" else row for row in CHECKS)
    monkeypatch.setattr(gate_module, "CHECKS", rows)


def waiver(evidence: Evidence, **more) -> Waiver:
    given = {
        "check": "G07", "plan": evidence.report.certificate.plan_hash, "by": "Dana Ruiz", "second": "Sam Ito",
        "reason": "The second size is being trained; this pilot serves one team.", "control": "Dana reads every answer each evening.",
        "given": "2026-02-10", "until": "2026-03-01",
    }  # fmt: skip
    return Waiver(**(given | more))


def bundled(evidence: Evidence, path: Path) -> Evidence:
    return replace(evidence, bundle=Folder(path=path, digest="b" * 64))


@pytest.mark.usefixtures("passing")
def test_a_waived_check_ships_and_the_release_says_it_first(found, tmp_path) -> None:
    """Without the waiver a refusal; with it a release whose headline and first finding name both people and the day."""
    evidence, recipe = bundled(found, tmp_path), replace(RECIPE, waivers=(waiver(found),))
    assert isinstance(gate(evidence, RECIPE), Refusal)
    done = gate(evidence, recipe)
    assert isinstance(done, Release)
    assert done.headline.startswith("Under 1 waiver (G07 until 2026-03-01 by Dana Ruiz and Sam Ito): ")
    first = done.findings[0]
    assert (first.id, first.outcome, first.waiver) == ("G07", "waived", waiver(found))
    assert "Dana reads every answer" in first.reason
    assert "(not-run)" in first.reason


@pytest.mark.usefixtures("passing")
@pytest.mark.parametrize("more", [
    {"plan": "another"}, {"plan": ""}, {"second": "dana  ruiz"}, {"second": " "}, {"reason": "x" * 39}, {"reason": "we " + " " * 60},
    {"control": "none"}, {"until": "2026-03-13"}, {"until": "2026-02-09"}, {"until": "soon"}, {"check": "G06"},
])  # fmt: skip
def test_a_waiver_that_lacks_anything_changes_nothing(more, found, tmp_path) -> None:
    """Another plan, one person, too few words, too long a time: the refusal stands."""
    done = gate(bundled(found, tmp_path), replace(RECIPE, waivers=(waiver(found, **more),)))
    assert isinstance(done, Refusal)
    assert {f.outcome for f in done.findings if f.id == "G07"} == {"not-run"}


@pytest.mark.usefixtures("passing")
def test_the_day_after_it_is_a_failure_again(found, tmp_path) -> None:
    """What could not be decided and was waived fails once the waiver has run out; what passes stays a pass."""
    done = gate(bundled(found, tmp_path), replace(RECIPE, ran_out=(waiver(found), waiver(found, check="G06"))))
    assert isinstance(done, Refusal)
    first = done.findings[0]
    assert (first.id, first.outcome) == ("G07", "fail")
    assert "ran out on 2026-03-01" in first.reason
    assert {f.outcome for f in done.findings if f.id == "G06"} == {"pass"}


def test_a_waiver_counts_from_its_first_to_its_last_day(found) -> None:
    """Both ends included, no day more."""
    one = waiver(found)
    assert [in_force(one, day) for day in ("2026-02-09", "2026-02-10", "2026-03-01", "2026-03-02")] == [False, True, True, False]
    assert list(waiver_problems(waiver(found, until="2026-03-12"))) == []


@pytest.mark.usefixtures("passing")
@pytest.mark.parametrize("check", [row.id for row in CHECKS if not row.waivable and row.id != "G22"])
def test_what_nobody_may_waive_stays_a_refusal(check, found, tmp_path, monkeypatch) -> None:
    """A waiver of every such check, and none of them ships."""

    def fails(evidence, recipe):
        yield gate_module.finding("fail", "broken on purpose", "mend it")

    rows = tuple(replace(row, check=fails) if row.id == check else row for row in gate_module.CHECKS)
    monkeypatch.setattr(gate_module, "CHECKS", rows)
    both = (waiver(found), waiver(found, check=check))
    done = gate(bundled(found, tmp_path), replace(RECIPE, waivers=both))
    assert isinstance(done, Refusal)
    assert [f.id for f in done.findings if f.outcome == "fail"] == [check]


def test_nothing_about_a_critical_slice_is_waived(found) -> None:
    """G08 may be waived, but not where the slice is critical."""
    missed = judge(60, 100, 0.9, 0.05, metric="fidelity")
    best = next(c for c in found.report.candidates if c.name == found.report.chosen)
    worse = replace(best, slices=tuple(replace(s, served_fidelity=missed) if s.critical else s for s in best.slices))
    report = replace(found.report, candidates=tuple(worse if c.name == best.name else c for c in found.report.candidates))
    for critical, outcome in ((True, "fail"), (False, "waived")):
        slices = tuple(replace(s, critical=s.critical and critical) for s in worse.slices)
        candidates = tuple(replace(worse, slices=slices) if c.name == best.name else c for c in report.candidates)
        evidence = replace(found, report=replace(report, candidates=candidates))
        first = next(f for f in run_checks(evidence, replace(RECIPE, waivers=(waiver(found, check="G08"),))) if f.id == "G08")
        assert first.outcome == outcome


def test_a_fourth_waiver_has_no_effect(found) -> None:
    """Three are the most for a plan."""
    base = [replace(f, outcome="fail", waivable=True) for f in run_checks(found, RECIPE)][:5]
    base = [replace(f, id=f"X{i}") for i, f in enumerate(base)]
    four = tuple(waiver(found, check=f.id) for f in base[:4])
    after = waived_by(base, plan=found.report.certificate.plan_hash, waivers=four, ran_out=())
    assert [f.outcome for f in after] == ["waived"] * 3 + ["fail"] * 2


WORDS = st.sampled_from(["pass", "fail", "not-run"])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_verdict_turned_worse_turns_a_refusal_into_a_release(found, data) -> None:
    """Property: over any verdicts and any waivers, pass to fail or not-run, and a waiver less, never help; a silent check never ships."""
    base = run_checks(found, RECIPE)
    said = data.draw(st.lists(WORDS, min_size=len(base), max_size=len(base)))
    names = data.draw(st.lists(st.sampled_from([f.id for f in base]), max_size=5))
    given = tuple(waiver(found, check=name) for name in names)
    before = [replace(f, outcome=word) for f, word in zip(base, said, strict=True)]
    at = data.draw(st.integers(0, len(base) - 1))
    worse = [replace(f, outcome=data.draw(st.sampled_from(["fail", "not-run"]))) if i == at else f for i, f in enumerate(before)]
    plan = found.report.certificate.plan_hash

    def decided(findings, waivers, ran_out=()) -> bool:
        return ships(tuple(waived_by(findings, plan=plan, waivers=waivers, ran_out=ran_out)))

    if not decided(before, given):
        assert not decided(worse, given)
        assert not decided(before, given[:-1])
        assert not decided(before, (), given)
    if decided(worse, given):
        assert before[at].id in names
        assert before[at].waivable
    assert not decided([f for f in before if f.id != before[at].id], given)


def test_a_check_of_ones_own_can_only_add(found, tmp_path, monkeypatch) -> None:
    """Its answer joins the table under its own name; what it may not say, silence and a crash are not-run."""
    (tmp_path / "house_rules.py").write_text(
        "from dataclasses import replace\n"
        "from overproof.steps.comparisons import Answer\n"
        "from overproof.steps.checks.table import finding\n"
        "def good(evidence): return Answer(outcome='pass', reason=f'{len(evidence.trained)} trained')\n"
        "def bad(evidence): return [Answer(outcome='pass', reason='one'), Answer(outcome='fail', reason='no', todo='mend')]\n"
        "def silent(evidence): return None\n"
        "def waives(evidence): return Answer(outcome='waived', reason='I say so')\n"
        "def odd(evidence): return ['yes']\n"
        "def stands_in(evidence): return replace(finding('pass', 'as another'), id='G07', title='x')\n"
        "def breaks(evidence): return 1 / 0\n"
    )  # fmt: skip
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "house_rules", raising=False)
    names = ("good", "bad", "silent", "waives", "odd", "stands_in", "breaks", "absent")
    recipe = replace(RECIPE, own=tuple(OwnCheck(use=f"house_rules:{name}") for name in names))
    table = table_of(recipe)
    assert [row.id for row in table[: -len(names)]] == [row.id for row in CHECKS]
    by_id = {}
    for f in run_checks(found, recipe):
        by_id.setdefault(f.id.removeprefix("house_rules:"), []).append(f)
    assert [f.outcome for f in by_id["good"]] == ["pass"]
    assert [f.outcome for f in by_id["bad"]] == ["fail", "pass"]
    assert {by_id[name][0].outcome for name in ("silent", "waives", "odd", "breaks", "absent")} == {"not-run"}
    assert "ZeroDivisionError" in by_id["breaks"][0].reason
    assert by_id["stands_in"][0].title == "Own check house_rules:stands_in"
    assert {f.outcome for f in by_id["G07"]} == {"not-run"}
    assert not ships(tuple(f for f in run_checks(found, recipe) if not f.id.endswith("good")), table=table)


def test_the_table_follows_from_distribution_stage_and_declarations() -> None:
    """Each condition adds its row, and no recipe takes one of the fixed rows away."""
    asked = {
        "F01": {"gap_at_most": 0.1}, "F02": {"swaps": True}, "F03": {"disparity": DisparityBars(error=0.8)}, "F04": {"disparity": DisparityBars(amplified=0.01)}, "R01": {"written": True}, "R02": {"judged": RECIPE}, "C01": {"challenged": True},
        "S01": {"sizing": True}, "S02": {"cases": True}, **{name: {"probes": (name,)} for name, _, _ in CHECKED}, "W01": {"weaknesses": True}, "G14": {"stage": "canary"}, "G18": {"distribution": "hosted"},
    }  # fmt: skip
    assert {row.id for row in ASKED} == set(asked)
    for check, more in asked.items():
        assert [row.id for row in table_of(replace(RECIPE, **more))] == [*(row.id for row in CHECKS), check]
    every = {key: value for more in asked.values() for key, value in more.items()} | {
        "probes": tuple(name for name, _, _ in CHECKED), "disparity": DisparityBars(error=0.8, amplified=0.01),
    }  # fmt: skip
    assert {row.id for row in table_of(replace(RECIPE, **every))} == {row.id for row in (*CHECKS, *ASKED)}


def outcome(evidence, check, **more) -> str:
    return next(f.outcome for f in run_checks(evidence, replace(RECIPE, **more)) if f.id == check)


def register(right: int, n: int, unseen_right: int = 0, unseen: int = 0) -> Register:
    return Register(
        every=Share(right=right, n=n, kept_wrong=1), unseen=Share(right=unseen_right, n=unseen, kept_wrong=0),
        mistakes=(Mistake(said="bug", true="refund", right=right, n=n),), rows=tuple(f"r{i}" for i in range(n)), repeated=n - right,
    )  # fmt: skip


def test_each_check_that_a_condition_adds_passes_fails_and_is_not_run(found) -> None:
    """Stage, distribution, known mistakes and the watch: one good, one bad and one missing evidence each."""
    assert outcome(found, "G14", stage="full") == "fail"
    assert outcome(found, "G18", distribution="hosted") == "pass"
    assert outcome(found, "G18", distribution="hosted", redacted=False) == "fail"
    known = {"good": register(18, 20), "bad": register(2, 20), "few": register(3, 4), "unlearned": register(20, 28, 1, 12)}
    said = {name: outcome(replace(found, register=one), "W01", weaknesses=True) for name, one in known.items()}
    assert said == {"good": "pass", "bad": "fail", "few": "not-run", "unlearned": "fail"}
    assert outcome(replace(found, register=register(12, 20)), "W01", weaknesses=True) == "not-run"
    assert outcome(found, "W01", weaknesses=True) == "not-run"
    assert outcome(found, "G16", watch=None) == outcome(found, "M01", watch=None) == "not-run"


def test_the_plan_of_audits_says_how_many_a_day(found) -> None:
    """All traffic and the critical slice, with audits planned, audits that would do, power and n."""
    certificate = found.report.certificate
    routed = tuple(replace(s, threshold=s.threshold or 0.9, keep_share=replace(s.keep_share, value=0.6)) for s in certificate.slices)
    assert "business" in {s.slice for s in routed}
    found = replace(found, report=replace(found.report, certificate=replace(certificate, slices=routed)))
    said = [f for f in run_checks(found, RECIPE) if f.id == "M01"]
    assert ["critical slice 'business'" in f.reason for f in said] == [False, True]
    for one in said:
        assert one.outcome == "pass"
        assert "audits a day" in one.reason
        assert "a day would do" in one.reason
        assert one.n > 0
        assert one.bound >= 0.8
    few = next(f for f in run_checks(found, replace(RECIPE, watch=WatchPlan(usd_per_month=0.05))) if f.id == "M01")
    assert few.outcome == "fail"
    assert "answers a day there: raise [watch]" in few.next_action
    tight = [f for f in run_checks(found, replace(RECIPE, breaks_from=0.01)) if f.id == "M01"]
    assert all("10.0% of the answers" in f.reason or "8.0%" in f.reason for f in tight), "never less than twice the bar"


def test_every_row_has_code_of_its_own_and_every_check_of_the_room_is_in_the_table() -> None:
    """Contract: a check that is written is asked, and no two rows share a function; deleting one breaks this or its evidence test."""
    rows = [row for row in (*CHECKS, *ASKED) if not row.id.startswith("P")]  # these are one function over `probe_checks.CHECKED`
    assert len({row.check for row in rows}) == len(rows) == 29
    from overproof.steps.checks import asked, audits, keepers, origin, student

    written = set()
    for room in (asked, audits, keepers, origin, student):
        tree = ast.parse(inspect.getsource(room))
        written |= {
            getattr(room, node.name)
            for node in tree.body
            if isinstance(node, ast.FunctionDef) and [a.arg for a in node.args.args] == ["evidence", "recipe"]
        }
    assert {row.check for row in rows} == written
