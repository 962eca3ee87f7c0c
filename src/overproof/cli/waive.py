"""`overproof waive`: two people take a finding of the last verdict upon themselves, for a while."""

from __future__ import annotations

import click

from overproof.cli.door import Door, verb
from overproof.errors import EXIT_PASS, DataError


@click.command(short_help="Let a finding pass for a while: two people, a reason, something done instead.")
@click.argument("check", default="")
@click.option("--by", default="", metavar="NAME", help="Who takes it upon himself or herself.")
@click.option("--second", default="", metavar="NAME", help="Another person, who agrees.")
@click.option("--reason", default="", metavar="TEXT", help="Why it may ship all the same; at least 40 characters.")
@click.option("--control", default="", metavar="TEXT", help="What is done instead; at least 20 characters.")
@click.option("--until", default="", metavar="DATE", help="The last day, as 2026-03-01; at most 30 days from now.")
@verb
def waive(door: Door, check: str, **given: str) -> int:
    """Waive CHECK of the last verdict, or list the waivers of its plan where no CHECK is named."""
    from rich.markup import escape

    from overproof.evidence.waivers import Waiver
    from overproof.pipeline import load_run
    from overproof.project import is_person
    from overproof.runs import today_of
    from overproof.store.project_store import open_store
    from overproof.store.waivers import give_waiver, waivers_of

    project = door.load()
    with open_store(project.root) as store:
        run, today = load_run(store, None), today_of(store).isoformat()
        plan = run.artifacts["report"].value.certificate.plan_hash
        if check:
            _may_be_waived(check, run.verdict.findings if run.verdict is not None else ())
            for role in ("by", "second"):
                if why := is_person(given[role], "x@x.xx"):
                    raise DataError(f"--{role}: {why}", next_action="name the two people")
            give_waiver(store.decisions, Waiver(check=check, plan=plan, given=today, **given))
        known = waivers_of(store.decisions, plan, today=today)
    lines = [f"[magenta]waived[/] {w.check} until {w.until} by {escape(w.by)} and {escape(w.second)}: {escape(w.reason)} Instead: {escape(w.control)}" for w in known.live]
    lines += [f"[bold red]ran out[/] {w.check} on {w.until}" for w in known.ran_out]
    after = "next: `overproof run` takes it to the gate again" if check else ""
    door.emit({"plan": plan, "live": known.live, "ran_out": known.ran_out}, *(lines or ["no waiver for this plan"]), *([after] if after else []))
    return EXIT_PASS


def _may_be_waived(check: str, findings: tuple[object, ...]) -> None:
    """Raise DataError for a check that passes, that nobody may waive, or that there is none of."""
    from overproof.evidence import Finding
    from overproof.registry import suggest

    known = [one for one in findings if isinstance(one, Finding)]
    own = [one for one in known if one.id == check]
    if not own:
        raise DataError(f"no check {check!r} in the last verdict. {suggest(check, sorted({f.id for f in known}))}", next_action="name one of these")
    stops = [one for one in own if one.outcome in ("fail", "not-run")]
    if not stops:
        raise DataError(f"{check} stops nothing", next_action="look at the verdict with `overproof show verdict`")
    locked = [one for one in stops if not one.waivable]
    if locked:
        where = f" on the critical slice {locked[0].slice!r}" if locked[0].slice else ""
        raise DataError(f"{check}{where} can't be waived by anybody: {locked[0].reason}", next_action=locked[0].next_action)
