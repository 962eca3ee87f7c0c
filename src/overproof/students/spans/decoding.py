"""From scores of tokens to a record: each field's most likely value, and how sure it is."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overproof.outputs import Field
from overproof.students import Generated
from overproof.students.spans.candidates import KINDS, Plan, Tables, same_text
from overproof.students.spans.values import later

SUREST = 30.0  # log-odds beyond which float64 can't tell a probability from 1


@dataclass(frozen=True, kw_only=True, slots=True)
class _Said:
    value: str | None
    chance: float


def log_odds(chance: float) -> float:
    """
    The log-odds of a probability, kept finite.

    Args:
        chance: in [0, 1].

    Returns: within ±`SUREST`.
    """
    if chance <= 0 or chance >= 1:
        return math.copysign(SUREST, chance - 0.5)
    return max(-SUREST, min(SUREST, math.log(chance) - math.log1p(-chance)))


def scores_of(tables: Tables, tokens: NDArray[np.float64], seen: NDArray[np.float64], plan: Plan) -> dict[str, list[tuple[str, str, float]]]:
    """
    Scores of a page's candidates.

    Args:
        tables: the candidates.
        tokens: shape (t, columns), what the head says to each token.
        seen: shape (roles, SEEN), weights of what is seen of a candidate.
        plan: the roles.

    Returns: field to (field that days are counted from or "", value, score) of every candidate.
    """
    n = len(plan.roles)
    found: dict[str, list[tuple[str, str, float]]] = defaultdict(list)
    sums = np.concatenate([np.zeros((1, n)), np.cumsum(tokens[:, 2 * n : 3 * n], axis=0)])
    for kind in KINDS:
        table = tables[kind]
        if not len(table.start):
            continue
        length = (table.end + 1 - table.start).astype(np.float64)
        for place in plan.of(kind):
            mean = (sums[table.end + 1, place] - sums[table.start, place]) / length
            scores = tokens[table.start, place] + tokens[table.end, n + place] + mean + table.seen @ seen[place]
            role = plan.roles[place]
            found[role.field] += zip([role.after] * len(scores), table.values, scores.tolist(), strict=True)
    return found


def decode(tables: Tables, tokens: NDArray[np.float64], whole: NDArray[np.float64], *, seen: NDArray[np.float64], plan: Plan, cut: int = 0) -> Generated:
    """
    The record that a page's scores say.

    Args:
        tables: the candidates.
        tokens: shape (t, columns).
        whole: shape (columns,), scores of the text as a whole.
        seen: weights of what is seen of a candidate.
        plan: the roles.
        cut: tokens of the text that were left out.

    Returns: the record, with the log-odds of each field and of all together.
    """
    offers = scores_of(tables, tokens, seen, plan)
    base = {name: _best(rows) for name, rows in offers.items()}
    said: dict[str, _Said] = {}
    for at, field in enumerate(plan.output.fields):
        absent = float(whole[3 * len(plan.roles) + at]) if field.optional else None
        dated = [(_counted(base.get(after), value) if after else value, score) for after, value, score in offers.get(field.name, ())]
        rows = [(value, score) for value, score in dated if value is not None]
        known = plan.values_of(field.name)
        if known and len(tokens):
            rows += zip(known, np.logaddexp.reduce(tokens[:, list(known.values())], axis=0).tolist(), strict=True)
        said[field.name] = _choose(field, rows, absent)
    return _record(said, plan, cut)


def _best(rows: list[tuple[str, str, float]]) -> str | None:
    direct = [(score, value) for after, value, score in rows if not after]
    return max(direct)[1] if direct else None


def _counted(base: str | None, days: str) -> str | None:
    return None if base is None else later(base, int(days))


def _choose(field: Field, rows: list[tuple[str, float]], absent: float | None) -> _Said:
    """All candidates that say the same are one answer."""
    sums: dict[str | None, float] = {} if absent is None else {None: absent}
    shown: dict[str | None, tuple[float, str]] = {}
    for value, score in rows:
        key = same_text(value) if field.type == "text" else value
        sums[key] = float(np.logaddexp(sums[key], score)) if key in sums else score
        if key not in shown or score > shown[key][0]:
            shown[key] = (score, value)
    if not sums:
        return _Said(value=None, chance=0.0)
    best = max(sums, key=lambda key: (sums[key], key or ""))
    total = np.logaddexp.reduce(list(sums.values()))
    return _Said(value=None if best is None else shown[best][1], chance=float(np.exp(sums[best] - total)))


def _record(said: Mapping[str, _Said], plan: Plan, cut: int) -> Generated:
    values: dict[str, Any] = {}
    whole = True
    for field in plan.output.fields:
        found = said[field.name].value
        whole &= found is not None or field.optional
        values[field.name] = Decimal(found) if found is not None and field.type == "number" else found
    fields = {name: log_odds(one.chance) for name, one in said.items()}
    together = math.exp(sum(math.log(max(one.chance, 1e-300)) for one in said.values()))
    odds = list(fields.values())
    return Generated(
        value=plan.output.write(values) if whole else None, score=log_odds(together) if whole else -SUREST, fields=fields,
        columns={"least": min(odds), "mean": sum(odds) / len(odds), "cut": float(cut)},
    )  # fmt: skip
