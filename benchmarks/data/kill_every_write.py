"""A labelling run killed at its n-th write to a file, for every n: nothing lost, nothing doubled, every call charged.

The kernel kills: `strace` delivers SIGKILL at the n-th write system call, so no byte of ours knows about it.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from labelling import ANSWER, machine, requests, teacher, verdict

from overproof.measure.intervals import cp_interval
from overproof.store.project_store import open_store
from overproof.testing import Faults, FaultTeacher

CONCURRENCY = 4
CALLS = "pwrite64,fdatasync,fsync,ftruncate,unlink"


def work(root: Path, base_url: str, rows: int) -> None:
    """What is killed: label the rows from where an earlier process stopped."""
    queue = iter(requests(rows))
    with open_store(root) as store, store.role("run"):
        store.ledger.open_run("bench", cap_usd=1000)
        asked = teacher(store, base_url)

        async def one() -> None:
            for row in queue:
                await asked.sample(row, n=1)

        async def go() -> None:
            await asyncio.gather(*(one() for _ in range(CONCURRENCY)))
            await asked.close()

        asyncio.run(go())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--step", type=int, default=1, help="1 kills at every write")
    parser.add_argument("--most", type=int, default=10_000)
    parser.add_argument("--work", nargs=2, metavar=("ROOT", "URL"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(Path(given.work[0]), given.work[1], given.rows)
        return
    if shutil.which("strace") is None:
        sys.exit("strace is needed: it kills the process inside the write")
    began, kills, lost, doubled, over, uncharged, extra = time.perf_counter(), 0, 0, 0, 0, 0, []
    for n in range(given.first, given.most, given.step):
        with tempfile.TemporaryDirectory() as name, FaultTeacher(ANSWER, faults=Faults(latency_s=0.01)) as server:
            # strace counts each thread's writes by themselves: a store that is made already keeps the first thread's
            # few, so that from then on it is the labelling thread that dies.
            work(Path(name), server.base_url, 0)
            again = [sys.executable, __file__, "--rows", str(given.rows), "--work", name, server.base_url]
            kill = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={CALLS}", "-e", f"inject={CALLS}:signal=KILL:when={n}"]
            code = subprocess.run([*kill, *again], capture_output=True, check=False).returncode
            if code == 0:
                break  # fewer than n writes: every one has had its turn
            kills += 1
            work(Path(name), server.base_url, given.rows)
            with open_store(Path(name)) as store:
                counts = store.ledger.counts()
            billed = server.stats.billed
            lost += given.rows - counts.labels if counts.labels < given.rows else 0
            doubled += max(0, counts.labels - given.rows)
            extra.append(billed - counts.labels)
            over += billed - counts.labels > CONCURRENCY
            uncharged += sum(counts.attempts.values()) < billed or counts.held_usd != 0
    print(f"kills {kills}, one at each of {CALLS}, step {given.step}; rows {given.rows} each; calls in flight at most {CONCURRENCY}")
    print(f"labels lost {lost}, doubled {doubled}; extra billed calls: mean {sum(extra) / max(1, len(extra)):.2f}, most {max(extra, default=0)}")
    bound = cp_interval(int(lost + doubled > 0), kills).high if kills else 1.0
    print(f"a kill that loses or doubles anything: at most {bound:.2%} of kills at 97.5 % (Clopper-Pearson, n = {kills})")
    print(f"{time.perf_counter() - began:.0f} s; {machine()}")
    verdict(
        {
            "there were kills": kills > 0,
            "0 labels lost": lost == 0,
            "0 labels doubled": doubled == 0,
            "extra billed calls never exceed the calls in flight": over == 0,
            "the ledger holds a charged attempt for each billed call": uncharged == 0,
        }
    )


if __name__ == "__main__":
    main()
