"""How the terminal shows the prompt set beside its funnel: distances, critical slices, gaps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from overproof.cli.tables import grid, percent

if TYPE_CHECKING:
    from overproof.data import PromptSet
    from overproof.steps.collect import DataEvidence

WORDS = {"pass": "[green]pass[/]", "fail": "[bold red]fail[/]", "undecided": "[yellow]not enough data[/]"}


def prompts_page(prompts: PromptSet | DataEvidence, *, most: int = 10) -> Iterator[Any]:
    """
    What a reader of the prompt set should see.

    Args:
        prompts: the set, or its summary.
        most: gaps to list.

    Returns: tables; nothing for a set of an earlier version, which has none of it.
    """
    if prompts.distances:
        level = prompts.distances[0].level
        table = grid(f"Distance to the live mix (total variation, {level:.0%} interval)", "by", "plain draw", "as matched", "n live", "n set", right=(3, 4))
        for d in prompts.distances:
            before = f"{d.before:.3f} ({d.before_low:.3f}-{d.before_high:.3f})"
            after = f"{d.after:.3f} ({d.after_low:.3f}-{d.after_high:.3f})"
            table.add_row(escape(d.view), before, after, str(d.n_live), str(d.n_set))
        yield table
    if prompts.shares:
        table = grid("Critical slices: share of training over live share", "slice", "ratio", "n set", "n live", "", right=(2, 3))
        for s in prompts.shares:
            high = "no end" if s.high is None else f"{s.high:.2f}"
            ratio = "-" if s.ratio is None else f"{s.ratio:.2f} ({s.low:.2f}-{high})"
            table.add_row(escape(s.slice), ratio, str(s.n_set), str(s.n_live), WORDS[s.verdict])
        yield table
    if prompts.gaps:
        table = grid(f"Live messages unlike all of training ({prompts.gap_rows} compared)", "share", "n", "messages", right=(0, 1))
        for gap in prompts.gaps[:most]:
            share = f"{percent(gap.share)} ({100 * gap.low:.1f}-{100 * gap.high:.1f})"
            table.add_row(share, str(gap.rows), escape("\n".join(" ".join(text.split())[:70] for text in gap.examples)))
        yield table
