"""The judge: which rows it is asked about, how its error is measured, and when it may drop."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from overproof.data import (
    Answered,
    Answers,
    CalibrationSet,
    Completion,
    Example,
    Folder,
    Labelled,
    Request,
    TeacherPin,
    TestSet,
    TrainSet,
)
from overproof.steps.filter_report import rules_of
from overproof.steps.judge import (
    JUDGE_RULE,
    SUSPICIOUS,
    USUAL,
    DocketRecipe,
    JudgeRecipe,
    TakeDocket,
    docket,
    judge,
    take_docket,
)
from overproof.task import JUDGED_LABEL

LABELS = ("a", "b", "c")
PIN = TeacherPin(use="openai.v1", provider="p", model="j-1", revision="r")


def project(tmp_path: Path, n: int = 600, *, wrong: float = 0.2, known: float = 1.0, seed: int = 0):
    """Labelled rows whose truth is the row's number modulo 3, their features, and the truth."""
    draw = random.Random(seed)
    truth = {str(i): LABELS[i % 3] for i in range(n)}
    given = {i: draw.choice([x for x in LABELS if x != t]) if draw.random() < wrong else t for i, t in truth.items()}
    examples = tuple(
        Example(
            request=Request(id=i, fields={"text": f"text {i}"}), target=given[i],
            gold=t if draw.random() < known else None, agreement=draw.choice([1.0, 1.0, 0.5]),
        )
        for i, t in truth.items()
    )  # fmt: skip
    labelled = Labelled(
        train=TrainSet(examples=examples, labels=LABELS), calibration=CalibrationSet(examples=(), labels=LABELS),
        test=TestSet(examples=(), labels=LABELS), dropped=(), counts={"train: kept": n},
    )  # fmt: skip
    noise = np.random.default_rng(seed).normal(size=(n, 6))
    noise[:, :3] += 2.0 * np.eye(3)[[int(i) % 3 for i in truth]]
    np.save(tmp_path / "features.npy", noise)
    return labelled, Folder(path=tmp_path), truth


def said(found, truth, *, right: float = 0.9, always: str = "", seed: int = 1) -> Answers:
    """What a judge says that is right so often, or says always the same."""
    draw = random.Random(seed)
    rows = []
    for row, label in zip(found.prompts.train, found.judged, strict=True):
        honest = label == truth[row.request.id]
        word = always or ("right" if honest == (draw.random() < right) else "wrong")
        rows.append(Answered(row=row, completions=(Completion(text=word, value=word, model="j-1"),)))
    return Answers(train=tuple(rows), calibration=(), test=(), pin=PIN, clearance_id="c", spent_usd=0.5)


def ruled(labelled, features, truth, *, may: str = "drop", share: float = 1.0, most: int = 10_000, **how):
    found = docket(labelled, labelled, features, DocketRecipe(share=share, most=most))
    return judge(labelled, found, said(found, truth, **how), JudgeRecipe(judge="j-1", may=may)), found


def test_a_good_judge_with_known_rows_drops_mostly_wrong_labels(tmp_path) -> None:
    """Right on 90 %: its error is measured as that, it drops, and most of what it drops is wrong."""
    labelled, features, truth = project(tmp_path)
    judged, _ = ruled(labelled, features, truth)
    gone = [d for d in judged.labelled.dropped if d.by == JUDGE_RULE]
    assert len(gone) == judged.report.dropped > 50
    assert sum(d.target != truth[d.request.id] for d in gone) > 0.6 * len(gone)
    assert judged.report.sensitivity.low < 0.9 < judged.report.sensitivity.high
    assert judged.report.specificity.low < 0.9 < judged.report.specificity.high
    assert judged.labelled.counts["train: kept"] + len(gone) == 600
    assert len(judged.labelled.train.examples) + len(gone) == 600
    (rule,) = rules_of(judged.labelled)
    assert (rule.rule, rule.rows) == (JUDGE_RULE, len(gone))
    assert rule.wrong.value > 0.5


