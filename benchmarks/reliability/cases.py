"""The verbs that the kill sweep runs, what each of them finds, and those that write nothing."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

from tests.flows.conftest import Maker
from tests.flows.test_endpoint import TEACHER, read, with_endpoint
from tests.flows.test_refresh import serve_more
from tests.flows.test_waive import CHECK, WORDS
from tests.watch.projects import alarm, trigger

from overproof.cli import main as overproof
from overproof.store.project_store import open_store
from overproof.testing import FaultTeacher

TASK: Final = "easy"
HERE: Final = ("--project", "project")
ROWS: Final = 880
PAID: Final = 240
"""Rows of the project whose labels are bought; enough for a prompt set."""
WIDE: Final = ("--set", "watch.refresh_share=0.33", "--set", "watch.challenger_margin=0.1", "--set", "watch.challenger_slice_margin=0.2")
RETENTION: Final = "".join(f"{kind} = 1\n" for kind in ("text", "answers", "context", "attributes", "key", "feedback", "rejected", "examples", "artifacts"))
UNTIL: Final = (datetime.now(UTC) + timedelta(days=20)).date().isoformat()
BROUGHT: Final = "how to"
SMALL: Final = tuple(word for one in ("student.2.use=static.v1", "student.1.c=10.0", "student.1.max_terms=4000") for word in ("--set", one))

READS: Final = {
    "check": "validates; opening a store that is there changes nothing",
    "status": "says what exists",
    "show": "prints a result",
    "diff": "compares two runs",
    "keys list": "lists",
    "sign list": "lists",
    "store check": "counts and digests",
}
"""Verbs and actions that leave the project as it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One call of a verb."""

    name: str
    args: tuple[str, ...]
    covers: str = ""
    """The verb, or the verb and its action; the first word of the name where empty."""
    base: str = "ran"
    """What it works on, see `Bases`."""
    before: Callable[[Path], None] | None = None
    """Done to a copy of it, in the place that holds the project."""
    codes: tuple[int, ...] = (0,)
    again: bool = True
    """Whether a second call after a kill has to end where the undisturbed one ended."""
    again_codes: tuple[int, ...] = ()
    finish: int = 1 << 30
    """Points at which it is called again, at most: some take a minute."""
    removes: bool = False
    """Whether rows, labels among them, go."""
    whole: tuple[str, ...] = ()
    """Folders that come whole or not at all."""
    typed: str = ""
    during: Callable[[subprocess.Popen[str]], None] | None = None
    remote: str = ""
    """Where `store move` goes."""
    stride: int = 1
    """Of the points where each takes a process of its own, every so many."""
    captures: bool = False
    """Whether each answer that it gives is in the log before it is given."""
    posts: tuple[str, ...] = ()
    """Changes of the dashboard that it makes."""

    @property
    def verb(self) -> str:
        return self.covers or self.name.split()[0].removesuffix(":")


class Bases:
    """
    Projects that cases start from, each made once.

    Args:
        folder: gets them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._ends = folder / "bases", ExitStack()
        self._server: FaultTeacher | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def copy(self, case: Case, to: Path) -> None:
        """A fresh place for a case."""
        shutil.copytree(self.made(case.base), to)
        if case.before is not None:
            case.before(to)
        said = to / "project" / ".overproof" / "store.toml"
        if said.exists():
            said.write_text(said.read_text().replace("PLACE", str(to)))

    def made(self, name: str) -> Path:
        """The base of this name."""
        found = self._folder / name
        if not found.exists():
            getattr(self, f"_{name}")(found)
        return found

    def _empty(self, place: Path) -> None:
        place.mkdir()

    def _imported(self, place: Path, count: int = ROWS) -> None:
        place.mkdir()
        Maker.project(place / "project", Maker.rows(count))
        shutil.move(place / "project" / "log.jsonl", place / "log.jsonl")
        Maker.write_log(place / "more.jsonl", [{**row, "id": f"more-{row['id']}"} for row in Maker.rows(20, seed=9)])

    def _paid(self, place: Path) -> None:
        """Its teacher answers over HTTP and is paid for each answer."""
        self._imported(place, PAID)
        with_endpoint(place / "project", self._teacher().port)

    def _ran(self, place: Path) -> None:
        shutil.copytree(self.made("imported"), place)
        called(place, "run", *HERE)

    def _promoted(self, place: Path) -> None:
        shutil.copytree(self.made("ran"), place)
        called(place, "promote", "--by", "Dana", *HERE)

    def _served(self, place: Path) -> None:
        """A release that answered for a while, and what its watch may find."""
        shutil.copytree(self.made("promoted"), place)
        release = serve_more(place / "project", Maker)
        with open_store(place / "project") as store:
            store.watching.raise_alarm(alarm(release=release, task=TASK), at=1.0)
            store.watching.open_trigger(trigger(task=TASK, release_id=release), at=1.0)
            store.watching.hold(TASK, by="Dana", why="a sweep", cause="", at=1.0)

    def _gateway(self, place: Path) -> None:
        shutil.copytree(self.made("promoted"), place)
        more = f'\n[gateway]\nupstream = "http://127.0.0.1:{self._teacher().port}/v1"\nallow_private = true\ncapture = "before_ack"\nworkers = 1\n'
        file = place / "project" / "overproof.toml"
        file.write_text(file.read_text() + more)

    def _teacher(self) -> FaultTeacher:
        if self._server is None:
            self._server = self._ends.enter_context(FaultTeacher(read, model=TEACHER))
        return self._server


