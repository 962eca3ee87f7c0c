"""The verb by which people say what is true: in the terminal, or by way of a spreadsheet."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from overproof.cli.door import Door, verb
from overproof.errors import EXIT_PASS, DataError

if TYPE_CHECKING:
    from overproof.desk import Desk, LiveDesk
    from overproof.steps.queues import Asked, Split
    from overproof.store.reviews import Review
    from overproof.task import Output

KEYS = "a number or a label; s skip, u undo, q quit"
LIVE_MARK = "live "  # store.reviews.LIVE, which is not imported before it is needed
WRITTEN_KEYS = "the right answer; s skip, u undo, q quit"


@click.command(short_help="Say what is true, row by row.")
@click.option("--queue", type=click.Choice(["audit", "fix", "judge"]), default="audit", help="Rows drawn by chance, those worth most, or answers that [judge] reads.")
@click.option("--rows", type=click.Choice(["train", "calibration", "sealed", "live"]), default=None, help="Whose rows; sealed ones blind; live: audited answers of the serving release, which come first where any wait.")
@click.option("--n", "most", type=click.IntRange(min=1), default=100, help="At most so many rows.")
@click.option("--reviewer", default="", help="Your name; the owner's where absent.")
@click.option("--adjudicate", is_flag=True, help="Decide rows on which reviewers differ.")
@click.option("--export", "out", type=click.Path(path_type=Path), default=None, help="Write a file instead of asking.")
@click.option("--import", "source", type=click.Path(path_type=Path), default=None, help="Take a file that was filled in.")
@click.option("--form", type=click.Choice(["csv", "argilla", "label-studio", "jsonl"]), default=None, help="Of the file: CSV where it ends so, else what is found in it. Label Studio also gets its labelling configuration, beside it.")
@click.option("--status", "only_status", is_flag=True, help="Say what was reviewed, and what more would buy.")
@click.option("--sign-off", "decision", type=click.Choice(["keep", "redistil", "retire"]), default=None, help="Write the owner's review of the serving release down.")
@verb
def review(door: Door, **given: Any) -> int:
    """Label rows by hand; what is said is kept at once, and the next run uses it."""
    from overproof.desk import open_desk, open_live_desk
    from overproof.store.project_store import open_store

    asked_for = [name for name in ("out", "source", "only_status") if given[name]]
    if len(asked_for) > 1:
        raise DataError("--export, --import and --status are three things", next_action="ask for one at a time")
    project = door.load()
    if not (project.root / ".overproof").is_dir():
        raise DataError("the project has no store yet", next_action="run `overproof import FILES` first")
    reviewer = given["reviewer"].strip() or (project.owner.name if project.owner else "")
    if given["decision"]:
        from overproof.cli.signing import sign

        return sign(door, project, decision=given["decision"], by=given["reviewer"].strip())
    with open_store(project.root) as store:
        live = open_live_desk(store, project)
        given["rows"] = given["rows"] or ("live" if _waits(live, given, reviewer) else "train")
        desk = live if given["rows"] == "live" else open_desk(store, project)
        if desk.behind and not door.as_json:
            click.echo(f"rows of run {desk.behind}: the log or the project file changed after it; what is said of them still holds")
        if given["only_status"]:
            _status(door, desk, live=given["rows"] == "live")
        elif given["source"]:
            _take(door, desk, given, reviewer)
        else:
            _review_rows(door, desk, given, reviewer)
    return EXIT_PASS


def _waits(live: LiveDesk, given: dict[str, Any], reviewer: str) -> bool:
    """Whether audited live answers are meant where nobody says whose rows."""
    if given["queue"] != "audit" or given["only_status"]:
        return False
    if given["source"]:
        if given["source"].suffix.lower() in (".json", ".jsonl") or given["form"] not in (None, "csv"):
            return f'"{LIVE_MARK}'.encode() in _bytes(given["source"])
        from overproof.cli.sheet import of_live

        return of_live(given["source"])
    return bool(live.conflicts() if given["adjudicate"] else live.queue("audit", "live", reviewer))


def _review_rows(door: Door, desk: Desk, given: dict[str, Any], reviewer: str) -> None:
    split: Split = "test" if given["rows"] == "sealed" else given["rows"]
    if given["queue"] == "fix" and split != "train":
        raise DataError("only training rows are in the fix queue: picked rows prove nothing", next_action="use --queue audit")
    if given["queue"] == "fix" and not desk.output.labels:
        raise DataError(
            "the fix queue is learned from labels, and this task's answers are records or texts", next_action="use --queue audit"
        )
    judged = given["queue"] == "judge"
    if given["adjudicate"]:
        rows = desk.conflicts(judged=judged)
    else:
        rows = desk.answers(reviewer) if judged else desk.queue(given["queue"], split, reviewer)
    rows = rows[: given["most"]]
    if given["out"] and given["adjudicate"]:
        raise DataError("conflicts are decided in the terminal", next_action="leave --export out")
    if given["out"]:
        _write(door, desk, rows, given)
        return
    if not reviewer:
        raise DataError("nobody is named as reviewer", next_action='write --reviewer "Your Name"')
    if split == "live" and not door.as_json:
        click.echo("answers that the release gave, drawn by chance; what it said is not shown")
    kind: Literal["review", "adjudication"] = "adjudication" if given["adjudicate"] else "review"
    done = _ask(desk, rows, reviewer, kind, judged=judged, quiet=door.as_json)
    door.emit({"reviewed": done, "reviewer": reviewer}, f"{done} rows kept for {reviewer}; the next `overproof {'watch' if split == 'live' else 'run'}` uses them")


def _ask(
    desk: Desk, rows: Sequence[Asked], reviewer: str, kind: Literal["review", "adjudication"], *, quiet: bool, judged: bool = False
) -> int:
    """Each answer is durable before the next question; the end of the input is a way to quit."""
    from overproof.desk import spoken

    output = desk.asked_for(judged=judged)
    labels, keys = output.labels, KEYS if output.labels else WRITTEN_KEYS
    said: list[int] = []
    place = 0

    def tell(text: str) -> None:
        if not quiet:
            click.echo(text)

    tell("\n".join(f"{i:>4}  {label}" for i, label in enumerate(labels, 1)) if labels else _form(output))
    while place < len(rows):
        tell(f"\n[{place + 1}/{len(rows)}] {_printable(rows[place].text)}")
        began = time.monotonic()
        tell(f"{'label' if labels else 'answer'} ({keys}): ")
        line = sys.stdin.readline()
        word = line.strip()
        if not line or word == "q":
            break
        if word == "s":
            place += 1
        elif word == "u":
            if not said:
                tell("nothing to undo")
                continue
            place = said.pop()
            desk.withdraw(rows[place], reviewer)
        else:
            try:
                numbered = word.isdigit() and 1 <= int(word) <= len(labels)
                label = labels[int(word) - 1] if numbered else spoken(word, output)
            except DataError as error:
                tell(error.what)
                continue
            desk.keep(rows[place], label, reviewer, kind=kind, seconds=round(time.monotonic() - began, 2))
            said.append(place)
            place += 1
    return len(said)


def _form(output: Output) -> str:
    """An empty answer to copy, and what may stand in it."""
    from overproof.task import Fields

    if not isinstance(output, Fields):
        return "write the right answer on one line"
    lines = [f"  {one.name}: {' or '.join(one.values) or one.type}{', or null' if one.optional else ''}" for one in output.fields]
    return "\n".join([*lines, f"write the record as JSON on one line: {output.write({})}"])


def _printable(text: str) -> str:
    """Without the codes by which a message could take over the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def _write(door: Door, desk: Desk, rows: Sequence[Asked], given: dict[str, Any]) -> None:
    out: Path = given["out"]
    files = [str(out)]
    if given["form"] in (None, "csv"):
        from overproof.cli.sheet import write_sheet

        write_sheet(out, rows, reviewer=given["reviewer"].strip())
    else:
        from overproof.desk_files import written
        from overproof.importers.label_studio import config
        from overproof.whole import write_whole

        write_whole(out, written(rows, given["form"]))
        if given["form"] == "label-studio":
            beside = out.with_suffix(".config.xml")
            write_whole(beside, config(desk.asked_for(judged=given["queue"] == "judge").labels))
            files.append(str(beside))
    door.emit({"file": str(out), "files": files, "rows": len(rows)}, f"{len(rows)} rows to fill in, column label:" if len(files) == 1 else f"{len(rows)} rows, and the labelling configuration:", *files)


