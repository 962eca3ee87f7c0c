"""The demo's loop walked once for all tests of a session, small: a project with runs, releases, served traffic and a watch."""

import fcntl
import json
import os
import shutil
from pathlib import Path

from overproof.cli.door import Door
from overproof.cli.loop import Pace, loop

SMALL = {  # fewer signals, passes and terms: less time, and less that can be shown, so that the owner's margins are wider
    "max_terms = 4000": "max_terms = 500", "\nmargin = 0.12": "\nmargin = 0.25", "challenger_margin = 0.08": "challenger_margin = 0.25",
    "challenger_slice_margin = 0.25": "challenger_slice_margin = 0.40", 'canaries = "7d"': 'canaries = "off"',
    "[watch]\n": '[watch]\ndrift = ["shares", "vocabulary"]\n',
}  # fmt: skip
READY = "OVERPROOF_NORTHLANE"
"""Names a folder in which an earlier session walked: saves a minute while one works on pages."""


def walked(tmp_path_factory):
    """The folder of the walk, which nobody may change, and the exit code; whichever process comes first walks."""
    ready = os.environ.get(READY)
    base = Path(ready) if ready else tmp_path_factory.getbasetemp().parent / "northlane"
    base.mkdir(parents=True, exist_ok=True)
    folder, code = base / "inbox", base / "code.json"
    with (base / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not code.exists():
            shutil.rmtree(folder, ignore_errors=True)
            door = Door(project=Path(), overrides=(), as_json=True, debug=True)
            code.write_text(json.dumps(loop(door, folder, pace=Pace(later=600, enough=350, nights=12, files=SMALL))))
    return folder, json.loads(code.read_text())


def copied(folder, to):
    """A copy that a test may change."""
    shutil.copytree(folder, to, symlinks=True)
    return to
