"""Every benchmark of the gateway, one after the other: python benchmarks/gateway/run.py --data FOLDER [--litellm PYTHON] [--only NAME …]."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = ("passthrough", "student", "pool", "restarts", "memory", "canary")


def main() -> int:
    """Run them, each in a process of its own; say at the end which claims did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds banking77/")
    parser.add_argument("--litellm", default="", metavar="PYTHON", help="interpreter of an environment with litellm[proxy]")
    parser.add_argument("--infinity", default="", metavar="PYTHON", help="interpreter of an environment with infinity-emb")
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=list(SCRIPTS))
    given = parser.parse_args()
    more = {
        "passthrough": ["--litellm", given.litellm] if given.litellm else [],
        "student": ["--data", given.data / "banking77", *(["--infinity", given.infinity] if given.infinity else [])],
    }
    more["pool"] = ["--data", given.data / "banking77"]
    ended = {}
    for name in given.only:
        print(f"\n=== {name}", flush=True)
        start = time.monotonic()
        done = subprocess.run([sys.executable, HERE / f"{name}.py", *more.get(name, [])], check=False)
        ended[name] = (done.returncode, time.monotonic() - start)
    print()
    for name, (code, took_s) in ended.items():
        print(f"{'holds' if code == 0 else 'FAILS'}  {name} ({took_s:.0f} s)")
    return int(any(code for code, _ in ended.values()))


if __name__ == "__main__":
    sys.exit(main())
