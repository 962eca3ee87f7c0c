"""The log of decisions on a screen: its chain checked, the whole of it or what is about one release."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from overproof.cli.door import Door
from overproof.errors import DataError

if TYPE_CHECKING:
    from overproof.store.project_store import Store

SOME = 40


def decisions_page(door: Door, store: Store, release_id: str) -> None:
    """
    Check the log's chain, then list decisions.

    Args:
        door: where they go.
        store: the project's store.
        release_id: a release; empty for all decisions.

    Raises: CorruptArtifact for a chain that is broken; DataError for an unknown release.
    """
    from rich.markup import escape

    from overproof.cli.tables import grid
    from overproof.store.decided import extract

    n = store.decisions.verify()
    found = list(_about(store, release_id) if release_id else store.decisions.read())
    title = f"{len(found)} decisions about {escape(release_id)}" if release_id else f"{n} decisions"
    table = grid(f"{title}; the log's chain of {n} holds", "", "at", "what", "who", "about", "in words", right=(0,))
    for one in found[-SOME:]:
        said = next((str(one.body[key]) for key in ("why", "headline", "reason") if one.body.get(key)), "")
        table.add_row(str(one.seq), one.at[:19], *(escape(" ".join(text.split())) for text in (one.kind, one.actor, one.subject[:24], said[:80])))
    rows = [{"seq": d.seq, "at": d.at, "kind": d.kind, "actor": d.actor, "subject": d.subject, "body": d.body, "digest": d.digest} for d in found]
    more = [f"the last {SOME} of {len(found)}; --json has all"] if len(found) > SOME else []
    door.emit({"checked": n, "decisions": rows, "extract": extract(found).named}, table, *more)


def _about(store: Store, release_id: str) -> Any:
    from overproof.registry import suggest
    from overproof.runs import runs_of
    from overproof.store.decided import decided_on

    memo, known = store.memo(), []
    for run in reversed(runs_of(store)):
        if run.outcome != "release":
            continue
        release = memo.stored("verdict", run.digests["verdict"]).value
        if release_id == release.id:
            clearance = memo.stored("clearance", run.digests["clearance"]).value.id if "clearance" in run.digests else ""
            return decided_on(store.decisions, release, verdict=run.digests["verdict"], clearance=clearance)
        known.append(release.id)
    raise DataError(f"no run of this store made release {release_id!r}. {suggest(release_id, known)}", next_action="take an id from `overproof status`")
