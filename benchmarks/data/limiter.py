"""An account of 600 requests a minute: the share that is used, and the refusals that it costs."""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from labelling import LABELS, machine, requests, teacher, verdict

from overproof.store.project_store import open_store

LEAST_USED = 0.98
MOST_REFUSED = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-minute", type=int, default=600)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--concurrency", type=int, default=16)
    given = parser.parse_args()
    server = subprocess.Popen(
        [sys.executable, "-m", "overproof.testing_batch", "--labels", ",".join(LABELS),
         "--requests-per-minute", str(given.per_minute)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        base_url = json.loads(server.stdout.readline())["base_url"]
        took = label(base_url, given)
        with urllib.request.urlopen(base_url.removesuffix("/v1") + "/stats", timeout=10) as reply:
            fates = json.load(reply)["fates"]
    finally:
        server.terminate()
        server.wait()
    answered, refused = fates.get("ok", 0), fates.get("429", 0)
    used = answered / (given.per_minute * took / 60)
    print(f"allowed {given.per_minute} a minute, said in headers only; {answered} answered in {took:.1f} s, {refused} refused")
    print(f"share used: {used:.2%} (a bucket that holds a second's worth; one run, n = {answered} requests)")
    print(machine())
    verdict(
        {
            f"at least {LEAST_USED:.0%} of the allowed rate is used": used >= LEAST_USED,
            f"at most {MOST_REFUSED:.0%} of the requests are refused": refused <= MOST_REFUSED * (answered + refused),
        }
    )


def label(base_url: str, given: argparse.Namespace) -> float:
    """Seconds from the first question to the last answer; the first calls learn the limit and count."""
    rows = iter(requests(int(given.per_minute * given.seconds / 60)))
    with tempfile.TemporaryDirectory() as root, open_store(Path(root)) as store, store.role("run"):
        store.ledger.open_run("bench", cap_usd=1000)
        asked = teacher(store, base_url)

        async def work() -> None:
            for row in rows:
                await asked.sample(row, n=1)

        async def go() -> float:
            began = time.perf_counter()
            await asyncio.gather(*(work() for _ in range(given.concurrency)))
            took = time.perf_counter() - began
            await asked.close()
            return took

        return asyncio.run(go())


if __name__ == "__main__":
    main()
