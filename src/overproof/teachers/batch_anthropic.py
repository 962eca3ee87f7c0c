"""Anthropic's message batches: requests go in one body, results come as JSON lines, matched by custom_id."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from overproof.data import BatchState, Outcome
from overproof.errors import TeacherError
from overproof.teachers.batch import PAGES, Batches, Data
from overproof.teachers.replies import Reply, retry_after_s
from overproof.teachers.wire import failed

VERSION = "2023-06-01"
CLOCK_SLACK_S = 600.0  # between the provider's clock and ours
LOOK_EVERY_S = 30.0
STATUS = {"invalid_request_error": 400, "authentication_error": 401, "permission_error": 403, "not_found_error": 404,
          "request_too_large": 413, "rate_limit_error": 429, "api_error": 500, "overloaded_error": 529}  # fmt: skip


class AnthropicBatches(Batches):
    """
    The batch endpoints of the Messages API.

    Args:
        wire: the teacher's connections.
        base: address up to and including /v1.
    """

    async def submit(self, lines: Sequence[bytes], *, key: str) -> str:
        """
        Make a batch.

        Args:
            lines: entries with custom_id and params.
            key: the API key, or empty.

        Returns: the batch's id.
        Raises: TeacherBusy where a later try may succeed; TeacherError where not.
        """
        made = await self._json("POST", "/messages/batches", key, data=b'{"requests":[' + b",".join(lines) + b"]}")
        return _id(made)

    async def find(self, tag: str, *, rows: int, since: float, key: str) -> str | None:
        """
        The batch whose rows carry our tag; waits for candidates to end, since only results tell the rows' names.

        Args:
            tag: what our custom ids begin with.
            rows: how many the batch has.
            since: when it was made at the earliest, seconds since 1970.
            key: the API key, or empty.

        Returns: its id; None where there is none.
        Raises: TeacherBusy, TeacherError as `submit`.
        """
        after = ""
        for _ in range(PAGES):
            page = await self._json("GET", f"/messages/batches?limit=100{after}", key)
            found = [b for b in page.get("data") or [] if isinstance(b, dict)]
            for batch in found:
                if _made_at(batch) < since - CLOCK_SLACK_S:
                    return None  # newest first: what follows is older still
                counts = batch.get("request_counts") or {}
                if sum(v for v in counts.values() if isinstance(v, int)) == rows and await self._carries(_id(batch), tag, key):
                    return _id(batch)
            if not page.get("has_more") or not page.get("last_id"):
                return None
            after = f"&after_id={page['last_id']}"
        return None

    async def poll(self, batch_id: str, *, key: str) -> BatchState:
        """How a batch stands; see `Batches`."""
        reply = await self._reply("GET", path := f"/messages/batches/{batch_id}", key)
        if self._said(reply, path).get("processing_status") != "ended":
            return BatchState(id=batch_id, status="running", retry_after_s=retry_after_s(reply.retry_after))
        # Built from the id, not read from `results_url`: a key goes nowhere but to the base URL.
        return BatchState(id=batch_id, status="ended", results=(f"/messages/batches/{batch_id}/results",))

    async def _carries(self, batch_id: str, tag: str, key: str) -> bool:
        while (state := await self.poll(batch_id, key=key)).status == "running":  # noqa: ASYNC110 - the provider ends it
            await asyncio.sleep(LOOK_EVERY_S)
        return any(name.startswith(tag) for name, _ in await self.fetch(state, key=key))

    def _headers(self, key: str, data: Data) -> dict[str, str]:
        del data
        return headers_with(key)

    def _row(self, line: dict[str, Any]) -> tuple[str, Reply | Outcome] | None:
        name = line.get("custom_id")
        result = line.get("result")
        if not isinstance(name, str) or not isinstance(result, dict):
            return None
        if result.get("type") == "succeeded":
            body = json.dumps(result.get("message")).encode()
            return name, Reply(status=200, body=body, retry_after=None, request_id=None)
        if result.get("type") == "errored":
            error = result.get("error")
            error = error if isinstance(error, dict) else {}
            inner = error.get("error")
            inner = inner if isinstance(inner, dict) else error
            status = STATUS.get(str(inner.get("type")), 500)
            return name, Reply(status=status, body=json.dumps({"error": inner}).encode(), retry_after=None, request_id=None)
        return name, failed("transient", f"the batch gave no answer: {result.get('type')}"[:200], sent=False)


def headers_with(key: str) -> dict[str, str]:
    """
    The headers of every request.

    Args:
        key: the API key, or empty.

    Returns: name to value.
    """
    found = {"Content-Type": "application/json", "anthropic-version": VERSION}
    return found | ({"x-api-key": key} if key else {})


def _id(batch: dict[str, Any]) -> str:
    value = batch.get("id")
    if not isinstance(value, str) or not value or "/" in value:
        raise TeacherError("the provider's answer names no batch", next_action="look at base_url in [teacher]")
    return value


def _made_at(batch: dict[str, Any]) -> float:
    try:
        return datetime.fromisoformat(str(batch.get("created_at"))).timestamp()
    except ValueError:
        return float("inf")
