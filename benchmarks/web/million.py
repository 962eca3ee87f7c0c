"""
Every page over a store of a million rows, in real HTTP calls: python -m benchmarks.web.million [--rows N] [--project WALKED] [--keep FOLDER].

The project is the demo's loop, walked once: runs, releases, a rollout, audits, alarms. Its log is then filled with rows as the gateway
keeps them. Every page of the table has to come within its goal and its weight; it ends non-zero where one doesn't.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from urllib.parse import quote

from overproof.data import Audit, TrafficRecord, Turn
from overproof.store.project_store import Store, open_store
from overproof.web.table import VIEWS

GOAL_S, OVERVIEW_S, WEIGHT = 1.0, 0.3, 500_000
ALONE = ("/{task}/evaluation/thresholds", "/{task}/review/export")  # no pages, but they answer without a query
DAYS, AUDITS = 120, 20_000
STREETS = ("Birch", "Canal", "Harbour", "Linden", "Market", "Mill", "Orchard", "Quarry", "Station", "Windmill")
QUERIES = {
    "/{task}/traffic": (
        "", "q=order", "q=order+the", "q=zebrafish", "q=%22order+number%22", "q=deli%2A", "route=teacher&reason=below_threshold", "slice=spanish&differs=1",
        "low=0.41&high=0.4101", "q=order&low=0.41&high=0.4101", "since=2025-12-20&until=2025-12-24", "q=order&route=teacher&slice=german+and+french",
    ),
}  # fmt: skip
"""Further questions that a page is asked; each counts as that page."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timed:
    """One address, asked again and again."""

    page: str
    asked: str
    seconds: tuple[float, ...]
    bytes: int
    """The page with all that it loads."""
    status: int

    @property
    def goal_s(self) -> float:
        return OVERVIEW_S if self.page == "/" else GOAL_S

    @property
    def held(self) -> bool:
        return self.status == 200 and max(self.seconds) <= self.goal_s and self.bytes <= WEIGHT


