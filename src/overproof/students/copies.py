"""Do-nothing baselines of written answers: the answer of the most similar training row, or the commonest one."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from overproof.data import Request, TrainSet
from overproof.errors import DataError
from overproof.outputs import Fields, Text, kind_of, output_of
from overproof.students import Generated
from overproof.students.baselines import Nearest, unfitted
from overproof.students.files import AGAIN, read_json, write_json

COPIES = "copies.json"
MOST_SURE = 30.0
AT_ONCE = 256


def _odds(share: float) -> float:
    low = math.exp(-MOST_SURE)
    return math.log(max(share, low)) - math.log(max(1.0 - share, low))


def _write(folder: Path, kind: str, output: Fields | Text, facts: dict[str, Any]) -> None:
    write_json(folder / COPIES, {"kind": kind, "output": json.dumps(kind_of(output)), **facts})


def _read(folder: Path, kind: str) -> dict[str, Any]:
    raw = read_json(folder / COPIES)
    if not isinstance(raw, dict) or raw.get("kind") != kind or not isinstance(raw.get("output"), str):
        raise DataError(f"{COPIES} is no description of {kind}", next_action=AGAIN)
    return {**raw, "output": output_of(json.loads(raw["output"]))}  # a text: files sort their keys, and fields have an order


class NearestAnswer:
    """
    "nearest.v1" for records and texts: the nearest training rows vote with their whole answers.

    Args:
        output: what answers are.
        seed: kept with the files; nothing is drawn at random.
        options: see `baselines.Nearest`.
    """

    kind = "nearest.v1"

    def __init__(self, *, output: Fields | Text, seed: int = 0, **options: Any) -> None:
        self.output = output
        self._options = {"seed": seed, **options}
        Nearest(labels=("a", "b"), **self._options)  # refuses options that it doesn't know before anything is read
        self._rows: Nearest | None = None
        self.parameters = 0

    def fit(self, train: TrainSet, *, workdir: Path) -> None:
        """
        Keep the training texts and their answers; see `Generator.fit`.

        Args:
            train: examples.
            workdir: gets the files of `Nearest` and `copies.json`.

        Raises: DataError.
        """
        answers = tuple(dict.fromkeys(e.target for e in train.examples))
        rows = Nearest(labels=answers, **self._options)
        rows.fit(TrainSet(examples=train.examples, labels=answers), workdir=workdir)
        _write(workdir, self.kind, self.output, {})
        self._use(rows)

    def _use(self, rows: Nearest) -> None:
        self._rows, self.parameters = rows, rows.parameters

    def generate(self, requests: Sequence[Request]) -> Sequence[Generated]:
        """
        The answer with most votes; see `Generator.generate`.

        Args:
            requests: any number.

        Returns: one each; the score is the log-odds of its share of the votes.
        Raises: DataError before `fit`.
        """
        if self._rows is None:
            raise unfitted(self.kind)
        return [one for start in range(0, len(requests), AT_ONCE) for one in self._some(self._rows, requests[start : start + AT_ONCE])]

    def _some(self, rows: Nearest, requests: Sequence[Request]) -> Iterator[Generated]:
        for row in rows.logits(requests):
            shares = np.exp(row.astype(np.float64) - float(row.max()))
            best = int(shares.argmax())
            yield Generated(value=rows.labels[best], score=_odds(float(shares[best] / shares.sum())))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """
        The baseline whose files a fit left.

        Args:
            folder: the files.

        Returns: the baseline.
        Raises: DataError.
        """
        found, rows = cls(output=_read(folder, cls.kind)["output"]), Nearest.load(folder)
        if any(found.output.parse(answer) != answer for answer in rows.labels):
            raise DataError(f"{cls.kind}: its answers are none of its own output", next_action=AGAIN)
        found._use(rows)
        return found


class CommonAnswer:
    """
    "majority.v1" for records and texts: of a record each field's commonest value, of texts the commonest one.

    Args:
        output: what answers are.
        seed: not used.
    """

    kind = "majority.v1"

    def __init__(self, *, output: Fields | Text, seed: int = 0) -> None:
        del seed
        self.output = output
        self.parameters = 0
        self._said: Generated | None = None

    def fit(self, train: TrainSet, *, workdir: Path) -> None:
        """
        Count; see `Generator.fit`.

        Args:
            train: examples.
            workdir: gets `copies.json`.
        """
        output, counts = self.output, Counter[str]()
        for e in train.examples:
            counts[e.target] += e.weight  # type: ignore[assignment] # weights are fractions
        answer = max(counts, key=lambda one: counts[one])
        if isinstance(output, Fields):
            records = [(output.values(target), weight) for target, weight in counts.items()]
            answer = output.write({field.name: _commonest([(r.get(field.name), w) for r, w in records]) for field in output.fields})
        share = sum(w for target, w in counts.items() if output.equal(target, answer)) / sum(counts.values())
        _write(workdir, self.kind, output, {"answer": answer, "share": share})
        self._use(answer, share)

    def _use(self, answer: str, share: float) -> None:
        self._said, self.parameters = Generated(value=self.output.parse(answer), score=_odds(share)), 1

    def generate(self, requests: Sequence[Request]) -> Sequence[Generated]:
        """
        The same answer for every request; see `Generator.generate`.

        Args:
            requests: any number.

        Returns: one each.
        Raises: DataError before `fit`.
        """
        if self._said is None:
            raise unfitted(self.kind)
        return [self._said] * len(requests)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """
        The baseline whose files a fit left.

        Args:
            folder: the files.

        Returns: the baseline.
        Raises: DataError.
        """
        raw = _read(folder, cls.kind)
        answer, share = raw.get("answer"), raw.get("share")
        if not isinstance(answer, str) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise DataError(f"{COPIES}: answer or share is missing or malformed", next_action=AGAIN)
        found = cls(output=raw["output"])
        found._use(answer, share)
        return found


def _commonest(values: Sequence[tuple[Any, float]]) -> Any:
    weights: dict[Any, float] = {}
    for value, weight in values:
        weights[value] = weights.get(value, 0.0) + weight
    return max(weights, key=lambda one: weights[one])
