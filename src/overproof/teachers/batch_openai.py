"""OpenAI's batch API: a file goes up, a batch is made, two files come down. Lines are matched by custom_id."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import aiohttp

from overproof.data import BatchState, Outcome
from overproof.errors import TeacherBusy
from overproof.teachers.batch import PAGES, Batches, Data
from overproof.teachers.replies import Reply, retry_after_s
from overproof.teachers.wire import failed

ENDPOINT = "/v1/chat/completions"
TAG = "overproof_tag"
ENDED = ("completed", "expired", "cancelled")


class OpenAIBatches(Batches):
    """
    The batch endpoints of an OpenAI-compatible API.

    Args:
        wire: the teacher's connections.
        base: address up to and including /v1.
    """

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
        """How a batch stands; see `Batches`."""
        reply = await self._reply("GET", path := f"/batches/{batch_id}", key)
        batch = self._said(reply, path)
        status = batch.get("status")
        files = tuple(f"/files/{batch[name]}/content" for name in ("output_file_id", "error_file_id") if batch.get(name))
        if status in ENDED:
            return BatchState(id=batch_id, status="ended", results=files)
        if status == "failed":
            errors = (batch.get("errors") or {}).get("data") or [{}]
            reason = str(errors[0].get("message", "no reason given"))[:200]
            return BatchState(id=batch_id, status="failed", reason=reason)
        return BatchState(id=batch_id, status="running", retry_after_s=retry_after_s(reply.retry_after))

    def _headers(self, key: str, data: Data) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return headers | ({"Content-Type": "application/json"} if isinstance(data, bytes) else {})

    def _row(self, line: dict[str, Any]) -> tuple[str, Reply | Outcome] | None:
        name = line.get("custom_id")
        if not isinstance(name, str):
            return None
        response, error = line.get("response"), line.get("error")
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
