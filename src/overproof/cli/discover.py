"""The verb that finds candidate tasks in a mixed log, before there is a project."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from overproof.cli.door import Door, verb
from overproof.errors import EXIT_PASS, DataError

if TYPE_CHECKING:
    from overproof.data import TrafficRecord
    from overproof.steps.discover import Candidate, Discovery

PROJECT_FILE, PROMPT_FILE = "overproof.toml", "prompts/task.md"
SHOWN_LABELS = 8


@click.command("discover", short_help="Find the tasks in a mixed log.")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[FILES]...")
@click.option("--format", "format_name", default=None, help="Importer, for example jsonl.v1; sniffed where absent.")
@click.option("--map", "pairs", multiple=True, metavar="ROLE=COLUMN", help="Where something is; text=COLUMN for the request.")
@click.option("--price-in", type=click.FloatRange(min=0), default=None, help="USD per million prompt tokens.")
@click.option("--price-out", type=click.FloatRange(min=0), default=None, help="USD per million answer tokens.")
@click.option("--review-usd", type=click.FloatRange(min=0), default=0.25, show_default=True, help="USD for a person to check one answer.")
@click.option("--write", "folder", type=click.Path(path_type=Path), default=None, help="Write a starter project for a candidate.")
@click.option("--task", "task", default=None, metavar="NAME", help="Which candidate to write; the first worth it by default.")
@verb
def discover_tasks(
    door: Door, paths: tuple[Path, ...], *, format_name: str | None, pairs: tuple[str, ...], price_in: float | None,
    price_out: float | None, review_usd: float, folder: Path | None, task: str | None,
) -> int:  # fmt: skip
    """Find candidate tasks in FILES, or in the project's log: volume, cost, and whether each is worth distilling.

    Nothing of the log is written; what is shown of it is masked.
    """
    from overproof.privacy.redact import scrub
    from overproof.steps.discover import DiscoverRecipe, discover, redacted

    skipped: list[str] = []
    records = list(_lean(_read(paths, format_name, pairs, skipped) if paths else _log(door)))
    if not records:
        why = f", the first because: {skipped[0]}" if skipped else ""
        raise DataError(f"no row could be read ({len(skipped)} skipped{why})", next_action="name the request's column: --map text=COLUMN")
    recipe = DiscoverRecipe(usd_per_million_in=price_in, usd_per_million_out=price_out, review_usd=review_usd)
    found = redacted(discover(records, recipe), scrub)
    written, prompt = None, ""
    if folder is not None:
        one = _chosen(found, task)
        prompt = _prompt(one, records, scrub)
        written = write_project(folder, one, prompt)
    body = {
        "rows": found.rows, "skipped": len(skipped), "left_over": found.left_over, "assumptions": recipe,
        "candidates": [_told(c) for c in found.candidates], "written": written,
        "prompt_found": bool(prompt),
    }  # fmt: skip
    where = "the prompt is the log's" if prompt else "the log has no prompt: write prompts/task.md"
    door.emit(body, *_page(found, len(skipped), recipe), *([f"written: {', '.join(written)}; {where}"] if written else []))
    return EXIT_PASS


def _read(paths: Sequence[Path], format_name: str | None, pairs: Sequence[str], skipped: list[str]) -> Iterator[TrafficRecord]:
    from overproof.data import Skipped
    from overproof.importers import GUESSES, ColumnMapping, pick, read_file
    from overproof.registry import suggest

    columns = {}
    for pair in pairs:
        role, equals, column = pair.partition("=")
        if not equals or not column or role not in (*GUESSES, "text"):
            raise DataError(f"--map {pair!r}: {suggest(role, sorted((*GUESSES, 'text')))}", next_action="write --map text=COLUMN")
        columns[role] = column
    mapping = ColumnMapping(fields=("text",), columns=columns)
    for number, path in enumerate(paths):
        if not path.is_file():
            raise DataError(f"no file {path}", next_action="look at the path; patterns are your shell's to expand")
        for row in read_file(path, mapping, use=format_name or pick(path)):
            if isinstance(row, Skipped):
                skipped.append(row.reason)
            else:
                yield row if number == 0 else _renamed(row, number)


def _renamed(row: TrafficRecord, number: int) -> TrafficRecord:
    """Two files may use the same ids for different rows."""
    from dataclasses import replace

    return replace(row, request=replace(row.request, id=f"{number}/{row.request.id}"))


def _log(door: Door) -> Iterator[TrafficRecord]:
    from overproof.store.project_store import HOME, open_store

    if not (door.root / HOME).is_dir():
        raise DataError("there is neither a file to read nor a project here", next_action="name log files: `overproof discover FILES`")
    with open_store(door.root) as store:
        yield from store.traffic.read(context=True)


def _lean(rows: Iterable[TrafficRecord]) -> Iterator[TrafficRecord]:
    """Without what was sent beside the request, but for one row of each system prompt: the same words a million times need gigabytes."""
    from dataclasses import replace

    from overproof.steps.discover import SYSTEM

    shown = set[str]()
    for row in rows:
        digest = row.request.attributes.get(SYSTEM)
        if digest and row.context and digest not in shown:
            shown.add(digest)
            yield row
        else:
            yield replace(row, context=(), calls=())


def _chosen(found: Discovery, name: str | None) -> Candidate:
    from overproof.registry import suggest

    writable = [c for c in found.candidates if c.output]
    if name is None:
        order = sorted((c for c in writable if c.kind != "text"), key=lambda c: ("yes", "unclear", "no").index(c.worth))
        if not order:
            raise DataError("no candidate has a closed set of answers or the same keys in all", next_action="read the reasons above")
        return order[0]
    for one in writable:
        if one.name == name:
            return one
    raise DataError(
        f"no candidate {name!r} that a project can say. {suggest(name, [c.name for c in writable])}",
        next_action="name one of these with --task",
    )


def _prompt(candidate: Candidate, records: Sequence[TrafficRecord], redact: Callable[[str], str]) -> str:
    """The task's prompt as the log has it: the system prompt and the frame of the requests; empty where it has neither."""
    from overproof.steps.discover import SYSTEM

    digest, system = candidate.system_prompt, ""
    mine = (r for r in records if digest and r.request.attributes.get(SYSTEM) == digest and r.context)
    if (row := next(mine, None)) is not None:
        system = "\n".join(turn.text for turn in row.context if turn.role == "system")
    return "\n\n".join([redact(text.strip()) for text in (system, candidate.frame) if text])


