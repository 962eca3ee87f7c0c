"""Before the first run: write the files of a project, and check them without a network."""

from __future__ import annotations

import string
import time
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from overproof.cli.door import Door, verb
from overproof.errors import EXIT_PASS, EXIT_TERMS, DataError, ProjectError, TermsError
from overproof.whole import write_whole

if TYPE_CHECKING:
    from overproof.cli.tables import Need
    from overproof.project import Project
    from overproof.task import Slice

CHARACTERS_PER_TOKEN = 4  # usual for English; other languages need more tokens, so the estimate says "about"
COUNTED = ("accuracy", "fidelity")  # bars on a share of rows; what a mean or an F1 needs can't be said before it is seen
HALF = 0.5  # rows needed are planned for a student whose error is half of what the bar admits


@click.command(short_help="Write a project to fill in.")
@click.argument("folder", type=click.Path(path_type=Path), default=Path())
@click.option("--kind", "--output", "kind", default="classes", help="Output kind: classes, fields or text.", show_default=True)
@click.option("--terms", "entry_id", default="openai-api", help="Entry of the terms registry.", show_default=True)
@verb
def init(door: Door, folder: Path, kind: str, entry_id: str) -> int:
    """Write overproof.toml, a prompt and a terms record into FOLDER; overwrite nothing."""
    texts = project_files(folder.resolve().name, entry_id, kind)
    taken = [name for name in texts if (folder / name).exists() and name != ".gitignore"]
    if taken:
        raise DataError(
            f"{', '.join(taken)} {'is' if len(taken) == 1 else 'are'} already there; nothing was written",
            next_action="give another folder: `overproof init FOLDER`",
        )
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_whole(path, text)
    body = {"folder": str(folder), "files": list(texts), "next": "fill in overproof.toml and terms/teacher.toml, then `overproof check`"}
    lines = [f"  {name}" for name in texts if name != ".gitignore"]
    door.emit(body, f"written into {folder.resolve().name or folder}:", *lines, f"[bold]next:[/] {body['next']}")
    return EXIT_PASS


def project_files(folder_name: str, entry_id: str, kind: str) -> dict[str, str]:
    """
    A project to fill in.

    Args:
        folder_name: what the task is named after.
        entry_id: of the terms registry.
        kind: "classes", "fields" or "text".

    Returns: relative path to content.
    Raises: DataError for another kind; TermsError for an unknown entry.
    """
    from overproof.cli.starters import STARTERS
    from overproof.steps.terms import OWN_HARDWARE, SERVICE_CHANNELS, read_entry

    if kind not in STARTERS:
        raise DataError(f"there is no output kind {kind!r}", next_action=f"use one of {', '.join(STARTERS)}")
    entry = read_entry(entry_id)
    recorded = entry.channel in ("own", "consumer")
    address = entry.base_urls[0].rstrip("/") + "/v1" if entry.base_urls else "" if recorded else "https://HOST/v1"
    today = date.today()  # noqa: DTZ011 - a person's calendar day
    conditions = list(dict.fromkeys(c.condition for c in entry.clauses if c.condition))
    if entry.channel == "open-weights":
        conditions.append(OWN_HARDWARE)
    documents = "".join(
        f'[[document]]                                   # «{d.title}»\nkey = "{d.key}"\n'
        f'effective = "{d.effective}"\nurl = ""\nread_on = ""\n\n'
        for d in entry.documents
    )
    name = "".join(c if c.isalnum() and c.isascii() else "-" for c in folder_name.lower()).strip("-") or "my-task"
    values = {
        "name": name, "teacher": _teacher_table(recorded=recorded, address=address),
        "registry_id": entry.id, "registry_digest": entry.digest, "provider": entry.provider, "channel": entry.channel,
        "clauses": "".join(f"#   {c.ref}: {c.says}\n" for c in entry.clauses) + (f"# {entry.note}\n" if entry.note else ""),
        "today": today.isoformat(), "model_provider": "recording" if recorded else address.split("/")[2], "base_url": address,
        "expires": f"expires = {today + timedelta(days=90)}" if entry.channel in SERVICE_CHANNELS else "",
        **STARTERS[kind],
        "conditions": "".join(f"# {c} = false\n" for c in conditions), "documents": documents,
    }  # fmt: skip
    folder = files("overproof") / "templates"
    return {
        out: string.Template((folder / source).read_text(encoding="utf-8")).substitute(values)
        for out, source in (
            ("overproof.toml", "classes/overproof.toml"), ("prompts/task.md", f"{kind}/prompt.md"), ("terms/teacher.toml", "classes/terms.toml"),
        )
    } | {".gitignore": ".overproof/\n"}  # fmt: skip


