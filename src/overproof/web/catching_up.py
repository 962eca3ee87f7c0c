"""The search index follows the traffic log: a little at once, much in a process of its own, so that no page and no gateway waits."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

from overproof.errors import OverproofError
from overproof.project import load_project
from overproof.store.project_store import Store, open_store
from overproof.store.search import Caught
from overproof.task import Output
from overproof.web.place import Place

AT_ONCE = 300
"""Rows that a page takes in itself: some 30 ms, in what may be the gateway's process."""
A_TURN = 20_000
"""Rows that the child takes in before it looks whether anybody still wants them."""
_log = logging.getLogger(__name__)
_ONE_AT_A_TIME = threading.Lock()
_children: dict[Path, subprocess.Popen[bytes]] = {}


def follow(place: Place) -> Caught:
    """
    Bring the index of a task forward.

    Args:
        place: the task.

    Returns: how far it is now; a child may still be at it.
    """
    index = place.store.search
    caught = index.caught()
    if caught.behind <= AT_ONCE:
        take_in(place.store, place.project.task.output, most=AT_ONCE)
        return index.caught()
    _send_child(place.root / place.project.file)
    return caught


def take_in(store: Store, output: Output, *, most: int | None = None) -> int:
    """
    Take rows of the log into the index.

    Args:
        store: of the project.
        output: of its task.
        most: rows at most.

    Returns: how many.
    """
    return store.search.catch_up(output, wrong=store.watching.found_wrong, most=most)


def _send_child(project: Path) -> None:
    with _ONE_AT_A_TIME:
        known = _children.get(project)
        if known is not None and known.poll() is None:
            return
        if known is not None and known.returncode:
            _log.warning("the search index of %s is not finished: its process ended with %d; it is tried again", project.parent.name, known.returncode)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-m", "overproof.web.catching_up", str(project)]
        _children[project] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)


def main(project: Path) -> int:
    """
    The child: all that there is, at low priority, as long as its parent lives.

    Args:
        project: its file.

    Returns: an exit code.
    """
    os.nice(10)
    parent = os.getppid()
    try:
        loaded = load_project(project)
        with open_store(loaded.root) as store:
            while os.getppid() == parent and take_in(store, loaded.task.output, most=A_TURN):
                pass
    except OverproofError:
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
