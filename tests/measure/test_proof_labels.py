"""The claims on labels, judges, suspicion and scope hold in a short run, and the usual methods are seen to fail."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # the simulations live beside the package, not in it

from benchmarks.proof import labels as proof

PARTS = {
    "samples": (proof.sample_rows, 40, 2),
    "judges": (proof.judge_rows, 40, 2),
    "noisy judge": (proof.noisy_judge_rows, 300, 1),
    "suspicion": (proof.suspicion_rows, 40, 3),
    "scope": (proof.scope_rows, 20, 1),
    "flips": (proof.flip_rows, 100, 1),
}


@pytest.mark.parametrize("part", PARTS)
def test_each_claim_holds_and_its_naive_method_does_not(part):
    """`holds` covers both; a harness in which the naive method looks good is no proof."""
    run, trials, count = PARTS[part]
    found = run(trials, 7)
    assert len(found) == count
    for row in found:
        assert row.holds, f"{row.claim}: {row.measured}, naive {row.naive}"
        assert row.n_trials == trials
