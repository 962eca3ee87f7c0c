"""The way back of an answer that may end only when its row is durable."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from overproof.serve.asgi import Message, Send
from overproof.serve.stream import Summary


class Acked:
    """
    Holds back what a caller would take for the end until the row is durable: the last message, the `[DONE]` of a stream, the last
    byte that a content length announces. What is held is small: an event, or a chunk.

    Args:
        send: the caller's ASGI channel.
        summary: has been fed whatever is sent.
        durable: returns once the row is on the disk, or counted as dropped.
    """

    __slots__ = ("_durable", "_held", "_left", "_send", "_summary")

    def __init__(self, send: Send, summary: Summary, durable: Callable[[], Awaitable[None]]) -> None:
        self._send, self._summary, self._durable = send, summary, durable
        self._left: int | None = None
        self._held: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        """Send on, or hold; see `Send`."""
        if message["type"] == "http.response.start":
            lengths = [value for name, value in message["headers"] if name.lower() == b"content-length"]
            self._left = int(lengths[0]) if lengths and lengths[0].isdigit() else None
        elif not message.get("more_body"):
            await self._durable()
            message = {**message, "body": b"".join([*self._held, message.get("body", b"")])}
        elif self._ends(message.get("body", b"")):
            self._held.append(message.get("body", b""))
            return
        await self._send(message)

    def _ends(self, body: bytes) -> bool:
        """Whether a caller who has got this would read no further; once true it stays so."""
        if self._left is not None:
            self._left -= len(body)
        return self._summary.done or (self._left is not None and self._left <= 0)
