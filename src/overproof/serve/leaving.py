"""Noticing that the caller has gone, so that nobody works, and nobody bills, for an answer that nobody reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from overproof.serve.asgi import Receive
from overproof.serve.timers import timers

AFTER_S = 0.05
"""Short requests end before anybody looks, and so cost a timer instead of a task."""


class Leaving:
    """
    Watches one request's caller; made once the whole request body has been received.

    Args:
        receive: the request's ASGI channel, of which only the disconnect is left.
        after_s: when to begin.
    """

    __slots__ = ("_receive", "_task", "_then", "_timer", "_timers", "gone")

    def __init__(self, receive: Receive, *, after_s: float = AFTER_S) -> None:
        self.gone = False
        """Whether the caller has left."""
        self._receive = receive
        self._then: Callable[[], None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._timers = timers()
        self._timer = self._timers.at(asyncio.get_running_loop().time() + after_s, self._begin)

    def then(self, act: Callable[[], None]) -> None:
        """
        Say what to do when the caller leaves; takes the place of what was said before.

        Args:
            act: must be harmless after the answer has ended.
        """
        self._then = act

    def close(self) -> None:
        """Stop watching; to be called when the answer has been sent, and before that is told to the server."""
        if self._timer:
            self._timers.cancel(self._timer)
            self._timer = 0
        if self._task is not None:
            self._task.cancel()
        self._task = self._then = None

    def _begin(self) -> None:
        self._timer = 0
        self._task = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        if self._then is not None:
            self._then()
