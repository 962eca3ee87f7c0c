"""What a provider's reply says, read strictly: anything doubtful is a reason, never an answer."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from overproof.data import Completeness, Completion, Outcome, RateLimits
from overproof.errors import DataError
from overproof.task import Output

Kind = Literal["ok", "bad", "transient", "permanent", "fatal"]
FINISH: dict[str, Completeness] = {"stop": "stop", "length": "length", "content_filter": "filtered"}
STOP_REASONS: dict[str, Completeness] = {
    "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "model_context_window_exceeded": "length",
    "refusal": "filtered", "tool_use": "error", "pause_turn": "error",
}  # fmt: skip
KEY_LIKE = re.compile(r"\b(?:sk|pk|key|gsk|xai|hf|AIza)[-_][A-Za-z0-9_*\-]{6,200}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """One HTTP response, complete for its framing."""

    status: int
    body: bytes
    retry_after: str | None
    """The `Retry-After` header as sent."""
    request_id: str | None
    limits: RateLimits | None = None
    """What the headers said about rate limits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a 200 body says; `reason` is empty iff it is a complete, unrefused answer."""

    text: str = ""
    reason: str = ""
    finish: Completeness = "error"
    model: str | None = None
    fingerprint: str | None = None
    tokens_in: int | None = None
    """All prompt tokens, those from the cache included."""
    tokens_out: int | None = None
    tokens_cached: int = 0
    """Prompt tokens read from the provider's cache."""
    tokens_written: int = 0
    """Prompt tokens written to it."""
    probability: float | None = None
    """See `Completion.probability`."""


class _DoubtfulJson(ValueError):
    """JSON that two readers could read differently."""


def read_reply(body: bytes, *, secret: str = "") -> Answer:
    """
    Read the body of a 200 response of chat completions.

    Args:
        body: the whole body.
        secret: the API key, which is taken out of all that is kept.

    Returns: the answer; `reason` says why it can't be used, or is empty.
    """
    said = json_object(body)
    return said if isinstance(said, Answer) else read_chat(said, secret=secret)


def read_chat(said: dict[str, Any], *, secret: str = "") -> Answer:
    """
    Read a chat completion.

    Args:
        said: the JSON object of a 200 response.
        secret: the API key, which is taken out of all that is kept.

    Returns: the answer; `reason` says why it can't be used, or is empty.
    """
    usage = _dict(said.get("usage"))
    cached = _count(_dict(usage.get("prompt_tokens_details")).get("cached_tokens")) or 0
    answer = Answer(
        tokens_cached=min(cached, _count(usage.get("prompt_tokens")) or 0),
        model=_text_or_none(said.get("model"), secret),
        fingerprint=_text_or_none(said.get("system_fingerprint"), secret),
        tokens_in=_count(usage.get("prompt_tokens")),
        tokens_out=_count(usage.get("completion_tokens")),
    )
    if said.get("error") is not None:
        return replace(answer, reason=f"200 with an error: {error_text(said, secret=secret)}")
    choices = said.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return replace(answer, reason="the body has no choices")
    message = choices[0].get("message")
    message = message if isinstance(message, dict) else {}
    finish = choices[0].get("finish_reason")
    content = message.get("content")
    text = content if isinstance(content, str) else ""
    return replace(
        answer,
        text=_clean(text, secret),
        reason=_why_not(message, finish, content, answer.model),
        finish=FINISH.get(finish, "unknown") if isinstance(finish, str) else "unknown",
        probability=_probability(choices[0].get("logprobs")),
    )


