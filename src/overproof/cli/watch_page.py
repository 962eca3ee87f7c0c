"""What the watch found, in a terminal: alarms as sentences, readings as a table, what was done, what is new."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape

if TYPE_CHECKING:
    from overproof.data import Alarm, ExampleShown, Hold, Reading, Trigger, WatchReport
    from overproof.watch.standing import Standing

MOST_QUIET = 12  # quiet readings on a screen; --json has all
MOST_NEW = 8
STATES = {"alarm": "[bold red]alarm[/]", "starved": "[yellow]starved[/]", "not enough": "[yellow]not enough data[/]", "quiet": "[green]quiet[/]"}
SHARES = frozenset({"disagreement", "error", "far_share", "ngram_far_share", "slice_share", "label_share", "escalation"})


def report_page(report: WatchReport) -> Iterator[Any]:
    """
    What one pass found.

    Args:
        report: of the pass.

    Returns: lines and tables, the worst first.
    """
    serving = f"release {escape(report.release_id)}" if report.release_id is not None else "the teacher alone"
    yield f"[bold]{escape(report.task)}[/]: {serving} answers; looked at {report.at[:16]} UTC"
    if not (report.alarms or report.triggers):
        yield "no alarm, no trigger"
    yield from open_page(report.alarms, report.triggers, ())
    if report.readings:
        yield ""
        yield _readings(report)
    if report.examples:
        yield ""
        yield "[bold]What is new[/]"
        for name, shown in list(report.examples.items())[:MOST_NEW]:
            yield f"  {escape(name)}"
            yield from _shown(shown)
        if len(report.examples) > MOST_NEW:
            yield f"  and {len(report.examples) - MOST_NEW} more, see --json"
    yield ""
    yield from (f"[yellow]note:[/] {escape(note)}" for note in report.notes)
    if report.retained_on:
        over = ", ".join(f"{n:,} {escape(kind)}" for kind, n in sorted(report.retained.items()))
        yield f"retention: applied on {report.retained_on}; over then: {over or 'nothing'}"
    yield f"audits: {report.audits_drawn} drawn, {report.audits_labelled} answered, {report.audits_due} due; {report.spent_usd:.2f} USD this month"


def pass_line(report: WatchReport) -> str:
    """
    One pass as one line.

    Args:
        report: of the pass.

    Returns: the line, with markup.
    """
    from overproof.watch.notices import count

    still = [t for t in report.triggers if t.state == "open"]
    words = [count(len(report.alarms), "alarm"), count(len(still), "trigger")]
    colour = "bold red" if report.blind or report.alarms else "yellow" if still else "green"
    blind = f", blind in {', '.join(report.blind)}" if report.blind else ""
    done = "".join(f", {escape(t.occasion)}: {escape(t.outcome)}" for t in report.triggers if t.state == "done")
    audits = f"{report.audits_drawn} audits drawn, {report.audits_labelled} answered, {report.audits_due} due"
    return f"{report.at[:16]}  [{colour}]{', '.join(words)}{blind}[/]{done}; {len(report.readings)} readings; {audits}; {report.spent_usd:.2f} USD this month"


def open_page(alarms: Sequence[Alarm], triggers: Sequence[Trigger], holds: Sequence[Hold]) -> Iterator[Any]:
    """
    What asks for somebody.

    Args:
        alarms: open ones.
        triggers: open ones, and those that were just dealt with.
        holds: what keeps the rollout where it is.

    Returns: lines.
    """
    for alarm in alarms:
        yield f"[bold red]alarm[/] {escape(alarm.words)}"
        yield f"  [dim]since {alarm.since}, n={alarm.n}; close: overproof watch --close {escape(alarm.id)} --why TEXT[/]"
        yield from _shown(alarm.examples)
    for t in triggers:
        head = f"{t.occasion.replace('_', ' ')}: {escape(t.why)}"
        if t.state == "open":
            yield f"[bold yellow]trigger[/] {head}"
            told = f"; {escape(t.outcome)}" if t.outcome else ""
            yield f"  [dim]asks to {t.act}{told}; dismiss: overproof watch --dismiss {escape(t.id)} --why TEXT[/]"
        else:
            yield f"[magenta]{t.state}[/] {head}: {escape(t.outcome)}"
    for hold in holds:
        yield f"[bold yellow]held[/] by {escape(hold.by)}: {escape(hold.why)}"


def standing_lines(standing: Standing) -> Iterator[str]:
    """
    What `status` says of the watch; nothing where nothing serves and nothing was ever watched.

    Args:
        standing: how it stands.

    Returns: lines with markup.
    """
    if standing.release_id is None and standing.last is None:
        return
    colour = {"fine": "green", "open": "yellow", "blind": "bold red"}[standing.state]
    at = f"last pass {standing.last.at[:16]}" if standing.last is not None else "no pass yet"
    yield (f"watch: [{colour}]{standing.state}[/], {at}, {standing.audits_due} audits due, {standing.alarms} alarms, "
           f"{standing.triggers} triggers, {len(standing.holds)} holds")  # fmt: skip
    style = "bold red" if standing.state == "blind" else "yellow"
    yield from (f"  [{style}]{escape(problem)}[/]" for problem in standing.problems)
    review = [f"review {standing.review}"] if standing.review and standing.review.startswith(("current", "due")) else []
    yield from (f"  {escape(note)}" for note in (*review, *(one for one in standing.ends if one not in standing.problems), *standing.notes))


def standing_body(standing: Standing) -> dict[str, Any]:
    """
    What `status --json` says of the watch.

    Args:
        standing: how it stands.

    Returns: plain values.
    """
    return {
        "state": standing.state, "problems": standing.problems, "last_pass": standing.last.at if standing.last is not None else None,
        "hours_since": standing.hours, "blind": standing.last.blind if standing.last is not None else (), "alarms": standing.alarms,
        "triggers": standing.triggers, "holds": standing.holds, "audits_due": standing.audits_due, "review": standing.review, "ends": standing.ends,
        "notes": standing.notes,
    }  # fmt: skip


def _readings(report: WatchReport) -> Any:
    from overproof.cli.tables import grid
    from overproof.data import ALL
    from overproof.watch.turn import worst

    table = grid("Readings", "slice", "signal", "value", "interval", "n", "bar", "", right=(2, 4, 5))
    rows = worst(report)
    loud = [r for r in rows if r.state != "quiet"]
    quiet = rows[len(loud) :]
    for r in (*loud, *quiet[:MOST_QUIET]):
        ends = f"{_figure(r, r.low)} to {_figure(r, r.high)}" if r.low is not None and r.high is not None else "-"
        name = "all traffic" if r.slice == ALL else escape(r.slice)
        table.add_row(name, escape(f"{r.signal.replace('_', ' ')} {r.part}".rstrip()), _figure(r, r.value), ends, str(r.n), _figure(r, r.reference), STATES[r.state])
    more = len(quiet) - MOST_QUIET
    table.note = "bar: the certificate's, or the value in the reference" + (f"; {more} more are quiet, see --json" if more > 0 else "")
    return table


def _figure(reading: Reading, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.2f}%" if reading.signal in SHARES else f"{value:.4g}"


def _shown(examples: Sequence[ExampleShown]) -> Iterator[str]:
    for one in examples:
        said = f" [dim]{escape(f'[{one.said} / {one.truth}]')}[/]" if one.truth is not None else ""
        yield f'    "{escape(one.text)}"{said}'
