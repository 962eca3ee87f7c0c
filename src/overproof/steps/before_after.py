"""Two students on the same later messages, slice by slice, and the page that shows it beside the dossier."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from overproof.data import ALL, Alarm
from overproof.evidence import Figure
from overproof.measure.intervals import figure
from overproof.measure.paired import difference_interval
from overproof.steps.dossier import _environment, percent
from overproof.whole import write_whole

LEVEL = 0.95
PAGE, FACTS = "watch.html", "watch.json"
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 300, 52, 884, 40, 250


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One message with its true answer and what both students say."""

    week: str
    """Monday of its week, ISO date."""
    truth: str
    slices: tuple[str, ...]
    """Slices that it is in."""
    before: str | None
    """What the release says that served when the world changed, kept or not."""
    before_kept: bool
    after: str | None = None
    """What its successor says."""
    after_kept: bool = False
    fresh: bool = False
    """Neither student has seen it, nor was it used to choose between them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BeforeAfter:
    """Both students on one slice of the fresh messages."""

    slice: str
    n: int
    before: Figure
    """Share that the first gets right, kept or not."""
    after: Figure
    difference: float | None
    """The second's share minus the first's; None where n = 0."""
    low: float
    high: float
    """Interval of the difference, Tango's score test; those of all slices hold together."""
    level: float
    """Of this one interval: Bonferroni over the slices."""
    only_before: int
    """Messages that only the first gets right."""
    only_after: int
    kept_before: Figure
    """Share that it answers by itself."""
    kept_after: Figure
    wrong_before: Figure
    """Share of those that are wrong."""
    wrong_after: Figure

    @property
    def word(self) -> str:
        """What is shown."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "no difference shown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Week:
    """Both students on one week's messages."""

    start: str
    before: Figure
    after: Figure | None
    """None where the second could have learned from them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mended:
    """What the watch found and what the re-run changed."""

    task: str
    champion: str
    """Id of the release that served when the world changed."""
    challenger: str
    """Id of the one that took its place; empty where none did."""
    alarmed: str
    """Day of the first alarm; empty where there was none."""
    refreshed: str
    """Day of the re-run; empty where there was none."""
    rows: tuple[BeforeAfter, ...]
    weeks: tuple[Week, ...]
    alarms: tuple[Alarm, ...]
    labelled: int = 0
    """Answers that the re-run bought."""
    reused: int = 0
    """Rows whose answer was there already."""
    cost_usd: float = 0.0
    """What it paid."""
    audited: int = 0
    """Answers of the first release that the watch had the teacher judge before; they are among the reused ones."""
    audit_usd: float = 0.0
    all_rows: int = 0
    """Rows that labelling everything again would ask about."""
    all_usd: float | None = None
    """About what that would cost, by the newest answers; None where none was paid for."""


def compare(messages: Sequence[Message], names: Sequence[str]) -> tuple[BeforeAfter, ...]:
    """
    Both students on the fresh messages, by slice.

    Args:
        messages: all later messages; those that are not fresh are left out.
        names: slices, in the order in which they are shown; all messages come first.

    Returns: one entry each, for slices without a message too.
    """
    fresh = [m for m in messages if m.fresh]
    level = 1 - (1 - LEVEL) / (1 + len(names))
    return tuple(_compared(name, [m for m in fresh if name == ALL or name in m.slices], level) for name in (ALL, *names))


def _compared(name: str, rows: Sequence[Message], level: float) -> BeforeAfter:
    n = len(rows)
    right = [(m.before == m.truth, m.after == m.truth) for m in rows]
    only_before, only_after = sum(a and not b for a, b in right), sum(b and not a for a, b in right)
    both = difference_interval(only_after, only_before, n, level=level)
    kept_before, kept_after = [m for m in rows if m.before_kept], [m for m in rows if m.after_kept]
    return BeforeAfter(
        slice=name, n=n, before=figure(sum(a for a, _ in right), n, metric="accuracy"), after=figure(sum(b for _, b in right), n, metric="accuracy"),
        difference=(only_after - only_before) / n if n else None, low=both.low, high=both.high, level=level, only_before=only_before,
        only_after=only_after, kept_before=figure(len(kept_before), n, metric="kept"), kept_after=figure(len(kept_after), n, metric="kept"),
        wrong_before=figure(sum(m.before != m.truth for m in kept_before), len(kept_before), metric="kept_error"),
        wrong_after=figure(sum(m.after != m.truth for m in kept_after), len(kept_after), metric="kept_error"),
    )  # fmt: skip


def weeks_of(messages: Sequence[Message]) -> tuple[Week, ...]:
    """
    Share right by week: of the first student always, of the second where the messages are fresh.

    Args:
        messages: all later messages.

    Returns: in order; a week that is partly fresh shows the second on that part.
    """
    found = []
    for start in sorted({m.week for m in messages}):
        rows = [m for m in messages if m.week == start]
        fresh = [m for m in rows if m.fresh]
        found.append(Week(
            start=start, before=figure(sum(m.before == m.truth for m in rows), len(rows), metric="accuracy"),
            after=figure(sum(m.after == m.truth for m in fresh), len(fresh), metric="accuracy") if fresh else None,
        ))  # fmt: skip
    return tuple(found)


def write_mended(mended: Mended, folder: Path) -> Path:
    """
    Write the page and its facts beside the dossier.

    Args:
        mended: what is shown.
        folder: gets `watch.html` and `watch.json`; earlier ones are replaced.

    Returns: the page.
    """
    folder.mkdir(exist_ok=True)
    page = _environment().get_template("watch.html").render(m=mended, plot=weeks_plot(mended))
    facts = asdict(mended)
    for alarm in facts["alarms"]:
        del alarm["examples"]  # people's own words stay in the page
    for name, text in ((PAGE, page), (FACTS, json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n")):
        write_whole(folder / name, text)
    return folder / PAGE


def weeks_plot(mended: Mended) -> Mapping[str, Any]:
    """
    Share right by week, the days of alarm and re-run on the same axis.

    Args:
        mended: with its weeks.

    Returns: points, marks and ticks in units of the drawing.
    """
    from datetime import date

    days = [date.fromisoformat(w.start) for w in mended.weeks]
    first, last = (days[0].toordinal(), days[-1].toordinal() + 7) if days else (0, 7)
    lows = [f.low for w in mended.weeks for f in (w.before, w.after) if f is not None]
    floor = min(0.5, int(10 * min(lows, default=0.5)) / 10)

    def x(day: int) -> float:
        return LEFT + (RIGHT - LEFT) * (day - first) / (last - first)

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (value - floor) / (1 - floor)

    def point(place: float, value: Figure, kind: str) -> Mapping[str, Any]:
        return {"x": x(1) if not days else place, "y": y(value.value or 0.0), "low": y(value.low), "high": y(value.high), "kind": kind, "figure": value}

    points = [point(x(d.toordinal() + 3) - 5, w.before, "fail") for d, w in zip(days, mended.weeks, strict=True)]
    points += [point(x(d.toordinal() + 3) + 5, w.after, "pass") for d, w in zip(days, mended.weeks, strict=True) if w.after is not None]
    marks = [(x(date.fromisoformat(day).toordinal()), words) for day, words in ((mended.alarmed, "first alarm"), (mended.refreshed, "re-run")) if day]
    return {
        "points": points, "marks": marks, "bottom": BOTTOM, "top": TOP, "left": LEFT, "right": RIGHT, "width": WIDTH, "height": HEIGHT,
        "x_ticks": [(x(d.toordinal()), d.strftime("%d %b")) for d in days],
        "y_ticks": [(y(floor + i * (1 - floor) / 4), percent(floor + i * (1 - floor) / 4, 0)) for i in range(5)],
    }  # fmt: skip
