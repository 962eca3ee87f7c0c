"""Folders that are whole or not there."""

import os
import signal
import subprocess
import sys

import pytest

from overproof.whole import whole_folder

FILLS = """
import sys, time
from pathlib import Path
from overproof.whole import whole_folder
with whole_folder(Path(sys.argv[1])) as part:
    (part / "a").write_text("half")
    print("at it", flush=True)
    time.sleep(60)
"""


def at_it(to):
    child = subprocess.Popen([sys.executable, "-c", FILLS, to], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "at it\n"
    return child


def test_what_a_kill_left_goes_with_the_next_call_and_what_somebody_still_fills_stays(tmp_path):
    """A restore that was killed would leave a whole log beside its target, where no erasure looks."""
    to = tmp_path / "out"
    killed = at_it(to)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    busy = at_it(to)
    try:
        assert len(list(tmp_path.iterdir())) == 1  # the killed one's is gone already
        with whole_folder(to) as part:
            (part / "a").write_text("whole")
        assert (to / "a").read_text() == "whole"
        assert len(list(tmp_path.iterdir())) == 2
    finally:
        busy.kill()
        busy.wait()
        busy.stdout.close()
        killed.stdout.close()


def test_an_error_leaves_nothing_and_nothing_is_overwritten(tmp_path):
    """Neither after a failure in the block, nor where somebody was there first."""
    to = tmp_path / "out"
    with pytest.raises(ValueError, match="no"), whole_folder(to) as part:
        raise ValueError("no")
    assert list(tmp_path.iterdir()) == []
    (to / "theirs").mkdir(parents=True)
    with pytest.raises(OSError, match="not empty"), whole_folder(to) as part:
        (part / "a").write_text("ours")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "theirs"]
