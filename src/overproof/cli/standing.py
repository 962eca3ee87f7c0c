"""Everything that could serve, in a terminal: money, slices, and what prompt searches tried."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from overproof.evidence import EvalReport, Span, StandingReport


def standing_lines(standing: StandingReport | None) -> Iterator[str]:
    """
    The sentences of a run, the most important first.

    Args:
        standing: of the run; None in runs of earlier versions.

    Returns: lines with markup.
    """
    from rich.markup import escape

    for i, line in enumerate(standing.words if standing is not None else ()):
        text = escape(line[:1].upper() + line[1:] if line.startswith(("doing", "distilling")) else line)
        yield f"[bold yellow]{text}[/]" if i == 0 and standing is not None and standing.enough else text


def baselines_page(report: EvalReport, standing: StandingReport) -> list[Any]:
    """
    What `show baselines` shows.

    Args:
        report: the evaluation.
        standing: the same candidates in money.

    Returns: the value for --json, then tables and lines.
    """
    from rich.markup import escape

    from overproof.cli.tables import WORDS, grid, interval, percent
    from overproof.steps.standing import slice_columns

    money = grid("Every way to serve", "", "bars", "p50/p95 ms", "USD/1000", "USD/month", "saves", "pays back", right=range(2, 6))
    for r in standing.rows:
        times = f"{1000 * r.latency_s:.1f}/{1000 * r.latency_p95_s:.1f}" if r.latency_n else "-"
        price = "not known" if r.usd_per_1000 is None else f"{r.usd_per_1000:.4g}"
        bars = "" if r.role.startswith("student alone") else WORDS[r.clears_bars]
        saved = "-" if r.saved_per_month.value is None else _span(r.saved_per_month)
        money.add_row(f"{escape(r.name)} [dim]{escape(r.role)}[/]", bars, times, price, _span(r.usd_per_month), saved, _payback(r))
    volume = standing.requests_per_month
    money.note = f"{volume:,.0f} requests a month" if volume else "no monthly volume: set \\[serve] requests_per_month"
    slices = grid("Agreement with the teacher by slice; of the teacher, how often it is right", "slice", *(escape(c.name) for c in report.candidates))
    for name, row in slice_columns(report):
        cells = [f"{percent(f.value)} {interval(f)} n={f.n}" if (f := row.get(c.name)) is not None else "-" for c in report.candidates]
        slices.add_row(escape(name), *cells)
    pages: list[Any] = [*standing_lines(standing), "", money, "", slices]
    for search in standing.searches:
        table = grid(f"Prompts tried for {escape(search.name)}", "prompt", "agrees", "95%", "n", "USD", "given up after", right=range(1, 5))
        for t in search.trials:
            name = ("[bold]> [/]" if t.name == search.chosen else "  ") + escape(t.name)
            out = f"round {t.out_after}" if t.out_after else ""
            table.add_row(name, percent(t.agreement.value), interval(t.agreement), str(t.agreement.n), f"{t.cost_usd:.4f}", out)
        table.note = f"{search.calls:,} of {search.cap:,} questions on training rows; the best of several is too rosy"
        pages += ["", table]
    slice_rows = [{"slice": name, "candidates": row} for name, row in slice_columns(report)]
    return [{"standing": standing, "slices": slice_rows}, *pages]


def _span(span: Span) -> str:
    if span.value is None:
        return "not known"
    ends = f" ({span.low:,.2f} to {span.high:,.2f})" if span.low != span.high and span.low is not None and span.high is not None else ""
    return f"{span.value:,.2f}{ends}"


def _payback(row: Any) -> str:
    if row.saved_per_month.value is None:
        return "-"
    words = ["never" if m is None else f"{m:,.2f}" for m in (row.payback_months.value, row.payback_months.low, row.payback_months.high)]
    return f"{words[0]} months ({words[1]} to {words[2]})" if words[0] != "never" else "never"
