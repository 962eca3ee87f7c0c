"""Do-nothing baselines: what a student has to beat before anybody should trust that it learned something."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from overproof.data import Request, TrainSet
from overproof.errors import DataError
from overproof.progress import track
from overproof.students import ABSENT_LOGIT
from overproof.students.files import AGAIN, read_arrays, write_arrays
from overproof.students.logistic import targets, weights
from overproof.students.ngrams import NgramTable, Shape, learn
from overproof.students.normalise import NORMALISER, text_of
from overproof.students.settings import number, read_settings, remake, span, write_settings

MODEL = "model.npz"


def _shares(train: TrainSet) -> NDArray[np.float64]:
    """Weighted share of each label, shape (k,), sum 1."""
    counts = np.bincount(targets(train), weights=weights(train), minlength=len(train.labels))
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares


def _log(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural logarithm, `ABSENT_LOGIT` where it would be lower."""
    logs: NDArray[np.float64] = np.log(np.maximum(probabilities, np.exp(ABSENT_LOGIT)))
    return logs


def unfitted(kind: str) -> DataError:
    """
    What a baseline says that is asked before `fit`.

    Args:
        kind: its part name.

    Returns: the error to raise.
    """
    return DataError(f"{kind} was not fitted yet", next_action="call fit, or load a fitted folder")


class Majority:
    """
    "majority.v1": always the commonest label, with the label shares as confidence.

    Args:
        labels: the task's labels, in order.
        seed: kept with the files; nothing is drawn at random.
    """

    kind = "majority.v1"
    normaliser = NORMALISER
    writer = "overproof.students.copies:CommonAnswer"
    """What the part is where answers are written."""

    def __init__(self, *, labels: Sequence[str], seed: int = 0) -> None:
        self.labels = tuple(labels)
        self.options: dict[str, Any] = {"seed": seed}
        self.parameters = 0
        self._logits: NDArray[np.float64] | None = None

    def fit(self, train: TrainSet, *, workdir: Path) -> None:
        """
        Count the labels; see `Student.fit`.

        Args:
            train: examples.
            workdir: gets `student.json` and `model.npz`.

        Raises: DataError.
        """
        self._use(_log(_shares(train)))
        write_settings(workdir, kind=self.kind, labels=self.labels, options=self.options)
        write_arrays(workdir / MODEL, {"logits": _log(_shares(train))})

    def _use(self, logits: NDArray[np.float64]) -> None:
        if logits.shape != (len(self.labels),):
            raise DataError(f"{len(logits)} scores for {len(self.labels)} labels", next_action=AGAIN)
        self._logits, self.parameters = logits, logits.size

    def logits(self, requests: Sequence[Request]) -> NDArray[np.float32]:
        """
        The same row for every request; see `Student.logits`.

        Args:
            requests: any number.

        Returns: shape (n, k).
        Raises: DataError before `fit`.
        """
        if self._logits is None:
            raise unfitted(self.kind)
        return np.tile(self._logits.astype(np.float32), (len(requests), 1))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """
        The baseline whose files a fit left.

        Args:
            folder: the files.

        Returns: the baseline.
        Raises: DataError.
        """
        baseline = remake(cls, read_settings(folder, kind=cls.kind))
        baseline._use(read_arrays(folder / MODEL, {"logits": 1})["logits"])  # noqa: SLF001 - of its own class
        return baseline


