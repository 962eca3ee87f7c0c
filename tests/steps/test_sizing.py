"""Further fits: nested draws, seeds, planted worlds for each limit, the ladder, and the gate's word on size."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overproof.data import CalibrationSet, Example, Request, TrainSet
from overproof.evidence import Expected, Plan
from overproof.measure.intervals import figure
from overproof.steps.ceiling import Ceiling
from overproof.steps.choice import choose, reason_of
from overproof.steps.collect import Evidence
from overproof.steps.gate import GateRecipe, run_checks, ships, table_of
from overproof.steps.size_verdict import VerdictRecipe, next_rung, rung_of, size_verdict, smaller_answer
from overproof.steps.sizing import SizingRecipe, compare_sizes, drawn, fit_part, fit_whole
from overproof.steps.train import StudentRecipe, train
from overproof.task import Bar

BARS = (Bar(metric="fidelity", at_least=0.9),)
ADDITIVE = {"word_ngrams": [1, 1], "char_ngrams": [2, 2], "min_df": 1, "c": 1.0}  # no feature sees two words at once
LIMITED = StudentRecipe(name="additive", use="linear.v1", options=ADDITIVE)
FREE = StudentRecipe(name="free", use="linear.v1", options={"word_ngrams": [1, 2], "min_df": 1})


def row(i, text, target, **more) -> Example:
    return Example(request=Request(id=f"r{i}", fields={"text": text}), target=target, **more)


KINDS = {kind: ["".join(random.Random(f"{kind}{i}").choices("bcdfghjklmnp", k=6)) for i in range(12)] for kind in "uvxy"}


def xor(n, seed):
    """A word of kind u or v and one of kind x or y: which label depends on both together, so that sums of words know nothing."""
    draw = random.Random(seed)
    found = []
    for i in range(n):
        a, b = draw.choice("uv"), draw.choice("xy")
        label = "same" if (a == "u") == (b == "x") else "other"
        found.append(row(f"{seed}-{i}", f"{draw.choice(KINDS[a])} {draw.choice(KINDS[b])}", label))
    return found


def sparse(n, seed):
    """Each label has 1,000 words of its own made of random letters: few rows show few of them."""
    book, draw = random.Random(0), random.Random(seed)
    words = {label: ["".join(book.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(1_000)] for label in "abc"}
    labels = [draw.choice("abc") for _ in range(n)]
    return [row(f"{seed}-{i}", " ".join(draw.sample(words[label], 2)), label) for i, label in enumerate(labels)]


def noisy(n, seed, flip=0.4):
    """One word says it all, and the teacher often says something else."""
    draw = random.Random(seed)
    found = []
    for i in range(n):
        true = draw.choice(["a", "b", "c"])
        said = true if draw.random() >= flip else draw.choice([x for x in "abc" if x != true])
        found.append(row(f"{seed}-{i}", f"{true * 4} {draw.choice(['mm', 'nn'])}", said))
    return found


def sized(tmp_path, rows, held, *recipes, seeds=1, budgets=(0.25, 0.5, 1.0)):
    """Sizes of students that are really fitted."""
    labels = tuple(sorted({e.target for e in rows}))
    train_rows, dev = TrainSet(examples=tuple(rows), labels=labels), CalibrationSet(examples=tuple(held), labels=labels)
    made: list[Path] = []
    tmp_path.mkdir(exist_ok=True)

    def folder() -> Path:
        made.append(tmp_path / f"fit{len(made)}")
        made[-1].mkdir()
        return made[-1]

    fitted = tuple(train(train_rows, one, workdir=folder()) for one in recipes)
    recipe = SizingRecipe(students=recipes, budgets=budgets, seeds=seeds, rows=1500, alpha=0.1, of_all=False)
    return compare_sizes(
        train_rows, dev, fitted, recipe,
        fit=lambda one: fit_part(train_rows, dev, one, workdir=folder()),
        whole=lambda trained, one: fit_whole(trained, train_rows, dev, one),
    )


def noise_of(differ, n=400) -> Evidence:
    """Evidence whose only data are two answers of the teacher to each of some rows."""
    same = figure(n - differ, n, metric="self-agreement")
    ceiling = Ceiling(agreement=same, at_most=1.0, source="rows asked twice")
    return replace(Evidence(), data=type("Data", (), {"ceiling": ceiling})())


def verdict(sizes, evidence, *, clears=()):
    expected = tuple(Expected(name=s.name, size_bytes=s.size_bytes, kept=0.5, cost=0.5, bill=1.0, clears=s.name in clears) for s in sizes.sizes)
    plan = Plan(chosen=sizes.sizes[0].name, reason="", label_kind="teacher:t", delta=0.05, slices=(), certify_share=0.5, salt="",
                confidence=None, digests={}, expected=expected)
    recipe = VerdictRecipe(bars=BARS, tried=("linear.v1",), known=("linear.v1", "encoder.v1"))
    return size_verdict(evidence, sizes, plan, recipe).sizing


def test_a_student_that_can_not_hold_the_task_is_too_small_whatever_the_rows(tmp_path) -> None:
    """XOR: sums of words err on half of the rows at every budget; a teacher that repeats itself leaves only capacity."""
    sizes = sized(tmp_path, xor(800, 1), xor(1_500, 2), LIMITED)
    found = verdict(sizes, noise_of(2))
    assert sizes.sizes[0].error.value > 0.3
    assert (found.students[0].limit, found.students[0].too_small) == ("capacity", True)
    assert "no loss or data will mend it" in found.headline
    assert found.next_candidate == "encoder.v1"
    quiet = verdict(sizes, Evidence())  # nobody asked the teacher twice: noise looks the same
    assert (quiet.students[0].limit, quiet.students[0].too_small) == ("can't tell", False)


def test_a_larger_student_that_learns_the_rows_shows_the_smaller_ones_capacity(tmp_path) -> None:
    """Pairs of words solve XOR: no word on the teacher is needed."""
    sizes = sized(tmp_path, xor(800, 1), xor(1_500, 2), LIMITED, FREE)
    assert [(p.first, p.better) for p in sizes.pairs] == [("free", True)]
    by_name = {v.name: v for v in verdict(sizes, Evidence()).students}
    assert by_name["additive"].limit == "capacity"
    assert by_name["free"].limit == "data"


def test_few_rows_of_a_rich_task_are_data(tmp_path) -> None:
    """Own rows are known by heart, others are not, and each doubling helps."""
    sizes = sized(tmp_path, sparse(500, 1), sparse(600, 2), FREE)
    found = verdict(sizes, noise_of(2))
    assert sizes.sizes[0].train_error.value < 0.05 < 0.2 < sizes.sizes[0].error.value
    assert found.students[0].limit == "data"
    assert not found.students[0].too_small
    assert found.next_candidate.startswith("more training rows")


def test_labels_that_a_teacher_draws_by_lot_are_labels(tmp_path) -> None:
    """A fifth of all answers is another one: asked twice the teacher differs from itself, and no larger student is proposed."""
    sizes = sized(tmp_path, noisy(400, 1), noisy(400, 2), LIMITED)
    found = verdict(sizes, noise_of(round(400 * (1 - 0.6**2 - 0.4**2 / 2))))
    assert found.students[0].limit == "labels"
    assert "better labels" in found.next_candidate


def test_rows_whose_samples_differ_count_as_contested(tmp_path) -> None:
    """Wrong rows on which two samples of the teacher differ are counted; rows with one sample say nothing."""
    held = [replace(e, samples=2, agreement=0.5 if i % 4 else 1.0) for i, e in enumerate(noisy(400, 2))]
    sizes = sized(tmp_path, noisy(200, 1), held, LIMITED, budgets=(1.0,))
    assert sizes.sizes[0].contested.n == sizes.sizes[0].error.good
    assert sizes.sizes[0].contested.value == pytest.approx(0.75, abs=0.1)
    assert sized(tmp_path / "once", noisy(200, 1), noisy(400, 2), LIMITED, budgets=(1.0,)).sizes[0].contested.n == 0


JITTER = """
from overproof.students.linear import LinearStudent
from dataclasses import replace
import numpy as np

