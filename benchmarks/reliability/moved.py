"""`store move` killed at each thing that it says to the server or writes: the project is where it was, or where it goes, with every row."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from benchmarks.reliability.killed import AGAIN, STATE, UNSOUND
from tests.postgres import running

from overproof.errors import OverproofError
from overproof.store.move import digests_of, move
from overproof.store.place import Remote, remote_of
from overproof.store.project_store import HOME, open_store

if TYPE_CHECKING:
    from benchmarks.reliability.cases import Case

DSN: Final = "OVERPROOF_KILLS_DSN"
CALLS: Final = ("sendto", "write", "pwrite64", "openat", "rename", "unlink", "ftruncate", "mkdir")
COMMAND: Final = (sys.executable, "-c", "from overproof.cli import main; main()", "store", "move", "--project", "project", "--dsn-env", DSN)
_LINE: Final = re.compile(r"^(\w+)\((.*)\)\s+= \d")


class NoServer(Exception):
    """There is no Postgres on this machine."""


@contextmanager
def server() -> Iterator[None]:
    """A server of our own, whose address is in the environment."""
    try:
        with running() as found:
            os.environ[DSN] = found.dsn
            yield
    except pytest.skip.Exception as error:
        raise NoServer(str(error)) from None


def swept(case: Case, place: Path, *, step: int, finish: int, seed: int, say: Callable[[str], None]) -> Counter[str]:
    """Kill one direction at every point, each time in a process of its own on a copy of the place."""
    seen: Counter[str] = Counter()

    def tell(what: str, where: str) -> None:
        seen[what] += 1
        say(f"{case.name}: {what}: {where}")

    with server():
        if case.remote == "files":  # it has to be there first; the files that it left are moved away, as it says
            move(place / "project", Remote(dsn_env=DSN, schema="source"))
            _move_away(place / "project")
        want = held(place / "project")
        points = points_of(place, case.remote)
        chosen = list(enumerate(points))[::step]
        ends = {number for number, _ in random.Random(seed).sample(chosen, min(finish, len(chosen)))}
        for number, (call, nth) in chosen:
            where, copy = f"{call} {nth}, {number + 1} of {len(points)}", place.with_name("copy")
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(place, copy)
            done = run(copy, case.remote, f"k{number}", "-o", os.devnull, "-e", f"inject={call}:signal=KILL:when={nth}")
            if done.returncode == 0:
                tell(STATE, f"{where}: the process was not killed")
            seen["kills"] += 1
            root = copy / "project"
            try:
                if (found := held(root)) != want:
                    tell(STATE, f"{where}: {sorted(name for name in want if found.get(name) != want[name])}")
                with open_store(root) as store:
                    if any(db.check() for db in (store._traffic_db, store._project_db)):  # noqa: SLF001 - it looks into the store
                        tell(UNSOUND, where)
                    store.decisions.verify()
                if number in ends:
                    seen["run again"] += 1
                    _again(root, case.remote, f"again{number}")
                    if (found := held(root)) != want or (remote_of(root / HOME) is None) != (case.remote == "files"):
                        tell(AGAIN, f"{where}, run again")
            except OverproofError as error:
                tell(UNSOUND, f"{where}: {error}")
            finally:
                shutil.rmtree(copy, ignore_errors=True)
    return seen


def run(place: Path, to: str, schema: str, *options: str) -> subprocess.CompletedProcess[str]:
    """The verb under strace."""
    command = ["strace", "-f", "-qq", *options, *COMMAND, "--to", to, "--schema", schema]
    found = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": found}, timeout=600)


def points_of(place: Path, to: str) -> list[tuple[str, int]]:
    """Calls that say something to the server or change a file of the place, each with its number among its kind."""
    copy, log = place.with_name("copy"), place.with_name("points.strace")
    shutil.copytree(place, copy)
    done = run(copy, to, "points", "-y", "-s", "1", "-e", f"trace={','.join(CALLS)}", "-o", str(log))
    if done.returncode:
        raise RuntimeError(f"the undisturbed move ended with {done.returncode}: {done.stderr[-1000:]}")
    nth: Counter[str] = Counter()
    found = []
    for line in log.read_text().splitlines():
        said = line.split(maxsplit=1)[1] if line[:1].isdigit() else line
        name = said.partition("(")[0]
        nth[name] += name in CALLS
        matched = _LINE.match(said)
        ours = matched is not None and (name == "sendto" or (str(copy.resolve()) in said and (name != "openat" or "O_CREAT" in said or "O_TRUNC" in said)))
        if ours or (matched is not None and name in ("rename", "unlink", "mkdir") and HOME in said):
            found.append((name, nth[name]))
    shutil.rmtree(copy)
    log.unlink()
    return found


def held(root: Path) -> dict[str, str]:
    """Digest of each table, wherever the project says that they are; the roles' counters go on by themselves."""
    home = root / HOME
    return {one.table: f"{one.rows} {one.digest}" for one in digests_of(home, remote_of(home)) if one.table != "project.role"}


def _again(root: Path, to: str, schema: str) -> None:
    """As the refusal says it: another schema, or the unfinished files moved away."""
    before = remote_of(root / HOME)
    if (before is None) == (to == "files"):
        return
    if to == "files":
        _move_away(root)
    move(root, Remote(dsn_env=DSN, schema=schema) if to == "postgres" else None)


def _move_away(root: Path) -> None:
    for path in (root / HOME).glob("*.db*"):
        path.unlink()
