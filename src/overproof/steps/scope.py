"""Which scores watch for requests that are foreign to the task, and from where on: chosen on calibration rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overproof.evidence import ScopeFigure, ScopeReport, ScopeRule
from overproof.measure.intervals import figure
from overproof.measure.reading import DIGITS, column_of
from overproof.measure.scope import (
    LEAST_ROWS,
    auroc_interval,
    choose_score,
    fpr_at_tpr,
    scope_scores,
    scope_threshold,
)
from overproof.steps.sheet import Sheet
from overproof.students.seen import REPETITION, TWO_ANSWERS

UNFAMILIAR = "unknown_share"
"""A student's own measure of text that is made of nothing it knows: a guard beside the chosen score where it has one."""
HALF = 0.5
MIXED = (TWO_ANSWERS, REPETITION)
"""Scores of a message that is put together of several; no word on whether it is the task's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScopeFit:
    """Rules with what they were chosen from."""

    rules: tuple[ScopeRule, ...] = ()
    reason: str = ""
    table: tuple[ScopeFigure, ...] = ()
    inside: int = 0
    outside: int = 0
    level: float = 0.95

    def report(self, foreign: NDArray[np.bool_]) -> ScopeReport | None:
        """
        What the rules do on the rows that they were chosen on.

        Args:
            foreign: shape (n,), the rows that they route.

        Returns: the report; None where there are no rules.
        """
        if not self.rules:
            return None
        n, sent = len(foreign), int(foreign.sum())
        return ScopeReport(
            reason=self.reason, table=self.table, inside=self.inside, outside=self.outside,
            routed=figure(sent, n, metric="out_of_scope", level=self.level),
        )  # fmt: skip


NO_SCOPE = ScopeFit()


def choose_scope(
    logits: NDArray[np.float64],
    columns: Mapping[str, NDArray[np.float64]],
    sheet: Sheet,
    labels: tuple[str, ...],
    *,
    named: str,
    share: float,
    level: float = 0.95,
) -> ScopeFit:
    """
    Rules that call a request foreign, from the calibration rows alone.

    Args:
        logits: shape (n, k), readable.
        columns: what the student brings beside its logits.
        sheet: the rows' labels.
        labels: the task's labels.
        named: the label that means "out of scope"; empty where the task has none.
        share: of the task's own requests that may be routed, in [0, 1); 0 for no rules.
        level: confidence of the intervals.

    Returns: by AUROC where the rows can tell, else the largest logit; beside it the share of unknown n-grams where
        the student has one. Made-up foreign text takes no part: it would say how well made-up text is found.
    """
    if share <= 0.0:
        return NO_SCOPE
    scores = {name: column_of(name, logits, columns) for name in {**(scope_scores(logits) if logits.shape[1] else {}), **columns}}
    outside = _outside(sheet, labels, named)
    count, n = int(outside.sum()), len(outside)
    table = _table(scores, outside, level) if min(count, n - count) >= LEAST_ROWS else ()
    if table and table[0].low > HALF:
        name, why = table[0].name, f"largest AUROC of {len(table)} on {n - count:,} rows of the task and {count:,} known to be out of scope"
    else:
        name = next(one for one in ("max_logit", *(s for s in scores if s != "max_logit")) if one in scores)
        why = f"{name}, by default: {_why_not(named, count, told=bool(table))}"
    own = ~outside if not outside.all() else outside
    guards = [UNFAMILIAR] if UNFAMILIAR in scores and name != UNFAMILIAR else []
    if guards:
        why += f"; {UNFAMILIAR} beside it, for text of unknown words and letters"
    each = share / (1 + len(guards))  # both together route so much
    rules = tuple(
        ScopeRule(score=one, threshold=scope_threshold(scores[one][own], share=each)) for one in (name, *guards)
    )
    return ScopeFit(
        rules=rules, reason=f"{why}; at most {share:.1%} of the task's own requests should be routed",
        table=table, inside=n - count, outside=count, level=level,
    )  # fmt: skip


def choose_mixed(columns: Mapping[str, NDArray[np.float64]], share: float) -> tuple[ScopeRule, ...]:
    """
    Rules that call a message put together, from the calibration rows alone.

    Args:
        columns: what a student brings beside its logits.
        share: of the task's own requests that all rules together may route, in [0, 1); 0 for no rules.

    Returns: a rule for each score of `MIXED` that is there. No attack takes part in the choice.
    """
    names = [name for name in MIXED if name in columns] if share > 0.0 else []
    each = share / max(1, len(names))
    return tuple(ScopeRule(score=name, threshold=scope_threshold(np.round(columns[name], DIGITS), share=each)) for name in names)


def _outside(sheet: Sheet, labels: tuple[str, ...], named: str) -> NDArray[np.bool_]:
    """Rows known to be out of scope: the true label where there is one, else the teacher's."""
    if named not in labels:
        return np.zeros(len(sheet.target), dtype=bool)
    found: NDArray[np.bool_] = np.where(sheet.has_gold, sheet.gold, sheet.target) == labels.index(named)
    return found


def _why_not(named: str, count: int, *, told: bool) -> str:
    if not named:
        return "no label is named as [task] out_of_scope, so nothing could be compared"
    if told:
        return f"on {count:,} calibration rows labelled {named!r} no score is shown to be better than chance"
    return f"{count:,} calibration rows are labelled {named!r}, a choice needs {LEAST_ROWS} of each kind"


def _table(
    scores: Mapping[str, NDArray[np.float64]], outside: NDArray[np.bool_], level: float
) -> tuple[ScopeFigure, ...]:
    """Every score with an interval that holds for the best of them too: each has its part of the error."""
    each = 1.0 - (1.0 - level) / len(scores)
    found = []
    for score in choose_score(scores, outside).table:
        interval = auroc_interval(scores[score.name], outside, level=each)
        found.append(
            ScopeFigure(
                name=score.name, auroc=interval.value, low=interval.low, high=interval.high, level=level,
                method=f"{interval.method}, Bonferroni over {len(scores)}",
                fpr=fpr_at_tpr(scores[score.name], outside),
            )
        )  # fmt: skip
    return tuple(found)
