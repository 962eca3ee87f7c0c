"""The verbs that walk the road: run, status, demo; and the story that they tell at the end."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from overproof.cli.door import Door, console_on, verb
from overproof.errors import EXIT_PASS, EXIT_REFUSED, ProjectError, TermsError
from overproof.whole import write_whole

if TYPE_CHECKING:
    from rich.console import Console

    from overproof.pipeline import RunResult
    from overproof.store.artifacts import StepEvent


@click.command(short_help="Do what is missing, up to the verdict.")
@click.option("--to", default=None, metavar="STEP", help="Stop after this step.")
@verb
def run(door: Door, to: str | None) -> int:
    """Do what is missing up to STEP, by default the gate; what is done already is reused."""
    from overproof.cli.parts import check_parts

    project = door.load()
    if problems := check_parts(project):
        raise ProjectError(problems, file=project.file)
    return walk(door, project, to=to)


def walk(door: Door, project: Any, *, to: str | None) -> int:
    """
    Run the pipeline, tell each step as it ends, then the story.

    Args:
        door: how to talk.
        project: a loaded project.
        to: the last step, or None for all.

    Returns: the exit code: 0 for a release or a stop before the gate, 1 for a refusal.
    """
    from overproof.evidence import Refusal
    from overproof.pipeline import distil
    from overproof.store.project_store import open_store

    steps = Steps(console_on(sys.stderr if door.as_json else sys.stdout))
    with open_store(project.root) as store:
        result = distil(store, project, to=to, on_event=steps.tell)
        steps.flush()
        if result.dossier_path is not None:
            result = dataclasses.replace(result, dossier_path=publish(result.dossier_path, project.root / "dossier"))
        door.emit(summary(result), *story(result))
    return EXIT_REFUSED if isinstance(result.verdict, Refusal) else EXIT_PASS


class Steps:
    """
    Each step as it ends: what ran with its seconds, what was reused in one line.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._reused: list[str] = []

    def tell(self, event: StepEvent) -> None:
        """Take one event of the memo."""
        from overproof.cli.tables import step_line

        if event.action == "reuse":
            self._reused.append(event.step)
        elif event.action != "start":
            self.flush()
            self._console.print(step_line(f"{event.step} {event.subject}", event.action, event.seconds, ""))

    def flush(self) -> None:
        """Print what was reused since the last step that ran."""
        if self._reused:
            names = ", ".join(dict.fromkeys(self._reused))
            self._console.print(f"  reuse {len(self._reused)} steps: {names}", style="dim")
        self._reused = []


def find(result: RunResult, name: str) -> Any:
    """
    One result of a run; the others stay unread.

    Args:
        result: of the pipeline.
        name: as the pipeline calls it: "summary", "report", …

    Returns: the value, or None where the run did not get that far.
    """
    artifact = result.artifacts.get(name)
    return None if artifact is None else artifact.value


def publish(page: Path, folder: Path) -> Path:
    """
    Put the dossier where a person finds it.

    Args:
        page: the dossier's page in the store, its facts beside it.
        folder: gets both files; earlier ones are replaced whole.

    Returns: the page in the folder.
    """
    folder.mkdir(exist_ok=True)
    for source in page.parent.iterdir():
        write_whole(folder / source.name, source.read_bytes())
    return folder / page.name


def summary(result: RunResult) -> dict[str, Any]:
    """
    What `run --json` prints.

    Args:
        result: of the pipeline.

    Returns: verdict, figures and where the dossier is.
    """
    from overproof.evidence import Release

    report = find(result, "report")
    verdict = result.verdict
    return {
        "verdict": None if verdict is None else "release" if isinstance(verdict, Release) else "refusal",
        "headline": getattr(verdict, "headline", None),
        "findings": getattr(verdict, "findings", ()),
        "chosen": report.chosen if report else None,
        "certificate": report.certificate if report else None,
        "other_certificate": report.other if report else None,
        "truth_note": report.truth_note if report else "",
        "outlook": report.outlook if report else None,
        "judge": judged.report if (judged := find(result, "judge")) is not None else None,
        "judged": find(result, "judged"),
        "candidates": report.candidates if report else (),
        "dossier": None if result.dossier_path is None else str(result.dossier_path),
        "steps": result.events,
        "digests": {name: artifact.digest for name, artifact in result.artifacts.items()},
    }


