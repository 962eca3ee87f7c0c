"""The review desk: ten minutes of a person, where they move quality most."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from overproof.desk import Desk, spoken
from overproof.desk_files import FORMS, form_of, take, written
from overproof.errors import DataError
from overproof.importers.label_studio import config
from overproof.outputs import Fields
from overproof.steps.queues import Asked
from overproof.task import Output
from overproof.web.desk_table import REACH, ROWS, TABLES, Table, tables_of
from overproof.web.review_model import conflict_words, read_review
from overproof.web.view import Ask, Data, Download, Page, Reply, View

AHEAD = 20
"""Rows that a browser gets at a time."""
MOST = 5000
"""Rows of a file to keep."""
MOST_ANSWER = 20_000
DERIVED = ("system_prompt", "turns", "tool_results")
"""Attributes that importers count out of a call: they say nothing to a reader."""
MOST_FILE = 900_000
_KINDS = {"argilla": ("json", "application/json"), "label-studio": ("json", "application/json"), "jsonl": ("jsonl", "application/x-ndjson")}


def review(ask: Ask) -> Reply:
    """The page."""
    place, tables = ask.place, tables_of(ask.place)
    found = read_review(place, tables)
    table = ask.query.one_of("queue", TABLES, "audit")
    rows = ask.query.one_of("rows", ROWS, "live" if found.waiting_live and table == "audit" else "train")
    output = tables.of("live").asked_for(judged=table == "judge")
    values = {
        "desk": found, "queue": table, "rows": rows, "output": output, "kind": _kind(output), "shown": ask.query.one_of("shown", ("1",)) == "1",
        "conflicts": [(one, conflict_words(one)) for one in found.outcome.conflicts[:20]], "forms": FORMS, "may": ask.may("review"),
        "owner": place.project.owner.name if place.project.owner else "",
    }  # fmt: skip
    return Page(template="review.html", title="Review", values=values, live=_live(found.drawn, found.picked, len(found.outcome.conflicts), found.corrected, found.fresh))


def rows(ask: Ask) -> Reply:
    """The next rows of a person's queue, as JSON; the teacher's answer only in the fix queue and only where it was asked for."""
    tables, table, whose = tables_of(ask.place), _table(ask.query.text("queue")), _rows(ask.query.text("rows"))
    reviewer, shown = ask.query.text("reviewer"), ask.query.text("shown") == "1"
    desk, prepared = tables.of(whose), tables.prepared() if table == "fix" else None
    ready = table != "fix" or (prepared is not None and prepared.queue is not None)
    queue = tables.queue(table, whose, reviewer)
    queue = queue if ready else ()  # it may be there a moment later, and rows without their reason are not shown
    head = queue[:REACH] if ask.query.text("all") == "1" else queue[:AHEAD]
    why: Mapping[str, Any] = prepared.queue.reasons if prepared is not None and prepared.queue is not None else {}
    said = desk.said() if table == "fix" and shown else {}
    conflicts = {one.digest: conflict_words(one) for one in desk.outcome.conflicts} if table == "conflicts" else {}
    if said:
        tables.seen.update((reviewer, one.digest) for one in head)
    return Data(value={
        "rows": [_row(one, conflicts.get(one.digest) or (why[one.digest].words if one.digest in why else ""), said.get(one.digest, "")) for one in head],
        "left": len(queue), "working": prepared is not None and prepared.working, "problem": prepared.problem if prepared is not None else "",
    })  # fmt: skip


def word(ask: Ask) -> Reply:
    """One word on one row; durable before the answer is sent."""
    tables, table, whose = tables_of(ask.place), _table(ask.said("queue")), _rows(ask.said("rows"))
    reviewer = ask.said("reviewer", most=100, needed="write your name above the row")
    row = tables.row(table, whose, reviewer, ask.said("digest", most=200))
    desk = tables.of(whose)
    label = spoken(ask.said("label", most=MOST_ANSWER, needed="choose a label, or write the answer"), desk.asked_for(judged=table == "judge"))
    blind = (reviewer, row.digest) not in tables.seen and ask.body.get("shown") is not True  # a page outlives the server that filled it
    desk.keep(row, label, reviewer, kind="adjudication" if table == "conflicts" else "review", seconds=_seconds(ask.body.get("seconds")), blind=blind)
    return Data(value={"kept": label, "blind": blind, **_counts(desk)})


def undo(ask: Ask) -> Reply:
    """Take one's last word on a row back."""
    tables, table, whose = tables_of(ask.place), _table(ask.said("queue")), _rows(ask.said("rows"))
    reviewer = ask.said("reviewer", most=100, needed="write your name above the row")
    row, desk = tables.row(table, whose, reviewer, ask.said("digest", most=200)), tables.of(whose)
    desk.withdraw(row, reviewer)
    return Data(value={"withdrawn": row.request_id, **_counts(desk)})


