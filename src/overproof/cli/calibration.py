"""How far stated confidence can be believed, on a screen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from overproof.evidence import EvalReport, Reliability


def calibration_page(report: EvalReport) -> Iterable[Any]:
    """
    The chosen candidate's calibration: before, after, per slice, on sealed rows, and its out-of-scope rules.

    Args:
        report: any report.

    Returns: what a console prints.
    """
    from rich.markup import escape

    from overproof.cli.tables import grid, percent

    chosen = next(c for c in report.candidates if c.name == report.chosen)
    k = chosen.calibration
    if k is None:
        yield f"{escape(chosen.name)} was not calibrated"
        return
    own = ", ".join(f"{o.slice} {o.calibrator.temperature:.3g}" for o in k.confidence.own)
    method = f"temperature {k.temperature:.3g}" if k.confidence.everywhere.method == "temperature" else k.confidence.everywhere.method
    yield f"[bold]{escape(chosen.name)}[/]: {method}, {k.n:,} calibration rows ({escape(k.reason)})" + (escape(f"; own: {own}") if own else "")
    table = grid("Stated confidence against the teacher's label", "rows", "calibration error", "band", "chance", "Brier", "n", right=range(1, 6))

    def add(name: str, r: Reliability) -> None:
        band = f"{percent(r.ece.low)} to {percent(r.ece.high)}"
        table.add_row(escape(name), percent(r.ece.value), band, percent(r.ece.noise), f"{r.brier:.4f}", f"{r.ece.n:,}")

    add("calibration, before", k.before)
    add("calibration, after", k.after)
    for r in k.slices:
        add(f"calibration, {r.slice}", r)
    for r in chosen.reliability:
        add("sealed" if r.slice == "all" else f"sealed, {r.slice}", r)
    yield table
    yield f"band: {k.after.ece.method}, {percent(k.after.ece.level)}; shown, never judged"
    if k.confidence.mixed:
        yield escape(f"put together: {' or '.join(f'{rule.score} above {rule.threshold:.4g}' for rule in k.confidence.mixed)}")
    for where, f in (("calibration", k.mixed), ("sealed", chosen.mixed)):
        if f is not None:
            yield f"  routed: {percent(f.value)} of {f.n:,} {where} rows ({percent(f.low)} to {percent(f.high)})"
    if k.scope is None:
        yield "no out-of-scope rule"
        return
    rules = " or ".join(f"{rule.score} above {rule.threshold:.4g}" for rule in k.confidence.scope)
    yield f"out of scope: {escape(rules)} ({escape(k.scope.reason)})"
    for s in k.scope.table:
        yield f"  {escape(s.name)}: AUROC {s.auroc:.3f} ({s.low:.3f} to {s.high:.3f}, {escape(s.method)}, n = {k.scope.inside + k.scope.outside:,})"
    for where, f in (("calibration", k.scope.routed), ("sealed", chosen.out_of_scope)):
        if f is not None:
            yield f"  routed: {percent(f.value)} of {f.n:,} {where} rows ({percent(f.low)} to {percent(f.high)})"
