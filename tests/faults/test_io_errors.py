"""The disk answers EIO to the n-th fsync of a real process: nothing is acknowledged on it, and what was before is there."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.reliability import power

STEP = int(os.environ.get("OVERPROOF_EIO_STEP", "3"))
CALLS = "fdatasync,fsync"
pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace makes the system call fail")


def failing(root: Path, n: int, *, error: str, calls: str) -> tuple[int, list[str]]:
    """The recorded work of the power cuts, with an error in one system call; its exit code and what it acknowledged."""
    work = [sys.executable, str(Path(power.__file__)), "--work", str(root), "--seed", "5"]
    inject = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={calls}:error={error}:when={n}"]
    done = subprocess.run([*inject, *work], check=False, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    return done.returncode, [line for line in done.stdout.splitlines() if json.loads(line)]


@pytest.mark.parametrize("points", [(5, 40), pytest.param(tuple(range(1, 200, STEP)), marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_a_failed_fsync_acknowledges_nothing_and_loses_nothing(tmp_path, points):
    """The process stops with the error instead of trying again, and the next one finds everything that was acknowledged."""
    failed = 0
    for n in points:
        root = tmp_path / str(n)
        root.mkdir()
        code, said = failing(root, n, error="EIO", calls=CALLS)
        failed += code != 0
        assert power.after(root, said) == {}, f"fsync {n}"
    print(f"{failed} of {len(points)} runs stopped at the error")
    assert failed > 0