def read_message(body: bytes, *, secret: str = "") -> Answer:
    """
    Read the body of a 200 response of Anthropic's Messages API.

    Args:
        body: the whole body.
        secret: the API key, which is taken out of all that is kept.

    Returns: the answer; `reason` says why it can't be used, or is empty.
    """
    said = json_object(body)
    if isinstance(said, Answer):
        return said
    usage = _dict(said.get("usage"))
    read, written = (_count(usage.get(f"cache_{how}_input_tokens")) or 0 for how in ("read", "creation"))
    plain, stop = _count(usage.get("input_tokens")), said.get("stop_reason")
    answer = Answer(
        model=_text_or_none(said.get("model"), secret),
        tokens_in=None if plain is None else plain + read + written,  # "input_tokens" leaves the cached ones out
        tokens_out=_count(usage.get("output_tokens")),
        tokens_cached=read,
        tokens_written=written,
        finish=STOP_REASONS.get(stop, "unknown") if isinstance(stop, str) else "unknown",
    )
    if said.get("type") == "error" or said.get("error") is not None:
        return replace(answer, reason=f"200 with an error: {provider_message(body, secret=secret)}", finish="error")
    blocks = said.get("content")
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        return replace(answer, reason="the body has no content blocks", finish="error")
    texts = [block["text"] for block in blocks if block.get("type") == "text" and isinstance(block.get("text"), str)]
    strange = {str(b.get("type"))[:40] for b in blocks} - {"text", "thinking", "redacted_thinking"}
    reason = ""
    if answer.model is None:
        reason = "the body names no model"
    elif stop not in ("end_turn", "stop_sequence"):
        reason = "the model refused" if stop == "refusal" else f"stop_reason is {stop!r}, not 'end_turn'"[:200]
    elif strange:
        reason = f"the model answered with {min(strange)!r} instead of text"
    elif not "".join(texts).strip():
        reason = "the answer is empty"
    return replace(answer, text=_clean("".join(texts), secret), reason=reason)


def judged(answer: Answer, heard: Outcome, *, output: Output, foreign: str, pinned: str, cost_usd: float | None) -> Outcome:
    """
    The outcome of an answer that was read.

    Args:
        answer: from `read_reply` or `read_message`.
        heard: status, ids and limits of the response.
        output: what the task accepts.
        foreign: why the answer is not the pinned teacher's; empty where it is.
        pinned: the pinned model, for answers that name none.
        cost_usd: what the answer cost, where known.

    Returns: "ok" with a value, "bad" or "fatal" with a reason.
    """
    reason, value = foreign or answer.reason, None
    if not reason:
        try:
            value = output.parse(answer.text)
        except DataError as error:
            reason = error.what
    kind: Kind = "fatal" if foreign else "bad" if reason else "ok"
    completion = Completion(
        text=answer.text,
        value=value,
        model=answer.model or pinned,
        finish=answer.finish,
        tokens_in=answer.tokens_in,
        tokens_out=answer.tokens_out,
        cost_usd=cost_usd,
        reason=reason or None,
        tokens_cached=answer.tokens_cached or None,
        probability=answer.probability,
        fingerprint=answer.fingerprint,
    )
    return replace(heard, kind=kind, reason=reason, completion=completion, fingerprint=answer.fingerprint)


def json_object(body: bytes) -> dict[str, Any] | Answer:
    """
    A body as JSON object, read strictly.

    Args:
        body: UTF-8.

    Returns: the object; or an answer whose reason says why there is none.
    """
    try:
        said = _strict_json(body)
    except _DoubtfulJson as error:
        return Answer(reason=str(error))
    return said if isinstance(said, dict) else Answer(reason="the body is not a JSON object")


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _probability(logprobs: object) -> float | None:
    """The chance of the whole answer: the product over its tokens; None where one token's is missing or odd."""
    tokens = _dict(logprobs).get("content")
    if not isinstance(tokens, list) or not tokens:
        return None
    total = 0.0
    for token in tokens:
        value = _dict(token).get("logprob")
        if isinstance(value, bool) or not isinstance(value, int | float) or not value <= 0.001:
            return None
        total += value
    return math.exp(min(0.0, total))


def limits_of(headers: Mapping[str, str], *, prefix: str, now: datetime | None = None) -> RateLimits | None:
    """
    What response headers say about rate limits.

    Args:
        headers: names in lower case.
        prefix: "x-ratelimit-" (OpenAI's order of words) or "anthropic-ratelimit-".
        now: for tests.

    Returns: the limits; None where no header speaks of them.
    """
    first = prefix.startswith("x-")  # x-ratelimit-limit-requests, but anthropic-ratelimit-requests-limit

    def said(what: str, word: str) -> str | None:
        return headers.get(f"{prefix}{word}-{what}" if first else f"{prefix}{what}-{word}")

    found = RateLimits(
        requests_per_minute=_amount(said("requests", "limit")),
        tokens_per_minute=_amount(said("tokens", "limit")),
        requests_left=_amount(said("requests", "remaining")),
        tokens_left=_amount(said("tokens", "remaining")),
        requests_reset_s=_reset_s(said("requests", "reset"), now),
        tokens_reset_s=_reset_s(said("tokens", "reset"), now),
    )
    return None if found == RateLimits() else found