class Nearest:
    """
    "nearest.v1": a vote of the nearest training texts by character n-grams.

    Its files hold the training texts' n-gram counts, so treat them as you treat the texts.

    Args:
        labels: the task's labels, in order.
        seed: kept with the files; nothing is drawn at random.
        k: how many neighbours vote; the vote is weighed by similarity.
        char_ngrams: smallest and largest n.
        smoothing: vote that is shared out by the labels' shares, so that no label has none.
    """

    kind = "nearest.v1"
    normaliser = NORMALISER
    writer = "overproof.students.copies:NearestAnswer"
    """What the part is where answers are written."""

    def __init__(
        self,
        *,
        labels: Sequence[str],
        seed: int = 0,
        k: int = 5,
        char_ngrams: Sequence[int] = (2, 4),
        smoothing: float = 0.1,
    ) -> None:
        self.labels = tuple(labels)
        self.options: dict[str, Any] = {
            "seed": seed,
            "k": number("k", k, least=1, most=1000),
            "char_ngrams": list(span("char_ngrams", char_ngrams)),
            "smoothing": number("smoothing", smoothing, least=1e-6, most=1.0),
        }
        self.parameters = 0
        self._table: NgramTable | None = None
        self._arrays: dict[str, NDArray[Any]] = {}

    def fit(self, train: TrainSet, *, workdir: Path) -> None:
        """
        Keep the training texts' n-grams by term; see `Student.fit`.

        Args:
            train: examples.
            workdir: gets `student.json`, `vocabulary.json` and `model.npz`.

        Raises: DataError.
        """
        low, high = self.options["char_ngrams"]
        texts = [text_of(example.request) for example in train.examples]
        table = learn(texts, [Shape(analyzer="char_wb", low=low, high=high)], min_df=1, max_terms=200_000)
        postings = table.matrix(texts).tocsc()
        arrays = {
            "ends": postings.indptr.astype(np.int64),
            "rows": postings.indices.astype(np.int32),
            "values": postings.data.astype(np.float32),
            "targets": targets(train),
            "weights": weights(train),
            "shares": _shares(train),
            "idf": table.idf,
        }
        write_settings(workdir, kind=self.kind, labels=self.labels, options=self.options)
        table.save(workdir)
        write_arrays(workdir / MODEL, arrays)
        self._use(table, arrays)

    def _use(self, table: NgramTable, arrays: dict[str, NDArray[Any]]) -> None:
        n, k, ends, rows = len(arrays["targets"]), len(self.labels), arrays["ends"], arrays["rows"]
        integers = all(arrays[name].dtype.kind == "i" for name in ("ends", "rows", "targets"))
        sound = integers and len(ends) == table.columns + 1 and len(arrays["values"]) == len(rows) and n > 0
        sound = sound and ends[0] == 0 and ends[-1] == len(rows) and bool((np.diff(ends) >= 0).all())
        sound = sound and bool(((rows >= 0) & (rows < n)).all()) and len(arrays["weights"]) == n
        sound = sound and bool(((arrays["targets"] >= 0) & (arrays["targets"] < k)).all())
        if not sound or len(arrays["shares"]) != k:
            raise DataError(f"{MODEL}: the arrays don't fit together", next_action=AGAIN)
        self._table, self._arrays = table, arrays
        self.parameters = len(rows) + table.columns

    def logits(self, requests: Sequence[Request]) -> NDArray[np.float32]:
        """
        Logarithm of the neighbours' smoothed vote; see `Student.logits`.

        Args:
            requests: any number.

        Returns: shape (n, k).
        Raises: DataError before `fit`.
        """
        if self._table is None:
            raise unfitted(self.kind)
        found = np.empty((len(requests), len(self.labels)), dtype=np.float32)
        for i, request in enumerate(track(requests, "looking up neighbours", total=len(requests))):
            found[i] = _log(self._vote(self._similarities(text_of(request, self.normaliser), self._table)))
        return found

    def _similarities(self, text: str, table: NgramTable) -> NDArray[np.float64]:
        """Cosine with every training text, shape (n,)."""
        row, ends = table.encode(text), self._arrays["ends"]
        starts, counts = ends[row.indices], ends[row.indices + 1] - ends[row.indices]
        at = np.repeat(starts + counts - counts.cumsum(), counts) + np.arange(counts.sum())
        parts = self._arrays["values"][at] * np.repeat(row.values, counts)
        found: NDArray[np.float64] = np.bincount(self._arrays["rows"][at], weights=parts, minlength=len(self._arrays["targets"]))  # type: ignore[assignment]
        return found

    def _vote(self, similarities: NDArray[np.float64]) -> NDArray[np.float64]:
        # Equal similarities are settled by the training row's place, so that the answer never depends on a sort.
        nearest = np.argsort(-similarities, kind="stable")[: self.options["k"]]
        votes = similarities[nearest] * self._arrays["weights"][nearest]
        counts = np.bincount(self._arrays["targets"][nearest], weights=votes, minlength=len(self.labels))
        total = counts.sum()
        smoothing = self.options["smoothing"] if total > 0 else 1.0
        mixed: NDArray[np.float64] = (1 - smoothing) * counts / max(total, 1e-300) + smoothing * self._arrays["shares"]
        return mixed

    @classmethod
    def load(cls, folder: Path) -> Self:
        """
        The baseline whose files a fit left.

        Args:
            folder: the files.

        Returns: the baseline.
        Raises: DataError.
        """
        baseline = remake(cls, read_settings(folder, kind=cls.kind))
        names = dict.fromkeys(("ends", "rows", "values", "targets", "weights", "shares", "idf"), 1)
        arrays = read_arrays(folder / MODEL, names)
        baseline._use(NgramTable.load(folder, arrays["idf"]), arrays)  # noqa: SLF001 - of its own class
        return baseline


