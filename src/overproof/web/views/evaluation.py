"""The evaluation: slices against their bars, right and wrong, confidence, the threshold explorer, and where student and teacher differ."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from overproof.evidence import EvalReport
from overproof.steps.collect import Evidence
from overproof.steps.dossier import slices_view
from overproof.web.evaluation_model import GRID_LABELS, RIGHT, Answered, answered, candidate_of, chosen_rows
from overproof.web.explorer import Explorer, Move, explorer_of, table_of, volume_of
from overproof.web.render import part
from overproof.web.run_model import chosen_run
from overproof.web.view import Ask, Data, NotHere, Page, Query, Reply, View

ROWS_A_PAGE: Final = 15
RUNS_SHOWN: Final = 50
CHART: Final = (600, 170)
"""Width and height of the explorer's chart, in units of its drawing; the page's script draws by the same."""
MOST_VOLUME: Final = 1e12


def evaluation(ask: Ask) -> Reply:
    """One candidate of one run, or what to do where there is no run."""
    found = chosen_run(ask.place, ask.query.text("run"))
    if found is None:
        return Page(template="evaluation.html", title="Evaluation", values={"record": None})
    record, run, known = found
    evidence: Evidence = run.artifacts["evidence"].value
    report: EvalReport = run.artifacts["report"].value
    chosen = candidate_of(report, ask.query.text("candidate"))
    voices = answered(ask.place, run, chosen.name)
    values: dict[str, Any] = {
        "record": record, "runs": known[:RUNS_SHOWN], "report": report, "evidence": evidence, "chosen": chosen, "served": chosen.name == report.chosen,
        "slices": slices_view(chosen), "voices": voices, "grid": _grid(voices), "right_words": dict(zip(RIGHT, RIGHT_WORDS, strict=True)),
        "link": _link(ask, record.id, chosen.name), **_explored(ask, run), **_listed(ask, voices),
    }  # fmt: skip
    return Page(template="evaluation.html", title="Evaluation", values=values)


RIGHT_WORDS: Final = ("the teacher is right", "the student is right", "neither is right", "not known")


def _link(ask: Ask, run_id: str, candidate: str) -> Any:
    """The same page with other choices, at a place on it."""

    def to(place: str = "", **asked: object) -> str:
        wanted = {"run": run_id, "candidate": candidate, **asked}
        return f"/ui/{part(ask.place.name)}/evaluation?" + urlencode({name: value for name, value in wanted.items() if value}) + (f"#{place}" if place else "")

    return to


def _explored(ask: Ask, run: Any) -> dict[str, Any]:
    """The explorer as the address asks for it: without a script it is moved by a form."""
    query, evidence = ask.query, run.artifacts["evidence"].value
    found = _explorer(run, query)
    if not found.moves:
        return {"explorer": None}
    volume = volume_of(ask.place, evidence.requests_per_month)
    move = next((one for one in found.moves if one.name == query.text("move", found.moves[0].name)), found.moves[0])
    at = query.whole("step", move.planned, least=0, most=len(move.stops) - 1)
    monthly = query.number("volume", volume.requests or 0.0, least=0.0, most=MOST_VOLUME) or None
    return {
        "explorer": found, "move": move, "at": at, "stop": move.stops[at], "volume": volume, "monthly": monthly, "month": found.month(move.stops[at], monthly),
        "alone": found.month(None, monthly), "lines": _lines(move), "chart": CHART, "both": run.artifacts["report"].value.other is not None,
    }  # fmt: skip


def _explorer(run: Any, query: Query) -> Explorer:
    data = run.artifacts["evidence"].value.data
    return explorer_of(run.artifacts["report"].value, run.artifacts["plan"].value, by=query.one_of("by", ("teacher", "gold")), boosted=data.boosted if data else None)


def _lines(move: Move) -> dict[str, str]:
    """The chart's two lines over the steps: the share of all traffic, and the bound of the error."""
    width, height = CHART
    step = width / max(1, len(move.stops) - 1)

    def drawn(values: list[float | None]) -> str:
        return " ".join(f"{i * step:.1f},{height * (1 - value):.1f}" for i, value in enumerate(values) if value is not None)

    return {"share": drawn([one.total.value for one in move.stops]), "bound": drawn([one.upper for one in move.stops])}


def _grid(voices: Answered | None) -> tuple[str, ...]:
    """The labels of the confusion grid; empty where it would be too large to read, or there is none."""
    return voices.labels if voices is not None and voices.whole and 2 <= len(voices.labels) <= GRID_LABELS else ()


def _listed(ask: Ask, voices: Answered | None) -> dict[str, Any]:
    """The disagreements that were asked for, one page."""
    query = ask.query
    asked = {"teacher": query.text("teacher"), "student": query.text("student"), "slice": query.text("slice"), "right": query.one_of("right", RIGHT), "q": query.text("q")}
    rows = () if voices is None else chosen_rows(
        voices, teacher=asked["teacher"], student=asked["student"], where=asked["slice"], right=asked["right"], text=asked["q"]
    )  # fmt: skip
    pages = max(1, -(-len(rows) // ROWS_A_PAGE))
    page = query.whole("page", 1, least=1, most=pages)
    return {"asked": asked, "found": len(rows), "rows": rows[(page - 1) * ROWS_A_PAGE : page * ROWS_A_PAGE], "page": page, "pages": pages}


def thresholds(ask: Ask) -> Reply:
    """The explorer's whole table, so that moving needs no further request."""
    found = chosen_run(ask.place, ask.query.text("run"))
    if found is None:
        raise NotHere("there is no run yet", next_action="do one with `overproof run`")
    return Data(value=table_of(_explorer(found[1], ask.query)))


VIEWS = (View(path="/{task}/evaluation", answer=evaluation, nav="Evaluation"), View(path="/{task}/evaluation/thresholds", answer=thresholds, page=False))
