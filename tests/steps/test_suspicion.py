"""Suspicious rows are marked and weighed; dropped only where asked, and never against a person's word."""

from dataclasses import replace

import numpy as np
import pytest

from overproof.data import (
    CalibrationSet,
    Example,
    Folder,
    Labelled,
    PromptRow,
    PromptSet,
    Request,
    TestSet,
    TrainSet,
)
from overproof.steps.filter_report import rules_of
from overproof.steps.mend import FEATURES_FILE
from overproof.steps.suspicion import (
    RULE,
    LeaveOutRecipe,
    Suspicion,
    SuspicionRecipe,
    WeighRecipe,
    leave_out,
    mark,
    weigh,
)

LABELS = ("a", "b", "c")
N, WRONG = 180, 18


@pytest.fixture
def world(tmp_path):
    """180 training rows in three heaps; the first 18 have another heap's label; all have gold."""
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, N)
    points = 4 * np.eye(3, 5)[truth] + rng.normal(size=(N, 5)) * 0.6
    np.save(tmp_path / FEATURES_FILE, points.astype(np.float32))
    said = np.where(np.arange(N) < WRONG, (truth + 1) % 3, truth)
    train = tuple(
        Example(request=Request(id=f"r{i}", fields={"text": f"text {i}"}), target=LABELS[said[i]], gold=LABELS[truth[i]], weight=1 + i)
        for i in range(N)
    )
    labelled = Labelled(
        train=TrainSet(examples=train, labels=LABELS), calibration=CalibrationSet(examples=(), labels=LABELS),
        test=TestSet(examples=(), labels=LABELS), dropped=(), counts={"train: kept": N},
    )  # fmt: skip
    prompts = PromptSet(
        train=tuple(PromptRow(request=e.request, weight=1.0, group=e.request.id) for e in train), calibration=(), test=(), match=(), distance=0.0, leaks={}, funnel={}, notes=(),
    )  # fmt: skip
    return labelled, Folder(path=tmp_path), prompts


def planted(labelled):
    return {e.request.digest for e in labelled.train.examples[:WRONG]}


def test_wrong_labels_are_marked_most_suspicious_first_with_what_the_model_believes(world) -> None:
    """Nearly all of the planted ones, hardly another, in rising order of the chance of the given label."""
    labelled, _, _ = world
    found = mark(*world, SuspicionRecipe())
    marked = {m.digest for m in found.rows}
    assert len(marked & planted(labelled)) >= WRONG - 4
    assert len(marked - planted(labelled)) <= 2
    assert (found.of, found.judged) == (N, N)
    assert found.agreed >= N - WRONG - 5
    chances = [m.chance for m in found.rows]
    assert chances == sorted(chances)
    gold = {e.request.digest: e.gold for e in labelled.train.examples}
    assert all(m.likely == gold[m.digest] != m.target for m in found.rows if m.digest in planted(labelled))


def test_no_more_than_the_asked_share_is_marked_and_it_is_the_most_suspicious(world) -> None:
    """A cap keeps the head of the list."""
    every, some = mark(*world, SuspicionRecipe()), mark(*world, SuspicionRecipe(at_most=0.05))
    assert some.rows == every.rows[: int(0.05 * N)]
    assert len(every.rows) > len(some.rows)


def test_the_account_says_how_many_marks_are_wrong_beside_what_chance_would_show(world) -> None:
    """A row that was picked for looking wrong proves nothing about the marks."""
    labelled, _, _ = world
    marks = mark(*world, SuspicionRecipe())
    found = weigh(marks, labelled, labelled, WeighRecipe())
    assert (found.wrong.n, found.wrong_overall.good, found.wrong_overall.n) == (len(marks.rows), WRONG, N)
    assert found.wrong.low > found.wrong_overall.high
    picked = [replace(e, gold_from="review-fix") if i < WRONG else e for i, e in enumerate(labelled.train.examples)]
    less = weigh(marks, labelled, replace(labelled, train=TrainSet(examples=tuple(picked), labels=LABELS)), WeighRecipe())
    assert less.wrong_overall.n == N - WRONG
    assert less.wrong_overall.good == 0
    assert "review" in less.words


def test_a_reviewed_row_is_weighed_by_the_label_that_was_marked_not_by_its_mended_one(world) -> None:
    """After the review target and gold are the same; the teacher was wrong all the same."""
    labelled, _, _ = world
    marks = mark(*world, SuspicionRecipe())
    mended = tuple(replace(e, target=e.gold, label_from="review-audit") for e in labelled.train.examples)
    found = weigh(marks, labelled, replace(labelled, train=TrainSet(examples=mended, labels=LABELS)), WeighRecipe())
    assert found.wrong_overall.good == WRONG


def test_without_truth_or_judgement_nothing_is_praised(world) -> None:
    """Words for not known, and for not enough data."""
    labelled, _, _ = world
    bare = replace(labelled, train=TrainSet(examples=tuple(replace(e, gold=None) for e in labelled.train.examples), labels=LABELS))
    found = weigh(mark(*world, SuspicionRecipe()), bare, bare, WeighRecipe())
    assert (found.wrong, found.wrong_overall) == (None, None)
    assert "is not known" in found.words
    assert "not enough data" in Suspicion(marks=(), of=5, judged=0, agreed=0, wrong=None, wrong_overall=None, dropped=False).words


def test_dropping_keeps_the_books_and_never_overrules_a_person(world) -> None:
    """Every row is in one count; reviewed and mended rows stay; what goes keeps its label, truth and weight."""
    labelled, _, _ = world
    marks = mark(*world, SuspicionRecipe())
    spoken = {marks.rows[0].digest: "review-audit", marks.rows[1].digest: "mended", marks.rows[2].digest: "review-fix"}
    rows = tuple(replace(e, label_from=spoken.get(e.request.digest, "teacher")) for e in labelled.train.examples)
    found = leave_out(replace(labelled, train=TrainSet(examples=rows, labels=LABELS)), marks, LeaveOutRecipe())
    gone, left = {d.request.digest for d in found.dropped}, {e.request.digest for e in found.train.examples}
    assert gone == {m.digest for m in marks.rows} - set(spoken)
    assert gone | left == {e.request.digest for e in rows}
    assert not gone & left
    assert found.counts == {"train: kept": len(left), f"train: {RULE}": len(gone)}
    before = {e.request.digest: (e.target, e.gold, e.weight) for e in rows}
    assert all((d.target, d.gold, d.weight) == before[d.request.digest] for d in found.dropped)
    assert [r.rule for r in rules_of(found)] == [RULE]
