"""Small faults put into gate, ledger, router and certificates are seen by the tests of these modules."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("module", ["gate", "ledger", "router", "certify"])
def test_at_least_85_percent_of_all_faults_are_seen(module, capfd) -> None:
    """Every fault that mutmut writes is tried, and the table with the score is printed; `make mutation` names what nobody saw."""
    with capfd.disabled():
        done = subprocess.run([sys.executable, "-m", "benchmarks.mutation.run", "--only", module], cwd=ROOT, check=False)
    assert done.returncode == 0