class Jitter(LinearStudent):
    def fit(self, train, *, workdir):
        rng = np.random.default_rng(self.options["seed"])
        kept = [e for e in train.examples if rng.random() < 0.3]
        super().fit(replace(train, examples=tuple(kept)), workdir=workdir)
"""


def test_seeds_are_fitted_only_where_they_change_anything(tmp_path, monkeypatch) -> None:
    """A fit that draws gets all its seeds and their spread; one that doesn't gets one, and a spread of 0."""
    (tmp_path / "jittery.py").write_text(JITTER)
    monkeypatch.syspath_prepend(str(tmp_path))
    jitter = StudentRecipe(name="jitter", use="jittery:Jitter", seed=5)
    sizes = sized(tmp_path, sparse(400, 1), sparse(300, 2), FREE, jitter, seeds=3, budgets=(1.0,))
    by_name = {s.name: s.seeds for s in sizes.sizes}
    assert (by_name["jitter"].random, len(by_name["jitter"].errors)) == (True, 3)
    assert by_name["jitter"].error_sd == pytest.approx(np.std(by_name["jitter"].errors, ddof=1)) != 0
    assert (by_name["free"].random, by_name["free"].errors[1:], by_name["free"].error_sd) == (False, (), 0.0)
    assert sizes.pairs[0].seeds == 3
    assert sizes.pairs[0].seed_sd == by_name["jitter"].error_sd
    assert set(sizes.spread()) == {"free", "jitter"}


