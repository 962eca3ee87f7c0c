"""Waivers on findings: what may be taken upon oneself, and what happens on the day after."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from overproof.evidence import Finding
from overproof.evidence.waivers import MOST_LIVE, Waiver, waiver_problems
from overproof.steps.waived import waiver_words

STOPS = ("fail", "not-run")


def waived_by(findings: Iterable[Finding], *, plan: str, waivers: Sequence[Waiver], ran_out: Sequence[Waiver]) -> list[Finding]:
    """
    Put waivers on the findings that they are for.

    Args:
        findings: of all checks.
        plan: digest of the plan that the evidence is of; waivers of another one count for nothing.
        waivers: in force; unsound ones, and all after the first `MOST_LIVE`, count for nothing.
        ran_out: of earlier days; a finding under one of them is a failure, whatever the check says now.

    Returns: the same findings in their order. One that passes, or that nobody may waive, stays as it is.
    """
    sound = [w for w in waivers if plan and w.plan == plan and not list(waiver_problems(w))][:MOST_LIVE]
    live = {w.check: w for w in reversed(sound)}
    over = {w.check: w for w in ran_out if plan and w.plan == plan and w.check not in live}
    return [_under(f, live.get(f.id), over.get(f.id)) for f in findings]


def _under(found: Finding, live: Waiver | None, over: Waiver | None) -> Finding:
    if found.outcome not in STOPS or not found.waivable:
        return found
    if live is not None:
        return replace(found, outcome="waived", reason=f"{waiver_words(live)}({found.outcome}): {found.reason}", waiver=live)
    if over is not None:
        return replace(found, outcome="fail", reason=f"the waiver by {over.by} and {over.second} ran out on {over.until}; {found.reason}")
    return found
