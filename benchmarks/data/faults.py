"""A teacher that fails on a tenth of the requests: wire requests per useful label, and bad labels accepted."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from labelling import ANSWER, machine, requests, teacher, verdict

from overproof.measure.intervals import cp_interval
from overproof.store.project_store import open_store
from overproof.testing import Faults, FaultTeacher

RATES = {"429": 0.02, "500": 0.02, "hang": 0.02, "cut": 0.02, "bad_json": 0.01, "wrong_label": 0.01}
MOST_WIRE = 1.15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--timeout-s", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rows = requests(given.rows)
    began = time.perf_counter()
    faults = Faults(rates=RATES, seed=given.seed, retry_after_s=0.05)
    with tempfile.TemporaryDirectory() as root, FaultTeacher(ANSWER, faults=faults) as server, open_store(Path(root)) as store:
        with store.role("run"):
            store.ledger.open_run("bench", cap_usd=1000)
            asked = teacher(store, server.base_url, timeout_s=given.timeout_s)
            queue = iter(rows)
            labels = {}

            async def work() -> None:
                for row in queue:
                    labels[row.id] = (await asked.sample(row, n=1))[0].value

            async def go() -> None:
                await asyncio.gather(*(work() for _ in range(given.concurrency)))
                await asked.close()

            asyncio.run(go())
        stats, counts = server.stats, store.ledger.counts()
    useful = sum(value is not None for value in labels.values())
    bad = sum(labels[row.id] not in (None, ANSWER(row.text)) for row in rows)
    share = cp_interval(stats.wire - stats.fates.get("ok", 0), stats.wire)
    print(f"rows {given.rows}, labels {useful}, wire requests {stats.wire}, faults {dict(sorted(stats.fates.items()))}")
    print(f"faults drawn: {share.low:.2%} to {share.high:.2%} of the wire requests (95 %, Clopper-Pearson, n = {stats.wire})")
    print(f"wire requests per useful label: {stats.wire / useful:.4f} (floor at 10 % faults 1.111)")
    upper = cp_interval(bad, useful).high
    print(f"bad labels accepted: {bad} of {useful} (at most {upper:.3%} at 97.5 %)")
    print(f"ledger: {counts}")
    print(f"{time.perf_counter() - began:.0f} s; {machine()}")
    verdict(
        {
            f"at most {MOST_WIRE} wire requests per useful label": stats.wire / useful <= MOST_WIRE,
            "no bad label accepted": bad == 0,
            "every row has a label": useful == given.rows == counts.labels,
        }
    )


if __name__ == "__main__":
    main()
