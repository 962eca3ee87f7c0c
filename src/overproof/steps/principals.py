"""Who sent a row, and how much of what is learned one sender or one text may make up."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overproof.data import Request

USER = "user"
ROUNDS = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Principals:
    """
    The senders of rows. Where there are too few keys for the cap to bind each, keys are applications, and whoever might plant
    something is one of their users: then the user or session counts.
    """

    of_row: Mapping[int, str]
    share: float
    """The most of the taken rows that one of them may have sent, in (0, 1]; one row is always admitted."""

    @classmethod
    def of(cls, rows: Mapping[int, Request], keys: Mapping[int, str], *, share: float, notes: list[str]) -> Principals:
        """
        Find out who sent each row.

        Args:
            rows: place to request.
            keys: place to the id of the caller's key; empty or missing without authentication.
            share: see the field.
            notes: gets what the reader should know.

        Returns: the senders; a row of nobody known stands alone.
        """
        by_key = len({keys.get(i, "") for i in rows} - {""}) >= math.ceil(1 / share)
        found, unknown = {}, 0
        for i, request in rows.items():
            key = keys.get(i, "")
            user = request.attributes.get(USER) or request.session
            if by_key and key:
                found[i] = f"key {key}"
            elif user:
                found[i] = f"user {key} {user}"
            else:
                found[i] = f"row {i}"
                unknown += 1
        if unknown:
            notes.append(f"Nobody knows who sent {unknown:,} of {len(rows):,} new rows: no cap by sender holds for them.")
        return cls(of_row=found, share=share)

    def capped(
        self, order: Sequence[int], *, group: Sequence[int], per_group: int, costs: Collection[int], limits: Mapping[str, int]
    ) -> tuple[list[int], Counter[str]]:
        """
        Take rows in order as far as the caps admit.

        Args:
            order: wanted rows, the most wanted first.
            group: near-duplicate group by place.
            per_group: the most rows of one group.
            costs: rows that have to be asked about.
            limits: "asked" to the most of those, "served" to the most of the others.

        Returns: the rows taken, rising, and why others were not, to rows. No sender has more than the larger of one row and its
            share of what was taken.
        """
        most = len(order)
        while True:
            taken, why = self._pass(order, most, group, per_group, costs, limits)
            fitting = max(1, math.floor(self.share * len(taken) + 1e-9))
            if fitting >= most or not taken:
                return sorted(taken), why
            busiest = max(Counter(self.of_row[i] for i in taken).values())
            if busiest <= fitting:
                return sorted(taken), why
            most = min(fitting, most - 1)

    def bounded(self, rows: Sequence[int], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """
        Weights under which no sender's rows weigh more than its share of the new rows, or than one row of the mean weight.

        Args:
            rows: places; those of nobody known as a sender are left as they are.
            weights: one for each.

        Returns: the weights, lowered where they have to be.
        """
        of = [self.of_row.get(i) for i in rows]
        mass: dict[str, float] = {}
        for who, weight in zip(of, weights.tolist(), strict=True):
            if who is not None:
                mass[who] = mass.get(who, 0.0) + weight
        bound = dict(mass)
        for _ in range(ROUNDS):  # what one loses lowers the whole that the others are held against
            new = sum(bound.values())
            most = max(self.share * new, new / max(1, sum(who is not None for who in of)))
            bound = {who: min(one, most) for who, one in bound.items()}
        factor = np.array([1.0 if who is None else bound[who] / mass[who] for who in of], dtype=np.float64)
        return np.asarray(weights * factor, dtype=np.float64)

    def _pass(  # noqa: PLR0917 - the inner half of `capped`
        self, order: Sequence[int], most: int, group: Sequence[int], per_group: int, costs: Collection[int], limits: Mapping[str, int]
    ) -> tuple[list[int], Counter[str]]:
        taken: list[int] = []
        why: Counter[str] = Counter()
        senders: Counter[str] = Counter()
        groups: Counter[int] = Counter()
        used: Counter[str] = Counter()
        for i in order:
            kind = "asked" if i in costs else "served"
            if groups[group[i]] >= per_group:
                why["too many near-duplicates"] += 1
            elif senders[self.of_row[i]] >= most:
                why["too many of one sender"] += 1
            elif used[kind] >= limits[kind]:
                why[f"over the most rows ({kind})"] += 1
            else:
                taken.append(i)
                groups[group[i]] += 1
                senders[self.of_row[i]] += 1
                used[kind] += 1
        return taken, why