def test_a_budget_that_can_not_teach_is_noted_and_never_guessed(tmp_path) -> None:
    """One label among the drawn rows: no fit, a note, and no curve."""
    rows = [row(i, "aa", "a") for i in range(40)] + [row("x", "bb", "b")]
    sizes = sized(tmp_path, rows, xor(0, 0) + [row(f"h{i}", "aa", "a") for i in range(120)], LIMITED, budgets=(0.05, 0.5, 1.0))
    one = sizes.sizes[0]
    assert one.notes
    assert len(one.budgets) < 3
    assert not one.curve.gains


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 5))
def test_larger_budgets_hold_the_smaller_ones(n, count, draw) -> None:
    """Nested, without repeats, in order, by chance alone."""
    small, large = drawn(n, count, draw=draw), drawn(n, 2 * count, draw=draw)
    assert set(small) <= set(large)
    assert len(small) == min(n, count)
    assert (np.diff(small) > 0).all()


def test_the_same_fit_gives_the_same_answers(tmp_path) -> None:
    """Twice the same sizes, to the last digit."""
    first, second = (sized(tmp_path / name, xor(120, 1), xor(120, 2), LIMITED, seeds=2) for name in "ab")
    assert first == second


def expected(name, **more) -> Expected:
    return Expected(**({"name": name, "size_bytes": 10, "kept": 0.6, "cost": 0.4, "bill": 1.0, "clears": True} | more))


def sizing(*rows, chosen="large", spread=0.0):
    """A verdict over students that were measured before: only their expectations and the spread of the first matter."""
    from overproof.evidence import Curve, Seeds, Size, Sizes, Sizing

    nothing = figure(0, 0, metric="error")
    curve = Curve(gains=(), band=(), level=0.9, n=0, draws=0, method="")
    measured = tuple(
        Size(name=e.name, use=e.name, size_bytes=e.size_bytes, parameters=1, budgets=(), curve=curve, train_error=nothing,
             contested=nothing, seeds=Seeds(errors=(0.1, 0.1), kept=(0.5, 0.6), error_sd=0.0, kept_sd=spread if i == 0 else 0.0, random=True))
        for i, e in enumerate(rows)
    )
    return Sizing(sizes=Sizes(sizes=measured, pairs=(), n=500), students=(), expected=rows, chosen=chosen, smallest="small",
                  headline="Small is the smallest.", next_candidate="")


SMALL, LARGE = expected("small", size_bytes=1, cost=0.45), expected("large", size_bytes=100)


