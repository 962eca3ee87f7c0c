"""A short run of benchmarks/probes/hostile.py: nothing that was tampered with loads, and the last good release answers."""

import tempfile
from pathlib import Path

import pytest
from benchmarks.probes.hostile import KINDS, changed_bytes, hostile_bundles

TRAP = Path(tempfile.gettempdir()) / "overproof-hostile-was-run"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow  # a minute, most of it for bundles that are too large
@pytest.mark.parametrize("n", [3 * len(KINDS)])
def test_hostile_bundles_are_refused_and_the_last_good_release_goes_on(tmp_path, n):
    """One of each kind in turn, with a manifest that fits: each is refused in our own words, and no code of theirs runs."""
    found = hostile_bundles(tmp_path, n=n, seed=1).values()
    for one in found:
        assert one.refused == one.tried, one.reasons
    assert sum(one.tried for one in found) == n
    assert not TRAP.exists()


def test_single_changed_bytes_are_refused(tmp_path):
    """A hundred and twenty, over all files."""
    found = changed_bytes(tmp_path, n=120, seed=2)
    assert sum(one.refused for one in found.values()) == 120
