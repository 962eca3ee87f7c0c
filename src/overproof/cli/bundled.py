"""The bundled inbox as a project of the user's own: files copied, its ordinary quarter in the traffic log."""

from __future__ import annotations

import json
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from overproof.cli.intake import take
from overproof.errors import DataError
from overproof.project import load_project
from overproof.store.project_store import open_store
from overproof.store.secret import NAME as SECRET
from overproof.whole import write_whole

FILE_NAME = "overproof.toml"
COPIED = (FILE_NAME, "prompt.md", "answers.jsonl", "README.md", "terms/teacher.toml")
LOOP = {FILE_NAME: "loop.toml", "terms/teacher.toml": "terms/loop.toml"}
"""What the project of `demo --loop` has in the place of the ordinary one's files."""
ADDRESS = "{ADDRESS}"
INVENTED = b"the Northlane inbox is invented."  # 32 bytes
LOG = "traffic/quarter-1.jsonl"
CAREFUL = 2
"""The sample of the recording that the loop's teacher gives out."""


def make_demo(folder: Path, *, address: str = "", rows: int | None = None) -> Path:
    """
    Write the Northlane inbox as a project and import its first quarter.

    Args:
        folder: gets the project; an earlier demo in it is used again.
        address: where the teacher of `demo --loop` listens; empty for the ordinary demo.
        rows: only the newest so many messages of the quarter.

    Returns: the project file.
    Raises: DataError where the folder holds something else.
    """
    target = folder / FILE_NAME
    if folder.exists() and any(folder.iterdir()) and not (folder / LOG).is_file():
        raise DataError(
            f"{str(folder)!r} is not empty and holds no demo; nothing was written",
            next_action="give another folder: `overproof demo FOLDER`",
        )
    with as_file(files("overproof") / "inbox") as source:
        for name in COPIED:
            if (folder / name).exists():
                continue
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if address and name in LOOP:
                text = (source / LOOP[name]).read_text(encoding="utf-8")
                write_whole(folder / name, text.replace(ADDRESS, address))
            else:
                write_whole(folder / name, (source / name).read_bytes())
        if not (folder / LOG).is_file():
            _write_quarter(folder / LOG, rows=rows)
    project = load_project(target)
    with open_store(folder) as store:
        if not (store.home / SECRET).exists():  # the inbox is invented: with one secret for all, every demo is the same
            write_whole(store.home / SECRET, INVENTED)
            (store.home / SECRET).chmod(0o600)
        take(store, project, [folder / LOG])
    return target


def messages_of(quarter: int) -> list[dict[str, Any]]:
    """
    The messages of a quarter, oldest first, with the true queue.

    Args:
        quarter: 1 for ordinary traffic, 2 for the changed world.

    Returns: as the file has them.
    """
    lines = (files("overproof") / "inbox" / "messages.jsonl").read_text(encoding="utf-8").splitlines()
    return sorted((one for one in map(json.loads, lines) if one["quarter"] == quarter), key=lambda one: str(one["ts"]))


def careful_answers() -> dict[str, str]:
    """What the careful reader of the recording says to each message of both quarters, by its text."""
    lines = (files("overproof") / "inbox" / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    said = {one["id"]: one["output"] for one in map(json.loads, lines) if one["sample"] == CAREFUL}
    return {one["text"]: said[one["id"]] for quarter in (1, 2) for one in messages_of(quarter)}


def _write_quarter(target: Path, *, rows: int | None) -> None:
    """Quarter 1 is ordinary traffic; what comes later is for the day after."""
    target.parent.mkdir(parents=True, exist_ok=True)
    kept = messages_of(1)[-rows if rows else None :]
    write_whole(target, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in kept))
