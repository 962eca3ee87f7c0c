"""What a request leaves behind, and how it becomes a row of the traffic log: the same one that an import of its log gives."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from overproof.data import BY_STUDENT, Completion, Request, Served, Skipped, TrafficRecord, call_digest
from overproof.importers.bodies import Answer, answered, asked, streamed
from overproof.importers.calls import derived
from overproof.importers.rows import ATTRIBUTE_CHARS, LABEL_NAMES, BadRow, number, scalar_text
from overproof.importers.turns import Said
from overproof.privacy.redact import Redactor
from overproof.store.captured import SOURCE
from overproof.store.money import Prices

LONGEST = 16_384
"""Characters of a text that are stored."""
UNPACKED = 16 * 1024 * 1024
"""Bytes that a compressed answer may unfold to."""
WHOLE = "text"
"""The field of a request of no known task, the one that `discover` reads."""
OVERLAP = 4_096
"""A secret may reach over the end of a text that is cut: so much beyond it is looked at, and as much before it left out."""
HTTP_ERROR = 400
CUT = "the answer was cut short"
BESIDES = frozenset({"model", "messages", "stream", "stream_options", "metadata", "user"})
"""Keys of a call that don't change what is asked; `model` is compared by itself."""
TOO_LONG = "too long to be stored whole"
_decode = msgspec.json.Decoder().decode


@dataclass(kw_only=True, slots=True)
class Row:
    """One served request, as bytes: nothing of it is read before the writer has it. Not frozen, since that costs on each request."""

    id: str
    """The gateway's own id of the request; it is never redacted, since feedback names it."""
    at: float
    """When it came, in seconds since 1970."""
    served: Served
    """How it was answered."""
    request: bytes = b""
    """The body as it came."""
    response: bytes | Sequence[bytes] = b""
    """The body as it went out, whole or in chunks: JSON, or server-sent events."""
    complete: bool = True
    """False where the answer was cut: by the upstream, by a timeout, or since the caller left."""
    encoding: str = ""
    """`Content-Encoding` of `response`."""
    fields: Mapping[str, str] | None = None
    """Input fields of the recognised task; None where none was recognised."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """From headers and body, in the importers' words."""
    session: str | None = None
    answer: Completion | None = None
    """The answer where the gateway has it without reading `response`: the student's."""

    @property
    def size(self) -> int:
        """Bytes that the row takes while it waits, about."""
        body = self.response
        return 1024 + len(self.request) + (len(body) if isinstance(body, bytes) else sum(map(len, body)))


