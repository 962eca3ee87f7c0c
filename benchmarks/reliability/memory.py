"""
A gateway that the kernel's out-of-memory killer ends (SIGKILL) and whose service manager starts it again at once:
python -m benchmarks.reliability.memory [--kills 10].

How long nobody answers, until the student does again, and whether every answered row is in the log ("before_ack"). Ends with 1 where a row is
lost, or where it took longer than --within seconds (0 doesn't look: wall times mean nothing on a busy machine).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

from tests.serve.whole import TEXTS, Gateway, Teacher, project, put_at, release

from overproof.store.project_store import open_store

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_of(pid: int) -> float:
    """Seconds of processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def back(folder: Path, port: int, ids: list[str]) -> tuple[Gateway, float, float]:
    """The next gateway, once its student answers; seconds of wall time and of processor until then."""
    began, one = time.monotonic(), Gateway(folder, port=port)
    while True:
        with suppress(OSError, HTTPException):
            got = one.chat(TEXTS[len(ids) % len(TEXTS)])
            ids.append(got.id)
            if got.headers.get("x-overproof-release") == "r1":
                return one, time.monotonic() - began, cpu_of(one.process.pid)
        time.sleep(0.01)


def main() -> int:
    """Run it and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--within", type=float, default=2.0)
    given = parser.parse_args()
    teacher, ids, walls, cpus = Teacher(), [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        folder = project(Path(scratch), teacher.url, gateway='capture = "before_ack"')
        release(folder, "r1")
        put_at(folder, "r1", "full")
        one = Gateway(folder)
        for _ in range(given.kills):
            ids += [one.chat(text).id for text in TEXTS[:20]]
            one.stop(signal.SIGKILL)
            one, wall, cpu = back(folder, one.port, ids)
            walls.append(wall)
            cpus.append(cpu)
        one.stop()
        with open_store(folder) as store:
            lost = set(ids) - {row.request.id for row in store.traffic.read()}
    teacher.close()
    late = sum(wall > given.within for wall in walls) if given.within else 0
    print(json.dumps({
        "kills": given.kills, "answered": len(ids), "rows lost": len(lost), "late": late, "wrong": len(lost) + late, "median s": round(statistics.median(walls), 2),
        "longest s": round(max(walls), 2), "median CPU s": round(statistics.median(cpus), 2),
    }))  # fmt: skip
    return int(bool(lost) or late > 0)


if __name__ == "__main__":
    sys.exit(main())
