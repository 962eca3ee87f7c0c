"""`overproof refresh`: distil again with few new labels, and let the new student challenge the serving one."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from overproof.cli.door import Door, console_on, verb
from overproof.errors import EXIT_PASS, EXIT_REFUSED, ProjectError

if TYPE_CHECKING:
    from overproof.evidence import Challenge
    from overproof.refresh import Plan

WORDS = {"pass": "shown", "fail": "shown not to", "undecided": "not enough data"}


@click.command(short_help="Distil again with few new labels; hold the result against the serving student.")
@click.option("--why", default="", metavar="TRIGGER", help="Id of an open trigger, whose slices must become better; or words for the record.")
@click.option("--dry-run", is_flag=True, help="Say what would be labelled and what it costs; ask and write nothing.")
@verb
def refresh(door: Door, why: str, **given: bool) -> int:
    """Label what failed and a part of today's traffic, fit students anew, and compare the best with the serving one."""
    from datetime import UTC, datetime

    from rich.markup import escape

    from overproof import refresh as flow
    from overproof.cli.parts import check_parts
    from overproof.cli.walk import Steps, publish
    from overproof.evidence import Release
    from overproof.store.project_store import open_store

    project, now = door.load(), datetime.now(UTC)
    if problems := check_parts(project):
        raise ProjectError(problems, file=project.file)
    with open_store(project.root) as store:
        if given["dry_run"]:
            plan = flow.preview(store, project, now=now, why=why)
            door.emit(plan_body(plan), *plan_lines(plan))
            return EXIT_PASS
        steps = Steps(console_on(sys.stderr if door.as_json else sys.stdout))
        done = flow.refresh(store, project, now=now, why=why, on_event=steps.tell)
        steps.flush()
        page = None if done.run.dossier_path is None else publish(done.run.dossier_path, project.root / "dossier")
        verdict = done.run.verdict
        released = isinstance(verdict, Release)
        findings = [] if verdict is None else [f for f in verdict.findings if f.outcome not in ("pass", "waived")]
        body = {
            **plan_body(done.plan), "spent_usd": done.spent_usd, "verdict": "release" if released else "refusal", "findings": findings,
            "release": done.release.id if done.release else None, "challenge": challenge_body(done.challenge), "dossier": str(page),
        }  # fmt: skip
        said: list[Any] = [*plan_lines(done.plan, past=True), *challenge_lines(done.challenge)]
        said += [f"[red]{f.id} {escape(f.title)}[/]: {escape(f.reason)}. Next: {escape(f.next_action)}" for f in findings]
        if done.release is not None:
            said.append(f"[bold green]release {done.release.id} is a candidate[/]: `overproof promote --release {done.release.id}` takes it on")
        else:
            said.append(f"[bold red]refused[/]: release {escape(done.plan.champion)} stays")
        door.emit(body, *said, *([page] if page is not None else []))
    return EXIT_PASS if released else EXIT_REFUSED


def plan_body(plan: Plan) -> dict[str, Any]:
    """
    What `refresh --json` says of the labels.

    Args:
        plan: what is done or would be.

    Returns: plain values.
    """
    following = plan.following
    return {
        "champion": plan.champion, "why": plan.why, "trigger": plan.trigger, "asked": plan.asked, "reused": plan.reused,
        "adopted": plan.adopted, "served": plan.served, "cost_usd": plan.cost_usd, "new_requests": following.live,
        "counts": following.counts, "capped": following.capped, "mix": following.prompts.distances, "notes": following.prompts.notes,
    }  # fmt: skip


def plan_lines(plan: Plan, *, past: bool = False) -> Iterator[Any]:
    """
    What is labelled, as a person reads it.

    Args:
        plan: what is done or would be.
        past: whether it was done.

    Returns: lines and a table.
    """
    from rich.markup import escape

    from overproof.cli.tables import grid

    following = plan.following
    cost = "at an unknown price" if plan.cost_usd is None else f"for about ${plan.cost_usd:.2f}"
    verb_ = "was" if past else "would be"
    yield (
        f"of {following.live:,} requests since release {escape(plan.champion)} the teacher {verb_} asked about {plan.asked:,} ({cost}); "
        f"{plan.reused:,} answers are reused ({plan.adopted:,} of them were given to callers), {plan.served:,} more of callers' answers train"
    )
    table = grid("Rows of the next prompt set", "split", "why", "rows", right=(2,))
    for name, n in following.counts.items():
        split, _, why = name.partition(": ")
        table.add_row(split, why, f"{n:,}")
    yield table
    yield from (f"capped, {escape(why)}: {n:,} rows" for why, n in following.capped.items())
    for one in following.prompts.distances:
        yield f"off the live mix by {escape(one.view)}: {one.before:.3f} before, {one.after:.3f} now (up to {one.after_high:.3f}, n = {one.n_set:,})"
    yield from (escape(note) for note in following.prompts.notes)


def challenge_body(found: Challenge | None) -> dict[str, Any] | None:
    """
    What `--json` says of the comparison.

    Args:
        found: champion against challenger; None where it was not made.

    Returns: plain values.
    """
    if found is None:
        return None
    return {"champion": found.champion, "against": found.label_kind, "passed": found.passed, "duels": [dataclasses.asdict(d) for d in found.duels]}


def challenge_lines(found: Challenge | None) -> Iterator[Any]:
    """
    Before and after, slice by slice.

    Args:
        found: champion against challenger; None where it was not made.

    Returns: a table and how to read it.
    """
    from rich.markup import escape

    from overproof.cli.tables import grid, percent

    if found is None:
        return
    table = grid(
        f"Right by {'gold' if found.label_kind == 'gold' else 'the teacher'}, before and after, on the same rows", "rows", "slice", "n", "before", "after", "points", "to show", "",
        right=range(2, 6),
    )  # fmt: skip
    for d in found.duels:
        moved = "-" if not d.n else f"{100 * (d.c - d.b) / d.n:+.1f} ({100 * d.low:+.1f} to {100 * d.high:+.1f})"
        wanted = {"better": "better", "not worse": f"-{100 * d.margin:g} at most", "nothing": ""}[d.asked]
        table.add_row(
            d.rows, escape(d.slice), f"{d.n:,}", percent(d.champion.value), percent(d.challenger.value), moved, wanted,
            WORDS[d.verdict] if d.asked != "nothing" else "",
        )  # fmt: skip
    yield table
    yield "both students answer every row alone; 95% by Tango's score test; exact paired tests decide"
