"""Short runs of the proofs of monitors and drift: each promise is kept, and each naive method is seen to fail."""

import numpy as np
import pytest
from benchmarks.proof import drift, monitors

CASES = [
    (monitors.peeking, 200),
    (monitors.wrong_first, 60),
    (monitors.weighted, 200),
    (monitors.canary, 200),
    (monitors.delay, 100),
    (monitors.charts, 100),
    (monitors.shards, 1_000_000),
    (drift.quiet_quarter, 20),
    (drift.quiet_year, 100),
    (drift.index_bias, 1000),
    (drift.sketches, 40),
    (drift.whole_quarter, 10),
]


@pytest.mark.parametrize(("claim", "trials"), CASES)
def test_each_claim_about_monitors_and_drift_holds(claim, trials):
    """`holds` asks both: our figure within its promise, and the naive one far outside of it."""
    found = claim(trials, np.random.default_rng(1))
    for row in found if isinstance(found, list) else [found]:
        assert row.holds, row


def test_a_sketch_of_many_rows_adds_over_uneven_shards():
    """The claim at scale, on fewer rows; its time is for the benchmark to judge."""
    row = drift.at_scale(20_000, np.random.default_rng(1), d=64)
    assert "rows equal" in row.measured
    assert float(row.measured.split("state to ")[1].split()[0]) <= 1e-9
