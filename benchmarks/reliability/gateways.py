"""
Three gateways, each in a folder of its own as on three machines, over one Postgres and one shared folder of artifacts; one of them is
killed every few seconds under load, and the release is taken back and put on again meanwhile.

python benchmarks/reliability/gateways.py --seconds 120 --every 10

Ends non-zero where a request failed that was not in flight in a killed gateway, an answered row is missing in the log ("before_ack"), or
requests and rows don't add up. Needs a Postgres server on this machine (its programs, not a running one).
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import random
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.postgres import running
from tests.serve.whole import TEXTS, Gateway, Teacher, chat, project, put_at, release

from overproof.project import load_project
from overproof.serve import moves
from overproof.store.place import NAME, Remote, put_remote
from overproof.store.project_store import open_store
from overproof.store.secret import NAME as SECRET

DSN = "OVERPROOF_BENCH_DSN"
GATEWAYS = 3


@dataclass
class Told:
    """One request as its caller saw it."""

    to: int
    began: float
    ended: float
    id: str = ""
    by: str = ""
    fault: str = ""


@dataclass
class Place:
    """One machine: its folder, the gateway that runs there, and when it was killed."""

    at: int
    folder: Path
    gateway: Any
    killed: list[tuple[float, float]] = field(default_factory=list)
    port: int = 0


class Caller(threading.Thread):
    """Calls one gateway after the other; where nobody listens it goes on to the next, as a balancer does."""

    def __init__(self, places: list[Place], at: int) -> None:
        super().__init__(daemon=True)
        self.places, self.at, self.told, self.refused, self.ended = places, at, [], 0, threading.Event()

    def run(self) -> None:
        """Until told to end."""
        while not self.ended.wait(0.01):
            self.at += 1
            place = self.places[self.at % len(self.places)]
            line, began = http.client.HTTPConnection("127.0.0.1", place.port, timeout=60), time.monotonic()
            try:
                line.connect()
            except OSError:
                self.refused += 1
                continue
            try:
                line.request("POST", "/v1/chat/completions", body=json.dumps(chat(TEXTS[self.at % len(TEXTS)])).encode(), headers={"Content-Type": "application/json"})
                got = line.getresponse()
                body = got.read()
                fault = "" if got.status == 200 else f"{got.status} {body[:100]!r}"
                self.told.append(Told(place.at, began, time.monotonic(), got.headers["x-overproof-request-id"] or "", got.headers["x-overproof-release"] or "", fault))
            except Exception as error:
                self.told.append(Told(place.at, began, time.monotonic(), fault=f"{type(error).__name__}: {error}"))
            finally:
                line.close()


def start(root: Path, upstream: str) -> list[Place]:
    """Three machines with one store; the first one made the release."""
    places = []
    for at in range(GATEWAYS):
        folder = project(root / f"machine{at}", upstream, gateway='capture = "before_ack"')
        home = folder / ".overproof"
        home.mkdir()
        (home / NAME).write_text(f'[objects]\nurl = "{(root / "shared").as_uri()}"\n')
        put_remote(home, Remote(dsn_env=DSN, schema="together"))
        places.append(Place(at, folder, None))
    release(places[0].folder, "r1")
    put_at(places[0].folder, "r1", "full")
    with open_store(places[0].folder) as store:
        secret = store.secret()
    for place in places:
        (place.folder / ".overproof" / SECRET).write_bytes(secret)
        place.gateway = Gateway(place.folder)
        place.port = place.gateway.port
    return places


def kill(place: Place, rng: random.Random) -> None:
    """The gateway, and every other time the writer of its log with it; another one takes its place at the same port."""
    process = place.gateway.process
    children = [int(one) for one in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    began = time.monotonic()
    for pid in [process.pid, *(children if rng.random() < 0.5 else [])]:
        os.kill(pid, signal.SIGKILL)
    process.wait()
    place.killed.append((began, time.monotonic()))
    place.gateway.stop()
    place.gateway = Gateway(place.folder, port=place.port)


def torment(places: list[Place], seconds: float, every: float, rng: random.Random) -> list[tuple[float, str]]:
    """Kills and moves; returns when the release was taken back or put on."""
    end, moved, serves = time.monotonic() + seconds, [], True
    loaded = load_project(places[0].folder)
    while time.monotonic() < end:
        time.sleep(every * rng.uniform(0.5, 1.0))
        if serves:
            with open_store(places[0].folder) as store:
                moves.rollback(store, loaded, by="Dana", why="the benchmark")
        else:
            put_at(places[0].folder, "r1", "full")
        serves = not serves
        moved.append((time.monotonic(), "r1" if serves else ""))
        kill(rng.choice(places), rng)
    return moved


def heard(told: list[Told], moved: list[tuple[float, str]]) -> list[float]:
    """For each move, how long after it the last request began that was answered by the state before it."""
    found = []
    for (at, now), until in zip(moved, [one for one, _ in moved[1:]] + [float("inf")], strict=True):
        late = [one.began - at for one in told if not one.fault and at <= one.began < until and one.by != now]
        found.append(max(late, default=0.0))
    return found


def main() -> int:
    """Run it and print a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--every", type=float, default=10, help="seconds between kills, at most")
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rng, teacher = random.Random(given.seed), Teacher()
    with running() as server, tempfile.TemporaryDirectory() as scratch:
        os.environ[DSN] = server.dsn
        places = start(Path(scratch), teacher.url)
        callers = [Caller(places, at) for at in range(given.callers)]
        for one in callers:
            one.start()
        moved = torment(places, given.seconds, given.every, rng)
        for one in callers:
            one.ended.set()
        for one in callers:
            one.join(90)
        for place in places:
            place.gateway.stop()
        with open_store(places[0].folder) as store:
            logged, health = {row.request.id for row in store.traffic.read()}, store.captured.health()
    teacher.close()
    return said(given, [one for caller in callers for one in caller.told], sum(one.refused for one in callers), places, moved, logged, health)


def said(given: argparse.Namespace, told: list[Told], refused: int, places: list[Place], moved: list[tuple[float, str]], logged: set[str], health: Any) -> int:
    """The row, and whether it holds."""
    answered = {one.id for one in told if not one.fault}
    failed = [one for one in told if one.fault]
    strange = [one for one in failed if not any(one.began <= end and one.ended >= start for start, end in places[one.to].killed)]
    lost, kills, waits = answered - logged, sum(len(place.killed) for place in places), heard(told, moved)
    whole = health.served == health.captured + health.dropped and health.captured == len(logged) and len(logged) <= len(told)
    print(f"seed {given.seed}; {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; Postgres on the same machine, fsync off")
    print("| seconds | kills | requests | answered | failed in flight | failed otherwise | connections refused, sent elsewhere | answered rows lost | dropped | moves | heard by all within |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    print(
        f"| {given.seconds:g} | {kills} | {len(told):,} | {len(answered):,} | {len(failed) - len(strange)} | {len(strange)} | {refused:,} | {len(lost)} "
        f"| {health.dropped} | {len(moved)} | {max(waits, default=0.0):.2f} s |"
    )
    for one in strange[:5]:
        print("failed otherwise:", one)
    return 0 if answered and kills and not strange and not lost and whole else 1


if __name__ == "__main__":
    sys.exit(main())