def export(ask: Ask) -> Reply:
    """A queue as a file of an annotation tool, or its labelling configuration."""
    tables, table, whose = tables_of(ask.place), _table(ask.query.text("queue", "audit")), _rows(ask.query.text("rows", "train"))
    form = ask.query.one_of("form", (*FORMS, "label-studio-config"), "jsonl")
    name = f"{ask.place.name}-{table}-{whose}"
    desk = tables.of(whose)
    if form == "label-studio-config":
        return Download(name=f"{name}.config.xml", body=config(desk.asked_for(judged=table == "judge").labels).encode(), kind="application/xml")
    if table == "conflicts":
        raise DataError("conflicts are decided here, not in a file", next_action="choose another queue")
    queue = tables.queue(table, whose, ask.query.text("reviewer"))[: ask.query.whole("n", 200, least=1, most=MOST)]
    ending, kind = _KINDS[form]
    return Download(name=f"{name}.{form}.{ending}", body=written(queue, form), kind=kind)  # type: ignore[arg-type]


def bring(ask: Ask) -> Reply:
    """What an annotation tool has written, taken row by row."""
    text = ask.said("text", most=MOST_FILE, needed="choose the file that the tool exported")
    data = text.encode("utf-8", "surrogatepass")
    table, whose = _table(ask.said("queue") or "audit"), _rows(ask.said("rows") or "train")
    found = take(tables_of(ask.place).of(whose), data, form_of(data), reviewer=ask.said("reviewer", most=100), judged=table == "judge")
    return Data(value={"said": found.words, "new": found.new, "refused": dict(found.refused)})


def _row(one: Asked, why: str, said: str) -> dict[str, Any]:
    return {"digest": one.digest, "id": one.request_id, "text": one.text, "why": why, "said": said, "attributes": [f"{k}: {v}" for k, v in one.attributes.items() if k not in DERIVED]}


def _counts(desk: Desk) -> dict[str, Any]:
    outcome = desk.outcome
    queues = [one.queue for one in outcome.settled.values()]
    return {"drawn": queues.count("audit"), "picked": queues.count("fix"), "conflicts": len(outcome.conflicts)}


def _live(drawn: int, picked: int, conflicts: int, corrected: int, fresh: int) -> dict[str, str]:
    return {"drawn": f"{drawn:,}", "picked": f"{picked:,}", "conflicts": f"{conflicts:,}", "corrected": f"{corrected:,}", "fresh": f"{fresh:,}"}


def _kind(output: Output) -> str:
    return "classes" if output.labels else "fields" if isinstance(output, Fields) else "text"


def _table(name: str) -> Table:
    if name not in TABLES:
        raise DataError(f"there is no queue {name[:50]!r}", next_action=f"choose one of {', '.join(TABLES)}")
    return name


def _rows(name: str) -> str:
    if name not in ROWS:
        raise DataError(f"there are no rows {name[:50]!r}", next_action=f"choose one of {', '.join(ROWS)}")
    return name


def _seconds(value: Any) -> float | None:
    sound = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value < 86_400
    return round(float(value), 2) if sound else None


VIEWS = (
    View(path="/{task}/review", answer=review, nav="Review"),
    View(path="/{task}/review/rows", answer=rows, scope="review", page=False),
    View(path="/{task}/review/export", answer=export, scope="review", page=False),
    View(path="/{task}/review/word", answer=word, method="POST", scope="review"),
    View(path="/{task}/review/undo", answer=undo, method="POST", scope="review"),
    View(path="/{task}/review/import", answer=bring, method="POST", scope="review"),
)
