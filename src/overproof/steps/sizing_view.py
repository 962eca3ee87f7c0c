"""The sizing section of the dossier: places of the learning curves, one small plot a student."""

from __future__ import annotations

import math
from typing import Any

from overproof.evidence import Size, Sizing
from overproof.steps.size_verdict import pair_words

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 300, 240, 44, 290, 14, 196


def sizing_view(sizing: Sizing) -> dict[str, Any]:
    """
    What the template draws.

    Args:
        sizing: the verdict.

    Returns: a plot for each student, and the pairs in words.
    """
    told = {verdict.name: verdict for verdict in sizing.students}
    highest = max([b.error.high for s in sizing.sizes.sizes for b in s.budgets], default=0.0)
    top = min(1.0, max(0.05, math.ceil(highest * 20) / 20))
    plots = [curve_view(size, top) | {"size": size, "verdict": told[size.name]} for size in sizing.sizes.sizes]
    return {"plots": plots, "pairs": [pair_words(pair) for pair in sizing.sizes.pairs], "bottom": BOTTOM, "right": RIGHT}


def curve_view(size: Size, top: float) -> dict[str, Any]:
    """
    One student's learning curve: training rows (log scale) against error on calibration rows.

    Args:
        size: the student.
        top: error at the upper end of the axis, the same for all students.

    Returns: points, band and ticks in units of the drawing.
    """
    rows = [b.rows for b in size.budgets]
    last = size.curve.band[-1].rows if size.curve.band else rows[-1] * 1.5
    low, high = math.log(rows[0] * 0.85), math.log(last)

    def x(value: float) -> float:
        return LEFT + (RIGHT - LEFT) * (math.log(value) - low) / (high - low)

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * min(max(value, 0.0), top) / top

    band = size.curve.band
    edge = [(x(b.rows), y(b.high)) for b in band] + [(x(b.rows), y(b.low)) for b in reversed(band)]
    return {
        "points": [{"x": x(b.rows), "y": y(b.error.value or 0.0), "low": y(b.error.low), "high": y(b.error.high), "budget": b}
                   for b in size.budgets],
        "band": " ".join(f"{a:.1f},{b:.1f}" for a, b in edge),
        "line": " ".join(f"{x(b.rows):.1f},{y(b.middle):.1f}" for b in band),
        "now": x(rows[-1]),
        "x_ticks": [(x(n), f"{n:,}") for n in ([rows[0], rows[-1], *([4 * rows[-1]] if band else [])])],
        "y_ticks": [(y(top * i / 4), f"{100 * top * i / 4:.3g}%") for i in range(5)],
    }  # fmt: skip
