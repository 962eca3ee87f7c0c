"""The plot of the proofs: for each promise with a level, the naive method and ours on one scale."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from html import escape

from benchmarks.proof.rows import ProofRow

SHARE = re.compile(r"(?:(\d+(?:\.\d+)?)\s*[–-]\s*)?(\d+(?:\.\d+)?)\s*%")
LEVEL = re.compile(r"≤\s*(\d+(?:\.\d+)?)\s*%")
LEFT, RIGHT, TOP, ROW, WRAP = 350, 30, 56, 40, 58
WIDTH = 900
INK, MUTED, RULE, NAIVE, OURS = "#1f2328", "#656d76", "#d8dee4", "#b35900", "#0969da"


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One line of the plot; shares in percent."""

    claim: str
    naive_low: float
    naive_high: float
    ours: float
    level: float


def marks(rows: list[ProofRow]) -> list[Mark]:
    """The rows that promise "at most so many percent" and measured both methods as shares."""
    found = []
    for row in rows:
        level = LEVEL.search(row.reach)
        naive = [float(end) for pair in SHARE.findall(row.naive) for end in pair if end]
        ours = SHARE.search(row.measured)
        if level and naive and ours:
            found.append(
                Mark(
                    claim=row.claim,
                    naive_low=min(naive),
                    naive_high=max(naive),
                    ours=float(ours[2]),
                    level=float(level[1]),
                )
            )
    return found


def picture(rows: list[ProofRow]) -> str:
    """An SVG: one line for each promise, a tick at its level, a dot for ours, a diamond or a bar for the naive method."""
    lines = marks(rows)
    height = TOP + ROW * len(lines) + 40
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}">'
        ),
        "<title>How often each promise is broken: naive method and ours, against the promised level</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        *_legend(),
        *_axis(height),
    ]
    for i, line in enumerate(lines):
        parts += _line(line, TOP + ROW * i + ROW / 2)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _x(percent: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * min(percent, 100.0) / 100.0


def _legend() -> list[str]:
    return [
        f'<circle cx="{LEFT + 5}" cy="20" r="5" fill="{OURS}"/><text x="{LEFT + 16}" y="24">ours</text>',
        (
            f'<rect x="{LEFT + 62}" y="15" width="10" height="10" fill="{NAIVE}" '
            f'transform="rotate(45 {LEFT + 67} 20)"/><text x="{LEFT + 80}" y="24">naive method</text>'
        ),
        (
            f'<line x1="{LEFT + 180}" x2="{LEFT + 180}" y1="12" y2="28" stroke="{INK}" stroke-width="2"/>'
            f'<text x="{LEFT + 188}" y="24">promised: at most here</text>'
        ),
    ]


def _axis(height: int) -> list[str]:
    parts = []
    for percent in (0, 20, 40, 60, 80, 100):
        x = _x(percent)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{height - 32}" stroke="{RULE}"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{height - 14}" text-anchor="middle" fill="{MUTED}">{percent} %</text>'
        )
    return parts


def _line(line: Mark, y: float) -> list[str]:
    told = (
        f"{line.claim}: naive {line.naive_low:g} to {line.naive_high:g} %, ours {line.ours:g} %, "
        f"promised at most {line.level:g} %"
    )
    words = textwrap.wrap(
        re.sub(r" (?=%|=)|(?<==) ", "\u00a0", line.claim), WRAP, max_lines=2, placeholder=" …"
    )
    parts = [f"<g><title>{escape(told)}</title>"]
    for j, part in enumerate(words):
        at = y + 4 + 14 * (j - (len(words) - 1) / 2)
        parts.append(
            f'<text x="{LEFT - 14}" y="{at:.1f}" text-anchor="end" font-size="11">{escape(part)}</text>'
        )
    low, high = _x(line.naive_low), _x(line.naive_high)
    parts.append(
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke="{NAIVE}" stroke-width="3" stroke-opacity=".5"/>'
    )
    for x in sorted({low, high}):
        parts.append(
            f'<rect x="{x - 5:.1f}" y="{y - 5}" width="10" height="10" fill="{NAIVE}" '
            f'transform="rotate(45 {x:.1f} {y})"/>'
        )
    level = _x(line.level)
    parts.append(
        f'<line x1="{level:.1f}" x2="{level:.1f}" y1="{y - 11}" y2="{y + 11}" stroke="{INK}" stroke-width="2"/>'
    )
    parts.append(f'<circle cx="{_x(line.ours):.1f}" cy="{y}" r="5" fill="{OURS}"/></g>')
    return parts