def _teacher_table(*, recorded: bool, address: str) -> str:
    if recorded:
        return (
            'use   = "recorded.v1"                          # the answers are there already\n'
            'model = "<who answered, with a date or version>"\n'
            '# path = "answers.jsonl"                       # id, output; absent: the answers of the traffic log'
        )
    return (
        f'use   = "openai.v1"                            # any OpenAI-compatible API\nbase_url = "{address}"\n'
        'model = "<exact id, with a date or version>"\napi_key_env = "TEACHER_API_KEY"\nsamples = 1\n'
        "budget_usd = 20\nprice_in_usd_per_million = 1.0              # from the provider's price list\n"
        "price_out_usd_per_million = 4.0"
    )


@click.command(short_help="Validate offline.")
@verb
def check(door: Door) -> int:
    """Validate the file, parts, terms and budget, offline; say what the next run costs and which bars lack rows."""
    project = door.load()
    from overproof.cli.parts import check_parts

    if problems := check_parts(project):
        raise ProjectError(problems, file=project.file)
    counts = _traffic(project)
    from overproof.cli.asked_cost import asked_cost
    from overproof.cli.judge_page import judge_cost
    from overproof.cli.starters import named

    cost = _cost(project, counts)
    judge = judge_cost(project, cost["rows"], counts["characters"] / max(counts["rows"], 1))
    asked = asked_cost(project, cost["rows"], counts["characters"] / max(counts["rows"], 1))
    needs = _needs(project, counts)
    failure, clearance = None, None
    try:
        clearance = cleared(project)
        judge_cleared(project)
    except TermsError as error:
        failure = error
    body = {
        "file": project.file, "task": project.task.name, "labels": len(project.task.output.labels),
        "output": named(project.task.output),
        "teacher": project.pin, "students": project.students, "baselines": [b.name for b in project.baselines],
        "digests": project.digests, "traffic_rows": counts["rows"], "cost": cost, "judge": judge, "asked": asked, "needs": needs,
        "next_size": _next_size(project),
        "terms": clearance.posture if clearance and not failure else None, "terms_problem": failure.what if failure else None,
        "next": failure.next_action if failure else "overproof run" if counts["rows"] else "overproof import FILES",
    }  # fmt: skip
    from overproof.cli.tables import check_page

    if failure and not door.as_json:
        door.emit(None, *check_page(body))
        raise failure
    door.emit(body, *check_page(body))
    return EXIT_TERMS if failure else EXIT_PASS


def _next_size(project: Project) -> str:
    """The next student to try on the ladder of sizes; empty where it ends."""
    from overproof.recipes import verdict_recipe
    from overproof.steps.size_verdict import next_rung

    recipe = verdict_recipe(project)
    return next_rung(recipe.tried, recipe.known, kind=recipe.kind)


def cleared(project: Project) -> Any:
    """
    The clearance that the project's terms record gives.

    Args:
        project: a loaded project.

    Returns: an `overproof.data.Clearance`.
    Raises: TermsError where the record is missing or falls short.
    """
    from overproof.asking import clear_recipe, terms_of
    from overproof.steps.clear import clear

    terms = terms_of(project)
    return clear(terms, clear_recipe(project, terms, time.strftime("%Y-%m-%d", time.gmtime())))


def judge_cleared(project: Project) -> None:
    """
    Check the judge's own terms record, where the project names a judge.

    Args:
        project: a loaded project.

    Raises: TermsError where the record is missing or falls short.
    """
    if not project.judge.use:
        return
    from overproof.asking import clear_recipe
    from overproof.judging import judge_terms
    from overproof.steps.clear import clear

    terms = judge_terms(project)
    clear(terms, clear_recipe(project, terms, time.strftime("%Y-%m-%d", time.gmtime()), project.judge))


