"""Files and folders that are whole or not there."""

import os
import signal
import subprocess
import sys

import pytest

from overproof.whole import whole_folder, write_whole

FILLS = """
import sys, time
from pathlib import Path
from overproof.whole import whole_folder, write_whole
with whole_folder(Path(sys.argv[1])) as part:
    (part / "a").write_text("half")
    print("at it", flush=True)
    time.sleep(60)
"""

WRITES = """
import sys
from pathlib import Path
from overproof.whole import write_whole
folder, mine = Path(sys.argv[1]), sys.argv[2]
input()
for at in range(300):
    write_whole(folder / "a", mine * (1 + at) * 100)
"""

MAKES = """
import sys
from pathlib import Path
from overproof.whole import whole_folder
folder = Path(sys.argv[1])
input()
for at in range(200):
    try:
        with whole_folder(folder / "out") as part:
            (part / "a").write_text("whole")
            raise KeyError("only this one")
    except KeyError:
        pass
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


@pytest.mark.parametrize("code", [WRITES, MAKES], ids=["file", "folder"])
def test_several_at_once_each_write_whole(tmp_path, code):
    """None takes another's half-written file or folder for one that a kill left, or finds its own gone."""
    children = [subprocess.Popen([sys.executable, "-c", code, tmp_path, mine], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for mine in "abcd"]
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    while any(child.poll() is None for child in children):
        if (tmp_path / "a").exists():
            text = (tmp_path / "a").read_text()
            assert text == text[:1] * len(text)
            assert text
    assert [child.communicate()[1] for child in children] == [""] * 4
    assert [one.name for one in tmp_path.iterdir()] == (["a"] if code == WRITES else [])


def test_the_next_call_takes_what_a_killed_one_left(tmp_path):
    """A half-written file stands beside its name and under no other; a link in its place is not followed."""
    (tmp_path / ".a.part").write_text("half of something longer")
    write_whole(tmp_path / "a", "whole")
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {"a": "whole"}
    (tmp_path / ".a.part").symlink_to(tmp_path / "b")
    with pytest.raises(OSError, match="symbolic links"):
        write_whole(tmp_path / "a", "other")
    assert not (tmp_path / "b").exists()