def called(place: Path, *args: str, codes: tuple[int, ...] = (0,)) -> str:
    """Run a verb to its end, in this process; what it printed."""
    before, out, told = Path.cwd(), io.StringIO(), io.StringIO()
    os.chdir(place)
    try:
        with redirect_stdout(out), redirect_stderr(told):
            overproof(list(args))
    except SystemExit as ended:
        if int(ended.code or 0) not in codes:
            raise RuntimeError(f"{' '.join(args)} ended with {ended.code}: {out.getvalue()[-500:]} {told.getvalue()[-500:]}") from None
    finally:
        os.chdir(before)
    return out.getvalue()


def sheet(place: Path) -> None:
    """A review sheet that is filled in."""
    called(place, "review", "--queue", "audit", "--rows", "train", "--n", "6", "--export", "sheet.csv", *HERE)
    with (place / "sheet.csv").open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        names, lines = list(reader.fieldnames or ()), list(reader)
    with (place / "sheet.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows({**line, "label": BROUGHT} for line in lines)


def label_studio(place: Path) -> None:
    """An export of Label Studio, with a choice for each task."""
    tasks = _exported(place, "label-studio")
    for task in tasks:
        chosen = {"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": [BROUGHT]}}
        task["annotations"] = [{"completed_by": {"email": "ana@example.com"}, "lead_time": 3.0, "result": [chosen]}]
    (place / "tasks.json").write_text(json.dumps(tasks))


def argilla(place: Path) -> None:
    """Records of Argilla, each with a response."""
    records = _exported(place, "argilla")
    for one in records:
        one |= {"status": "completed", "responses": {"label": [{"value": BROUGHT, "user_id": "ana"}]}}
    (place / "tasks.json").write_text(json.dumps(records))


def _exported(place: Path, form: str) -> list[dict[str, Any]]:
    called(place, "review", "--queue", "audit", "--rows", "train", "--n", "6", "--form", form, "--export", "tasks.json", *HERE)
    found: list[dict[str, Any]] = json.loads((place / "tasks.json").read_bytes())
    return found


def refused(place: Path) -> None:
    """A run that a check of the house stops."""
    file = place / "project" / "overproof.toml"
    file.write_text(file.read_text() + f'\n[gate]\nchecks = ["{CHECK}"]\n')
    called(place, "run", *HERE, codes=(1,))


def revocable(place: Path) -> None:
    """A key to revoke, whose id is known."""
    with open_store(place / "project") as store:
        store._project_db._connection.execute("INSERT INTO api_key VALUES('gate', x'00', 'gate', 'invoke', 1.0, NULL, NULL)")  # noqa: SLF001 - ids are drawn


def policy(place: Path) -> None:
    file = place / "project" / "overproof.toml"
    file.write_text(file.read_text() + f"\n[privacy.retention]\n{RETENTION}")


def subject(place: Path) -> None:
    """Whom the erasure is about: rows of the log, and words that people said of one."""
    called(place, "review", "--queue", "audit", "--rows", "train", "--n", "4", *HERE, *("--reviewer", "Ana"))
    (place / "ids.txt").write_text("r1\nr2\nr3\n")


def backed_up(place: Path) -> None:
    called(place, "backup", "backup", *HERE)


def signer(place: Path) -> None:
    called(place, "sign", "new-key", "keys/one", *HERE)