@pytest.mark.parametrize("wrong", [0.02, 0.2, 0.45, 0.7])
def test_a_judge_that_always_objects_never_drops_a_row(tmp_path, wrong) -> None:
    """Whatever the share of wrong labels: also where most of what it objects to is wrong, that is not its doing."""
    labelled, features, truth = project(tmp_path, wrong=wrong)
    judged, found = ruled(labelled, features, truth, always="wrong", share=0.5)
    assert judged.labelled == labelled
    assert judged.report.objected == judged.report.asked == len(found.judged)
    assert len(judged.report.marked) == judged.report.asked
    assert not any(g.trusted for g in judged.report.groups)
    assert (judged.report.wrong.seen.n, judged.report.wrong.method[:7]) == (0, "counted")  # every truth is known
    assert all("nothing is dropped" in g.why for g in judged.report.groups)


def test_a_judge_that_never_objects_drops_nothing_and_says_why(tmp_path) -> None:
    """No objection was ever measured: no bound, no number of reviews that would do."""
    labelled, features, truth = project(tmp_path)
    judged, _ = ruled(labelled, features, truth, always="right")
    assert (judged.report.objected, judged.report.dropped, judged.report.marked) == (0, 0, ())
    assert [g.more for g in judged.report.groups] == [None, None]
    assert judged.report.sensitivity.value == 0.0


def test_too_few_reviewed_rows_mark_only_and_say_how_many_it_takes(tmp_path) -> None:
    """A good judge with a handful of known rows drops nothing; with the named number more it does."""
    labelled, features, truth = project(tmp_path, known=0.02)
    judged, _ = ruled(labelled, features, truth)
    assert judged.report.dropped == 0
    assert judged.labelled == labelled
    wanting = [g for g in judged.report.groups if g.more]
    assert wanting
    assert "more reviewed training rows" in wanting[0].why
    full, features, truth = project(tmp_path)
    assert ruled(full, features, truth)[0].report.dropped > 0
    bare = replace(labelled, train=replace(labelled.train, examples=tuple(replace(e, gold=None) for e in labelled.train.examples)))
    found = ruled(bare, features, truth)[0].report
    assert (found.dropped, found.sensitivity, found.wrong.value) == (0, None, None)
    assert all(g.more for g in found.groups)


def test_mark_is_the_default_and_drops_nothing_whatever_the_judge_is_worth(tmp_path) -> None:
    """A perfect judge under "mark" marks all that it objects to."""
    labelled, features, truth = project(tmp_path)
    judged, _ = ruled(labelled, features, truth, may="mark", right=1.0)
    assert judged.labelled == labelled
    assert any(g.trusted for g in judged.report.groups)
    assert len(judged.report.marked) == judged.report.objected > 0


def test_rows_that_a_person_decided_or_that_were_mended_are_never_dropped(tmp_path) -> None:
    """The judge saw the teacher's label; whoever has another or a person's word keeps it."""
    labelled, features, truth = project(tmp_path)
    found = docket(labelled, labelled, features, DocketRecipe(share=1.0, most=10_000))
    answers = said(found, truth, right=1.0)
    wrong = [e.request.id for e in labelled.train.examples if e.target != truth[e.request.id]]
    kept, mended = set(wrong[:5]), set(wrong[5:10])
    examples = tuple(
        replace(e, label_from="review-fix") if e.request.id in kept
        else replace(e, label_from="mended", target=truth[e.request.id]) if e.request.id in mended else e
        for e in labelled.train.examples
    )  # fmt: skip
    after = replace(labelled, train=replace(labelled.train, examples=examples))
    judged = judge(after, found, answers, JudgeRecipe(judge="j-1", may="drop"))
    gone = {d.request.id for d in judged.labelled.dropped}
    assert gone
    assert not gone & (kept | mended)


def test_rows_picked_as_wrong_measure_nothing(tmp_path) -> None:
    """Truth of rows that were chosen because they looked wrong is no measure of a judge."""
    labelled, features, truth = project(tmp_path)
    picked = tuple(replace(e, gold_from="review-fix") for e in labelled.train.examples)
    judged, found = ruled(replace(labelled, train=replace(labelled.train, examples=picked)), features, truth)
    assert found.known == ()
    assert (judged.report.sensitivity, judged.report.dropped) == (None, 0)


