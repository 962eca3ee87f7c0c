"""
Postgres restarted and connections ended at random moments while a project runs on it: python -m benchmarks.reliability.postgres [--runs 20].

`overproof run` is called again until it ends, under a server that is stopped as by a crash and started again, and whose sessions are ended
one by one; each call has to end well, or with one clear error and exit code 4. At the end the labels, the books and every digest that two
undisturbed runs share must be those of an undisturbed run. Then a gateway is called under the same: every request must be in the log, or
counted as dropped, once. Needs a Postgres server's programs on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.flows.conftest import WORDS, make_project, rows
from tests.postgres import running
from tests.serve.whole import TEXTS, Gateway, Teacher, project, put_at, release

from overproof.data import ALL
from overproof.runs import runs_of
from overproof.store.place import Remote, put_remote
from overproof.store.project_store import HOME, open_store
from overproof.testing import Faults, FaultTeacher

DSN, MODEL = "OVERPROOF_BENCH_DSN", "big-teacher-2026-01-01"
OUTSIDE = 4
CALLS = 40


def read(text: str) -> str:
    """The truth, by the words' stems."""
    message = text.rsplit("\n\n", 1)[-1]
    return max(WORDS, key=lambda label: sum(message.count(stem) for stem in WORDS[label]))


def made(folder: Path, schema: str, n: int, port: int) -> Path:
    """A project on the server, its teacher on loopback."""
    (folder / HOME).mkdir(parents=True)
    put_remote(folder / HOME, Remote(dsn_env=DSN, schema=schema))
    make_project(folder, rows(n))
    address = f'base_url = "http://127.0.0.1:{port}/v1"'
    file, terms = folder / "overproof.toml", folder / "terms.toml"
    prices = "budget_usd = 10.0\nprice_in_usd_per_million = 1.0\nprice_out_usd_per_million = 4.0\nrepeat = 0\n[teacher.options]\nallow_private = true"
    text = file.read_text(encoding="utf-8").replace("recorded-teacher-2026-01-01", MODEL)
    text = text.replace('use = "recorded.v1"', f'use = "openai.v1"\n{address}').replace('terms = "terms.toml"', f'terms = "terms.toml"\n{prices}')
    file.write_text(text, encoding="utf-8")
    terms.write_text(terms.read_text(encoding="utf-8").replace("recorded-teacher-2026-01-01", MODEL).replace('base_url = ""', address), encoding="utf-8")
    return folder


class Disturber(threading.Thread):
    """Stops the server as a crash does, or ends sessions, at moments that the seed gives."""

    def __init__(self, server: Any, seed: int, *, mean_s: float, restarts: float = 0.5) -> None:
        super().__init__(daemon=True)
        self.server, self.rng, self.mean_s, self.restarts = server, random.Random(seed), mean_s, restarts
        self.ended, self.seen = threading.Event(), Counter[str]()

    def run(self) -> None:
        """Until told to end; the server runs then."""
        while not self.ended.wait(self.rng.expovariate(1 / self.mean_s)):
            if self.rng.random() < self.restarts:
                self.server.stop("immediate")
                time.sleep(self.rng.choice((0.0, 0.0, 0.5, 2.0)))
                self.server.start()
                self.seen["restarts"] += 1
            else:
                self.seen["sessions ended"] += self.end_sessions()

    def end_sessions(self) -> int:
        """Each session with one chance in two; how many."""
        import psycopg

        with suppress(psycopg.OperationalError), psycopg.connect(self.server.dsn, autocommit=True) as connection:
            pids = [pid for (pid,) in connection.execute("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'overproof%' ORDER BY pid")]
            gone = [pid for pid in pids if self.rng.random() < 0.5]
            for pid in gone:
                connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
            return len(gone)
        return 0


@contextmanager
def disturbed(server: Any, seed: int, *, mean_s: float) -> Iterator[Disturber]:
    """The block runs under a server that comes and goes."""
    one = Disturber(server, seed, mean_s=mean_s)
    one.start()
    try:
        yield one
    finally:
        one.ended.set()
        one.join(120)


def state_of(folder: Path) -> dict[str, Any]:
    """What a run came to: digests, labels and books."""
    with open_store(folder) as store:
        ledger = store.ledger
        return {
            "digests": {"log": store.traffic.snapshot_digest(), **runs_of(store)[-1].digests},
            "labels": [key for (key,) in ledger.rows("SELECT key FROM label ORDER BY key")],
            "attempts": dict(ledger.rows("SELECT state, count(*) FROM attempt GROUP BY state ORDER BY state")),
            "held": sum(held for (held,) in ledger.rows("SELECT held_micro FROM budget")),
            "spent": sum(spent for (spent,) in ledger.rows("SELECT spent_micro FROM budget")),
            "cost": sum(cost or 0 for (cost,) in ledger.rows("SELECT cost_micro FROM attempt")),
        }


