"""Write the dossier: one HTML page that opens anywhere, and the same facts as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overproof.data import Folder
from overproof.evidence import CandidateReport, Estimate, EvalReport, Figure, Refusal, Release, SliceReport
from overproof.steps.ahead import outlook_lines
from overproof.steps.certificates import other_words, walk_words, whole_traffic
from overproof.steps.collect import Evidence
from overproof.steps.evaluate import served_cost_usd_per_1000, teacher_of
from overproof.steps.headlines import watched_line
from overproof.steps.papers import About, write_papers
from overproof.steps.since import NAMES, change_lines, changes_from
from overproof.steps.sizing_view import sizing_view
from overproof.steps.slice_reports import bars_judged
from overproof.steps.standing import slice_columns
from overproof.steps.teacher_errors import TeacherErrors
from overproof.steps.waived import waived_rows
from overproof.store.artifacts import Step

if TYPE_CHECKING:
    from jinja2 import Environment

FORMAT = 1
HALF = 0.5
TEXT_FIELDS = frozenset({"disagreements", "examples", "gaps"})  # people's own words stay in the page; the JSON travels with the bundle
WORDS = {
    "pass": "pass",
    "fail": "fail",
    "undecided": "not enough data",
    "not-run": "not proven",
    "waived": "waived",
}
LABEL_PX = 17  # a label's line height in the candidates plot: closer ones would overprint


@dataclass(frozen=True, kw_only=True, slots=True)
class DossierRecipe:
    """What stands on the page beside the evidence."""

    today: str
    """ISO date."""
    version: str
    """Version of overproof that made it."""
    about: About | None = None
    """For the papers beside the page; None writes none."""


def write_dossier(evidence: Evidence, verdict: Release | Refusal, recipe: DossierRecipe, *, workdir: Path) -> Folder:
    """
    Write `index.html`, `dossier.json` and the papers.

    Args:
        evidence: what the gate read.
        verdict: what it decided.
        recipe: date and version.
        workdir: a fresh folder.

    Returns: the folder with them.
    """
    return _written(evidence, verdict, None, recipe, workdir)


def write_reviewed_dossier(
    evidence: Evidence, verdict: Release | Refusal, teacher: TeacherErrors, recipe: DossierRecipe, *, workdir: Path
) -> Folder:
    """
    Write `index.html` and `dossier.json` of a run with reviews.

    Args:
        evidence: what the gate read.
        verdict: what it decided.
        teacher: where reviews found the teacher to be wrong.
        recipe: date and version.
        workdir: a fresh folder.

    Returns: the folder with them.
    """
    return _written(evidence, verdict, teacher, recipe, workdir)


def _written(
    evidence: Evidence, verdict: Release | Refusal, teacher: TeacherErrors | None, recipe: DossierRecipe, workdir: Path
) -> Folder:
    target = workdir / "dossier"
    target.mkdir()
    (target / "index.html").write_text(page(evidence, verdict, recipe, teacher=teacher), encoding="utf-8")
    values = facts(evidence, verdict, recipe, teacher=teacher)
    text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False)
    (target / "dossier.json").write_text(text + "\n", encoding="utf-8")
    if recipe.about is not None:
        write_papers(target, values, recipe.about, evidence.bundle.path if evidence.bundle else None)
    return Folder(path=target)


def facts(
    evidence: Evidence, verdict: Release | Refusal, recipe: DossierRecipe, *, teacher: TeacherErrors | None = None
) -> dict[str, Any]:
    """
    The dossier as plain values: no request text, no path of any machine.

    Args:
        evidence: what the gate read.
        verdict: what it decided.
        recipe: date and version.
        teacher: what reviews found, where there are any.

    Returns: JSON values.
    """
    return {
        "format": FORMAT,
        "overproof": recipe.version,
        "date": recipe.today,
        "verdict": "release" if isinstance(verdict, Release) else "refusal",
        "decision": _plain(verdict),
        "evidence": _plain(evidence),
        **({} if teacher is None else {"teacher_errors": _plain(teacher)}),
        "cost_as_served_usd_per_1000": served_cost_usd_per_1000(evidence.report) if evidence.report else None,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Folder):
        return {"digest": value.digest}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [f.name for f in dataclasses.fields(value) if f.name not in TEXT_FIELDS]
        return {name: _plain(getattr(value, name)) for name in fields}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def page(
    evidence: Evidence, verdict: Release | Refusal, recipe: DossierRecipe, *, teacher: TeacherErrors | None = None
) -> str:
    """
    The HTML page.

    Args:
        evidence: what the gate read.
        verdict: what it decided.
        recipe: date and version.
        teacher: what reviews found, where there are any.

    Returns: one self-contained document: no script, no outside request, every value escaped.
    """
    report = evidence.report
    chosen = next((c for c in report.candidates if c.name == report.chosen), None) if report else None
    former = recipe.about.former if recipe.about is not None else None
    changes = changes_from(facts(evidence, verdict, recipe), former) if former is not None else None
    return _environment().get_template("dossier.html").render(
        evidence=evidence,
        data=evidence.data,
        report=report,
        verdict=verdict,
        released=isinstance(verdict, Release),
        recipe=recipe,
        errors=teacher,
        robustness=watched_line(verdict.watched),
        stops=[f for f in verdict.findings if f.outcome not in ("pass", "waived")],
        chosen=chosen,
        waived=waived_rows(_plain(verdict)),
        changes=changes,
        change_lines=change_lines(changes) if changes else [],
        names=NAMES,
        weak=weak_view(report),
        slices=slices_view(chosen) if chosen else None,
        plot=plot_view(report) if report else None,
        money=money_view(evidence) if report else None,
        sizing=sizing_view(evidence.sizing) if evidence.sizing else None,
        slice_columns=slice_columns(report) if report else [],
        certificates=[c for c in (report.certificate, report.other) if c is not None] if report else [],
        second=other_words(report) if report else "",
        tests=tests_view(report) if report else [],
        walk_words=walk_words,
        whole_traffic=whole_traffic,
        ahead_lines=outlook_lines(report) if report else (),
        unfamiliar=next((s for s in chosen.slices if s.kind == "novelty" and s.critical), None) if chosen else None,
    )


@cache
def _environment() -> Environment:
    from jinja2 import (  # a run that writes no page doesn't pay for it
        Environment,
        PackageLoader,
        StrictUndefined,
    )

    made = Environment(
        loader=PackageLoader("overproof.steps", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(FILTERS)
    return made


def percent(value: float | None, digits: int = 1) -> str:
    """
    A fraction in percent.

    Args:
        value: in [0, 1], or None.
        digits: after the point.

    Returns: for example "94.2%"; a dash for None.
    """
    return "–" if value is None else f"{100 * value:.{digits}f}%"


def in_words(figure: Figure | Estimate | None) -> str:
    """
    A figure with interval and n.

    Args:
        figure: any figure, or None.

    Returns: for example "94.2% (92.1–95.8%, n = 812)".
    """
    if figure is None or figure.value is None:
        return "no rows (n = 0)"
    return f"{percent(figure.value)} ({100 * figure.low:.1f}–{percent(figure.high)}, n = {figure.n:,})"


def amount(value: float | None) -> str:
    """
    An amount of money without its unit, with the digits that it has.

    Args:
        value: USD, or None.

    Returns: for example "0.0052"; "not known" for None.
    """
    if value is None:
        return "not known"
    if value == 0 or abs(value) >= 1:
        return f"{value:,.2f}"
    return f"{value:.{1 - math.floor(math.log10(abs(value)))}f}"


def dollars(value: float | None) -> str:
    """
    An amount of money.

    Args:
        value: USD, or None.

    Returns: for example "0.0052 USD"; "not known" for None.
    """
    return amount(value) if value is None else f"{amount(value)} USD"


def count(value: float | None) -> str:
    """
    A whole number with separators.

    Args:
        value: a count, or None.

    Returns: for example "13,083".
    """
    return "–" if value is None else f"{value:,.0f}"


def seconds(value: float) -> str:
    """
    A latency.

    Args:
        value: seconds.

    Returns: milliseconds under a second, else seconds.
    """
    if value <= 0:
        return "not measured"
    return f"{1000 * value:.3g} ms" if value < 1 else f"{value:.2f} s"


def size_words(value: int) -> str:
    """
    A size on disk.

    Args:
        value: bytes; 0 where nothing is on our disk.

    Returns: for example "91.0 MB".
    """
    if value <= 0:
        return "–"
    return f"{value / 1e6:,.1f} MB" if value >= 1e5 else f"{value / 1e3:,.1f} kB"


def sentence(text: str) -> str:
    """
    A finding as a sentence: a capital where it starts with a word of ours, and a full stop.

    Args:
        text: a clause.

    Returns: the sentence; part names and quoted names keep their spelling.
    """
    first = text.split(" ", 1)[0]
    return full_stop(text[:1].upper() + text[1:] if first.isalpha() else text)


def full_stop(text: str) -> str:
    """
    The text with one full stop at its end.

    Args:
        text: a clause or a sentence.

    Returns: the text, ended.
    """
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


FILTERS = {
    "pct": percent, "figure": in_words, "usd": dollars, "amount": amount, "count": count, "seconds": seconds, "size": size_words,
    "word": WORDS.__getitem__, "sentence": sentence, "full_stop": full_stop,
}  # fmt: skip
"""How figures are written, on every page of ours."""


def weak_view(report: EvalReport | None) -> dict[str, Any]:
    """
    Labels on which the teacher is wrong more often than right.

    Args:
        report: any report, or None.

    Returns: those shown by their interval, those only likely, and how many labels have gold at all.
    """
    if report is None:
        return {"shown": [], "likely": [], "labels": 0}
    chosen = next(c for c in report.candidates if c.name == report.chosen)
    known = [s for s in chosen.slices if s.kind == "label" and s.teacher_accuracy is not None and s.teacher_accuracy.n]
    shown = [s for s in report.weak_labels if s.teacher_accuracy is not None and s.teacher_accuracy.high < HALF]
    return {"shown": shown, "likely": [s for s in report.weak_labels if s not in shown], "labels": len(known)}


def slices_view(chosen: CandidateReport) -> dict[str, Any]:
    """
    The interval chart of the chosen candidate: judged figures, then what is shown without a bar.

    Args:
        chosen: its report.

    Returns: the axis' lower end, ticks, rows with a bar, and rows without one.
    """
    pairs = [(s, f) for s in chosen.slices for f in bars_judged(s, served=True)]
    bare = [
        (s, s.served_fidelity)
        for s in chosen.slices
        if s.kind != "label" and s.served_fidelity is not None and not bars_judged(s, served=True)
    ]
    figures = [f for _, f in pairs + bare if f.n]
    judged, shown = (
        [{"slice": s, "figure": f, "alone": _alone(s, f.metric)} for s, f in rows] for rows in (pairs, bare)
    )
    lowest = min([f.low for f in figures] + [f.bar for f in figures if f.bar is not None], default=0.0)
    floor = min(0.9, math.floor(lowest * 10) / 10)
    ticks = [floor + i * (1 - floor) / 4 for i in range(5)]
    return {"floor": floor, "ticks": ticks, "judged": judged, "shown": shown,
            "labels": [s for s in chosen.slices if s.kind == "label"]}


def tests_view(report: EvalReport) -> list[dict[str, Any]]:
    """
    The paired tests as rows of a table.

    Args:
        report: any report.

    Returns: what is claimed, and the test.
    """
    pairs = (
        (f"{report.chosen} as served is not worse than the teacher by more than the margin", report.noninferiority),
        (f"{report.chosen} alone is better than the best do-nothing baseline", report.superiority),
    )
    return [{"claim": claim, "test": test} for claim, test in pairs if test is not None]


def _alone(where: SliceReport, metric: str) -> Figure | None:
    return where.accuracy if metric == "accuracy" else where.fidelity


def money_view(evidence: Evidence) -> dict[str, Any]:
    """
    What the teacher alone and the chosen candidate as served cost.

    Args:
        evidence: with a report.

    Returns: USD per 1,000 and per month, None where a price or the volume is not known.
    """
    report = evidence.report
    assert report is not None
    teacher, served = teacher_of(report), served_cost_usd_per_1000(report)
    alone = teacher.cost_usd_per_1000 if teacher is not None and teacher.cost_usd_per_1000 > 0 else None
    volume = evidence.requests_per_month
    thousands = volume / 1000 if volume else None

    def monthly(per_1000: float | None) -> float | None:
        return per_1000 * thousands if per_1000 is not None and thousands is not None else None

    saved = monthly(alone - served) if alone is not None and served is not None else None
    return {
        "teacher": alone,
        "served": served,
        "teacher_month": monthly(alone),
        "served_month": monthly(served),
        "saved_month": saved,
        "thousands": thousands,
    }


def plot_view(report: EvalReport, *, latency: bool = False) -> dict[str, Any]:
    """
    Candidates by cost or latency (log scale, percent of the width) and agreement with the teacher (pixels of the height).

    Args:
        report: any report.
        latency: by milliseconds, for those that were measured, instead of by cost.

    Returns: points with places of mark and label, ticks of both axes, and the height in pixels. A candidate whose cost or
        latency is not known has no point.
    """
    height, top, bottom = 300, 24, 262
    shown = [c for c in report.candidates if (c.latency_n if latency else c.cost_n or c.cost_usd_per_1000 > 0)]  # what nobody measured is not cheap
    costs = {c.name: 1000 * c.latency_s if latency else c.cost_usd_per_1000 for c in shown}
    served = None if latency else served_cost_usd_per_1000(report)
    positive = [v for v in (*costs.values(), served) if v is not None and v > 0] or [1.0]
    left, right = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    right = max(right, left + 1)
    values = [c.slices[0].fidelity.low for c in report.candidates]  # of all: two plots side by side have one axis
    floor = max(0.0, math.floor(min(values, default=0.0) * 10) / 10)

    def x_of(cost: float) -> float:
        place = (math.log10(max(cost, 10.0**left)) - left) / (right - left)
        return 11 + 83 * place

    def y_of(value: float) -> float:
        return bottom - (bottom - top) * (value - floor) / max(1 - floor, 1e-9)

    points = []
    for c in shown:
        f = c.slices[0].fidelity
        points.append(_point(c.name, c.kind, x_of(costs[c.name]), f, c.name == report.chosen))
    best = next(c for c in report.candidates if c.name == report.chosen).slices[0].served_fidelity
    if served is not None and best is not None and best.value is not None:
        points.append(_point(f"{report.chosen} as served", "served", x_of(served), best, True))
    for p in points:
        p.update(y=y_of(p["value"]), y_low=y_of(p["low"]), y_high=y_of(p["high"]))
    _place_labels(points)
    return {
        "height": height,
        "points": points,
        "x_ticks": [(x_of(10.0**e), f"{10.0**e:.{max(0, -e)}f}") for e in range(left, right + 1)],
        "y_ticks": [(y_of(floor + i * (1 - floor) / 4), percent(floor + i * (1 - floor) / 4, 0)) for i in range(5)],
        "bottom": bottom,
    }


def _point(name: str, kind: str, x: float, figure: Figure, chosen: bool) -> dict[str, Any]:  # noqa: FBT001 - private
    return {
        "name": name, "kind": kind, "x": x, "chosen": chosen, "figure": figure,
        "value": figure.value or 0.0, "low": figure.low, "high": figure.high,
    }


def _place_labels(points: list[dict[str, Any]]) -> None:
    """Push labels apart from top to bottom, so that none covers another one on its side."""
    for side in (True, False):
        last = -math.inf
        for p in sorted((p for p in points if (p["x"] > HALF * 100) is side), key=lambda p: p["y"]):
            p["anchor"] = "end" if side else "start"
            p["label_y"] = last = max(p["y"] + 4, last + LABEL_PX)


DOSSIER = Step(name="dossier", version=7, fn=write_dossier, workdir=True)
REVIEWED_DOSSIER = Step(name="reviewed_dossier", version=4, fn=write_reviewed_dossier, workdir=True)