def _amount(text: str | None) -> float | None:
    return float(text) if text and re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,6})?", text.strip()) else None


def _reset_s(text: str | None, now: datetime | None) -> float | None:
    """Seconds: "6m0s", "120ms", "1.5s", a bare number, or a moment in RFC 3339."""
    if not text:
        return None
    parts = re.findall(r"([0-9.]{1,12})(ms|d|h|m|s)", text)
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
    try:
        if parts and "".join(a + b for a, b in parts) == text.strip():
            return sum(float(amount) * units[unit] for amount, unit in parts)
        if (bare := _amount(text)) is not None:
            return bare
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())


def _clean(text: str, secret: str) -> str:
    """The text without the key that a proxy might echo, and without lone surrogates, which can't be written down."""
    return (text.replace(secret, "[key]") if secret else text).encode("utf-8", "replace").decode()


def _why_not(message: dict[str, Any], finish: object, content: object, model: str | None) -> str:
    if model is None:
        return "the body names no model"
    if finish != "stop":
        return f"finish_reason is {finish!r}, not 'stop'"[:200]
    if message.get("refusal"):
        return "the model refused"
    if message.get("tool_calls") or message.get("function_call"):
        return "the model called a tool instead of answering"
    if not isinstance(content, str):
        return "the message has no text"
    return "" if content.strip() else "the answer is empty"


def _strict_json(body: bytes) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise _DoubtfulJson("the body names a key twice")
        return found

    def no_constant(word: str) -> None:
        raise _DoubtfulJson(f"the body holds {word}, which is not JSON")

    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=unique, parse_constant=no_constant)
    except _DoubtfulJson:
        raise
    except UnicodeDecodeError as error:
        raise _DoubtfulJson("the body is not UTF-8") from error
    except RecursionError as error:
        raise _DoubtfulJson("the body is nested too deeply") from error
    except ValueError as error:
        raise _DoubtfulJson(f"the body is not JSON: {error}"[:200]) from error


def _text_or_none(value: object, secret: str) -> str | None:
    return _clean(value, secret) if isinstance(value, str) and value else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def status_kind(reply: Reply) -> Kind:
    """
    What a status other than 200 means for the run.

    Args:
        reply: the response.

    Returns: "transient" where a later try may succeed, "permanent" for this row, "fatal" for the run.
    """
    status = reply.status
    if status == 429 and b'"insufficient_quota"' in reply.body:
        return "fatal"  # an empty account says 429 for ever
    if status in (408, 425, 429) or status >= 500:
        return "transient"
    if status in (401, 402, 403) or 300 <= status < 400:
        return "fatal"
    return "permanent"


def retry_after_s(header: str | None, *, now: datetime | None = None) -> float | None:
    """
    Seconds that a `Retry-After` header asks us to wait.

    Args:
        header: delta seconds or an HTTP date.
        now: for tests.

    Returns: seconds, never negative; None where there is no header or it can't be read.
    """
    if header is None:
        return None
    text = header.strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text):
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())


def provider_message(body: bytes, *, secret: str = "") -> str:
    """
    The provider's own words in an error body, fit to print.

    Args:
        body: the error body.
        secret: the API key, taken out wherever it is echoed.

    Returns: at most 200 printable characters, on one line, with nothing in it that looks like a key.
    """
    text = body[:20_000].decode("utf-8", "replace")
    try:
        return error_text(json.loads(text), secret=secret)
    except (ValueError, RecursionError):
        return error_text(text, secret=secret)  # not JSON: the raw text is what there is


def error_text(said: Any, *, secret: str = "") -> str:
    """
    The provider's own words in an error that was parsed.

    Args:
        said: a JSON value; its `error` or `message` where it has one.
        secret: the API key, taken out wherever it is echoed.

    Returns: as `provider_message`.
    """
    found = said.get("error", said) if isinstance(said, dict) else said
    found = found.get("message", found) if isinstance(found, dict) else found
    try:
        text = (found if isinstance(found, str) else json.dumps(found))[:20_000]
    except (ValueError, RecursionError):
        text = ""  # nested too deeply, or a number too long, to be written
    if secret:
        text = text.replace(secret, "[key]")
    text = KEY_LIKE.sub("[key]", text)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200] or "no message"
