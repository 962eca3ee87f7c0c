# ruff: noqa: SLF001 - it looks into the store as nobody else may
"""
Power cuts under the stores' real code: what was acknowledged is there, nothing is torn, every file is sound.

A process that imports, captures, labels, reviews, decides, rolls out and stores artifacts is recorded once per trace; then the
power fails at many moments of the recording, each time with other unsynced sectors and names lost, and the store is opened
again: python -m benchmarks.reliability.power --cuts 10000 --seed 1.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.reliability.disk import Disk, Op, record

from overproof.data import Completion, Folder, Outcome, Request, TeacherPin, TrafficRecord
from overproof.errors import OverproofError
from overproof.store.artifacts import Step
from overproof.store.captured import Kept
from overproof.store.labels import LedgeredTeacher
from overproof.store.money import Prices
from overproof.store.project_store import Store, open_store
from overproof.store.reviews import Review

MOVES = 30
PER_TRACE = 100  # cuts in one recording
TASK = "t"
MODES = ("as it is", "no fsync", "normal")
"""What the process does: our own code, or, to see that this finds something, fsync left out or SQLite's synchronous=NORMAL."""


def say(what: str, *rest: Any) -> None:
    """Acknowledge, in one write."""
    os.write(1, (json.dumps([what, *rest]) + "\n").encode())


