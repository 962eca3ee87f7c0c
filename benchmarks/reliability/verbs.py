# ruff: noqa: SLF001 - it looks into the store as nobody else may
"""
Every mutating verb killed at every system call that changes a file, and at as many power cuts:
python -m benchmarks.reliability.verbs [--step 1] [--finish 25].

Each verb runs once under strace. A kill between two calls leaves exactly what the calls before it made, since the kernel keeps it;
so the recording holds every kill point. At each one the project is opened, its databases, its chain of decisions and every artifact
are checked, and what it holds must be the state before the verb, after it, or between the two; a power cut at the same point must
leave a sound state too. At some points the verb is run again and must end where the undisturbed one ended.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.reliability.control import fast
from benchmarks.reliability.disk import Disk, record
from benchmarks.reliability.power import files_of
from tests.flows.conftest import make_project, rows, write_log

from overproof.cli import main as overproof
from overproof.errors import OverproofError
from overproof.store.project_store import open_store

CLI = "import shutil; shutil._USE_CP_SENDFILE = False; from overproof.cli import main; main()"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verb:
    """One call."""

    name: str
    args: tuple[str, ...]
    again: bool = True
    """Whether a second call after a kill has to end where the undisturbed one ended."""


VERBS = (
    Verb(name="init", args=("init", "fresh"), again=False),  # overwrites nothing: after a kill it names what is there
    Verb(name="import", args=("import", "more.jsonl")),
    Verb(name="run", args=("run",)),
    Verb(name="review", args=("review", "--import", "sheet.csv", "--reviewer", "Ana")),
    Verb(name="keys", args=("keys", "add", "gate"), again=False),  # a key that nobody was shown stays, and a second one is made
    Verb(name="promote", args=("promote", "--by", "Dana")),
    Verb(name="rollback", args=("rollback", "--why", "a sweep", "--by", "Dana")),
    Verb(name="export", args=("export", "--to", "out")),
)
NOT_SWEPT = ("discover", "waive", "watch", "refresh", "sign", "ablate", "serve", "demo")


def call(root: Path, verb: Verb) -> int:
    """Run a verb to its end, in this process."""
    before = Path.cwd()
    os.chdir(root)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            overproof(list(verb.args))
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        os.chdir(before)
    return 0


def state_of(root: Path) -> dict[str, Any]:
    """What a project holds, without times."""
    found: dict[str, Any] = {
        "files": {
            str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*")
            if path.is_file() and ".overproof" not in path.parts and "dossier" not in path.parts and "out" not in path.parts and ".part" not in str(path)
        }
    }  # fmt: skip
    if not (root / ".overproof").exists():
        return found
    with open_store(root) as store:
        found["traffic"] = sorted(store.traffic._db.rows("SELECT id, digest FROM record"))
        tables = {"labels": "SELECT key FROM label", "keys": "SELECT name FROM api_key", "rollout": "SELECT release_id, stage, share FROM rollout",
                  "releases": "SELECT task FROM release", "reviews": "SELECT digest, label FROM review"}  # fmt: skip
        found |= {name: sorted(store._project_db.rows(sql)) for name, sql in tables.items()}
    return found


def faults_of(root: Path) -> list[str]:
    """What is wrong with a project that was killed or cut."""
    if not (root / ".overproof").exists():
        return []
    wrong: list[str] = []
    try:
        with open_store(root) as store:
            wrong += [f"{db.path.name}: {one}" for db in (store._traffic_db, store._project_db) for one in db.check()]
            store.decisions.verify()
            for path in (store.home / "steps").rglob("*.json"):
                row = json.loads(path.read_bytes())
                store.objects.get_value(row["output"])
                for folder in row["folders"]:
                    store.objects.find(folder)
    except (OverproofError, ValueError, KeyError) as error:
        wrong.append(f"{type(error).__name__}: {error}")
    return wrong


def between(now: Any, before: Any, after: Any) -> bool:
    """Each part of the state is the old one, the new one, or holds what the old one held and nothing that the new one doesn't."""
    for name, held in now.items():
        old, new = before.get(name, type(held)()), after.get(name, type(held)())
        if name == "files":
            bad = [path for path, text in held.items() if text not in (old.get(path), new.get(path))]
            if bad:
                return False
        elif held not in (old, new) and not (set(old) <= set(held) <= set(new)):
            return False
    return True


