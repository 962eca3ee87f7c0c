"""The greedy attack on a challenger and on the serving release, on the same rows: worse beyond the margin fails, few rows never pass."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.steps.test_probe import asked, run, world  # noqa: F401 - a fixture

from overproof.evidence.probe_bars import BARS, CHECK_OF, Asked, loosened, measures, tightened
from overproof.evidence.probes import GreedyDuel
from overproof.measure.intervals import figure
from overproof.measure.perturb import SHIPPED
from overproof.probing import serving
from overproof.steps.checks import asked as checks
from overproof.steps.checks.table import GateRecipe
from overproof.steps.collect import Evidence
from overproof.steps.gate import gate
from overproof.steps.probe import ProbeRecipe, duel
from overproof.steps.probe_checks import CHECKED

RECIPE = ProbeRecipe(names=(), attack_rows=30, triggers=0)
P06 = next(answers for name, _, answers in CHECKED if name == "P06")


def against(world, champion, new, recipe=RECIPE):  # noqa: F811
    report = run(world, names=())
    return duel(report, SimpleNamespace(id="r1", bundle=world[0][champion]), world[0][new], asked(60), recipe)


def made(n, *, worse, better):
    one = GreedyDuel(release="r1", slice="all", n=n, champion=figure(better, n, metric="t"), challenger=figure(worse, n, metric="t"),
                     worse=worse, better=better, low=-1.0, high=1.0)  # fmt: skip
    return SimpleNamespace(duels=(one,), duel_note="", delta=0.05)


def test_a_student_that_serves_what_the_serving_one_sends_away_is_worse_on_the_same_rows(world):  # noqa: F811
    """Both are attacked on the rows that both get right; each count is of those rows."""
    (one,) = against(world, "keeps none", "keeps all").duels
    assert one.n == 30
    assert (one.champion.good, one.better, one.worse) == (0, 0, one.challenger.good)
    assert one.worse > 0
    (turned,) = against(world, "keeps all", "keeps none").duels
    assert (turned.better, turned.worse) == (one.worse, 0)
    (same,) = against(world, "keeps all", "keeps all").duels
    assert (same.worse, same.better) == (0, 0)
    assert P06(against(world, "keeps none", "keeps all")) is not None
    assert [a.outcome for a in P06(against(world, "keeps all", "keeps all"))] == ["not-run"]  # 30 rows show no 2 %
    none = against(world, "keeps all", "keeps all", replace(RECIPE, attack_rows=0))
    assert (none.duels, next(iter(P06(none))).outcome) == ((), "not-run")
    assert "attack_rows is 0" in next(iter(P06(none))).reason


@pytest.mark.parametrize(("worse", "better", "n", "outcome"), [(0, 0, 400, "pass"), (60, 2, 400, "fail"), (8, 6, 100, "not-run"), (0, 60, 400, "pass")])
def test_the_gate_reads_the_margin_and_an_owners_tighter_one(worse, better, n, outcome):
    """2 points by default; 0.5 points turn the same counts into not enough data."""
    found = made(n, worse=worse, better=better)
    assert [a.outcome for a in P06(found)] == [outcome]
    (strict,) = P06(found, tightened({"greedy.v1": Asked(worse=0.005)}))
    assert strict.outcome == ("not-run" if (worse, better) == (0, 0) else outcome)


def test_the_release_that_answers_is_found_and_never_the_student_itself():
    """Shadow answers nobody; after a roll-back the one that answered last counts; a student that serves is held to the one before it."""
    releases = {name: SimpleNamespace(id=name, bundle=SimpleNamespace(digest=f"d{name}")) for name in "abc"}

    def store(*moves):
        history = [SimpleNamespace(stage=stage, release_id=name) for name, stage in moves]
        return SimpleNamespace(rollouts=SimpleNamespace(history=lambda task: history), releases=SimpleNamespace(get=releases.get))

    new = SimpleNamespace(digest="new")
    assert serving(store(), "t", new) is None
    assert serving(store(("a", "shadow")), "t", new) is None
    assert serving(store(("a", "full"), ("b", "shadow")), "t", new).id == "a"
    assert serving(store(("a", "full"), ("b", "canary"), ("b", "teacher-only")), "t", new).id == "b"
    assert serving(store(("a", "full"), ("b", "full")), "t", releases["b"].bundle).id == "a"
    assert serving(store(("a", "full")), "t", releases["a"].bundle) is None


OWN = st.dictionaries(st.sampled_from([*BARS, "leet.v1"]), st.builds(Asked, drop=st.none() | st.floats(0.001, 0.5), through=st.none() | st.floats(0.001, 0.5)), max_size=5)


@given(OWN)
def test_no_bar_is_ever_looser_than_its_default_and_the_file_is_told_of_each_that_would_be(own):
    """Whatever is passed; the sentence names the check and the way by a waiver."""
    found = tightened(own)
    looser = 0
    for name, bar in found.items():
        default = BARS.get(name, Asked())
        for measure in {*measures(default), *measures(own.get(name, Asked()))}:
            most, wanted = getattr(default, measure), getattr(own.get(name, Asked()), measure)
            assert getattr(bar, measure) == min(x for x in (most, wanted) if x is not None)
            looser += most is not None and wanted is not None and wanted > most
        assert bar.steady == default.steady
    told = list(loosened(own, CHECK_OF))
    assert len(told) == looser
    assert all("overproof waive P0" in line for line in told)


def test_the_check_that_reads_a_bar_is_the_one_that_the_refusal_names():
    """CHECK_OF follows the kinds of the shipped perturbations."""
    kinds = {"noise": "P01", "unicode": "P01", "wrap": "P01", "pad": "P01", "inject": "P02", "stuff": "P02", "scope": "P03"}
    assert {name: kinds[SHIPPED[name].kind] for name in BARS if name in SHIPPED} | {"greedy.v1": "P06"} == dict(CHECK_OF)


def test_a_tighter_bar_of_the_owners_turns_a_pass_of_the_gate_into_not_enough_data(world):  # noqa: F811
    """The same counts, judged by the file's own number."""
    report = run(world, names=("wide.v1", "typo.v1"))
    cell = replace(report.cell("typo.v1"), n=200, worse=0, better=0, flipped=figure(0, 200, metric="f"), steady=0)
    evidence = Evidence(probes=replace(report, cells=(cell,)))
    recipe = GateRecipe(task="t", owner="o", deputy="d", review_every_days=9, today="2026-01-01", probes=("P01",))

    def said(recipe):
        return [f.outcome for f in checks.probed("P01")(evidence, recipe) if f.reason.startswith("noise")]

    assert said(recipe) == ["pass"]
    assert said(replace(recipe, probe_bars={"typo.v1": Asked(drop=0.005)})) == ["not-run"]
    assert said(replace(recipe, probe_bars={"typo.v1": Asked(drop=0.5)})) == ["pass"]


def test_what_is_watched_is_said_and_refuses_nothing(world):  # noqa: F811
    """The same failing report stops a release where it is asked for, and only stands beside it where it is not; no probe is said so."""
    report = run(world)
    recipe = GateRecipe(task="t", owner="o", deputy="d", review_every_days=9, today="2026-01-01", watched=("P02", "P03"))
    seen = gate(Evidence(probes=report), recipe)
    assert {f.id for f in seen.watched} == {"P02", "P03"}
    assert "fail" in {f.outcome for f in seen.watched}
    assert not [f for f in seen.findings if f.id.startswith("P0")]
    asked_for = gate(Evidence(probes=report), replace(recipe, watched=(), probes=("P02", "P03")))
    assert asked_for.watched == ()
    assert {"P02", "P03"} <= {f.id for f in asked_for.findings}
    (nothing,) = gate(Evidence(), replace(recipe, watched=())).watched
    assert (nothing.id, nothing.outcome) == ("P00", "not-run")
    assert "not probed" in nothing.reason