class NaiveBayes:
    """
    "ngram.v1": multinomial naive Bayes on word n-grams.

    Args:
        labels: the task's labels, in order.
        seed: kept with the files; nothing is drawn at random.
        word_ngrams: smallest and largest n.
        alpha: count added to every term of every label.
    """

    kind = "ngram.v1"
    normaliser = NORMALISER

    def __init__(
        self, *, labels: Sequence[str], seed: int = 0, word_ngrams: Sequence[int] = (1, 2), alpha: float = 0.1
    ) -> None:
        self.labels = tuple(labels)
        self.options: dict[str, Any] = {
            "seed": seed,
            "word_ngrams": list(span("word_ngrams", word_ngrams)),
            "alpha": number("alpha", alpha, least=1e-6),
        }
        self.parameters = 0
        self._table: NgramTable | None = None
        self._arrays: dict[str, NDArray[Any]] = {}

    def fit(self, train: TrainSet, *, workdir: Path) -> None:
        """
        Count terms by label; see `Student.fit`.

        Args:
            train: examples.
            workdir: gets `student.json`, `vocabulary.json` and `model.npz`.

        Raises: DataError.
        """
        low, high = self.options["word_ngrams"]
        texts = [text_of(example.request) for example in train.examples]
        table = learn(texts, [Shape(analyzer="word", low=low, high=high)], min_df=1, max_terms=200_000)
        counts = np.zeros((table.columns, len(self.labels)))
        for text, target, weight in zip(texts, targets(train), weights(train), strict=True):
            for column, count in table.counts(text)[0].items():
                counts[column, target] += weight * count
        smooth = counts + self.options["alpha"]
        arrays = {
            "likelihood": np.log(smooth / smooth.sum(axis=0)).astype(np.float32),
            "prior": _log(_shares(train)).astype(np.float32),
            "idf": table.idf,
        }
        write_settings(workdir, kind=self.kind, labels=self.labels, options=self.options)
        table.save(workdir)
        write_arrays(workdir / MODEL, arrays)
        self._use(table, arrays)

    def _use(self, table: NgramTable, arrays: dict[str, NDArray[Any]]) -> None:
        k = len(self.labels)
        known = bool((arrays["prior"] > ABSENT_LOGIT).any())
        if not known or arrays["likelihood"].shape != (table.columns, k) or arrays["prior"].shape != (k,):
            raise DataError(f"{MODEL}: the arrays don't fit {table.columns} terms and {k} labels", next_action=AGAIN)
        self._table, self._arrays = table, arrays
        self.parameters = arrays["likelihood"].size + k

    def logits(self, requests: Sequence[Request]) -> NDArray[np.float32]:
        """
        Log-posteriors up to a constant; see `Student.logits`.

        Args:
            requests: any number.

        Returns: shape (n, k).
        Raises: DataError before `fit`.
        """
        if self._table is None:
            raise unfitted(self.kind)
        likelihood, prior = self._arrays["likelihood"], self._arrays["prior"].astype(np.float64)
        # A label without training rows has the same likelihood for every term; only its prior must speak.
        absent = prior <= ABSENT_LOGIT
        found = np.empty((len(requests), len(self.labels)), dtype=np.float32)
        for i, request in enumerate(requests):
            counts = self._table.counts(text_of(request, self.normaliser))[0]
            at = np.fromiter(counts.keys(), dtype=np.int64, count=len(counts))
            times = np.fromiter(counts.values(), dtype=np.float64, count=len(counts))
            row = prior + times @ likelihood[at].astype(np.float64)
            row -= row[~absent].max()
            row[absent] = ABSENT_LOGIT
            found[i] = row
        return found

    @classmethod
    def load(cls, folder: Path) -> Self:
        """
        The baseline whose files a fit left.

        Args:
            folder: the files.

        Returns: the baseline.
        Raises: DataError.
        """
        baseline = remake(cls, read_settings(folder, kind=cls.kind))
        arrays = read_arrays(folder / MODEL, {"likelihood": 2, "prior": 1, "idf": 1})
        baseline._use(NgramTable.load(folder, arrays["idf"]), arrays)  # noqa: SLF001 - of its own class
        return baseline