def record_of(row: Row, *, weight: float = 1.0, prices: Prices | None = None) -> TrafficRecord:
    """
    Read what a request left; what can't be read is empty or says why, since the request was served all the same.

    Args:
        row: as served.
        weight: how many requests it stands for.
        prices: of the teacher, for the cost of answers that tell their tokens.

    Returns: the row as it came: neither cut nor redacted.
    """
    body = _json(row.request)
    messages = _messages(body)
    last = max((i for i, one in enumerate(messages) if one.turn.role == "user"), default=-1)
    said = None if row.answer is not None else _answer(row)
    answer = row.answer if said is None else _completion(row, said, asked_of=body, prices=prices)
    if row.served.route == "student" and answer is not None:
        answer = replace(answer, reason=BY_STUDENT)
    return TrafficRecord(
        request=Request(
            id=row.id,
            fields=dict(row.fields) if row.fields is not None else {WHOLE: messages[last].turn.text if last >= 0 else ""},
            at=datetime.fromtimestamp(row.at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            attributes={**_tags(body), **row.attributes, **(derived(messages, last) if messages else {})},
            session=row.session,
        ),
        completion=answer,
        source=SOURCE,
        context=tuple(one.turn for i, one in enumerate(messages) if i != last),
        calls=() if said is None or said.said is None else said.said.turn.calls,
        served=replace(row.served, weight=weight, asked=_asked(body, row.fields) if row.served.route == "teacher" and row.fields else ""),
    )


def writable(record: TrafficRecord, redactor: Redactor) -> TrafficRecord:
    """
    A row as it may be written: long texts cut, personal data and secrets replaced.

    Args:
        record: from `record_of`.
        redactor: by the project's policy.

    Returns: the row under the same id.
    """
    request, answer, how = record.request, record.completion, record.served
    assert how is not None
    if any(len(text) > LONGEST for text in request.fields.values()):
        request = replace(request, fields={name: _cut(text, redactor) for name, text in request.fields.items()})
        record = replace(record, request=request, served=replace(how, truncated=True))
    if answer is not None and len(answer.text) > LONGEST:
        answer = replace(answer, text=_cut(answer.text, redactor), finish="length", reason=answer.reason or TOO_LONG)
        record = replace(record, completion=answer)
    if any(len(turn.text) > LONGEST for turn in record.context):
        record = replace(record, context=tuple(replace(turn, text=_cut(turn.text, redactor)) for turn in record.context))
    if how.guess is not None and len(how.guess) > LONGEST:
        record = replace(record, served=replace(record.served or how, guess=_cut(how.guess, redactor)))
    done = redactor.row(record, own_id=True)
    if done.served is not None and done.request.fields != record.request.fields:
        done = replace(done, served=replace(done.served, asked=""))  # the teacher read something else than the log holds
    return done


def aside(row: Row, error: Exception, redactor: Redactor) -> Skipped:
    """
    What is kept of a row that could not be read.

    Args:
        row: as served.
        error: why.
        redactor: by the project's policy.

    Returns: the row, redacted.
    """
    raw = row.request[:8_000].decode("utf-8", "replace")[:2_000]
    reason = f"{type(error).__name__}: {error}"[:300].encode("utf-8", "replace").decode()
    return redactor.row(Skipped(where=f"{SOURCE}:{row.id}", reason=reason, raw=raw))


def _asked(body: Any, fields: Mapping[str, str]) -> str:
    """What a call in the usual form asks beyond its input; empty for any other form."""
    said = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(said, list) or not all(isinstance(one, dict) and set(one) == {"role", "content"} for one in said):
        return ""
    if not all(isinstance(text, str) for one in said for text in one.values()):
        return ""
    rest = {name: value for name, value in body.items() if name not in BESIDES}
    try:
        return call_digest([(one["role"], one["content"]) for one in said], rest, fields)
    except (TypeError, ValueError, RecursionError):  # what JSON can read and not say again
        return ""


def _json(raw: bytes) -> Any:
    try:
        return _decode(raw) if raw else None
    except (msgspec.DecodeError, ValueError, RecursionError):  # a file that is uploaded, for example
        return None


def _messages(body: Any) -> Sequence[Said]:
    try:
        return (asked(body) if isinstance(body, dict) else None) or ()
    except (BadRow, AttributeError, IndexError, KeyError, TypeError, ValueError):  # callers send what they like
        return ()


def _tags(body: Any) -> dict[str, str]:
    found = body.get("metadata") if isinstance(body, dict) else None
    if not isinstance(found, dict):
        return {}
    tags = {str(key): scalar_text(value) for key, value in found.items() if key not in LABEL_NAMES}
    return {key: text for key, text in tags.items() if text and len(text) <= ATTRIBUTE_CHARS}


def _answer(row: Row) -> Answer:
    raw = row.response if isinstance(row.response, bytes) else b"".join(row.response)
    status = row.served.status
    if not raw:
        return Answer(said=None, failed=f"HTTP {status}" if status else "nothing was sent", told=True)
    try:
        raw = _unpacked(raw, row.encoding)
        found = answered(_joined(raw) if row.served.streamed or raw[:5] in (b"data:", b"event") else _decode(raw))
    except (BadRow, zlib.error, msgspec.DecodeError, RecursionError, AttributeError, IndexError, KeyError, TypeError, ValueError):
        found = None
    found = found or Answer(said=None, told=True)
    if status >= HTTP_ERROR:
        return replace(found, failed=found.failed or f"HTTP {status}")
    return found if row.complete else replace(found, failed=found.failed or CUT)


def _unpacked(raw: bytes, encoding: str) -> bytes:
    if encoding in ("", "identity"):
        return raw
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise BadRow(f"the answer is packed as {encoding[:40]!r}")
    return zlib.decompressobj(wbits=47).decompress(raw, UNPACKED)  # 47: the header says whether it is gzip or zlib


def _joined(raw: bytes) -> dict[str, Any]:
    """The answer that server-sent events add up to; without a reason to end where the last event is missing."""
    events = [
        _decode(data) for line in raw.splitlines()
        if line.startswith(b"data:") and (data := line[5:].strip()) and data != b"[DONE]"
    ]  # fmt: skip
    events = [one for one in events if isinstance(one, dict) and not _choice(one).get("index")]  # the first of several answers
    if failed := next((one for one in events if one.get("error") is not None), None):
        return {"error": failed["error"]}
    named: dict[str, Any] = next((one for one in events if one.get("model")), {})
    if any("text" in _choice(one) for one in events):  # legacy completions
        text = "".join(str(_choice(one).get("text") or "") for one in events)
        finish = next((end for one in reversed(events) if (end := _choice(one).get("finish_reason"))), None)
        usage = next((one["usage"] for one in reversed(events) if one.get("usage")), None)
        whole: dict[str, Any] = {"choices": [{"text": text, "finish_reason": finish}], "usage": usage}
    else:
        whole = streamed(events)
    refused = any(isinstance(delta := _choice(one).get("delta"), dict) and delta.get("refusal") for one in events)
    if refused:
        whole["choices"][0]["message"]["refusal"] = "refused"
    mark = next((one["system_fingerprint"] for one in events if one.get("system_fingerprint")), None)  # one event may lack it
    return {**whole, "model": named.get("model"), "id": named.get("id"), "created": named.get("created"), "system_fingerprint": mark}


def _choice(event: Any) -> dict[str, Any]:
    listed = event.get("choices") if isinstance(event, dict) else None
    return listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], dict) else {}


def _completion(row: Row, answer: Answer, *, asked_of: Any, prices: Prices | None) -> Completion:
    verdict = answer.verdict()
    tokens = [_count(answer.tokens_in), _count(answer.tokens_out)]
    cost = None
    if prices is not None and tokens[0] is not None and tokens[1] is not None and row.served.route == "teacher":
        cost = (tokens[0] * prices.usd_per_million_in + tokens[1] * prices.usd_per_million_out) / 1e6
    return Completion(
        text="" if answer.said is None else answer.said.turn.text,
        value=None,
        model=scalar_text(answer.model) or scalar_text(asked_of.get("model") if isinstance(asked_of, dict) else None) or "",
        finish=verdict.finish,
        tokens_in=tokens[0],
        tokens_out=tokens[1],
        latency_s=row.served.latency_s,
        cost_usd=cost,
        reason=verdict.reason,
        fingerprint=scalar_text(answer.fingerprint) or None,
    )


def _count(value: Any) -> int | None:
    try:
        found = number(value, "tokens")
    except BadRow:
        return None
    return None if found is None else int(found)


def _cut(text: str, redactor: Redactor) -> str:
    if len(text) <= LONGEST:
        return text
    done = redactor.text(text[: LONGEST + 2 * OVERLAP])
    return done[: max(0, min(LONGEST, len(done) - OVERLAP))] + "…"
