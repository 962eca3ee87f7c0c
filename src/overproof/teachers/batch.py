"""What batch APIs have in common: a reply that is complete or an error, JSON that is an object, rows by custom_id."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any

import aiohttp

from overproof.data import BatchState, Outcome
from overproof.errors import TeacherBusy, TeacherError
from overproof.teachers.replies import Reply, provider_message, retry_after_s, status_kind
from overproof.teachers.wire import MAX_BODY_BYTES, Wire

MAX_FILE_BYTES = 512 * 1024 * 1024
PAGES = 20  # of a hundred batches each, newest first
Data = bytes | aiohttp.FormData | None


class Batches(ABC):
    """
    The batch endpoints of an API.

    Args:
        wire: the teacher's connections.
        base: address up to and including /v1.
    """

    def __init__(self, *, wire: Wire, base: str) -> None:
        self._wire = wire
        self._base = base

    @abstractmethod
    async def poll(self, batch_id: str, *, key: str) -> BatchState:
        """
        How a batch stands.

        Args:
            batch_id: the provider's id of it.
            key: the API key, or empty.

        Returns: its state.
        Raises: TeacherBusy where a later try may succeed; TeacherError where not.
        """

    @abstractmethod
    def _headers(self, key: str, data: Data) -> dict[str, str]:
        """The headers of one request."""

    @abstractmethod
    def _row(self, line: dict[str, Any]) -> tuple[str, Reply | Outcome] | None:
        """One line of the results; None where it names no row."""

    async def fetch(self, state: BatchState, *, key: str) -> list[tuple[str, Reply | Outcome]]:
        """
        The answers of an ended batch.

        Args:
            state: from `poll`; `results` are paths below the base.
            key: the API key, or empty.

        Returns: custom_id with the reply that it got, or an outcome where it got none; in any order. A line that can't
            be read belongs to nobody, so its row is missing.
        Raises: TeacherBusy, TeacherError as `poll`.
        """
        found: list[tuple[str, Reply | Outcome]] = []
        for path in state.results:
            reply = await self._reply("GET", path, key, most=MAX_FILE_BYTES)
            lines = (_object(line) for line in reply.body.splitlines())
            found += [row for line in lines if line is not None and (row := self._row(line)) is not None]
        return found

    async def _json(self, method: str, path: str, key: str, *, data: Data = None) -> dict[str, Any]:
        return self._said(await self._reply(method, path, key, data=data), path)

    def _said(self, reply: Reply, path: str) -> dict[str, Any]:
        said = _object(reply.body)
        if said is None:
            raise TeacherBusy(f"{path.partition('?')[0]}: the answer is no JSON object", next_action="run again later")
        return said

    async def _reply(self, method: str, path: str, key: str, *, data: Data = None, most: int = MAX_BODY_BYTES) -> Reply:
        headers = self._headers(key, data)
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


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(text)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None
