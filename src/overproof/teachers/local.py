"""A GGUF model in this process, through llama.cpp: no bill, and only answers that the task admits."""

from __future__ import annotations

import asyncio
import importlib.util
import math
import secrets
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from overproof.data import Completion, Outcome, Request
from overproof.errors import DataError, MissingExtra, PinMismatch, TeacherError
from overproof.model_files import file_sha256, model_file
from overproof.outputs import Classes, Fields
from overproof.task import Task
from overproof.teachers import TokenBound, messages_for
from overproof.teachers.replies import FINISH, Answer, judged

ALTERNATIVES = 200  # tokens looked at beside the one taken; what a label set still admits is mostly among them
MAGIC = b"GGUF"
NAME = "local.v1"


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalOptions:
    """What `[teacher]` or `[[baseline]]` may say for local.v1."""

    path: str
    """GGUF file, or "package:PACKAGE/FILE" of an installed package."""
    model: str = ""
    """Shown name; the file's where absent."""
    sha256: str = ""
    """Digest that the file must have; empty takes whatever is there, and the pin records it."""
    temperature: float = 0.0
    """0 takes the likeliest answer; above it sample i is drawn with seed i."""
    max_tokens: int = 64
    """Cap of the answer; an answer that reaches it is never a label."""
    context: int = 4096
    """Tokens of prompt and answer together; a longer prompt gets no answer."""
    threads: int = 1
    """Cores that it holds while it answers; students are timed on one."""
    cpu_usd_per_hour: float = 0.05
    """Price of a core; that of [serve] where absent."""