def _take(door: Door, desk: Desk, given: dict[str, Any], reviewer: str) -> None:
    source: Path = given["source"]
    judged = given["queue"] == "judge"
    if given["form"] == "csv" or (given["form"] is None and source.suffix.lower() not in (".json", ".jsonl")):
        from overproof.cli.sheet import read_sheet

        asked = {row.digest: row for row in desk.answers()} if judged else desk.known()
        reviews: Sequence[Review] = read_sheet(source, asked=asked, output=desk.asked_for(judged=judged), reviewer=reviewer, drawn=desk.drawn(judged=judged))
        added, refused = desk.add(reviews), {}
    else:
        from overproof.desk_files import form_of, take

        data = _bytes(source)
        found = take(desk, data, given["form"] or form_of(data), reviewer=reviewer, judged=judged)
        reviews, added, refused = found.reviews, found.new, dict(found.refused)
    after = "watch" if given["rows"] == "live" else "run"
    body = {"file": source.name, "labelled": len(reviews), "new": added, "refused": refused}
    lines = [f"  {n} not taken: {why}" for why, n in refused.items()]
    door.emit(body, f"{source.name}: {len(reviews)} rows with a label, {added} of them new; the next `overproof {after}` uses them", *lines)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path.name} can't be read: {error.strerror}", next_action="look at the path") from error


def _status(door: Door, desk: Desk, *, live: bool) -> None:
    from overproof.cli.teacher_page import percent, teacher_lines

    outcome, errors = desk.outcome, desk.errors() if desk.output.labels and not live else None
    queues = {q: sum(s.queue == q for s in outcome.settled.values()) for q in ("audit", "fix")}
    agreed, kappa = outcome.agreement, outcome.kappa
    lines = [f"reviewed: {queues['audit']} drawn by chance (audit), {queues['fix']} picked (fix), {len(outcome.conflicts)} open conflicts"]
    if agreed.n:
        lines.append(f"reviewers agree on {percent(agreed)} pairs of words")
    if kappa is not None and kappa.value is not None:
        lines.append(f"Cohen's kappa {kappa.value:.2f} [{kappa.low:.2f}, {kappa.high:.2f}], n={kappa.n}")
    lines += [f"  conflict on {c.request_id}: {', '.join(f'{who} {what}' for who, what in c.words.items())}" for c in outcome.conflicts[:20]]
    body = {"reviewed": queues, "conflicts": outcome.conflicts, "agreement": agreed, "kappa": kappa, "teacher": errors}
    from rich.markup import escape

    none = "words on live answers go to the audits: see `overproof watch`" if live else "the teacher's errors are told by label; this task has none"
    said = teacher_lines(errors, short=True) if errors else [none]
    door.emit(body, *map(escape, lines), *map(escape, said))