def write_project(folder: Path, candidate: Candidate, prompt: str = "") -> list[str]:
    """
    A starter project for one candidate: its answers filled in, the rest as `init` leaves it.

    Args:
        folder: gets the files; nothing is overwritten.
        candidate: one with an output that a project can say.
        prompt: what was found of the task's prompt; `init`'s stands where it is empty.

    Returns: names of the files.
    Raises: DataError where a file is there already, or two answers differ only in case and punctuation.
    """
    from overproof.cli.setup import project_files
    from overproof.task import output_of
    from overproof.whole import write_whole

    output_of(candidate.output)
    texts = project_files(f"{folder.resolve().name}", "openai-api", candidate.kind)
    (kind, form) = next(iter(candidate.output.items()))
    texts[PROJECT_FILE] = re.sub(
        r"^output = .*$", lambda _: f"output = {{ {kind} = {_toml(form)} }}", texts[PROJECT_FILE], count=1, flags=re.MULTILINE
    )
    if prompt:
        texts[PROMPT_FILE] = prompt + "\n"
    if taken := [name for name in texts if (folder / name).exists()]:
        raise DataError(f"{', '.join(taken)} already there; nothing was written", next_action="give another folder to --write")
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_whole(folder / name, text)
    return list(texts)


def _toml(form: Any) -> str:
    if isinstance(form, Mapping):
        return "{ " + ", ".join(f"{json.dumps(str(key), ensure_ascii=False)} = {_toml(one)}" for key, one in form.items()) + " }"
    if isinstance(form, str | float):
        return json.dumps(form, ensure_ascii=False)
    return "[\n  " + ",\n  ".join(json.dumps(one, ensure_ascii=False) for one in form) + ",\n]"


def _told(candidate: Candidate) -> dict[str, Any]:
    """All of a candidate but the ids of its rows, which nobody reads by the thousand."""
    import dataclasses

    return {f.name: getattr(candidate, f.name) for f in dataclasses.fields(candidate) if f.name != "row_ids"}


def _page(found: Discovery, skipped: int, recipe: Any) -> Iterator[Any]:
    from rich.markup import escape

    from overproof.cli.tables import grid

    yield f"{found.rows} rows read, {skipped} skipped, {found.left_over} in groups too small to judge"
    table = grid("Candidates", "task", "rows", "a month", "USD a month", "answers", "kind", "worth it", right=(1, 2, 3, 4))
    for c in found.candidates:
        volume = "?" if c.per_month is None else f"{c.per_month:.0f}"
        money = "?" if c.usd_per_month is None else f"{c.usd_per_month:.2f}"
        table.add_row(c.name, str(c.rows), volume, money, str(c.distinct), c.kind, c.worth)
    yield table
    for c in found.candidates:
        yield f"[bold]{c.name}[/], {escape(c.prompt)}: worth distilling? [bold]{c.worth}[/]"
        if c.division:
            yield f"  {escape(c.division)}"
        for reason in c.reasons:
            yield f"  - {escape(reason)}"
        top = ", ".join(f"{name!r} {n}" for name, n in c.labels[:SHOWN_LABELS])
        yield f"  {'keys' if c.kind == 'fields' else 'answers'}: {escape(top)}"
        if c.kind == "fields" and c.output:
            yield f"  proposed: output = {{ fields = {escape(_toml(c.output['fields']).replace(chr(10), ' '))} }}"
        share = c.repeated.value or 0.0
        yield (
            f"  {c.entropy_bits:.1f} bits of answer; {share:.0%} of later requests near-duplicates of earlier ones "
            f"(n = {c.repeated.n}); money measured on {c.priced_rows} rows"
        )
        yield f"  for example: {escape(c.examples[0][:120])!r}"
    yield (
        f"assumed: a person checks an answer for {recipe.review_usd:.2f} USD, training costs {recipe.training_usd:.2f} USD, "
        f"a student keeps {recipe.kept_share:.0%} of the requests, and {recipe.months:.0f} months are soon enough"
    )
    if any(c.output and c.kind != "text" and c.worth != "no" for c in found.candidates):
        yield "[bold]next:[/] overproof discover FILES --write DIR --task NAME"
