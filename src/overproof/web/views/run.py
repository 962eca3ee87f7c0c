"""A run: where its rows came from and went, how candidates compare, what it cost; and the rows behind every number that fell away."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from overproof.steps.account import LeftOut
from overproof.steps.dossier import money_view, plot_view
from overproof.steps.sizing_view import sizing_view
from overproof.steps.standing import slice_columns
from overproof.web.render import part
from overproof.web.run_model import SPLITS, STEPS, RunView, read_left, read_run
from overproof.web.view import Ask, Page, Reply, View

RUNS_SHOWN: Final = 50
MOST_TICKS: Final = 4


def run(ask: Ask) -> Reply:
    """One run, or what to do where there is none."""
    view = read_run(ask.place, ask.query.text("run"))
    if view is None:
        return Page(template="run.html", title="Run", values={"view": None, "skipped": _skipped(ask), "has_log": ask.place.store.traffic.version().last_seq > 0})
    return Page(template="run.html", title=f"Run {view.record.id}", values={"view": view, **_drawn(view), "link": _link(ask, view.record.id), "runs": view.runs[:RUNS_SHOWN]})


def _skipped(ask: Ask) -> dict[str, int]:
    return dict(ask.place.store.glance.skipped_reasons())


def _drawn(view: RunView) -> dict[str, Any]:
    report, evidence = view.report, view.evidence
    chosen = next(c for c in report.candidates if c.name == report.chosen)
    return {
        "report": report, "evidence": evidence, "chosen": chosen, "plot": _few_ticks(plot_view(report)), "latencies": _few_ticks(plot_view(report, latency=True)),
        "money": money_view(evidence), "sizing": sizing_view(evidence.sizing) if evidence.sizing else None, "slice_columns": slice_columns(report),
    }  # fmt: skip


def _few_ticks(plot: dict[str, Any]) -> dict[str, Any]:
    """Half the width of a dossier, and on a phone less, has room for few decades."""
    ticks = plot["x_ticks"]
    return {**plot, "x_ticks": ticks[:: 1 + (len(ticks) - 1) // MOST_TICKS]}


def _link(ask: Ask, run_id: str) -> Any:
    """Where the rows of one entry are shown."""

    def to(step: str, one: LeftOut, page: int = 1) -> str:
        asked = {"run": run_id, "step": step, "reason": one.reason, "split": one.split, "by": one.by, "page": page if page > 1 else ""}
        return f"/ui/{part(ask.place.name)}/run/rows?" + urlencode({name: value for name, value in asked.items() if value})

    return to


def rows(ask: Ask) -> Reply:
    """The rows behind one entry of the funnel."""
    query = ask.query
    step, page = query.one_of("step", STEPS), query.whole("page", 1, least=1, most=100_000)
    found = read_left(ask.place, query.text("run"), step, query.text("reason"), split=query.text("split"), by=query.text("by"), page=page)
    link = _link(ask, found.run.id)
    return Page(
        template="run_rows.html",
        title=f"Left out: {found.left.reason}",
        values={
            "found": found, "step": step, "split": SPLITS.get(found.left.split, ""),
            "before": link(step, found.left, page - 1) if page > 1 else "", "after": link(step, found.left, page + 1) if found.more else "",
        },
    )  # fmt: skip


VIEWS = (View(path="/{task}/run", answer=run, nav="Run"), View(path="/{task}/run/rows", answer=rows, page=False))
