"""A short run of benchmarks/probes/hostile.py: nothing that was tampered with loads, and the last good release answers."""

import tempfile
from pathlib import Path

import pytest
from benchmarks.probes.hostile import KINDS, changed_bytes, hostile_bundles

TRAP = Path(tempfile.gettempdir()) / "overproof-hostile-was-run"


@pytest.mark.filterwarnings("ignore")
def test_hostile_bundles_are_refused_and_the_last_good_release_goes_on(tmp_path):
    """One of each kind, with a manifest that fits: each is refused in our own words, and no code of theirs runs."""
    for one in hostile_bundles(tmp_path, n=len(KINDS), seed=1).values():
        assert (one.tried, one.refused) == (1, 1), one.reasons
    assert not TRAP.exists()


def test_single_changed_bytes_are_refused(tmp_path):
    """A hundred and twenty, over all files."""
    found = changed_bytes(tmp_path, n=120, seed=2)
    assert sum(one.refused for one in found.values()) == 120
