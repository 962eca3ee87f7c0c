"""The verbs that move a release, and what `status` says of it."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Any

import click

from overproof.cli.door import Door, verb
from overproof.errors import EXIT_PASS, EXIT_REFUSED, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overproof.data import RolloutState
    from overproof.serve.moves import RolloutView
    from overproof.serve.rollout import BarState


@click.command(short_help="Take a release to its next stage.")
@click.option("--release", "release_id", default="", metavar="ID", help="Which one; the serving one below full, else the newest candidate.")
@click.option("--to", default="", metavar="STAGE", help='"shadow", "canary 5%" or "full"; the next one where absent.')
@click.option("--force", is_flag=True, help="Without the evidence; needs --why, and is recorded.")
@click.option("--why", default="", metavar="TEXT", help="The reason, with --force.")
@click.option("--by", default="", metavar="NAME", help="Who decides; the user of this machine where absent.")
@verb
def promote(door: Door, release_id: str, to: str, why: str, by: str, **given: bool) -> int:
    """Take a release one stage further, if time and evidence are there; works while the gateway runs."""
    from rich.markup import escape

    from overproof.serve import moves
    from overproof.store.project_store import open_store

    force = why.strip() if given["force"] else ""
    if given["force"] and not force:
        raise DataError("--force without a reason", next_action="say --why TEXT: it goes into the log of decisions")
    project = door.load()
    with open_store(project.root) as store:
        done = moves.promote(store, project, by=by or user(), release_id=release_id, to=to, force=force)
    name = done.to.name if done.to else ""
    body = {"moved": done.moved, "to": name, "why": done.why, "state": _state(done.state)}
    if done.moved:
        door.emit(body, f"release {escape(str(done.state.release_id))} is at [bold]{name}[/]: {escape(done.why)}")
        return EXIT_PASS
    door.emit(body, f"[bold red]not promoted[/] to {name}: {escape(done.why)}", "next: wait, or look at `overproof status`")
    return EXIT_REFUSED


@click.command(short_help="Give all requests back to the teacher.")
@click.option("--why", default="", metavar="TEXT", help="The reason, for the log of decisions.")
@click.option("--by", default="", metavar="NAME", help="Who decides; the user of this machine where absent.")
@verb
def rollback(door: Door, why: str, by: str) -> int:
    """Give all requests back to the teacher at once; running gateways follow within a second."""
    from rich.markup import escape

    from overproof.serve import moves
    from overproof.store.project_store import open_store

    project = door.load()
    with open_store(project.root) as store:
        state = moves.rollback(store, project, by=by or user(), why=why)
    door.emit(_state(state), f"the teacher answers alone; release {escape(str(state.last_release))} was rolled back: {escape(state.why)}")
    return EXIT_PASS


def rollout_body(view: RolloutView) -> dict[str, Any]:
    """
    What `status --json` says of the rollout.

    Args:
        view: where it stands.

    Returns: plain values.
    """
    bars = [
        {"bar": b.name, "n": b.n, "wrong": b.wrong, "upper": b.upper, "at_most": b.bar, "passed": b.passed, "alarm": b.alarm,
         "missing": b.missing, "requests_to_go": b.requests_to_go}
        for b in view.bars
    ]  # fmt: skip
    d = view.decision
    return {
        **_state(view.state), "candidate": view.candidate, "next": view.after.name if view.after else None, "suspended": view.suspended,
        "holds": [{"since": _at(h.since), "by": h.by, "why": h.why, "trigger": h.trigger} for h in view.holds], "move": d.move, "ready": d.ready, "why": d.why, "evidence_digest": d.evidence_digest, "bars": bars,
    }  # fmt: skip


def rollout_lines(view: RolloutView) -> Iterator[Any]:
    """
    What `status` shows of the rollout; nothing where there is no release.

    Args:
        view: where it stands.

    Returns: lines with markup, and a table of the bars.
    """
    from rich.markup import escape

    from overproof.cli.tables import grid

    state, d = view.state, view.decision
    yield from (f"[bold yellow]held[/] since {_at(one.since)} by {escape(one.by)}: {escape(one.why)}" for one in view.holds)
    if state.release_id is None:
        if state.last_release is not None:
            yield f"[bold]teacher-only[/] since {_at(state.since)} by {escape(state.by)}: {escape(state.why)}"
        if view.candidate is not None and view.after is not None:
            yield f"release {escape(view.candidate)} waits: `overproof promote` takes it to {view.after.name}"
        return
    at = f"canary {100 * state.share:g}%" if state.stage == "canary" else state.stage
    yield f"release {escape(state.release_id)} at [bold]{at}[/] since {_at(state.since)} by {escape(state.by)}: {escape(state.why)}"
    table = grid("Bars of this stage", "bar", "n", "wrong", "at most", "bound", "", right=range(1, 5))
    for b in view.bars:
        share = "-" if b.kind == "arms" else f"{100 * b.bar:.2f}%"
        bound = "-" if b.kind == "arms" else f"{100 * b.upper:.2f}%"
        table.add_row(escape(b.name), str(b.n), str(b.wrong), share, bound, escape(_word(b)))
    yield table
    yield from (f"[yellow]slice {escape(name)!r} stays with the teacher:[/] {escape(why)}" for name, why in view.suspended.items())
    after = f"next: {view.after.name}; " if view.after else ""
    told = "`overproof promote` takes it there: " if d.ready and d.move == "hold" else ""
    yield f"{after}{told}{'' if d.move == 'hold' else d.move + ': '}{escape(d.why)}"
    if view.candidate is not None:
        yield f"release {escape(view.candidate)} waits: `overproof promote --release {escape(view.candidate)}` puts it in this one's place"


def _word(b: BarState) -> str:
    if b.alarm:
        return "alarm"
    if b.passed:
        return "met"
    more = b.requests_to_go
    wait = "not at this rate" if more is None else f"about {more:,} more requests"
    return f"{b.missing}, {wait}" if b.missing else wait


def _state(state: RolloutState) -> dict[str, Any]:
    return {
        "release": state.release_id, "stage": state.stage, "share": state.share, "since": _at(state.since) if state.epoch else None,
        "by": state.by, "moved_because": state.why, "epoch": state.epoch, "last_release": state.last_release,
    }  # fmt: skip


def _at(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="minutes")[:16]


def user() -> str:
    """
    Who decides where nobody says --by.

    Returns: the user of this machine.
    Raises: DataError where this user has no name.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError) as error:
        raise DataError("nobody knows who you are: this user has no name", next_action="say --by NAME") from error