def main() -> int:
    """Make the store, open every page, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--draws", type=int, default=7)
    parser.add_argument("--project", type=Path, help="a walked loop (`overproof demo --loop`); it is copied, never changed")
    parser.add_argument("--keep", type=Path, help="where the store is made and stays; one that is there already is used as it is")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = given.keep or Path(folder) / "project"
        if not (home / "overproof.toml").exists():
            _make(home, given.project, Path(folder), given.rows)
        return _measure(home, given.draws)


def _make(home: Path, walked: Path | None, scratch: Path, rows: int) -> None:
    if walked is None:
        walked = scratch / "walked"
        subprocess.run([sys.executable, "-m", "overproof.cli", "demo", "--loop", str(walked)], check=False, stdout=subprocess.DEVNULL)
    shutil.copytree(walked, home)
    (home / ".overproof" / "search.db").unlink(missing_ok=True)
    began = time.monotonic()
    with open_store(home) as store:
        known = [one for one in store.traffic.read() if one.request.text]
        said = store.traffic.append(_rows(known, rows), "gateway")
        _audits(store, known)
    print(f"{said.added:,} rows written in {time.monotonic() - began:.0f} s", file=sys.stderr)


def _rows(known: Sequence[TrafficRecord], rows: int) -> Iterator[TrafficRecord]:
    """Messages like the known ones, spread over the days before the newest of them."""
    draw = random.Random(7)
    served = [one for one in known if one.served is not None and one.completion is not None]
    texts = [one.request.text.split() for one in known]
    last = max(datetime.fromisoformat(one.request.at) for one in known if one.request.at)
    first, step = last - timedelta(days=DAYS), timedelta(days=DAYS) / rows
    turn = (Turn(role="system", text="You route messages sent to an online shop. " * 8),)
    for at in range(rows):
        like = draw.choice(served)
        assert like.served is not None
        assert like.completion is not None
        words = list(draw.choice(texts))
        cut = draw.randrange(len(words) + 1)
        words[cut:cut] = [*draw.choice(texts)[:9], f"NL-{draw.randrange(10**6)}", f"{draw.randrange(300)} {draw.choice(STREETS)} Street"]
        if at % 250_000 == 1_000:
            words.append("zebrafish")
        sure = round(min(1.0, max(0.05, like.served.confidence or 0.5) * draw.uniform(0.8, 1.05)), 6)
        yield TrafficRecord(
            request=replace(like.request, id=f"req_{at:024x}", fields={"text": " ".join(words)}, at=(first + at * step).isoformat()),
            completion=replace(like.completion, tokens_in=300, tokens_out=3), served=replace(like.served, confidence=sure), context=turn, source="gateway",
        )  # fmt: skip


def _audits(store: Store, known: Sequence[TrafficRecord]) -> None:
    """Audits of the newest days, as many as a busy task has."""
    draw, found = random.Random(8), []
    release = next(r.served.release for r in reversed(known) if r.served is not None)
    last = max(datetime.fromisoformat(one.request.at) for one in known if one.request.at).date()
    for at in range(AUDITS):
        wrong = draw.random() < 0.06
        found.append(Audit(
            release_id=release, request_id=f"req_{at * 40:024x}", day=(last - timedelta(days=at % 90)).isoformat(), slice="english", source="teacher", pi=0.05,
            said="order_status", confidence=0.9, state="labelled", truth="complaint" if wrong else "order_status", wrong=wrong, cost_usd=0.0003,
        ))  # fmt: skip
    store.watching.note_audits(found, at=datetime.now(UTC).timestamp())
    store.watching.settle(found)


@contextmanager
def _site(home: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "overproof.cli", "web", "--project", str(home), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split("listening on ")[1].strip().removesuffix("/ui")
        finally:
            process.terminate()


def _get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=120) as found:
            return found.status, found.read()
    except urllib.error.HTTPError as found:
        return found.code, found.read()


def filled(home: Path, walked: Path | None, rows: int, draws: int) -> list[Timed]:
    """
    Every page over a new store.

    Args:
        home: where it is made.
        walked: a walked loop to start from; None walks one.
        rows: of the log.
        draws: how often each address is asked.

    Returns: one entry for each address.
    """
    _make(home, walked, home.parent, rows)
    return _asked(home, draws).timed


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """What all addresses said."""

    timed: list[Timed]
    rows: int
    took: tuple[float, tuple[float, ...]]
    left: list[str]


def _measure(home: Path, draws: int) -> int:
    found = _asked(home, draws)
    _print(found.timed, found.rows, found.took, found.left)
    return int(not all(one.held for one in found.timed))


def _asked(home: Path, draws: int) -> _Asked:
    from overproof.project import load_project

    task = load_project(home).task.name
    with open_store(home) as store:
        rows, run = store.traffic.version().last_seq, ([d.subject for d in store.decisions.read() if d.kind == "gate"] or [""])[-1]
        release = store.rollouts.current(task).release_id or ""
    known = {"task": task, "id": "req_000000000000000000000028", "run": run, "run_id": run, "release": release}
    with _site(home) as url:
        took = _caught_up(home, f"{url}/ui/{quote(task)}/traffic")
        timed, left = [], []
        for view in (one for one in VIEWS if one.method == "GET" and (one.page or one.path in ALONE)):
            names = re.findall(r"{(\w+)}", view.path)
            if not set(names) <= set(known):
                left.append(view.path)
                continue
            path = "/ui" + re.sub(r"{(\w+)}", lambda found: quote(known[found[1]], safe=""), view.path).rstrip("/")
            timed += [_timed(url, view.path, f"{path}?{asked}".rstrip("?"), draws) for asked in QUERIES.get(view.path, ("",))]
    return _Asked(timed=timed, rows=rows, took=took, left=left)


def _caught_up(home: Path, page: str) -> tuple[float, tuple[float, ...]]:
    """How long the index took from nothing, and how long the page took meanwhile."""
    began, each = time.monotonic(), []
    with open_store(home) as store:
        while True:
            start = time.monotonic()
            _get(page)
            each.append(time.monotonic() - start)
            if not store.search.caught().behind:
                return time.monotonic() - began, tuple(each)
            time.sleep(0.5)


def _timed(url: str, page: str, path: str, draws: int) -> Timed:
    each = []
    for _ in range(draws):
        start = time.perf_counter()
        status, body = _get(url + path)
        each.append(time.perf_counter() - start)
    loaded = set(re.findall(r'(?:src|href)="(/ui/static/[^"]+)"', body.decode("utf-8", "replace")))
    return Timed(page=page, asked=path, seconds=tuple(each), bytes=len(body) + sum(len(_get(url + one)[1]) for one in loaded), status=status)


def _print(timed: Sequence[Timed], rows: int, took: tuple[float, tuple[float, ...]], left: Sequence[str]) -> None:
    print(f"{rows:,} rows; {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f} at the end.\n")
    print("| page | n | p50, ms | p95, ms | max, ms | goal, ms | weight, kB | |")
    print("|---|--:|--:|--:|--:|--:|--:|---|")
    for one in timed:
        order = sorted(one.seconds)
        p95 = order[min(len(order) - 1, round(0.95 * len(order)))]
        held = "holds" if one.held else f"FAILS ({one.status})"
        print(f"| `{one.asked}` | {len(order)} | {1e3 * median(order):.0f} | {1e3 * p95:.0f} | {1e3 * order[-1]:.0f} | {1e3 * one.goal_s:.0f} | {one.bytes / 1e3:.0f} | {held} |")
    seconds, each = took
    said = "was there already" if len(each) == 1 else f"took {seconds:.0f} s from nothing ({rows / seconds:,.0f} rows/s, a process of low priority)"
    print(f"\nThe search index {said}; the traffic page meanwhile: n = {len(each)}, p50 {1e3 * median(each):.0f} ms, max {1e3 * max(each):.0f} ms.")
    if left:
        print(f"Not opened, since nothing here has their names: {', '.join(left)}")


if __name__ == "__main__":
    sys.exit(main())