def trusted(place: Path) -> None:
    signer(place)
    called(place, "sign", "trust", "keys/one.pub", "--person", "Dana Ruiz", *HERE)


def shared(place: Path) -> None:
    """Artifacts that were made before there was a bucket."""
    (place / "project" / ".overproof" / "store.toml").write_text('[objects]\nurl = "file://PLACE/shared"\n')


# -- servers ------------------------------------------------------------------------------------------------------------


def listening(process: subprocess.Popen[str]) -> str:
    """The address that a server prints."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if "listening on " not in line:
        raise RuntimeError(f"the server did not start: {line}{process.communicate(timeout=60)}")
    return line.split("listening on ")[1].strip().removesuffix("/ui")


def end(process: subprocess.Popen[str]) -> None:
    """SIGTERM to what strace has started."""
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGTERM)


def ask(url: str, body: Any = None, **headers: str) -> Any:
    """One request; the answer's text, or what it says in JSON."""
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data=data, headers={"content-type": "application/json", **headers})
    try:
        with urllib.request.urlopen(asked, timeout=120) as found:
            text = found.read().decode()
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{url}: {error.code} {error.read().decode()[:500]}") from None
    return json.loads(text) if text.startswith(("{", "[")) else text


class Dashboard:
    """`overproof web`, asked as its own pages ask it."""

    def __init__(self, *posts: tuple[str, dict[str, Any]]) -> None:
        self._posts = posts

    def __call__(self, process: subprocess.Popen[str]) -> None:
        try:
            url = f"{listening(process)}/ui/{TASK}"
            token = re.search('name="overproof-token" content="([^"]+)"', ask(f"{url}/review"))
            assert token is not None
            digest = ask(f"{url}/review/rows?queue=audit&rows=train")["rows"][0]["digest"]
            for path, body in self._posts:
                said = {key: value.replace("DIGEST", digest) if isinstance(value, str) else value for key, value in body.items()}
                ask(f"{url}/{path}", said, **{"x-overproof-token": token[1]})
        finally:
            end(process)


def gateway(process: subprocess.Popen[str]) -> None:
    """`overproof serve` with a few callers, one after the other."""
    try:
        url = listening(process)
        for row in Maker.rows(12, seed=5):
            body = {"model": TEACHER, "messages": [{"role": "system", "content": "Answer with one label."}, {"role": "user", "content": row["text"]}]}
            ask(f"{url}/v1/chat/completions", body)
    finally:
        end(process)


ROW: Final = {"queue": "audit", "rows": "train", "reviewer": "Ana", "digest": "DIGEST"}
LINES: Final = json.dumps({"digest": "DIGEST", "queue": "audit", "label": BROUGHT, "reviewer": "Bo"}) + "\n"
DESK: Final = (("review/word", {**ROW, "label": BROUGHT}), ("review/undo", ROW), ("review/import", {"queue": "audit", "rows": "train", "reviewer": "Bo", "text": LINES}))
STAGES: Final = (
    ("rollout/promote", {"by": "Dana", "release": "", "to": "", "epoch": "0"}),
    ("rollout/back", {"by": "Dana", "why": "a sweep", "epoch": "1"}),
)  # fmt: skip
SEEN: Final = (
    ("watch/close", {"alarm": "a1", "by": "Dana", "why": "a sweep"}), ("watch/dismiss", {"trigger": "t1", "by": "Dana", "why": "a sweep"}),
    ("watch/unhold", {"by": "Dana", "why": "a sweep"}),
)  # fmt: skip
BY: Final = ("--by", "Dana", "--why", "a sweep")
AUDIT: Final = ("review", "--queue", "audit", "--rows", "train", "--n", "6", *HERE)


def _web(name: str, base: str, posts: tuple[tuple[str, dict[str, Any]], ...]) -> Case:
    return Case(name=name, args=("web", "--port", "0", *HERE), base=base, again=False, during=Dashboard(*posts), posts=tuple(path for path, _ in posts), codes=(0, 143))


