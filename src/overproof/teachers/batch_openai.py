"""OpenAI's batch API: a file goes up, a batch is made, two files come down. Lines are matched by custom_id."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import aiohttp

from overproof.data import BatchState, Outcome
from overproof.errors import TeacherBusy, TeacherError
from overproof.teachers.replies import Reply, provider_message, retry_after_s, status_kind
from overproof.teachers.wire import Wire, failed

MAX_FILE_BYTES = 512 * 1024 * 1024
ENDPOINT = "/v1/chat/completions"
TAG = "overproof_tag"
PAGES = 20  # of a hundred batches each, newest first
ENDED = ("completed", "expired", "cancelled")


class OpenAIBatches:
    """
    The batch endpoints of an OpenAI-compatible API.

    Args:
        wire: the teacher's connections.
        base: address up to and including /v1.
    """

    def __init__(self, *, wire: Wire, base: str) -> None:
        self._wire = wire
        self._base = base

    def line(self, custom_id: str, body: dict[str, Any]) -> bytes:
        """
        One request as a line of the input file.

        Args:
            custom_id: comes back with the answer.
            body: of the chat completion.

        Returns: JSON without a line break.
        """
        body = {name: value for name, value in body.items() if name != "stream"}
        said = {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body}
        return json.dumps(said).encode("ascii")

    async def submit(self, lines: Sequence[bytes], *, tag: str, key: str) -> str:
        """
        Upload the lines and make the batch.

        Args:
            lines: from `line`.
            tag: our own name, kept by the provider as metadata.
            key: the API key, or empty.

        Returns: the batch's id.
        Raises: TeacherBusy where a later try may succeed; TeacherError where not.
        """
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field("file", b"\n".join(lines) + b"\n", filename=f"{tag}.jsonl", content_type="application/jsonl")
        file = await self._json("POST", "/files", key, data=form)
        asked = {
            "input_file_id": file.get("id"),
            "endpoint": ENDPOINT,
            "completion_window": "24h",
            "metadata": {TAG: tag},
        }
        made = await self._json("POST", "/batches", key, data=json.dumps(asked).encode())
        return _text(made, "id")

    async def find(self, tag: str, *, key: str) -> str | None:
        """
        The batch that was made with this tag.

        Args:
            tag: see `submit`.
            key: the API key, or empty.

        Returns: its id; None where there is none.
        Raises: TeacherBusy, TeacherError as `submit`.
        """
        after = ""
        for _ in range(PAGES):
            page = await self._json("GET", f"/batches?limit=100{after}", key)
            found = [b for b in page.get("data") or [] if isinstance(b, dict)]
            for batch in found:
                if (batch.get("metadata") or {}).get(TAG) == tag:
                    return _text(batch, "id")
            if not page.get("has_more") or not found:
                return None
            after = f"&after={found[-1].get('id')}"
        return None

    async def poll(self, batch_id: str, *, key: str) -> BatchState:
        """
        How a batch stands.

        Args:
            batch_id: from `submit`.
            key: the API key, or empty.

        Returns: its state.
        Raises: TeacherBusy, TeacherError as `submit`.
        """
        batch = await self._json("GET", f"/batches/{batch_id}", key)
        status = batch.get("status")
        files = tuple(str(batch[name]) for name in ("output_file_id", "error_file_id") if batch.get(name))
        if status in ENDED:
            return BatchState(id=batch_id, status="ended", results=files)
        if status == "failed":
            errors = (batch.get("errors") or {}).get("data") or [{}]
            reason = str(errors[0].get("message", "no reason given"))[:200]
            return BatchState(id=batch_id, status="failed", reason=reason)
        return BatchState(id=batch_id, status="running")

    async def fetch(self, state: BatchState, *, key: str) -> list[tuple[str, Reply | Outcome]]:
        """
        The answers of an ended batch.

        Args:
            state: from `poll`.
            key: the API key, or empty.

        Returns: custom_id with the reply that it got, or an outcome where it got none; in any order.
        Raises: TeacherBusy, TeacherError as `submit`.
        """
        found: list[tuple[str, Reply | Outcome]] = []
        for file in state.results:
            reply = await self._reply("GET", f"/files/{file}/content", key, most=MAX_FILE_BYTES)
            found += [row for line in reply.body.splitlines() if (row := _row(line)) is not None]
        return found

    async def _json(
        self, method: str, path: str, key: str, *, data: bytes | aiohttp.FormData | None = None
    ) -> dict[str, Any]:
        reply = await self._reply(method, path, key, data=data)
        try:
            said = json.loads(reply.body)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise TeacherBusy(f"{path.partition('?')[0]}: the answer is no JSON object", next_action="run again later")
        return said

    async def _reply(
        self, method: str, path: str, key: str, *, data: bytes | aiohttp.FormData | None = None, most: int = 8 << 20
    ) -> Reply:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        if isinstance(data, bytes):
            headers["Content-Type"] = "application/json"
        reply = await self._wire.send(method, self._base + path, headers=headers, data=data, most_bytes=most)
        return expect(reply, what=f"{method} {path.partition('?')[0]}", key=key, most=most)


def expect(reply: Reply | Outcome, *, what: str, key: str, most: int) -> Reply:
    """
    A complete 200 reply, or the error that the run has to know.

    Args:
        reply: from `Wire.send`.
        what: the request, for messages.
        key: taken out of what the provider says.
        most: longest body.

    Returns: the reply.
    Raises: TeacherBusy where a later try may succeed; TeacherError where not.
    """
    again = "run again later: the batch and all answers that are paid for are kept"
    if isinstance(reply, Outcome):
        if reply.kind == "transient":
            raise TeacherBusy(f"{what}: {reply.reason}", next_action=again)
        raise TeacherError(f"{what}: {reply.reason}", next_action="mend [teacher]")
    if len(reply.body) > most:
        raise TeacherError(f"{what}: the answer is larger than {most} bytes", next_action="make batches smaller")
    if reply.status == 200:
        return reply
    text = f"{what}: HTTP {reply.status}: {provider_message(reply.body, secret=key)}"
    if status_kind(reply) == "transient":
        raise TeacherBusy(text, next_action=again, retry_after_s=retry_after_s(reply.retry_after))
    raise TeacherError(text, next_action="mend [teacher] or the account, then run again")


def _row(line: bytes) -> tuple[str, Reply | Outcome] | None:
    """One line of an output or error file; a line that can't be read belongs to nobody, so its row is missing."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    name = said.get("custom_id") if isinstance(said, dict) else None
    if not isinstance(name, str):
        return None
    response, error = said.get("response"), said.get("error")
    if isinstance(response, dict) and isinstance(response.get("status_code"), int):
        body = json.dumps(response.get("body")).encode()
        number = response.get("request_id")
        return name, Reply(
            status=response["status_code"], body=body, retry_after=None,
            request_id=number if isinstance(number, str) else None,
        )
    code = str((error or {}).get("code", "no answer")) if isinstance(error, dict | None) else "no answer"
    return name, failed("transient", f"the batch gave no answer: {code}"[:200], sent=False)


def _text(said: dict[str, Any], key: str) -> str:
    value = said.get(key)
    if not isinstance(value, str) or not value:
        raise TeacherBusy(f"the provider's answer has no {key!r}", next_action="run again later")
    return value