class LocalTeacher:
    """
    One GGUF model, asked in this process.

    Args:
        task: prompt and what an answer is: labels become a grammar, records a JSON schema.
        options: see `LocalOptions`.

    Raises: TeacherError for a file that isn't there, is no GGUF, or isn't the pinned one; MissingExtra without xllamacpp.
    """

    Options: ClassVar[type[LocalOptions]] = LocalOptions
    own_machine: ClassVar[bool] = True
    """Nobody bills its answers: their cost is machine time, which stands in the answer and not under the cap."""
    free = False

    def __init__(self, *, task: Task, options: LocalOptions) -> None:
        if importlib.util.find_spec("xllamacpp") is None:
            raise MissingExtra(NAME, extra="local")
        try:
            self._path = model_file(options.path, root=Path())
        except DataError as error:
            raise TeacherError(error.what, next_action=error.next_action) from error
        if options.max_tokens < 1 or options.threads < 1 or options.context < 16:
            raise TeacherError(
                f"{NAME}: max_tokens {options.max_tokens}, threads {options.threads} or context {options.context} is too small",
                next_action="give max_tokens and threads at least 1, context at least 16",
            )
        with self._path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise TeacherError(f"{NAME}: {self._path.name} is no GGUF file", next_action="convert the model, or mend `path`")
        if options.sha256 and (found := file_sha256(self._path)) != options.sha256.lower():
            raise PinMismatch(
                f"{NAME}: {self._path.name} has SHA-256 {found}, pinned is {options.sha256}",
                next_action="find out which of the two is the model that you mean",
            )
        self._task, self._options = task, options
        self._name = options.model or self._path.stem
        self._engine: _Engine | None = None

    @classmethod
    def revision(cls, options: Mapping[str, Any], *, root: Path) -> str:
        """
        What names the model by content.

        Args:
            options: of a [[baseline]] table.
            root: the project's folder.

        Returns: SHA-256 of the file.
        Raises: DataError where it isn't there.
        """
        return file_sha256(model_file(str(options.get("path", "")), root=root))

    def worst_case_tokens(self, request: Request) -> TokenBound:
        """Bound what one attempt uses; see `Teacher`. More than the context never fits."""
        del request
        return TokenBound(tokens_in=self._options.context, tokens_out=self._options.max_tokens)

    async def attempt(self, request: Request, *, sample_index: int, recorded: Completion | None = None) -> Outcome:
        """Ask once; see `Teacher`. What a log holds is not looked at."""
        del recorded
        nothing = Outcome(
            kind="permanent", completion=None, reason="", http_status=None, retry_after_s=None, fingerprint=None, request_id=None
        )
        try:
            if self._engine is None:
                self._engine = await asyncio.to_thread(_engine, str(self._path), self._options.context, self._options.threads)
            said, seconds = await self._engine.ask(self._body(request, sample_index))
        except Exception as error:  # noqa: BLE001 - the library raises whatever it likes, and an attempt never raises
            why = f"the model can't be run: {type(error).__name__}: {error}"[:300]
            return replace(nothing, kind="fatal", reason=why)
        if (trouble := said.get("error")) is not None:
            why = f"no answer: {trouble.get('message', trouble)}"[:300]  # mostly a prompt that is longer than the context
            empty = Completion(text="", value=None, model=self._name, finish="error", latency_s=seconds, cost_usd=0.0, reason=why)
            return replace(nothing, kind="bad", reason=why, completion=empty)
        answer = self._read(said)
        cost = seconds * self._options.threads * self._options.cpu_usd_per_hour / 3600
        found = judged(answer, nothing, output=self._task.output, foreign="", pinned=self._name, cost_usd=cost)
        assert found.completion is not None
        return replace(found, completion=replace(found.completion, latency_s=seconds))

    async def close(self) -> None:
        """Let go of the model; the next attempt loads it again."""
        self._engine = None

    def _body(self, request: Request, sample_index: int) -> dict[str, Any]:
        output = self._task.output
        messages = [{"role": m.role, "content": _sayable(m.content)} for m in messages_for(self._task, request)]
        body: dict[str, Any] = {
            "messages": messages, "max_tokens": self._options.max_tokens, "temperature": self._options.temperature, "seed": sample_index,
        }  # fmt: skip
        if isinstance(output, Classes):
            body |= {"grammar": grammar_of(output.labels), "logprobs": True, "top_logprobs": ALTERNATIVES}
        elif isinstance(output, Fields):
            body["json_schema"] = output.json_schema()
        return body

    def _read(self, said: Mapping[str, Any]) -> Answer:
        choice, usage = said["choices"][0], said["usage"]
        finish, text = choice["finish_reason"], choice["message"].get("content") or ""
        output = self._task.output
        tokens = (choice.get("logprobs") or {}).get("content") or []
        return Answer(
            text=text,
            finish=FINISH.get(finish, "unknown"),
            reason="" if finish == "stop" else f"finish_reason is {finish!r}, not 'stop'",
            model=self._name,
            tokens_in=usage["prompt_tokens"],
            tokens_out=usage["completion_tokens"],
            tokens_cached=(usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
            probability=chance_of(tokens, output.labels) if isinstance(output, Classes) and tokens else None,
        )


def grammar_of(labels: Sequence[str]) -> str:
    """
    A GBNF grammar that admits the labels and nothing else.

    Args:
        labels: of the task.

    Returns: the grammar.
    """
    escapes = {"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"}
    quoted = ('"' + "".join(escapes.get(c, c) for c in label) + '"' for label in labels)
    return f"root ::= {' | '.join(quoted)}"


def chance_of(tokens: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> float | None:
    """
    The chance of an answer among what the labels admit: wherever labels part, its share of all that leads on to one.

    Args:
        tokens: of the answer in order, each with "bytes", "logprob" and its likeliest alternatives; the end has no bytes.
        labels: of the task.

    Returns: a probability; None where a label's token wasn't even among the alternatives, so that nobody knows its rivals.
    """
    admitted, said, total = [label.encode() for label in labels], b"", 0.0
    answer = b"".join(bytes(token["bytes"]) for token in tokens)
    for token in tokens:
        if [label for label in admitted if label.startswith(said)] == [answer]:
            break
        own, listed = bytes(token["bytes"]), {bytes(t["bytes"]): t["logprob"] for t in token.get("top_logprobs", ())}
        if own not in listed:
            return None
        good, every = 0.0, 0.0
        for piece, logprob in listed.items():
            leads = [label for label in admitted if (label.startswith(said + piece) if piece else label == said)]
            every += math.exp(logprob) if leads else 0.0
            good += math.exp(logprob) if answer in leads else 0.0
        if not good:
            return None
        total += math.log(good / every)
        said += own
    return math.exp(min(0.0, total))


def _sayable(text: str) -> str:
    """Without lone surrogates, which no tokenizer takes."""
    return text.encode("utf-8", "replace").decode()


class _Engine:
    """A loaded model and the one thread that asks it, so that no answer waits inside another one's time."""

    def __init__(self, path: str, context: int, threads: int) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = path
        params.n_ctx, params.n_parallel = context, 1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.verbosity = -1
        params.warmup = False
        params.endpoint_slots = False
        params.api_keys = [secrets.token_hex(16)]  # the library also listens on loopback; nobody is to ask it there
        self._server = xllamacpp.Server(params)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="local-model")

    async def ask(self, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], float]:
        """The reply, and how many seconds it took by itself."""

        def work() -> tuple[Mapping[str, Any], float]:
            start = time.perf_counter()
            said = self._server.handle_chat_completions(dict(body))
            return said, time.perf_counter() - start

        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


# Teachers with the same model share it while any of them holds it: prompts are compared by the dozen.
_LOADED: weakref.WeakValueDictionary[tuple[str, int, int], _Engine] = weakref.WeakValueDictionary()
_LOADING = threading.Lock()


def _engine(path: str, context: int, threads: int) -> _Engine:
    with _LOADING:
        key = (path, context, threads)
        found = _LOADED.get(key)
        if found is None:
            _LOADED[key] = found = _Engine(path, context, threads)
        return found
