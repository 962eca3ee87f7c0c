"""What a chat-completions reply says, read strictly: anything doubtful is a reason, never an answer."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from overproof.data import Completeness

Kind = Literal["transient", "permanent", "fatal"]
FINISH: dict[str, Completeness] = {"stop": "stop", "length": "length", "content_filter": "filtered"}
KEY_LIKE = re.compile(r"\b(?:sk|pk|key|gsk|xai|hf|AIza)[-_][A-Za-z0-9_*\-]{6,200}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """One HTTP response, complete for its framing."""

    status: int
    body: bytes
    retry_after: str | None
    """The `Retry-After` header as sent."""
    request_id: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a 200 body says; `reason` is empty iff it is a complete, unrefused answer."""

    text: str = ""
    reason: str = ""
    finish: Completeness = "error"
    model: str | None = None
    fingerprint: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None


class _DoubtfulJson(ValueError):
    """JSON that two readers could read differently."""


def read_reply(body: bytes, *, secret: str = "") -> Answer:
    """
    Read the body of a 200 response.

    Args:
        body: the whole body.
        secret: the API key, which is taken out of all that is kept.

    Returns: the answer; `reason` says why it can't be used, or is empty.
    """
    try:
        said = _strict_json(body)
    except _DoubtfulJson as error:
        return Answer(reason=str(error))
    if not isinstance(said, dict):
        return Answer(reason="the body is not a JSON object")
    usage = said.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    answer = Answer(
        model=_text_or_none(said.get("model"), secret),
        fingerprint=_text_or_none(said.get("system_fingerprint"), secret),
        tokens_in=_count(usage.get("prompt_tokens")),
        tokens_out=_count(usage.get("completion_tokens")),
    )
    if said.get("error") is not None:
        return replace(answer, reason=f"200 with an error: {provider_message(body, secret=secret)}")
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
    )


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
        said = json.loads(text)
        found = said.get("error", said) if isinstance(said, dict) else said
        found = found.get("message", found) if isinstance(found, dict) else found
        text = found if isinstance(found, str) else json.dumps(found)
    except (ValueError, RecursionError):
        pass  # not JSON: the raw text is what there is
    if secret:
        text = text.replace(secret, "[key]")
    text = KEY_LIKE.sub("[key]", text)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200] or "no message"
