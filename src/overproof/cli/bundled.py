"""The bundled inbox as a project of the user's own: files copied, its ordinary quarter in the traffic log."""

from __future__ import annotations

import json
import shutil
from importlib.resources import as_file, files
from pathlib import Path

from overproof.cli.intake import take
from overproof.errors import DataError
from overproof.project import load_project
from overproof.store.project_store import open_store
from overproof.store.secret import NAME as SECRET

FILE_NAME = "overproof.toml"
COPIED = (FILE_NAME, "prompt.md", "answers.jsonl", "README.md", "terms/teacher.toml")
INVENTED = b"the Northlane inbox is invented."  # 32 bytes
LOG = "traffic/quarter-1.jsonl"


def make_demo(folder: Path) -> Path:
    """
    Write the Northlane inbox as a project and import its first quarter.

    Args:
        folder: gets the project; an earlier demo in it is used again.

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
            if not (folder / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, folder / name)
        if not (folder / LOG).is_file():
            _write_quarter(source / "messages.jsonl", folder / LOG)
    project = load_project(target)
    with open_store(folder) as store:
        if not (store.home / SECRET).exists():  # the inbox is invented: with one secret for all, every demo is the same
            (store.home / SECRET).write_bytes(INVENTED)
            (store.home / SECRET).chmod(0o600)
        take(store, project, [folder / LOG])
    return target


def _write_quarter(messages: Path, target: Path) -> None:
    """Quarter 1 is ordinary traffic; what comes later is for the day after."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".part")
    with messages.open(encoding="utf-8") as source, partial.open("w", encoding="utf-8") as out:
        out.writelines(line for line in source if json.loads(line)["quarter"] == 1)
    partial.replace(target)
