"""Rare and critical cases across the ladder: where each breaks, and what the gate makes of it."""

from dataclasses import replace

import numpy as np
import pytest

from overproof.data import CalibrationSet, Example, Folder, Request
from overproof.evidence import Scores
from overproof.measure.intervals import figure, judge
from overproof.steps.compression import CompressionRecipe, compression, compression_answers
from overproof.task import Slice

LABELS = ("bill", "bug", "smoke")
VIP = Slice(name="vip", where=(("tier", ("vip",)),), critical=True)
PLAIN = Slice(name="plain", where=(("tier", ("plain",)),))


def rows(smoke=20, vip=30, n=400):
    """A few of "smoke", a few of a critical tier, and many of all else."""
    def one(i):
        label = "smoke" if i < smoke else LABELS[i % 2]
        return Example(request=Request(id=f"r{i}", fields={"t": "x"}, attributes={"tier": "vip" if smoke <= i < smoke + vip else "plain"}), target=label)
    return CalibrationSet(examples=tuple(one(i) for i in range(n)), labels=LABELS)


def student(root, rows, name, size, wrong, kind="student"):
    """Scores that are wrong on the rows of these numbers."""
    logits = np.zeros((len(rows.examples), 3), dtype=np.float32)
    for i, example in enumerate(rows.examples):
        logits[i, (LABELS.index(example.target) + (i in wrong)) % 3] = 5.0
    (root / name).mkdir()
    np.save(root / name / "logits.npy", logits)
    return Scores(name=name, kind=kind, folder=Folder(path=root / name), n=len(rows.examples), latency_s=0.0, latency_p95_s=0.0,
                  cost_usd_per_1000=0.0, size_bytes=size, parameters=size)  # fmt: skip


@pytest.fixture
def ladder(tmp_path):
    """Tiny loses "smoke", small loses 12 of 30 critical rows, large knows all; a baseline is no rung."""
    found = rows()
    made = (
        student(tmp_path, found, "large", 9_000, set()), student(tmp_path, found, "tiny", 10, {*range(20), *range(60, 80)}),
        student(tmp_path, found, "small", 100, set(range(20, 38))), student(tmp_path, found, "majority", 1, set(range(400)), "baseline"),
    )  # fmt: skip
    return found, made


def test_each_case_names_the_largest_student_that_breaks(ladder) -> None:
    """Critical slices first, then labels under half an even share; each rung with its figure, interval and what it loses."""
    found = compression(ladder[1], ladder[0], CompressionRecipe(slices=(PLAIN, VIP)))
    assert [(c.name, c.kind, c.n, c.breaks_at) for c in found.cases] == [("vip", "critical", 30, "small"), ("smoke", "rare", 20, "tiny")]
    vip, smoke = found.cases
    assert [(r.name, r.state) for r in vip.rungs] == [("tiny", "can't tell"), ("small", "broken"), ("large", "top")]
    assert [(r.name, r.state) for r in smoke.rungs] == [("tiny", "broken"), ("small", "can't tell"), ("large", "top")]
    worst = smoke.rungs[0]
    assert (worst.right.good, worst.right.n, worst.lost) == (0, 20, 1.0)
    assert 0.4 < worst.low < worst.lost <= worst.high
    assert found.level == pytest.approx(1 - 0.05 / 6)  # two cases, three pairs


def test_a_loss_that_few_rows_can_not_show_is_no_break(tmp_path) -> None:
    """Two of three rows lost is no evidence; with plenty of rows that nobody loses, the case is whole."""
    few, many = rows(smoke=3, vip=0), rows(smoke=0, vip=400)
    low = compression((student(tmp_path, few, "a", 1, {0, 1}), student(tmp_path, few, "b", 2, set())), few, CompressionRecipe())
    assert [(c.name, c.rungs[0].state, c.breaks_at) for c in low.cases] == [("smoke", "can't tell", "")]
    same = compression((student(tmp_path, many, "c", 1, {5}), student(tmp_path, many, "d", 2, set())), many, CompressionRecipe(slices=(VIP,)))
    assert [(c.name, c.rungs[0].state) for c in same.cases] == [("vip", "whole")]


def test_one_student_is_no_ladder(ladder) -> None:
    """Nothing to compare with, so no case."""
    assert compression(ladder[1][:1], ladder[0], CompressionRecipe(slices=(VIP,))).cases == ()


def report(world, name, **slices):
    """A chosen candidate's report with these figures as served."""
    made = world.report()
    chosen = next(c for c in made.candidates if c.name == made.chosen)
    some = chosen.slices[0]
    told = tuple(replace(some, slice=s, served_accuracy=f, served_fidelity=None) for s, f in slices.items())
    return replace(chosen, name=name, slices=told)


def test_the_gate_refuses_a_student_on_or_under_the_rung_unless_what_is_served_is_shown_right(ladder, world) -> None:
    """Broken: fail with the rung and the larger student; caught for certain: pass; a critical case that can't be told: not run."""
    found = compression(ladder[1], ladder[0], CompressionRecipe(slices=(VIP,)))
    bare = compression_answers(found, report(world, "tiny"))
    assert [a.outcome for a in bare] == ["not-run", "fail"]
    assert "rare label 'smoke': tiny alone is right on 0.0%" in bare[1].reason
    assert "breaks at tiny" in bare[1].reason
    assert "serve small" in bare[1].todo  # the smallest that keeps it
    weak = report(world, "tiny", smoke=figure(15, 15, metric="accuracy"), vip=judge(300, 300, 0.9, 0.05, metric="accuracy"))
    assert [a.outcome for a in compression_answers(found, weak)] == ["fail"]  # 15 of 15 show 78 % at least
    sure = report(world, "tiny", smoke=figure(200, 200, metric="accuracy"), vip=judge(300, 300, 0.9, 0.05, metric="accuracy"))
    (one,) = compression_answers(found, sure)
    assert (one.outcome, "caught as served: 'vip'" in one.reason, "'smoke' (100.0% right as served" in one.reason) == ("pass", True, True)
    (top,) = compression_answers(found, report(world, "large"))
    assert (top.outcome, "caught" in top.reason) == ("pass", False)
    (small,) = [a for a in compression_answers(found, report(world, "small")) if a.outcome == "fail"]
    assert "critical slice 'vip'" in small.reason