def test_the_docket_is_within_its_size_blind_to_truth_and_asks_about_the_given_label(tmp_path) -> None:
    """Suspicious rows are the same whatever the truth is said to be, hold most of the wrong labels, and disputed ones lead."""
    labelled, features, truth = project(tmp_path)
    recipe = DocketRecipe(share=0.5, most=200)
    found = docket(labelled, labelled, features, recipe)
    rows = take_docket(found, TakeDocket()).train
    assert len(rows) == len({r.request.id for r in rows}) <= 200
    assert [r.request.fields[JUDGED_LABEL] for r in rows] == list(found.judged)
    lied = tuple(replace(e, gold="b") for e in labelled.train.examples)
    other = docket(labelled, replace(labelled, train=replace(labelled.train, examples=lied)), features, recipe)
    assert other.suspicious == found.suspicious
    at = {e.request.id: e for e in labelled.train.examples}
    assert all(at[i].agreement < 1.0 for i in found.suspicious)
    assert np.mean([at[i].target != truth[i] for i in found.suspicious]) > 1.8 * 0.2
    assert not {*found.known} & {*found.fresh}


def test_the_corrected_share_of_wrong_labels_holds_the_truth(tmp_path) -> None:
    """Over seeds the interval misses the true share about never, and the plain share of objections misses it often."""
    held = plain = 0
    for seed in range(30):
        labelled, features, truth = project(tmp_path, 1200, known=0.4, seed=seed)
        judged, _ = ruled(labelled, features, truth, seed=seed)
        w = judged.report.wrong
        held += w.low <= 0.2 <= w.high
        plain += w.seen.low <= 0.2 <= w.seen.high
        assert w.low <= w.value <= w.high
    assert held >= 29
    assert plain < held


def test_no_label_loses_its_last_row(tmp_path) -> None:
    """Where all rows of a label would go, they stay: a label without rows can't be learned."""
    labelled, features, truth = project(tmp_path)
    truth = {i: "a" if t == "c" else t for i, t in truth.items()}  # label "c" is never right
    examples = tuple(replace(e, gold=truth[e.request.id]) for e in labelled.train.examples)
    labelled = replace(labelled, train=replace(labelled.train, examples=examples))
    found = docket(labelled, labelled, features, DocketRecipe(share=1.0, most=10_000))
    asked = {r.request.id for r in found.prompts.train}
    assert {*found.suspicious} != asked  # so that "c" is in both groups
    left = tuple(e for e in examples if e.target != "c" or e.request.id in asked)
    after = replace(labelled, train=replace(labelled.train, examples=left))
    judged = judge(after, found, said(found, truth, right=1.0), JudgeRecipe(judge="j-1", may="drop"))
    assert judged.report.dropped > 0
    assert all(g.trusted for g in judged.report.groups)
    counts = [sum(e.target == "c" for e in rows) for rows in (left, judged.labelled.train.examples)]
    assert counts[0] == counts[1] > 0


def test_each_group_is_judged_by_itself(tmp_path) -> None:
    """A judge that is blind on suspicious rows and good on the others drops usual rows only."""
    labelled, features, truth = project(tmp_path, 1200, wrong=0.3)
    found = docket(labelled, labelled, features, DocketRecipe(share=1.0, most=10_000))
    good, bad = said(found, truth, right=0.97), said(found, truth, right=0.3)
    rows = tuple(b if a.row.request.id in found.suspicious else a for a, b in zip(good.train, bad.train, strict=True))
    judged = judge(labelled, found, replace(good, train=rows), JudgeRecipe(judge="j-1", may="drop"))
    by = {g.group: g for g in judged.report.groups}
    assert (by[SUSPICIOUS].dropped, by[SUSPICIOUS].trusted) == (0, False)
    assert by[USUAL].dropped > 20
    assert sum(g.asked for g in by.values()) == judged.report.asked
    assert by[SUSPICIOUS].asked == len(found.suspicious)
