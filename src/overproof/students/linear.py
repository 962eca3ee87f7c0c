"""Word and character n-grams with logistic regression: fitted with scikit-learn, answered without it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from overproof.data import Request, TrainSet
from overproof.errors import DataError
from overproof.students.files import AGAIN, read_arrays, write_arrays
from overproof.students.logistic import fit_logistic
from overproof.students.ngrams import NgramTable, Shape, learn
from overproof.students.normalise import NORMALISER, text_of
from overproof.students.seen import Seen
from overproof.students.settings import number, read_settings, remake, span, write_settings

WEIGHTS = "weights.npz"
MAX_TERMS = 1_000_000  # keeps the vocabulary under the size that a bundle may have


class LinearStudent:
    """
    "linear.v1": the small student that is hard to beat on short texts.

    Args:
        labels: the task's labels, in order.
        seed: kept with the files; the fit itself draws nothing at random.
        c: inverse strength of the L2 penalty. 10 and 30 are within noise of each other on 8,000 short messages
            of 77 labels; 1 and 3 lose up to two points; on 1,600 longer ones 30 was best.
        min_df: n-grams of fewer training texts are left out.
        max_terms: at most this many n-grams of each kind.
        word_ngrams: smallest and largest n.
        char_ngrams: smallest and largest n.
        tolerance: where the optimiser stops.
    """

    kind = "linear.v1"
    normaliser = NORMALISER

    def __init__(
        self,
        *,
        labels: Sequence[str],
        seed: int = 0,
        c: float = 30.0,
        min_df: int = 2,
        max_terms: int = 200_000,
        word_ngrams: Sequence[int] = (1, 2),
        char_ngrams: Sequence[int] = (2, 5),
        tolerance: float = 1e-4,
    ) -> None:
        self.labels = tuple(labels)
        self.options: dict[str, Any] = {
            "seed": seed,
            "c": number("c", c, least=1e-6),
            "min_df": number("min_df", min_df, least=1),
            "max_terms": number("max_terms", max_terms, least=1, most=MAX_TERMS),
            "word_ngrams": list(span("word_ngrams", word_ngrams)),
            "char_ngrams": list(span("char_ngrams", char_ngrams)),
            "tolerance": number("tolerance", tolerance, least=1e-10, most=0.1),
        }
        self.parameters = 0
        self._table: NgramTable | None = None
        self._weight = np.zeros((0, len(self.labels)), dtype=np.float32)
        self._bias = np.zeros(len(self.labels), dtype=np.float32)

    def fit(self, train: TrainSet, *, workdir: Path) -> None:
        """
        Learn from the rows; see `Student.fit`.

        Args:
            train: examples with at least two different targets.
            workdir: gets `student.json`, `vocabulary.json`, `weights.npz`.

        Raises: DataError.
        """
        options = self.options
        shapes = (
            Shape(analyzer="word", low=options["word_ngrams"][0], high=options["word_ngrams"][1]),
            Shape(analyzer="char_wb", low=options["char_ngrams"][0], high=options["char_ngrams"][1]),
        )
        texts = [text_of(example.request) for example in train.examples]
        table = learn(texts, shapes, min_df=options["min_df"], max_terms=options["max_terms"])
        fitted = fit_logistic(table.matrix(texts), train, c=options["c"], tolerance=options["tolerance"])
        weight = np.ascontiguousarray(fitted.weight.T, dtype=np.float32)
        write_settings(workdir, kind=self.kind, labels=self.labels, options=options)
        table.save(workdir)
        bias = fitted.bias.astype(np.float32)
        write_arrays(workdir / WEIGHTS, {"weight": weight, "bias": bias, "idf": table.idf})
        self._use(table, weight, bias)

    def _use(self, table: NgramTable, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        if weight.shape != (table.columns, len(self.labels)) or bias.shape != (len(self.labels),):
            raise DataError(
                f"weights of shape {weight.shape} for {table.columns} terms and {len(self.labels)} labels",
                next_action=AGAIN,
            )
        self._table, self._weight, self._bias = table, weight, bias
        self.parameters = weight.size + bias.size + table.columns

    def logits(self, requests: Sequence[Request]) -> NDArray[np.float32]:
        """
        Score every label for every request; see `Student.logits`.

        Args:
            requests: any number.

        Returns: shape (n, k).
        Raises: DataError before `fit`.
        """
        return self.look(requests).logits

    def look(self, requests: Sequence[Request]) -> Seen:
        """
        Logits, and the share of each request's character n-grams that no training text had.

        Args:
            requests: any number.

        Returns: shape (n, k), and the column "unknown_share" in [0, 1].
        Raises: DataError before `fit`.
        """
        if self._table is None:
            raise DataError("linear.v1 was not fitted yet", next_action="call fit, or load a fitted folder")
        scores = np.empty((len(requests), len(self.labels)), dtype=np.float32)
        unknown = np.empty(len(requests))
        for i, request in enumerate(requests):
            row = self._table.encode(text_of(request, self.normaliser))
            # Only the rows of the terms that occur; float64 sums keep the answer independent of their order.
            scores[i] = row.values @ self._weight[row.indices].astype(np.float64) + self._bias
            unknown[i] = row.unknown
        return Seen(logits=scores, columns={"unknown_share": unknown})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """
        The student whose files a fit left; needs numpy only.

        Args:
            folder: the files.

        Returns: the student.
        Raises: DataError.
        """
        settings = read_settings(folder, kind=cls.kind)
        student = remake(cls, settings)
        arrays = read_arrays(folder / WEIGHTS, {"weight": 2, "bias": 1, "idf": 1})
        table = NgramTable.load(folder, arrays["idf"])
        student._use(table, arrays["weight"], arrays["bias"])  # noqa: SLF001 - of its own class
        return student
