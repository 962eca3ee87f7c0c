"""Committee and ceiling: who decides, what is counted, and how high a student can come."""

import json
from dataclasses import replace

import numpy as np

from overproof.data import (
    Answered,
    Answers,
    Asking,
    Clearance,
    Completion,
    PromptRow,
    PromptSet,
    Repeat,
    Request,
    TeacherPin,
)
from overproof.measure.intervals import figure
from overproof.measure.labels import agreement_ceiling
from overproof.steps.ceiling import EVERY_ROW, SUBSET, CeilingRecipe, ceiling
from overproof.steps.committee import CommitteeRecipe, DisputedRecipe, decide, disputed
from overproof.steps.filter import FilterRecipe, filter_labels

LABELS = ("a", "b", "c")
PIN = TeacherPin(use="openai.v1", provider="p", model="m-1", revision="r")


def rows(n: int) -> tuple[PromptRow, ...]:
    return tuple(PromptRow(request=Request(id=str(i), fields={"text": f"t{i}"}), weight=1.0, group=str(i)) for i in range(n))


def said(row: PromptRow, *values: str | None) -> Answered:
    found = tuple(Completion(text=v, value=v, model="m-1") for v in values if v is not None)
    return Answered(row=row, completions=found)


def answers(values: list, **changes) -> Answers:
    given = [said(r, *(v if isinstance(v, tuple) else (v,))) for r, v in zip(rows(len(values)), values, strict=True)]
    return Answers(train=tuple(given), calibration=(), test=(), pin=PIN, clearance_id="c", spent_usd=1.0, **changes)


def clearance(name: str) -> Clearance:
    return Clearance(
        id=name, pin=PIN, registry_id="x", registry_digest="d", posture="open", cited=(), obligations=(), attested_by="D",
        attested_on="2026-01-01", expires=None, statement="s", student_kind="classifier", distribution="internal",
    )  # fmt: skip


def decided(*teachers: Answers, rule: str = "majority", arbiter: bool = False) -> Answers:
    names = tuple(f"t{i}" for i in range(len(teachers)))
    recipe = CommitteeRecipe(rule=rule, names=names, labels=LABELS, arbiter=arbiter)
    return decide(teachers, tuple(clearance(n) for n in names), recipe)


def test_most_votes_win_and_ties_are_counted() -> None:
    """Two against one decides; a tie falls to the first teacher and is counted; silence is no vote."""
    found = decided(answers(["a", "a", "a", None]), answers(["b", "a", "b", "c"]), answers(["b", "a", None, None]))
    assert [a.decided for a in found.train] == ["b", "a", "a", "c"]
    panel = found.committee
    assert (panel.rows, panel.unanimous, panel.tied, panel.overruled) == (4, 1, 1, 0)
    assert [(m.answered, m.agreed) for m in panel.members] == [(3, 2), (4, 3), (2, 2)]
    assert found.spent_usd == 3.0


def test_the_arbiter_is_asked_about_disputed_rows_only_and_decides_them() -> None:
    """Its label stands, also against both; rows that all agree on never reach it."""
    first, second = answers(["a", "b", "a"]), answers(["a", "c", "b"])
    prompts = PromptSet(train=rows(3), calibration=(), test=(), funnel={}, match=(), distance=0.0, leaks={})
    left = disputed(prompts, (first, second), DisputedRecipe())
    assert [r.request.id for r in left.train] == ["1", "2"]
    third = replace(first, train=(said(left.train[0], "a"), said(left.train[1], "b")))
    found = decided(first, second, third, arbiter=True)
    assert [a.decided for a in found.train] == ["a", "a", "b"]
    assert (found.committee.arbitrated, found.committee.overruled) == (2, 1)


def test_the_filter_takes_what_the_committee_decided() -> None:
    """A label that was decided against the most votes is the target; agreement is its own share."""
    first, second = answers(["a", "b"]), answers(["a", "c"])
    third = replace(first, train=(said(rows(2)[0]), said(rows(2)[1], "c")))
    made = decided(first, second, third, arbiter=True)
    full = replace(made, calibration=made.train, test=made.train)
    labelled = filter_labels(full, FilterRecipe(labels=LABELS))
    assert [e.target for e in labelled.train.examples] == ["a", "c"]


def test_weighing_the_voters_beats_counting_them_where_one_is_better() -> None:
    """Three voters right on 95, 60 and 60 % with errors of their own: Dawid-Skene is right more often than majority."""
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 3, 1500)
    voters = []
    for right in (0.95, 0.6, 0.6):
        wrong = (truth + rng.integers(1, 3, truth.size)) % 3
        voters.append(answers([LABELS[v] for v in np.where(rng.random(truth.size) < right, truth, wrong)]))

    def share(rule: str) -> float:
        made = decided(*voters[::-1], rule=rule)
        return float(np.mean([LABELS[t] == a.decided for t, a in zip(truth, made.train, strict=True)]))

    assert share("dawid-skene") > share("majority") + 0.05


def test_the_ceiling_holds_for_the_best_possible_student() -> None:
    """A teacher with known answer shares: the student that always gives the favourite never beats the ceiling."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        shares = rng.dirichlet(np.full(4, rng.uniform(0.05, 2)), size=200)
        twice = float((shares**2).sum(axis=1).mean())
        best = float(shares.max(axis=1).mean())
        seen = figure(round(twice * 1_000_000), 1_000_000, metric="self-agreement")
        assert twice <= best + 1e-12 <= agreement_ceiling(seen)
        assert agreement_ceiling(seen) < twice**0.5 + 1e-2


def test_self_agreement_comes_from_random_repeats_or_first_samples_never_from_hard_rows() -> None:
    """One sample a row: the repeats. Two a row: the first two of each. Neither: not measured, and it says so."""
    repeats = tuple(Repeat(request_id=str(i), first="a", second="a" if i < 90 else "b") for i in range(100))
    found = ceiling(answers(["a"] * 3, asking=Asking(repeats=repeats)), CeilingRecipe())
    assert (found.agreement.good, found.agreement.n, found.source) == (90, 100, SUBSET)
    assert found.at_most > found.agreement.high > 0.9
    assert "no student can agree" in found.sentence
    panel = decided(answers(["a"] * 3, asking=Asking(repeats=repeats)), answers(["a"] * 3))
    several = ceiling(panel, CeilingRecipe())
    assert (several.agreement.n, several.at_most) == (100, 1.0)
    assert "no ceiling follows" in several.sentence
    pairs = ceiling(answers([("a", "a", "b"), ("a", "b", "b"), "a"]), CeilingRecipe(samples=2))
    assert (pairs.agreement.good, pairs.agreement.n, pairs.source) == (1, 2, EVERY_ROW)
    none = ceiling(answers([("a", "b"), "a"]), CeilingRecipe(samples=1))
    assert (none.agreement.n, none.at_most) == (0, 1.0)
    assert "not measured" in none.sentence
    json.dumps(none.sentence)
