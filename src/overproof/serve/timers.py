"""Many deadlines behind one timer: hardly any is ever reached, and a timer of the loop's own costs more than a request's routing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

TICK_S: Final = 0.02
"""So late a deadline may be."""


class Timers:
    """
    Deadlines of one event loop, looked at every `TICK_S` while there are any.

    Args:
        loop: the running loop.
    """

    __slots__ = ("_due", "_last", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: dict[int, tuple[float, Callable[..., object], tuple[Any, ...]]] = {}
        self._last = 0
        self._timer: asyncio.TimerHandle | None = None

    def at(self, when: float, act: Callable[..., object], *args: Any) -> int:
        """
        Have something done once a moment has passed.

        Args:
            when: on the loop's clock.
            act: called in the loop, at most `TICK_S` late.
            args: its arguments.

        Returns: a number, for `cancel`; never 0.
        """
        self._last += 1
        self._due[self._last] = (when, act, args)
        if self._timer is None:
            self._timer = self._loop.call_later(TICK_S, self._tick)
        return self._last

    def cancel(self, number: int) -> None:
        """Forget a deadline; nothing where it has passed."""
        self._due.pop(number, None)

    def _tick(self) -> None:
        self._timer = self._loop.call_later(TICK_S, self._tick) if self._due else None
        now = self._loop.time()
        for number in [number for number, (when, _, _) in self._due.items() if when <= now]:
            found = self._due.pop(number, None)  # an earlier one may have cancelled it
            if found is not None:
                found[1](*found[2])


_OF_LOOP: dict[int, tuple[asyncio.AbstractEventLoop, Timers]] = {}


def timers() -> Timers:
    """The running loop's."""
    loop = asyncio.get_running_loop()
    found = _OF_LOOP.get(id(loop))
    if found is None or found[0] is not loop:
        for key in [key for key, (one, _) in _OF_LOOP.items() if one.is_closed()]:
            del _OF_LOOP[key]
        found = _OF_LOOP[id(loop)] = (loop, Timers(loop))
    return found[1]
