"""Answers that are already there: a recording beside the project, or what the traffic log holds."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from overproof.data import BY_STUDENT, Completeness, Completion, Outcome, Request
from overproof.errors import DataError
from overproof.task import Task
from overproof.teachers import TokenBound

MAX_LINE_BYTES = 8 * 1024 * 1024
FINISHES = ("stop", "length", "filtered", "error", "unknown")


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedOptions:
    """What `[teacher]` may say for recorded.v1."""

    model: str = ""
    """Model id that the answers must come from; empty admits any, and names rows without one "recorded"."""
    path: str | None = None
    """JSONL (or .jsonl.gz) with `id` and `output`; None replays what the traffic log holds."""
    format: str = ""
    """Importer that reads the recording; empty takes the form of this part, or else the importer that knows the file."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """For an importer: role or input field to column, as in [traffic]; what is absent is guessed."""
    unknown_is_complete: bool = True
    """Whether answers whose end nobody wrote down count as complete; "length", "filtered", "error" never do."""


class RecordedTeacher:
    """
    Replays answers and costs nothing.

    A line of a recording holds `id` and `output`, and where known `sample` (counted from the smallest number in the
    file), `model`, `finish`, `latency_s` or `latency_ms`, `tokens_in`, `tokens_out`, `cost_usd`, and `digest`, the
    digest of the request's fields, which must then match.

    Args:
        task: the labels that an answer must be one of.
        options: see `RecordedOptions`.
        answers: a recording that somebody else has read: digest of a request's fields to its answers in order; the
            path is not opened then.

    Raises: DataError for a recording that can't be read, with file and line.
    """

    Options: ClassVar[type[RecordedOptions]] = RecordedOptions
    free = True

    def __init__(
        self, *, task: Task, options: RecordedOptions, answers: Mapping[str, Sequence[Completion]] | None = None
    ) -> None:
        self._task = task
        self._options = options
        self._answers = answers
        self._lines: dict[tuple[str, int], _Line] = {}
        self.digest = ""
        """SHA-256 of the recording's bytes as stored, the pin's revision; empty for a log."""
        if options.path is not None and answers is None:
            path = Path(options.path)
            self._lines = _read(path)
            self.digest = hashlib.sha256(path.read_bytes()).hexdigest()

    @property
    def parameters(self) -> dict[str, float | int | str]:
        """Nothing is sampled here."""
        return {}

    def worst_case_tokens(self, request: Request) -> TokenBound:
        """Nothing is billed; see `Teacher`."""
        del request
        return TokenBound(tokens_in=0, tokens_out=0)

    async def attempt(
        self, request: Request, *, sample_index: int, recorded: Completion | None = None
    ) -> Outcome:
        """Look one answer up; see `Teacher`."""
        if self._answers is not None:
            said = self._answers.get(request.digest, ())
            if sample_index >= len(said):
                return _permanent("not in the recording" if not said else "the recording holds no further answer")
            return self._judge(said[sample_index])
        if self._options.path is None:
            found = recorded if sample_index == 0 else None
            return self._judge(found) if found else _permanent("the log holds no answer for this sample")
        line = self._lines.get((request.id, sample_index))
        if line is None:
            return _permanent("not in the recording")
        if line.digest is not None and line.digest != request.digest:
            return _permanent("the recording's answer is to another text")
        return self._judge(line.completion)

    def rekey(self, name: Callable[[str], str]) -> None:
        """Rename the recording's rows as the log's rows were renamed when they came in."""
        self._lines = {(name(row), sample): line for (row, sample), line in self._lines.items()}

    async def close(self) -> None:
        """Nothing to close."""

    def _judge(self, found: Completion) -> Outcome:
        pinned = self._options.model
        reason, value = "", None
        if found.reason == BY_STUDENT:
            return _permanent("the student answered, not the teacher")
        if pinned and found.model and found.model != pinned:
            return _permanent(f"model {found.model[:80]!r} answered, pinned is {pinned!r}")
        if found.finish != "stop" and not (found.finish == "unknown" and self._options.unknown_is_complete):
            reason = f"the recorded answer ended with {found.finish!r}"
        else:
            try:
                value = self._task.output.parse(found.text)
            except DataError as error:
                reason = error.what
        completion = replace(
            found, value=value, model=found.model or pinned or "recorded", reason=reason or None
        )
        # "permanent", not "bad": asking a recording again gives the same answer
        return Outcome(
            kind="permanent" if reason else "ok", completion=completion, reason=reason, http_status=None,
            retry_after_s=None, fingerprint=None, request_id=None, sent=False,
        )


def _permanent(reason: str) -> Outcome:
    return Outcome(
        kind="permanent", completion=None, reason=reason, http_status=None,
        retry_after_s=None, fingerprint=None, request_id=None, sent=False,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Line:
    id: str
    sample: int | None
    digest: str | None
    completion: Completion
    where: str


def _read(path: Path) -> dict[tuple[str, int], _Line]:
    lines = list(_lines_of(path))
    base = min((line.sample for line in lines if line.sample is not None), default=0)
    found: dict[tuple[str, int], _Line] = {}
    seen: dict[str, int] = {}
    for line in lines:
        index = seen.get(line.id, 0) if line.sample is None else line.sample - base
        seen[line.id] = max(seen.get(line.id, 0), index + 1)
        if (line.id, index) in found:
            raise DataError(
                f"{line.where}: sample {index + base} of {line.id!r} is there twice",
                next_action="keep one of the two lines",
            )
        found[line.id, index] = line
    return found


def _lines_of(path: Path) -> Iterator[_Line]:
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            number = 0
            while raw := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                where = f"{path.name}:{number}"
                if len(raw) > MAX_LINE_BYTES:
                    raise _unusable(where, f"the line is longer than {MAX_LINE_BYTES} bytes")
                if raw.strip():
                    yield _line(raw, where)
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"the recording {path.name!r} can't be read: {reason}", next_action="mend [teacher] path"
        ) from error


def _line(raw: bytes, where: str) -> _Line:
    try:
        said = json.loads(raw.decode("utf-8-sig"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _unusable(where, "not one JSON object in UTF-8") from error
    if not isinstance(said, dict):
        raise _unusable(where, f"expected a JSON object, got {type(said).__name__}")
    row_id, output, sample = said.get("id"), said.get("output"), said.get("sample")
    if not isinstance(row_id, str | int) or isinstance(row_id, bool) or row_id == "":
        raise _unusable(where, f"`id` must be a text, got {row_id!r}")
    if isinstance(output, dict):
        output = json.dumps(output, ensure_ascii=False)
    if not isinstance(output, str):
        raise _unusable(where, f"`output` must be a text, got {output!r}")
    if sample is not None and (not isinstance(sample, int) or isinstance(sample, bool) or sample < 0):
        raise _unusable(where, f"`sample` must be a whole number from 0, got {sample!r}")
    digest = said.get("digest")
    return _Line(
        id=str(row_id),
        sample=sample,
        digest=digest if isinstance(digest, str) else None,
        completion=_completion(said, output, where),
        where=where,
    )


def _completion(said: Mapping[str, Any], output: str, where: str) -> Completion:
    latency_s = _number(said, "latency_s", where)
    if latency_s is None:
        latency_ms = _number(said, "latency_ms", where)
        latency_s = None if latency_ms is None else latency_ms / 1000
    model = said.get("model")
    return Completion(
        text=output,
        value=None,
        model=model if isinstance(model, str) else "",
        finish=_finish(said.get("finish"), where),
        tokens_in=_count(said, "tokens_in", where),
        tokens_out=_count(said, "tokens_out", where),
        latency_s=latency_s,
        cost_usd=_number(said, "cost_usd", where),
    )


def _finish(value: object, where: str) -> Completeness:
    if value is None:
        return "unknown"
    if value == "content_filter":
        return "filtered"
    for known in ("stop", "length", "filtered", "error", "unknown"):
        if value == known:
            return known
    raise _unusable(where, f"`finish` must be one of {', '.join(FINISHES)}, got {value!r}")


def _number(said: Mapping[str, Any], key: str, where: str) -> float | None:
    value = said.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise _unusable(where, f"`{key}` must be a number from 0, got {value!r}")
    return float(value)


def _count(said: Mapping[str, Any], key: str, where: str) -> int | None:
    value = _number(said, key, where)
    return None if value is None else int(value)


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _unusable(where: str, what: str) -> DataError:
    return DataError(f"{where}: {what}", next_action="mend that line, or take it out of the recording")
