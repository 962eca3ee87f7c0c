"""What loading a fitted folder takes, measured in a process of its own: `python -m overproof.students.weigh USE FOLDER`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

LIMIT_S = 120.0
# Fourteen words that an English vocabulary has whole, and two marks: 16 tokens.
MESSAGE = "please tell me when my new card will come to my home in town"


@dataclass(frozen=True, kw_only=True, slots=True)
class Weight:
    """What a server has to have."""

    load_s: float
    """Seconds from files to the first answer, libraries included."""
    peak_bytes: int
    """Most memory of the whole process, Python included."""


def weigh(use: str, folder: Path) -> Weight | None:
    """
    Load a student in a fresh process and let it answer once.

    Args:
        use: its part name.
        folder: its files.

    Returns: what it took; None where the process failed or took over two minutes.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "overproof.students.weigh", use, str(folder)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=LIMIT_S)
        return Weight(**json.loads(done.stdout))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError):
        return None


def _peak_bytes() -> int:
    try:  # Linux hands the parent's peak down in getrusage; this one starts anew with the program
        text = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(text.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _measure(use: str, folder: Path) -> Weight:
    start = time.perf_counter()
    from overproof.data import Request
    from overproof.registry import resolve

    resolve("students", use).load(folder).logits([Request(id="", fields={"text": MESSAGE})])
    took = time.perf_counter() - start
    return Weight(load_s=took, peak_bytes=_peak_bytes())


if __name__ == "__main__":
    _found = _measure(sys.argv[1], Path(sys.argv[2]))
    print(json.dumps({"load_s": _found.load_s, "peak_bytes": _found.peak_bytes}))