def swept(verb: Verb, project: Path, *, step: int, finish: int, seed: int) -> Counter[str]:
    """Kill one verb everywhere; leaves the project as the undisturbed verb leaves it."""
    seen: Counter[str] = Counter()
    before = state_of(project)
    start = len(record(["true"], project))
    ops = record([sys.executable, "-c", CLI, *verb.args], project)
    left = files_of(project)
    with tempfile.TemporaryDirectory(dir=fast()) as name:
        whole = Disk(ops)
        whole.advance(len(ops))
        whole.whole(Path(name) / "model")
        model = files_of(Path(name) / "model")
        if odd := sorted(path for path in {*model, *left} if model.get(path) != left.get(path)):
            raise RuntimeError(f"the recording of {verb.name} doesn't give the folder that the process left: {odd[:5]}")
    after = state_of(project)
    if len(ops) == start or (after == before and verb.name != "export"):
        raise RuntimeError(f"{verb.name} changed nothing: there is nothing to sweep")
    points = range(start, len(ops) + 1, step)
    ends = set(random.Random(seed).sample(points, min(finish, len(points))))
    disk = Disk(ops)
    for at in points:
        disk.advance(at)
        for how in ("kill", "cut"):
            with tempfile.TemporaryDirectory(dir=fast()) as name:
                root = Path(name) / "project"
                disk.whole(root) if how == "kill" else disk.cut(random.Random(f"{seed} {verb.name} {at}"), root)
                seen[f"{how}s"] += 1
                found = faults_of(root)
                if found:
                    tell(seen, f"{how}: damaged", f"{verb.name} at {at}: {found[0]}")
                elif not between(state_of(root), before, after) and how == "kill":
                    tell(seen, f"{how}: neither old nor new", f"{verb.name} at {at}: {[p for p in state_of(root)['files'] if p not in before['files']][:3]}")
                elif how == "kill" and at in ends and verb.again:
                    seen["run again"] += 1
                    code = call(root, verb)
                    ended = state_of(root)
                    if ended != after:
                        parts = [part for part in after if ended.get(part) != after[part]]
                        tell(seen, "run again: another end", f"{verb.name} at {at}: exit {code}, {parts}")
    return seen


def tell(seen: Counter[str], what: str, where: str) -> None:
    seen[what] += 1
    if seen[what] <= 3:
        print(f"{what}: {where}", file=sys.stderr)


def prepared(place: Path) -> Path:
    """A small project whose run ends in a release, before its second import."""
    project = make_project(place / "project", rows(880))
    write_log(project / "more.jsonl", [{**row, "id": f"more-{row['id']}"} for row in rows(20, seed=9)])
    return project


def sheet(project: Path) -> None:
    """A review sheet that is filled in."""
    command = [sys.executable, "-c", CLI, "review", "--queue", "audit", "--rows", "train", "--n", "4", "--export", "sheet.csv"]
    done = subprocess.run(command, cwd=project, check=False, capture_output=True, text=True)
    if done.returncode or not (project / "sheet.csv").exists():
        print(f"no review sheet: {done.stderr[-300:]}", file=sys.stderr)
        return
    with (project / "sheet.csv").open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        names, lines = list(reader.fieldnames or ()), list(reader)
    with (project / "sheet.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows({**line, "label": "how to"} for line in lines)


def campaign(*, step: int, finish: int, seed: int, only: tuple[str, ...] = (), say: Callable[[str], None] = print) -> dict[str, Counter[str]]:
    """Every verb in the order of a first day, each on what the one before left."""
    found: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory(dir=fast()) as name:
        project = prepared(Path(name))
        for verb in VERBS:
            if verb.name == "review":
                sheet(project)
            if only and verb.name not in only:
                call(project, verb)
                continue
            found[verb.name] = swept(verb, project, step=step, finish=finish, seed=seed)
            say(f"{verb.name}: {dict(found[verb.name])}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", type=int, default=1, help="1 kills at every call")
    parser.add_argument("--finish", type=int, default=25, help="points of each verb at which it is run again to its end")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=[verb.name for verb in VERBS], default=[])
    given = parser.parse_args()
    if shutil.which("strace") is None:
        sys.exit("strace is needed: it records what the process asks of the kernel")
    found = campaign(step=given.step, finish=given.finish, seed=given.seed, only=tuple(given.only), say=lambda one: print(one, file=sys.stderr))
    total: Counter[str] = Counter()
    for one in found.values():
        total.update(one)
    wrong = sum(n for what, n in total.items() if ":" in what)
    print(json.dumps({"seed": given.seed, "step": given.step, "verbs": list(found), "not swept": list(NOT_SWEPT), **total, "wrong": wrong}))
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