def text_of(name: str) -> str:
    """The message of a row, from its name alone; some are longer than a page of the database."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f"{name} {digest}" * (1 + int(digest[:2], 16) % 40)


def row(name: str) -> TrafficRecord:
    return TrafficRecord(request=Request(id=name, fields={"text": text_of(name)}))


def make(number: int, recipe: str, *, workdir: Path) -> tuple[int, Folder]:
    """A folder of two files."""
    del recipe
    (workdir / "out" / "sub").mkdir(parents=True)
    for name in ("a.bin", "sub/b.bin"):
        (workdir / "out" / name).write_bytes(f"{name} {number} ".encode() * 400)
    return (number, Folder(path=workdir / "out"))


STEP = Step(name="make", version=1, fn=make, workdir=True)


class Bound:
    tokens_in, tokens_out = 2_000, 0


class Provider:
    """Answers, and says that it was called: from then on the call costs money."""

    free = False

    async def attempt(self, request: Request, *, sample_index: int, recorded: Completion | None = None) -> Outcome:
        del sample_index, recorded
        say("called", request.id)
        await asyncio.sleep(0.001)
        answer = Completion(text="a", value=request.id, model="m", cost_usd=0.001)
        return Outcome(kind="ok", completion=answer, reason="", http_status=200, retry_after_s=None, fingerprint=None, request_id=None)

    def worst_case_tokens(self, request: Request) -> Bound:
        del request
        return Bound()

    async def close(self) -> None:
        return None


def ledgered(store: Store) -> LedgeredTeacher:
    pin = TeacherPin(use="t", provider="p", model="m", revision="r")
    prices = Prices(usd_per_million_in=1.0, usd_per_million_out=0.0)
    return LedgeredTeacher(Provider(), store.ledger, pin=pin, prices=prices, clearance_id="c", run_id="r")


def key_of(name: str) -> Request:
    return Request(id=name, fields={"text": name})


def work(root: Path, seed: int, mode: str) -> None:
    """What is recorded."""
    if mode == "no fsync":
        os.fsync = lambda _: None  # type: ignore[assignment]
    rng = random.Random(seed)
    store = opened(root, mode)
    names = (f"{seed}-{i}" for i in range(1_000_000))
    moves: dict[str, Callable[[], None]] = {
        "import": lambda: imported(store, [next(names) for _ in range(rng.randint(1, 12))]),
        "capture": lambda: captured(store, [next(names) for _ in range(rng.randint(1, 6))]),
        "label": lambda: labelled(store, [next(names) for _ in range(rng.randint(1, 5))]),
        "review": lambda: reviewed(store, [next(names) for _ in range(rng.randint(1, 4))]),
        "decide": lambda: decided(store, next(names)),
        "artifact": lambda: stored(store, rng.randrange(10_000)),
        "secret": lambda: say("secret", store.secret().hex()),
    }
    for _ in range(MOVES):
        if rng.random() < 0.1:
            store.close()
            store = opened(root, mode)
        moves[rng.choice(list(moves))]()
    store.close()


def opened(root: Path, mode: str) -> Store:
    store = open_store(root)
    for db in (store._traffic_db, store._project_db):
        db._connection.pragma("wal_autocheckpoint", 20)  # so that a short recording has many checkpoints
        if mode != "as it is":
            db._connection.pragma("synchronous", {"no fsync": "OFF", "normal": "NORMAL"}[mode])
    return store


def imported(store: Store, names: Sequence[str]) -> None:
    store.traffic.append((row(name) for name in names), "file")
    say("rows", *names)


def captured(store: Store, names: Sequence[str]) -> None:
    store.captured.commit([Kept(row=row(name), task=TASK, slice="s") for name in names], {})
    say("rows", *names)


def labelled(store: Store, names: Sequence[str]) -> None:
    with store.role("run"):
        store.ledger.open_run("r", cap_usd=1e6)
        teacher = ledgered(store)

        async def one(name: str) -> None:
            await teacher.sample(key_of(name), n=1)
            say("label", name)

        async def go() -> None:
            await asyncio.gather(*map(one, names))

        asyncio.run(go())


def reviewed(store: Store, names: Sequence[str]) -> None:
    store.reviews.append([Review(digest=name, request_id=name, label="a", reviewer="Ana", queue="audit") for name in names])
    say("reviews", *names)


def decided(store: Store, name: str) -> None:
    say("decision", store.decisions.append("k", actor="a", subject=name, body={"x": name}).digest)


def stored(store: Store, number: int) -> None:
    memo = store.memo()
    artifact = memo.run(STEP, memo.source("n", number), recipe="r")
    say("artifact", number, artifact.digest)


def after(root: Path, said: Sequence[str]) -> Counter[str]:
    """Open what a power cut left, as the next run would; count what is wrong with it."""
    known: dict[str, list[Any]] = {}
    for line in said:
        what, *rest = json.loads(line)
        known.setdefault(what, []).extend([tuple(rest)] if what == "artifact" else rest)
    wrong: Counter[str] = Counter()
    try:
        with open_store(root) as store:
            for db in (store._traffic_db, store._project_db):
                wrong["unsound databases"] += bool(db.check())
            rows = {one.request.id: one.request.fields["text"] for one in store.traffic.read()}
            wrong["rows lost"] += len(set(known.get("rows", ())) - set(rows))
            wrong["rows torn"] += sum(text != text_of(name) for name, text in rows.items())
            _ledger(store, known, wrong)
            wrong["reviews lost"] += len(set(known.get("reviews", ())) - {one.digest for one in store.reviews.history()})
            there = [one.digest for one in store.decisions.read()]
            wrong["chains broken"] += store.decisions.verify() != len(there)
            wrong["decisions lost"] += len(set(known.get("decision", ())) - set(there))
            _artifacts(store, known.get("artifact", []), wrong)
            secrets = set(known.get("secret", ()))
            wrong["secrets lost"] += bool(secrets) and {store.secret().hex()} != secrets
            store.decisions.append("k", actor="a", subject="after", body={})  # and it goes on
    except OverproofError as error:
        wrong[f"refused: {error}"] += 1
    return +wrong


def _ledger(store: Store, known: dict[str, list[Any]], wrong: Counter[str]) -> None:
    teacher = ledgered(store)
    for name in known.get("label", ()):
        answer = store.ledger.get(teacher.key_of(key_of(name), 0))
        wrong["labels lost"] += answer is None or answer.value != name
    tried = Counter(key for (key,) in store._project_db.rows("SELECT key FROM attempt"))
    for name, calls in Counter(known.get("called", ())).items():
        wrong["paid calls that the books don't know"] += tried[teacher.key_of(key_of(name), 0)] < calls
    with store.role("run"):
        store.ledger.open_run("after", cap_usd=1e6)
        counts = store.ledger.counts()
    wrong["money set aside for ever"] += counts.held_usd != 0
    wrong["labels doubled"] += counts.labels != counts.attempts.get("ok", 0)
    wrong["books below the bill"] += counts.spent_usd < 0.001 * len(known.get("called", ())) - 1e-9


def _artifacts(store: Store, known: Sequence[tuple[int, str]], wrong: Counter[str]) -> None:
    memo = store.memo(dry=True)
    for number, digest in known:
        found = memo.run(STEP, memo.source("n", number), recipe="r")
        wrong["artifacts lost"] += not found.built or found.digest != digest
    for path in (store.home / "steps").rglob("*.json"):
        try:
            store.memo().stored("make", json.loads(path.read_bytes())["output"]).value  # noqa: B018 - verifies each byte
        except (OverproofError, ValueError, KeyError):
            wrong["artifacts torn"] += 1
    for path in (store.home / "objects").rglob("*.tree"):
        try:
            store.objects.find(path.stem)
        except OverproofError:
            wrong["artifacts torn"] += 1


def recorded(seed: int, mode: str) -> list[Op]:
    """One recording; it is compared with the folder that the process really left."""
    with tempfile.TemporaryDirectory(dir=_fast()) as name:
        root = Path(name) / "project"
        root.mkdir()
        command = [sys.executable, str(Path(__file__).absolute()), "--work", str(root), "--seed", str(seed), "--mode", mode]
        ops = record(command, root)
        disk = Disk(ops)
        disk.advance(len(ops))
        disk.whole(Path(name) / "model")
        if files_of(Path(name) / "model") != files_of(root):
            raise RuntimeError("the recording doesn't give the folder that the process left: some call is not modelled")
        return ops


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"}


def cuts(seed: int, n: int, mode: str = "as it is") -> Iterator[tuple[str, Counter[str]]]:
    """Cut the power n times in one recording; yields where and what was wrong."""
    rng = random.Random(f"cuts {seed}")
    disk = Disk(recorded(seed, mode))
    for number, at in enumerate(sorted(rng.randrange(1, len(disk.ops) + 1) for _ in range(n))):
        disk.advance(at)
        with tempfile.TemporaryDirectory(dir=_fast()) as name:
            how = disk.cut(random.Random(f"{seed} {number}"), Path(name) / "project")
            yield f"seed {seed}, cut {number}: {how}", after(Path(name) / "project", disk.said)


def _fast() -> str | None:
    """Where files cost no waiting: nothing of ours has to survive a real cut."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def campaign(n: int, seed: int, mode: str = "as it is") -> tuple[Counter[str], list[str], int]:
    """Many recordings, many cuts: (what was wrong, first cases, recordings)."""
    wrong: Counter[str] = Counter()
    cases: list[str] = []
    traces = -(-n // PER_TRACE)
    for trace in range(traces):
        for case, found in cuts(seed * 100_000 + trace, min(PER_TRACE, n - trace * PER_TRACE), mode):
            wrong += found
            wrong["cuts"] += 1
            if found:
                wrong["cuts with a fault"] += 1
                cases.append(f"{case}: {dict(found)}")
    return wrong, cases[:10], traces


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mode", choices=MODES, default=MODES[0], help="anything but the first must lose rows")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work, given.seed, given.mode)
        return 0
    if shutil.which("strace") is None:
        sys.exit("strace is needed: it records what the process asks of the kernel")
    wrong, cases, traces = campaign(given.cuts, given.seed, given.mode)
    print(json.dumps({"seed": given.seed, "mode": given.mode, "recordings": traces, **wrong}))
    print(*cases, sep="\n")
    return int(wrong["cuts with a fault"] > 0)


if __name__ == "__main__":
    sys.exit(main())