CASES: Final = (
    Case(name="init", args=("init", "fresh"), base="empty", again=False),  # overwrites nothing: after a kill it names what is there
    Case(name="discover", args=("discover", "log.jsonl", "--map", "text=text", "--write", "fresh"), base="imported", again=False),  # the same
    Case(name="import", args=("import", "more.jsonl", *HERE), base="imported"),
    Case(name="run", args=("run", *HERE), base="imported"),
    Case(name="run with a paid teacher", args=("run", "--to", "teach", *HERE), base="paid"),
    Case(name="review by hand", args=(*AUDIT, "--reviewer", "Ana"), typed="1\n2\nu\n3\nq\n", again=False),  # it asks about the next rows
    Case(name="review of a sheet", args=("review", "--import", "sheet.csv", "--reviewer", "Ana", *HERE), before=sheet),
    Case(name="review of Label Studio", args=("review", "--import", "tasks.json", "--reviewer", "Ana", *HERE), before=label_studio),
    Case(name="review of Argilla", args=("review", "--import", "tasks.json", "--reviewer", "Ana", *HERE), before=argilla),
    Case(name="review to a sheet", args=(*AUDIT, "--export", "sheet.csv")),
    Case(name="review to Label Studio", args=(*AUDIT, "--form", "label-studio", "--export", "tasks.json")),
    Case(name="waive", args=("waive", CHECK, *WORDS, "--until", UNTIL, *HERE), before=refused, again_codes=(2,)),
    Case(name="promote", args=("promote", "--by", "Dana", *HERE), again_codes=(1,)),
    Case(name="rollback", args=("rollback", *BY, *HERE), base="promoted", again_codes=(2,)),
    Case(name="serve", args=("serve", "--port", "0", *HERE), base="gateway", again=False, during=gateway, captures=True, codes=(0, 143)),
    _web("web: review", "ran", DESK),
    _web("web: rollout", "ran", STAGES),
    _web("web: watch", "served", SEEN),
    Case(name="watch", args=("watch", "--once", *HERE), base="served", codes=(0, 1)),
    Case(name="watch: alarm closed", args=("watch", "--close", "a1", *BY, *HERE), base="served", again_codes=(2,)),
    Case(name="watch: trigger dismissed", args=("watch", "--dismiss", "t1", *BY, *HERE), base="served", again_codes=(2,)),
    Case(name="watch: hold ended", args=("watch", "--unhold", *BY, *HERE), base="served", again_codes=(2,)),
    Case(name="refresh", args=("refresh", *WIDE, *HERE), base="served", codes=(0, 1), finish=5),
    Case(name="keys add", args=("keys", "add", "gate", *HERE), covers="keys add", again=False),  # a key that nobody was shown stays
    Case(name="keys revoke", args=("keys", "revoke", "gate", *HERE), covers="keys revoke", before=revocable, again_codes=(2,)),
    Case(name="retain", args=("retain", *HERE), before=policy, removes=True),
    Case(name="erase", args=("erase", "--ids", "ids.txt", "--by", "Dana Ruiz", "--why", "a sweep", *HERE), before=subject, removes=True, codes=(0, 1)),
    Case(name="backup", args=("backup", "backup", *HERE)),
    Case(name="backup once more", args=("backup", "backup", *HERE), before=backed_up),
    Case(name="restore", args=("restore", "backup", "back"), before=backed_up, whole=("back",), again_codes=(2, 3, 4)),
    Case(name="sign new-key", args=("sign", "new-key", "keys/one", *HERE), covers="sign new-key", again_codes=(2,)),
    Case(name="sign trust", args=("sign", "trust", "keys/one.pub", "--person", "Dana Ruiz", *HERE), covers="sign trust", before=signer, again_codes=(2,)),
    Case(name="sign release", args=("sign", "release", "--key", "keys/one", *HERE), covers="sign release", before=trusted),
    Case(name="export", args=("export", "--to", "out", *HERE), whole=("out",), again_codes=(2,)),
    Case(name="store push", args=("store", "push", *HERE), covers="store push", before=shared),
    Case(name="store new-secret", args=("store", "new-secret", "--by", "Dana Ruiz", "--why", "a sweep", *HERE), covers="store new-secret"),
    Case(name="store move to Postgres", args=("store", "move", "--to", "postgres"), covers="store move", remote="postgres", stride=40),
    Case(name="store move to files", args=("store", "move", "--to", "files"), covers="store move", remote="files", stride=40),
    Case(name="ablate", args=("ablate", *HERE), finish=5),
    # an encoder writes its graph in six forms, half a gigabyte: the same calls with a student that writes less
    Case(name="demo", args=("demo", "shop", *SMALL), base="empty", finish=1),
)
VERBS_SWEPT: Final = frozenset(case.verb for case in CASES)
POSTS_SWEPT: Final = frozenset(post for case in CASES for post in case.posts)

if __name__ == "__main__":
    sys.exit("see verbs")
