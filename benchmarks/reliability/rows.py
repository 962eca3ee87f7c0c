"""
What a captured row costs in the store, on SQLite and on Postgres: seconds, bytes; with one and with three writers.

python benchmarks/reliability/rows.py --rows 20000 --chars 400

Rows are written as a gateway's writer does it: 500 in a commit, durable on return (Postgres with fsync off: the tests' own server, so the
rate there has no disk in it).
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.postgres import running

from overproof.data import Completion, Request, TrafficRecord
from overproof.store.captured import Kept
from overproof.store.place import Remote, put_remote
from overproof.store.project_store import open_store

DSN, GROUP = "OVERPROOF_BENCH_DSN", 500


def rows(n: int, chars: int, who: int) -> list[Kept]:
    """Rows of one text field."""
    found = []
    for i in range(n):
        words = f"{who}-{i} " + "where is my order, it should have come on monday " * (chars // 50)
        asked = Request(id=f"req_{who}_{i:08d}", fields={"text": words[:chars]}, at="2026-01-01T00:00:00Z")
        said = Completion(text="delivery", value="delivery", model="big", tokens_in=chars // 4, tokens_out=1, latency_s=0.4, cost_usd=1e-5)
        found.append(Kept(row=TrafficRecord(request=asked, completion=said), task="routing", slice="other"))
    return found


def written(root: Path, given: list[list[Kept]]) -> float:
    """Seconds that so many writers take together, each with a store of its own as in a process of its own."""
    stores = [open_store(root) for _ in given]
    logs = [one.captured for one in stores]

    def write(at: int) -> None:
        for start in range(0, len(given[at]), GROUP):
            logs[at].commit(given[at][start : start + GROUP], {})

    threads = [threading.Thread(target=write, args=(at,)) for at in range(len(given))]
    began = time.perf_counter()
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    took = time.perf_counter() - began
    for store in stores:
        store.close()
    return took


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--chars", type=int, default=400)
    given = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {given.rows:,} rows of {given.chars} characters")
    print("| engine | writers | rows/s | bytes a row |")
    print("|---|---|---|---|")
    with running() as server, tempfile.TemporaryDirectory() as scratch:
        import psycopg

        os.environ[DSN] = server.dsn
        for engine in ("SQLite", "Postgres"):
            for writers in (1, 3):
                root = Path(scratch) / f"{engine}{writers}"
                (root / ".overproof").mkdir(parents=True)
                if engine == "Postgres":
                    put_remote(root / ".overproof", Remote(dsn_env=DSN, schema=f"rows{writers}"))
                took = written(root, [rows(given.rows // writers, given.chars, who) for who in range(writers)])
                with open_store(root) as store:
                    n = store.captured.health().captured
                if engine == "Postgres":
                    with psycopg.connect(server.dsn) as line:
                        query = "SELECT sum(pg_total_relation_size(quote_ident(schemaname) || '.' || quote_ident(tablename))) FROM pg_tables WHERE schemaname = %s"
                        size = int(line.execute(query, (f"rows{writers}_traffic",)).fetchone()[0])  # type: ignore[index]
                else:
                    size = sum(path.stat().st_size for path in (root / ".overproof").glob("traffic.db*"))
                print(f"| {engine} | {writers} | {n / took:,.0f} | {size / n:,.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
