"""Every benchmark of the road to a label, one after the other: python benchmarks/data/run.py --data FOLDER [--only NAME …]."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
BANKING, INVOICES = "banking77", "invoices"
SCRIPTS = {
    "review": ["--data", BANKING],
    "filter_ablation": ["--data", BANKING],
    "grounding": ["--data", INVOICES],
    "pii": ["--flips", "--data", BANKING],
    "leaks": [],
    "scale": [],
    "import_scale": [],
    "faults": [],
    "limiter": [],
    "kill_every_write": ["--rows", "3"],
}


def main() -> int:
    """Run them, each in a process of its own; say at the end which claims did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help=f"folder that holds {BANKING}/ and {INVOICES}/")
    parser.add_argument("--only", nargs="+", choices=sorted(SCRIPTS), default=list(SCRIPTS))
    args = parser.parse_args()
    ended = {}
    for name in args.only:
        given = [str(args.data / one) if one in (BANKING, INVOICES) else one for one in SCRIPTS[name]]
        print(f"\n=== {name} {' '.join(SCRIPTS[name])}", flush=True)
        start = time.monotonic()
        done = subprocess.run([sys.executable, HERE / f"{name}.py", *given], check=False)
        ended[name] = (done.returncode, time.monotonic() - start)
    print()
    for name, (code, took_s) in ended.items():
        print(f"{'holds' if code == 0 else 'FAILS'}  {name} ({took_s:.0f} s)")
    return int(any(code for code, _ in ended.values()))


if __name__ == "__main__":
    sys.exit(main())
