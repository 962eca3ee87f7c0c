"""Every benchmark of the students, one after the other: python benchmarks/students/run.py --data FOLDER [--only NAME …]."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ALL, BANKING, INVOICES = ".", "banking77", "invoices"
SCRIPTS = {
    "banking77": (BANKING, []),
    "training_time": (BANKING, []),
    "latency": (BANKING, []),
    "serving_install": (BANKING, []),
    "sizing": (BANKING, []),
    "invoices": (INVOICES, []),
    "causal": (INVOICES, ["--rows", "60", "--test", "30"]),
    "baselines": (ALL, []),
    "normaliser": (ALL, []),
    "scope": (ALL, []),
}


def main() -> int:
    """Run them, each in a process of its own; say at the end which claims did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds banking77/, inbox/ and invoices/")
    parser.add_argument("--only", nargs="+", choices=sorted(SCRIPTS), default=list(SCRIPTS))
    args = parser.parse_args()
    ended = {}
    for name in args.only:
        folder, more = SCRIPTS[name]
        print(f"\n=== {' '.join([name, *more])}", flush=True)
        start = time.monotonic()
        done = subprocess.run([sys.executable, HERE / f"{name}.py", "--data", args.data / folder, *more], check=False)
        ended[name] = (done.returncode, time.monotonic() - start)
    print()
    for name, (code, took_s) in ended.items():
        print(f"{'holds' if code == 0 else 'FAILS'}  {name} ({took_s:.0f} s)")
    return int(any(code for code, _ in ended.values()))


if __name__ == "__main__":
    sys.exit(main())