def test_the_gate_passes_the_larger_student_only_where_it_is_cheaper_than_seeds_explain() -> None:
    """Five points cheaper with a spread of two: pass; with a spread of six it is a tie, and the smaller one has to ship."""
    assert smaller_answer(sizing(SMALL, LARGE, spread=0.02)).outcome == "pass"
    tie = smaller_answer(sizing(SMALL, LARGE, spread=0.06))
    assert (tie.outcome, "small" in tie.todo) == ("fail", True)
    assert smaller_answer(sizing(replace(SMALL, clears=False), LARGE, spread=0.06)).outcome == "pass"
    assert smaller_answer(sizing(SMALL, LARGE, chosen="small", spread=0.06)).outcome == "pass"


def test_one_size_or_none_is_not_run_and_never_a_pass() -> None:
    """Nothing compared, or one student: the check can't pass."""
    for missing in (None, sizing(LARGE), sizing(SMALL, LARGE, chosen="gone")):
        assert smaller_answer(missing).outcome == "not-run"


def test_the_check_stands_in_the_gates_table_where_sizing_is_on() -> None:
    """S01 is asked with [sizing], blocks without evidence and on a tie, and is left out where nobody asked."""
    asked = GateRecipe(task="t", owner="Dana Ruiz", deputy="Sam Ito", review_every_days=90, today="2026-02-10", sizing=True)
    outcomes = [
        next(f for f in run_checks(Evidence(sizing=found), asked) if f.id == "S01").outcome
        for found in (sizing(SMALL, LARGE, spread=0.02), sizing(SMALL, LARGE, spread=0.06), None)
    ]
    assert outcomes == ["pass", "fail", "not-run"]
    assert "S01" not in {f.id for f in run_checks(Evidence(), replace(asked, sizing=False))}
    passing = tuple(replace(f, outcome="pass") for f in run_checks(Evidence(), asked))
    assert ships(passing, table=table_of(asked))
    assert not ships(tuple(f for f in passing if f.id != "S01"), table=table_of(asked))


def expectation(name, **more):
    from overproof.steps.choice import Expectation

    base = {"name": name, "size_bytes": 10, "plans": (), "fidelity": 0.9, "kept": 0.5, "clears": True, "misses": 0, "spoils": 0,
            "margin": 0.01, "missed": "", "cost": 1.0, "bill": 2.0, "priced": True}
    return Expectation(**(base | more))


def test_a_difference_within_the_spread_over_seeds_goes_to_the_smaller_student() -> None:
    """2.5 points of the bill: more than the hundredth, less than what seeds change in either of the two."""
    large, small = expectation("large", size_bytes=100, cost=1.0), expectation("small", size_bytes=1, cost=1.05)
    assert choose([large, small]).name == "large"
    assert choose([large, small], {"large": 0.02, "small": 0.0}).name == "large"
    assert choose([large, small], {"large": 0.03, "small": 0.0}).name == "small"
    assert choose([large, small], {"large": 0.02, "small": 0.02}).name == "small"
    reason = reason_of(small, [large, small], n=500, spread={"large": 0.03, "small": 0.0}, seeds=3)
    assert "smallest of those that tie" in reason
    assert "a tie within 3.0 points" in reason
    assert "over 3 seeds, in points: large 3.0, small 0.0" in reason


def test_the_ladder_proposes_what_is_installed_and_was_not_tried() -> None:
    """From small to large; a tuned encoder is a rung of its own."""
    known = ["linear.v1", "encoder.v1"]
    assert next_rung(["linear.v1"], known) == "encoder.v1"
    assert next_rung(["linear.v1"], [*known, "static.v1"]) == "static.v1"
    assert rung_of("encoder.v1", {}) == "encoder.v1" != rung_of("encoder.v1", {"tune": "full"})
    assert "tune" in next_rung(["linear.v1", "encoder.v1"], known)
    assert next_rung([], ["span.v1", "causal.v1"], kind="fields") == "span.v1"
    assert next_rung(["span.v1"], ["span.v1", "causal.v1"], kind="fields") == "causal.v1"
    assert next_rung([], ["span.v1", "causal.v1"], kind="text") == "causal.v1"
    assert next_rung(["causal.v1"], ["span.v1", "causal.v1"], kind="text") == 'a larger base for "causal.v1"'
    assert next_rung(["span.v1"], ["span.v1"], kind="fields") == ""
