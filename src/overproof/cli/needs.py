"""Rows that the proof asks for, told before labels are bought: the margin to the teacher, and a threshold for each slice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from overproof.cli.tables import Need
    from overproof.project import Project

HALF = 0.5  # planned for a student whose error is half of what is admitted
POINT = 0.01  # the margin where the file sets none: `plan.margin_of` takes this or less


@dataclass(frozen=True, kw_only=True, slots=True)
class Supply:
    """Sealed rows that the log, the window and the shares supply."""

    rows: float
    """All sealed rows."""
    gold: float
    """Those with a true label, at the log's present share."""
    slices: Mapping[str, float]
    """Certification slice to its sealed rows; disjoint, file order, the rest is "other"."""

    @classmethod
    def of(cls, project: Project, counts: Mapping[str, Any]) -> Supply:
        """What there is, from the counts of `check`."""
        seen = counts["rows"]
        scale = project.promptset.test_share * min(seen, project.promptset.requests or seen) / max(seen, 1)
        return cls(rows=seen * scale, gold=counts["gold"] * scale, slices={n: k * scale for n, k in counts["cells"].items()})


def planned_delta(project: Project) -> float:
    """
    The error budget to plan with: the first use of a fresh sealed set, at its last planned look.

    Args:
        project: a loaded project.

    Returns: a fraction.
    """
    from overproof.measure.certify import ledger_delta
    from overproof.measure.looks import look_shares

    return ledger_delta(project.proof.delta, 1) * look_shares(project.proof.looks)[-1]


def margin_need(project: Project, supply: Supply) -> list[Need]:
    """
    Judging rows with gold that "not worse than the teacher" (N01) takes.

    Args:
        project: a loaded project.
        supply: rows that there are.

    Returns: one need, for served answers that differ from the teacher's half as often as the bars admit, each way
        alike; none where nothing bounds how often they may differ.
    """
    from overproof.cli.tables import Need
    from overproof.measure.paired import noninferiority_rows

    admitted = [1.0 - bar.at_least for bar in project.bars.bars if bar.metric == "fidelity"]
    admitted = admitted or [1.0 - bar.at_least for bar in project.bars.bars]
    if not admitted:
        return []
    each_way = HALF * HALF * max(admitted)
    margin = project.proof.margin or POINT
    needed = noninferiority_rows(margin, planned_delta(project), each_way, each_way)
    have = int(supply.gold * (1 - project.proof.certify_share))
    return [Need(slice="all", metric="not worse", bar=margin, rows_needed=needed, rows_expected=have, kind="margin")]


def threshold_needs(project: Project, supply: Supply) -> list[Need]:
    """
    Kept rows that certify a threshold, for each certification slice at its share of the error budget.

    Args:
        project: a loaded project.
        supply: rows that there are.

    Returns: one need for each slice that has rows; one for all traffic under a budget.
    """
    from overproof.cli.tables import Need
    from overproof.measure.certify import split_delta
    from overproof.measure.intervals import rows_needed

    delta, proof, serve = planned_delta(project), project.proof, project.serve
    alpha = 1.0 - (serve.kept_right or 0.0) if serve.wrong_when_served is None else serve.wrong_when_served
    share = supply.gold / supply.rows if proof.label == "gold" and supply.rows else 1.0
    some = {name: rows for name, rows in supply.slices.items() if rows > 0}
    if serve.wrong_when_served is not None or not some:
        some = {"all": supply.rows}
    total = sum(some.values())
    weights = split_delta({n: r / total if total else 1.0 for n, r in some.items()}, dict.fromkeys(some, 1.0))
    if proof.ship == "all":
        weights = dict.fromkeys(some, 1.0)
    return [
        Need(
            slice=name, metric="threshold", bar=1.0 - alpha, rows_needed=rows_needed(alpha, HALF * alpha, delta * weights[name]),
            rows_expected=int(rows * proof.certify_share * share), kind="threshold",
        )
        for name, rows in some.items()
    ]  # fmt: skip
