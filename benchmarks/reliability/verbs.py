"""
Every mutating verb killed at every system call that changes a file:
python -m benchmarks.reliability.verbs [--step 1] [--finish 10] [--only NAME …] [--report FILE].

Each verb runs once under strace; `killed` says what is looked at. What a place holds must be the state before the verb, after it, or
between the two; at some points the verb is run again and must end where the undisturbed one ended, with no label paid twice.
`store move` talks to a server, so it is really killed, once at each thing that it says or writes.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from benchmarks.reliability import moved
from benchmarks.reliability.cases import CASES, READS, Bases, Case
from benchmarks.reliability.control import fast
from benchmarks.reliability.disk import Recording, record
from benchmarks.reliability.killed import (
    AGAIN,
    DOUBLED,
    LOST,
    TORN,
    WRONG,
    Kept,
    Look,
    Looker,
    compare,
    copy_into,
    ended_at,
    torn,
)
from benchmarks.reliability.power import files_of

from overproof.cli import main as overproof
from overproof.store.project_store import open_store

CLI = "import shutil; shutil._USE_CP_SENDFILE = False; from overproof.cli import main; main()"
SHOWN = 5


def call(root: Path, case: Case) -> int:
    """Run a verb to its end, in this process."""
    before, stdin = Path.cwd(), sys.stdin
    os.chdir(root)
    sys.stdin = io.StringIO(case.typed)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            overproof(list(case.args))
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        os.chdir(before)
        sys.stdin = stdin
    return 0


class Sweep:
    """
    One verb killed everywhere.

    Args:
        case: the verb.
        place: where it works, as the state before it is.
        say: gets a line for each fault.
    """

    def __init__(self, case: Case, place: Path, say: Callable[[str], None]) -> None:
        self.case, self.place, self._say = case, place, say
        self.seen: Counter[str] = Counter()

    def go(self, *, step: int, finish: int, seed: int) -> Counter[str]:
        ops, start = self._recorded()
        disk, looker = Kept(ops), Looker(self.place)
        points = ops.ends[::step]
        ends = set(random.Random(seed).sample(points, min(finish, len(points)))) if self.case.again else set()
        disk.advance(start)
        old_files, (before, after), new_files, ended = self._sides(ops, start, looker)
        known, was = Counter[Any](), disk.signature()
        for number, at in enumerate(points):
            disk.advance(at)
            now = disk.signature()
            looker.money = [one for one in disk.said if one == "wire"]
            with tempfile.TemporaryDirectory(dir=fast()) as name:
                root = copy_into(disk, Path(name) / "place")
                look = looker.look(root, now)
                self.seen["kills"] += 1
                faults = look.faults or compare(look, before, after)
                faults += torn(disk, now, was, self._last, old_files, new_files, self.case.whole)
                labels = sum((one for table, one in look.tables.items() if table.endswith(".label")), Counter[Any]())
                if not known <= labels and not self.case.removes:
                    faults.append((LOST, "labels that were there at an earlier call"))
                known = labels
                if self.case.captures:
                    rows = sum((look.tables["project.record"] - before.tables["project.record"]).values())
                    if rows < (answered := disk.said.count("answered")):
                        faults.append((LOST, f"{answered} requests were answered, {rows} are in the log"))
                    self.seen["answers given"] = answered
                for what, where in faults:
                    self._tell(what, f"call {number * step + 1} of {len(ops.ends)}: {where}")
                if at in ends:
                    self._again(copy_into(disk, root), ended, f"call {number * step + 1} of {len(ops.ends)}")
        return self.seen

    def _recorded(self) -> tuple[Recording, int]:
        case = self.case
        start = len(record(["true"], self.place))
        ops = record([sys.executable, "-c", CLI, *case.args], self.place, typed=case.typed, codes=case.codes, during=case.during)
        whole = Kept(ops)
        whole.advance(len(ops))
        model, left = {way: whole.bytes_of(number) for way, (number, _) in whole.signature().items()}, files_of(self.place)
        if odd := sorted(path for path in {*model, *left} if model.get(path) != left.get(path) and not path.endswith((".lock", "-shm"))):
            raise RuntimeError(f"the recording of {case.name} doesn't give the folder that the process left: {odd[:5]}")
        if not ops.ends:
            raise RuntimeError(f"{case.name} changed nothing: there is nothing to sweep")
        self._last = whole.signature()
        return ops, start

    def _sides(self, ops: Recording, start: int, looker: Looker) -> tuple[Any, tuple[Look, Look], Any, Any]:
        """Files before, what a look sees before and after, files after, and where the undisturbed verb ended."""
        files, looks, ended = [], [], None
        for at in (start, len(ops)):
            disk = Kept(ops)
            disk.advance(at)
            with tempfile.TemporaryDirectory(dir=fast()) as name:
                root = copy_into(disk, Path(name) / "place")
                looks.append(Looker(self.place).look(root, disk.signature()))
                if looks[-1].faults:
                    raise RuntimeError(f"{self.case.name}: unsound without a kill: {looks[-1].faults[:3]}")
                ended = ended_at(copy_into(disk, root))
            files.append({way: disk.bytes_of(number) for way, (number, _) in disk.signature().items() if "/.overproof/" not in way})
        del looker
        return files[0], (looks[0], looks[1]), files[1], ended

    def _again(self, root: Path, ended: Any, where: str) -> None:
        """The same call once more: it ends as the undisturbed one did, and asks for no label that is there."""
        for said in root.glob("*/.overproof/store.toml"):
            said.write_text(said.read_text().replace(str(self.place), str(root)))
        asked = self._asked(root)
        self.seen["run again"] += 1
        code = call(root, self.case)
        if code not in self.case.codes + self.case.again_codes:
            self._tell(AGAIN, f"{where}: exit code {code}")
            return
        found = ended_at(root)
        for part, want in ended.items():
            held = found.get(part)
            if held != want:
                table = part.rsplit(".", 1)[-1]
                kind = AGAIN if table not in ("label", "review") else LOST if held is None or not want <= held else DOUBLED
                self._tell(kind, f"{where}, run again: {part} differs{f' in {sorted(w for w in {*held, *want} if held.get(w) != want.get(w))[:3]}' if part == 'files' and held else ''}")
        for key, n in asked.items():
            if self._asked(root)[key] > n:
                self._tell(DOUBLED, f"{where}, run again: a label that was there was paid again")

    def _asked(self, root: Path) -> Counter[str]:
        """Paid attempts for each label that is there."""
        found: Counter[str] = Counter()
        for home in root.glob("*/.overproof"):
            if (home / "project.db").exists():
                with open_store(home.parent) as store:
                    found.update(dict(store._project_db.rows("SELECT a.key, count(*) FROM attempt a JOIN label l ON l.key = a.key GROUP BY a.key")))  # noqa: SLF001
        return found

    def _tell(self, what: str, where: str) -> None:
        self.seen[what] += 1
        if self.seen[what] <= SHOWN:
            self._say(f"{self.case.name}: {what}: {where}")


def campaign(*, step: int, finish: int, seed: int, only: tuple[str, ...] = (), say: Callable[[str], None] = print) -> dict[str, Counter[str]]:
    """Every case by itself: a fault in one doesn't cost the rest."""
    found: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory(dir=fast()) as name, Bases(Path(name)) as bases:
        for case in CASES:
            if only and case.name not in only and case.verb.split()[0] not in only:
                continue
            began = time.process_time(), time.monotonic()
            place = Path(name) / "place"
            try:
                bases.copy(case, place)
                if case.remote:
                    found[case.name] = moved.swept(case, place, step=step * case.stride, finish=finish, seed=seed, say=say)
                else:
                    found[case.name] = Sweep(case, place, say).go(step=step, finish=min(finish, case.finish), seed=seed)
            except moved.NoServer as error:
                found[case.name] = Counter({"skipped": 1})
                say(f"{case.name}: SKIPPED: {error}")
                continue
            except Exception as error:
                found[case.name] = Counter({"not swept": 1})
                say(f"{case.name}: NOT SWEPT: {type(error).__name__}: {error}")
                if os.environ.get("OVERPROOF_DEBUG"):
                    traceback.print_exc()
                continue
            finally:
                shutil.rmtree(place, ignore_errors=True)
            say(f"{case.name}: {dict(found[case.name])}, {time.process_time() - began[0]:.0f} CPU s of {time.monotonic() - began[1]:.0f} s")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", type=int, default=1, help="1 kills at every call")
    parser.add_argument("--finish", type=int, default=10, help="points of each verb at which it is run again to its end, at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=[], help="verbs or cases")
    parser.add_argument("--report", type=Path, help="a file for the report, with the counts of each verb")
    given = parser.parse_args()
    if shutil.which("strace") is None:
        sys.exit("strace is needed: it records what the process asks of the kernel")
    os.umask(0o077)  # a private key that others may read is refused, and recordings hold no modes
    found = campaign(step=given.step, finish=given.finish, seed=given.seed, only=tuple(given.only), say=lambda one: print(one, file=sys.stderr, flush=True))
    total: Counter[str] = Counter()
    for one in found.values():
        total.update(one)
    wrong = sum(total[what] for what in (*WRONG, "not swept"))
    report = {"seed": given.seed, "step": given.step, "cases": len(found), "kills": total["kills"], "run again": total["run again"], LOST: total[LOST], DOUBLED: total[DOUBLED],
              TORN: total[TORN], "wrong": wrong, "skipped": [name for name, one in found.items() if one["skipped"]], "not swept": [name for name, one in found.items() if one["not swept"]]}  # fmt: skip
    print(json.dumps(report))
    if given.report:
        given.report.write_text(json.dumps({**report, "reads": sorted(READS), "each": found}, indent=1) + "\n")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
