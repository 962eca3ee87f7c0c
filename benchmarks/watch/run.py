"""Every benchmark of the watch, one after the other: python -m benchmarks.watch.run --data FOLDER [--runs N] [--only NAME …]."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECORDED = ("false_alarms", "delay", "slice", "spend")
OTHERS = tuple(name for name in ("drift", "teacher", "refresh") if (Path(__file__).parent / f"{name}.py").exists())
SCRIPTS = (*RECORDED, *OTHERS)


def main() -> int:
    """Run them, each in a process of its own; say at the end which claims did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds banking77/ and inbox/")
    parser.add_argument("--runs", type=int, help="of each simulation, for a glance")
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=list(SCRIPTS))
    given = parser.parse_args()
    ended = {}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    with tempfile.TemporaryDirectory() as folder:
        for name in given.only:
            print(f"\n=== {name}", flush=True)
            start = time.monotonic()
            more = ["--recorded", str(Path(folder) / "answers.npz")] if name in RECORDED else []
            more += ["--runs", str(given.runs)] if given.runs and name in RECORDED else []
            command = [sys.executable, "-m", f"benchmarks.watch.{name}", "--data", str(given.data.absolute()), *more]
            done = subprocess.run(command, check=False, env=environment)
            ended[name] = (done.returncode, time.monotonic() - start)
    print()
    for name, (code, took_s) in ended.items():
        print(f"{'holds' if code == 0 else 'FAILS'}  {name} ({took_s:.0f} s)")
    return int(any(code for code, _ in ended.values()))


if __name__ == "__main__":
    sys.exit(main())
