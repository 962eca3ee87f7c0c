"""The owner's review of the serving release, from the terminal."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from overproof.errors import EXIT_PASS, DataError

if TYPE_CHECKING:
    from overproof.cli.door import Door
    from overproof.project import Project
    from overproof.watch.signing import SignOff


def sign(door: Door, project: Project, *, decision: SignOff, by: str) -> int:
    """
    Sign, or say what has to be judged first.

    Args:
        door: to the terminal.
        project: the loaded project.
        decision: what becomes of the release.
        by: who signs; never taken for granted.

    Returns: the exit code.
    Raises: DataError as `watch.signing.sign_off`, or where nobody is named.
    """
    from rich.markup import escape

    from overproof.store.project_store import open_store
    from overproof.watch.signing import sign_off

    if not by:
        raise DataError("a review is signed by somebody", next_action='write --reviewer "Your Name"')
    with open_store(project.root) as store:
        done = sign_off(store, project, decision=decision, by=by, now=datetime.now(UTC))
    counts = ", ".join(f"{one.what} {one.judged} of {one.there}" for one in done.looked)
    lines = [f"release {escape(done.release_id)}: [bold]{done.decision}[/], signed by {escape(done.reviewer)}", f"judged since the last review: {escape(counts)}"]
    lines += {"keep": [f"the next review is due on {done.next_due}"], "retire": ["the teacher answers alone"], "redistil": ["next: overproof refresh"]}[decision]
    door.emit(asdict(done), *lines)
    return EXIT_PASS