def _traffic(project: Project) -> dict[str, Any]:
    """Rows, characters and rows per attribute value of the traffic log; zeros where there is no store yet."""
    counts: dict[str, Any] = {"rows": 0, "characters": 0, "gold": 0, "values": {}, "slices": {}, "cells": {}}
    if not (project.root / ".overproof").is_dir():
        return counts
    from overproof.data import FEEDBACK
    from overproof.progress import track
    from overproof.settings import expand_slices
    from overproof.steps.capture import foreign, instant
    from overproof.store.project_store import open_store

    rows = []
    with open_store(project.root) as store:
        since = _window_start(store, project)
        for record in track(store.traffic.read(), "reading the traffic log"):
            if since is not None and (record.request.at is None or instant(record.request.at) < since):
                continue  # before the window: no run sees it
            if foreign(record, project.task.name) or (record.served is not None and record.served.truncated):
                continue  # neither does it see what the gateway captured for other tasks
            counts["rows"] += 1
            counts["characters"] += sum(len(record.request.fields.get(f, "")) for f in project.task.input)
            counts["gold"] += record.gold is not None and record.gold_from != FEEDBACK
            rows.append(record.request.attributes)
    values: dict[str, set[str]] = {}
    for table in project.slices:
        if table.by:
            values[table.by] = {row[table.by] for row in rows if table.by in row}
    slices = expand_slices(project.slices, {k: sorted(v) for k, v in values.items()})
    routed = [s for s in slices if s.where and not s.reads_label]
    cells = [next((s.name for s in routed if _inside(s, row)), "other") for row in rows]
    counts["cells"] = {name: cells.count(name) for name in (*(s.name for s in routed), "other")}
    counts["slices"] = {s: sum(_inside(s, row) for row in rows) for s in slices if s.where and not s.reads_label}
    return counts


def _window_start(store: Any, project: Project) -> Any:
    """Where the configured window begins, counted from the newest row; None for all of the log."""
    from overproof.steps.capture import instant

    if project.traffic.window_days is None:
        return None
    newest = max((instant(r.request.at) for r in store.traffic.read() if r.request.at), default=None)
    return newest - timedelta(days=project.traffic.window_days) if newest else None


def _inside(piece: Slice, attributes: Mapping[str, str]) -> bool:
    return all(attributes.get(key) in admitted for key, admitted in piece.where)


def _cost(project: Project, counts: Mapping[str, Any]) -> dict[str, Any]:
    """What labelling the present traffic costs at most, before the label cache takes its share."""
    from overproof.project import LOCAL

    t = project.teacher
    rows = min(counts["rows"], project.promptset.requests or counts["rows"])
    calls = rows * max(t.samples, t.hard_samples or 0)  # at most: every row might turn out to be a hard one
    if t.price_in_usd_per_million is None or t.price_out_usd_per_million is None:
        own = t.use == LOCAL
        return {"rows": rows, "calls": calls, "usd": 0.0, "how": "no bill, but processor time" if own else "recorded answers cost nothing"}
    mean = counts["characters"] / counts["rows"] if counts["rows"] else 0
    tokens_in = calls * (len(project.task.prompt) + mean) / CHARACTERS_PER_TOKEN
    usd = (tokens_in * t.price_in_usd_per_million + calls * t.max_tokens * t.price_out_usd_per_million) / 1e6
    how = f"{calls} calls x about {tokens_in / calls if calls else 0:.0f} tokens in, at most {t.max_tokens} out; cached labels cost nothing"
    return {"rows": rows, "calls": calls, "usd": round(usd, 4), "how": how, "budget_usd": t.budget_usd}


def _needs(project: Project, counts: Mapping[str, Any]) -> Sequence[Need]:
    from overproof.cli.needs import Supply, margin_need, planned_delta, threshold_needs
    from overproof.cli.tables import Need
    from overproof.measure.intervals import rows_needed

    delta, supply = planned_delta(project), Supply.of(project, counts)
    judged = project.promptset.test_share * (1 - project.proof.certify_share)
    rows = min(counts["rows"], project.promptset.requests or counts["rows"])
    scale = judged * rows / max(counts["rows"], 1)
    segments = [("all", project.bars.bars, counts["rows"])]
    for piece, n in counts["slices"].items():
        own = {bar.metric: bar for bar in piece.bars}
        segments.append((piece.name, tuple({**{b.metric: b for b in project.bars.bars}, **own}.values()), n))
    return [
        Need(
            slice=name, metric=bar.metric, bar=bar.at_least, rows_expected=int(n * scale),
            rows_needed=_at_least(rows_needed(1 - bar.at_least, HALF * (1 - bar.at_least), delta), bar.min_n),
        )
        for name, bars, n in segments for bar in bars if bar.at_least < 1 and bar.metric in COUNTED
    ] + [*margin_need(project, supply), *threshold_needs(project, supply)]  # fmt: skip


def _at_least(rows: int | None, least: int) -> int | None:
    return None if rows is None else max(rows, least)