def story(result: RunResult) -> Iterator[Any]:
    """
    A run as a person reads it: rows, figures, certificate, verdict, dossier.

    Args:
        result: of the pipeline.

    Returns: tables and lines.
    """
    from overproof.cli import tables
    from overproof.cli.ahead import outlook_page
    from overproof.cli.filter_table import filter_lines
    from overproof.cli.judge_page import judge_lines, judged_lines
    from overproof.cli.promptset import prompts_page
    from overproof.cli.standing import standing_lines

    done = [e for e in result.events if e.action in ("run", "reuse")]
    reused = sum(e.action == "reuse" for e in done)
    yield f"{len(done)} steps, {reused} reused, {len(done) - reused} run in {sum(e.seconds for e in done):.1f} s"
    yield ""
    data = find(result, "summary")  # has the counts of the two big results, which stay unread
    if data is not None:
        yield tables.funnel_table(data.funnel, data.counts)
        yield from filter_lines(result)
        yield from prompts_page(data, most=3)
        yield ""
    elif (prompts := find(result, "prompts")) is not None:
        yield tables.funnel_table(prompts.funnel, {})
        yield ""
    if (judged := find(result, "judge")) is not None:
        yield from judge_lines(judged.report)
        yield ""
    report = find(result, "report")
    if report is not None:
        yield from tables.weak_labels_page(report)
        yield tables.candidates_table(report)
        yield ""
        yield tables.slices_table(report)
        yield ""
        yield from tables.certificates_page(report)
        yield ""
        yield from judged_lines(find(result, "judged"))
        yield from outlook_page(report)
        yield from standing_lines(find(result, "standing"))
    if result.verdict is not None:
        yield from tables.verdict_page(result.verdict)
    if result.dossier_path is not None:
        yield "\n[bold]dossier:[/]"
        yield result.dossier_path


@click.command(short_help="Say what exists and what is stale.")
@click.option("--short", is_flag=True, help="One line for a shell prompt, and nothing else.")
@click.option("--check", is_flag=True, help="For CI: exit code 0 fine, 1 something is open, 2 the watch doesn't run or is blind.")
@verb
def status(door: Door, **given: bool) -> int:
    """Say what the project has, which steps the next run would do and why, and which runs there were."""
    if given["short"] or given["check"]:
        from overproof.cli.standing_door import brief

        return brief(door, line=given["short"], check=given["check"])
    from rich.markup import escape

    from overproof.cli.ahead import after_end
    from overproof.cli.rollout import rollout_body, rollout_lines
    from overproof.cli.tables import expiry_words, grid, step_line
    from overproof.cli.watch_page import standing_body, standing_lines
    from overproof.pipeline import status as ahead
    from overproof.runs import runs_of, today_of
    from overproof.serve.moves import view
    from overproof.store.project_store import open_store
    from overproof.watch.standing import standing_of

    project = door.load()
    with open_store(project.root) as store:
        watched = standing_of(store, project, now=datetime.now(UTC))
        counts, runs, release = store.traffic.counts(), runs_of(store), store.releases.latest()
        problem: str | None = None
        events: tuple[Any, ...] = ()
        try:
            events = tuple(e for e in ahead(store, project) if e.action != "start")
        except TermsError as error:  # the road ends at the terms gate, which is worth knowing, not an error
            problem = error.what
        spent = store.ledger.spent_usd
        rollout = view(store, project)
        today = today_of(store).isoformat()
        ends = expiry_words(release.certificate.expires, today) if release else ""
        ends = after_end(ends, project.proof.on_expiry)
    body = {
        "task": project.task.name, "rows": counts.records, "skipped": sum(counts.skipped.values()), "spent_usd": spent,
        "release": release.id if release else None, "runs": runs, "next_run": events, "terms_problem": problem,
        "expires": release.certificate.expires if release else None, "expiry": ends,
        "on_expiry": project.proof.on_expiry, "rollout": rollout_body(rollout),
        "watch": standing_body(watched),
    }  # fmt: skip
    stale = [e for e in events if e.action != "reuse"]
    named = escape(release.id) if release else "none"
    lines: list[Any] = [
        f"[bold]{escape(project.file)}[/]: task {escape(project.task.name)!r}",
        f"{counts.records} rows in the log, {spent:.2f} USD spent on labels, release: {named}",
        *([f"[bold red]{escape(ends)}[/]"] if ends else []),
        *rollout_lines(rollout),
        *standing_lines(watched),
        "nothing to do: all steps are done" if events and not (stale or problem) else "the next run:",
        *(step_line(f"{e.step} {e.subject}", e.action, e.seconds, e.why) for e in (stale and events)),
        *([f"[bold red]stops at the terms gate:[/] {escape(problem)}"] if problem else []),
    ]
    if runs:
        table = grid("Runs", "id", "at", "outcome", "headline")
        for r in runs:
            table.add_row(r.id, r.at[:16], r.outcome, escape(r.headline))
        lines.append(table)
    door.emit(body, *lines)
    return EXIT_PASS