def run_until_done(folder: Path, seen: Counter[str], faults: list[str]) -> bool:
    """Call `overproof run` until it ends."""
    for _ in range(CALLS):
        done = subprocess.run([sys.executable, "-m", "overproof.cli", "run", "--project", str(folder)], capture_output=True, text=True, check=False)
        seen["calls"] += 1
        if done.returncode in (0, 1):
            return True
        seen["stopped"] += 1
        if done.returncode != OUTSIDE or "Traceback" in done.stderr or "next:" not in done.stderr:
            faults.append(f"exit {done.returncode}: {done.stderr[-400:]}")
            return False
    faults.append(f"no end within {CALLS} calls")
    return False


def differences(state: dict[str, Any], calm: dict[str, Any], common: set[str], wire: int) -> list[str]:
    """What a disturbed run has otherwise than an undisturbed one."""
    found = [f"digest of {name}" for name in sorted(common) if state["digests"].get(name) != calm["digests"][name]]
    lost = state["attempts"].get("lost", 0)
    found += ["labels lost or others bought"] if state["labels"] != calm["labels"] else []
    found += [f"{wire} wire calls for {len(calm['labels'])} labels and {lost} calls in flight"] if wire > len(calm["labels"]) + lost else []
    found += ["the books don't show the calls"] if state["held"] or state["spent"] < state["cost"] or sum(state["attempts"].values()) < wire else []
    return found


def runs(server: Any, root: Path, *, count: int, first: int, n: int, mean_s: float) -> dict[str, Any]:
    """Disturbed runs against two that were not."""
    seen, faults = Counter[str](), []
    with FaultTeacher(read, model=MODEL, faults=Faults(latency_s=0.02)) as teacher:
        calm = []
        for name in ("calm1", "calm2"):
            folder = made(root / name / "easy", name, n, teacher.port)
            if not run_until_done(folder, Counter(), faults):
                return {"faults": faults}
            calm.append(state_of(folder))
        common = {name for name, digest in calm[0]["digests"].items() if calm[1]["digests"].get(name) == digest}
        for seed in range(first, first + count):
            folder, before = made(root / f"s{seed}" / "easy", f"s{seed}", n, teacher.port), teacher.stats.wire
            with disturbed(server, seed, mean_s=mean_s) as disturber:
                ended = run_until_done(folder, seen, faults)
            seen.update(disturber.seen)
            wire = teacher.stats.wire - before
            seen["wire calls"] += wire
            if ended:
                state = state_of(folder)
                seen.update({"labels": len(state["labels"]), "calls lost in flight": state["attempts"].get("lost", 0)})
                faults += [f"seed {seed}: {text}" for text in differences(state, calm[0], common, wire)]
            print(f"seed {seed}: {dict(seen)}", file=sys.stderr, flush=True)
    return {"faults": faults, "digests": len(common), **seen}


def gateway(server: Any, root: Path, *, seconds: float, seed: int, mean_s: float) -> dict[str, Any]:
    """One gateway under load whose server comes and goes: rows and counts of all requests, once."""
    teacher, ids, faults = Teacher(), [], []
    folder = project(root / "gate", teacher.url)
    (folder / HOME).mkdir()
    put_remote(folder / HOME, Remote(dsn_env=DSN, schema="gate"))
    release(folder, "r1")
    put_at(folder, "r1", "full")
    one, end = Gateway(folder), time.monotonic() + seconds
    with disturbed(server, seed, mean_s=mean_s) as disturber:
        while time.monotonic() < end:
            got = one.chat(TEXTS[len(ids) % len(TEXTS)])
            ids.append(got.id)
            if got.status != 200:
                faults.append(f"gateway: status {got.status}")
    code = one.stop()
    teacher.close()
    with open_store(folder) as store:
        logged, health = [row.request.id for row in store.traffic.read()], store.captured.health()
        counted = sum(part.requests for part in store.rollouts.counts(store.rollouts.current("routing").epoch).get(ALL, ()))
    faults += [] if code == 0 else [f"gateway: exit {code}"]
    faults += [] if sorted(logged) == sorted(ids) else [f"gateway: {len(logged)} rows of {len(ids)} requests"]
    faults += [] if (health.captured, health.dropped) == (len(ids), 0) else [f"gateway: {health.line}"]
    faults += [] if counted == len(ids) else [f"gateway: {counted} counted of {len(ids)} requests"]
    return {"faults": faults, "requests": len(ids), "gateway's restarts": disturber.seen["restarts"], "gateway's sessions ended": disturber.seen["sessions ended"]}


def main() -> int:
    """Run both and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--mean", type=float, default=3.0, help="seconds between two disturbances, on average")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the gateway")
    given = parser.parse_args()
    with running() as server, tempfile.TemporaryDirectory() as scratch:
        os.environ[DSN] = server.dsn
        found = runs(server, Path(scratch), count=given.runs, first=given.first, n=given.rows, mean_s=given.mean) if given.runs else {"faults": []}
        gate = gateway(server, Path(scratch), seconds=given.seconds, seed=given.first, mean_s=given.mean) if given.seconds else {"faults": []}
    faults = found.pop("faults") + gate.pop("faults")
    for text in faults:
        print(text, file=sys.stderr)
    print(json.dumps({"runs": given.runs + bool(given.seconds), "seed": given.first, **found, **gate, "wrong": len(faults)}))
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
