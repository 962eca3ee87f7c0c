"""Stops asking a part that keeps failing, and tries it again after a while. Pure: the clock is passed in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal

OPEN_S = 30.0
"""How long nobody asks before one request tries again."""
IN_A_ROW, OF_LAST, LAST_SHARE = 5, 50, 0.2
"""For a student: faults in a row; or this share of the last outcomes."""
PERIOD_S, PERIOD_LEAST, PERIOD_SHARE = 60, 20, 0.5
"""For an upstream: this share of the outcomes of the last seconds, from this many on."""
State = Literal["closed", "open", "trying"]


class Breaker:
    """
    Closed, it admits everybody and counts; open, nobody; after `open_s` one request tries, and its outcome decides.

    Belongs to one thread. Use: `ticket = breaker.admit()`, and where it isn't 0 later `breaker.record(ticket, fault=…)`.

    Args:
        too_many: told each outcome, says whether to open.
        clock: seconds, monotonic.
        open_s: see `OPEN_S`.
    """

    def __init__(self, too_many: Trailing | Recent, *, clock: Callable[[], float], open_s: float = OPEN_S) -> None:
        self._too_many, self._clock, self._open_s = too_many, clock, open_s
        self._state: State = "closed"
        self._since = 0.0
        self._round = 1
        self.opened = 0
        """How often it has opened."""

    @classmethod
    def for_student(cls, *, clock: Callable[[], float], open_s: float = OPEN_S) -> Breaker:
        """
        A breaker for a student.

        Args:
            clock: seconds, monotonic.
            open_s: see `OPEN_S`.

        Returns: it opens after 5 faults in a row, or where 20 % of the last 50 outcomes (10 of them) were faults.
        """
        return cls(Trailing(in_a_row=IN_A_ROW, last=OF_LAST, faults=round(OF_LAST * LAST_SHARE)), clock=clock, open_s=open_s)

    @classmethod
    def for_upstream(cls, *, clock: Callable[[], float], open_s: float = OPEN_S) -> Breaker:
        """
        A breaker for an upstream.

        Args:
            clock: seconds, monotonic.
            open_s: see `OPEN_S`.

        Returns: it opens where half of at least 20 outcomes within 60 s were faults.
        """
        return cls(Recent(period_s=PERIOD_S, least=PERIOD_LEAST, share=PERIOD_SHARE, clock=clock), clock=clock, open_s=open_s)

    @property
    def state(self) -> State:
        """How it stands; "open" until somebody tries."""
        return self._state

    @property
    def retry_after_s(self) -> float:
        """How long until somebody may try; 0 where everybody may."""
        return max(0.0, self._since + self._open_s - self._clock()) if self._state != "closed" else 0.0

    def admit(self) -> int:
        """
        Ask for leave.

        Returns: a ticket to be given back to `record`; 0 where the part is not to be asked.
        """
        if self._state != "closed":
            if self._clock() - self._since < self._open_s:
                return 0
            # also where a try was never recorded: its request may have gone away
            self._turn("trying")
        return self._round

    def record(self, ticket: int, *, fault: bool) -> None:
        """
        Tell an outcome. Outcomes of requests that were admitted before the last change say nothing about the present.

        Args:
            ticket: from `admit`.
            fault: whether the part failed; a caller who left is no outcome and is not recorded.
        """
        if ticket != self._round:
            return
        if self._state == "trying":
            self._too_many.clear()
            self._turn("open" if fault else "closed")
        elif self._too_many.add(fault=fault):
            self._too_many.clear()
            self._turn("open")

    def _turn(self, state: State) -> None:
        self._state, self._since = state, self._clock()
        self._round += 1
        self.opened += state == "open"


class Trailing:
    """
    Counts the last outcomes.

    Args:
        in_a_row: faults without a success between them that are too many.
        last: how many outcomes are remembered.
        faults: faults among them that are too many.
    """

    def __init__(self, *, in_a_row: int, last: int, faults: int) -> None:
        self._in_a_row, self._most, self._last = in_a_row, faults, deque[bool](maxlen=last)
        self._row = self._faults = 0

    def add(self, *, fault: bool) -> bool:
        """Take an outcome; returns whether there are too many faults."""
        if len(self._last) == self._last.maxlen:
            self._faults -= self._last[0]
        self._last.append(fault)
        self._faults += fault
        self._row = self._row + 1 if fault else 0
        return self._row >= self._in_a_row or self._faults >= self._most

    def clear(self) -> None:
        """Forget all."""
        self._last.clear()
        self._row = self._faults = 0


class Recent:
    """
    Counts outcomes by the second, so that memory doesn't grow with traffic.

    Args:
        period_s: how many seconds are remembered.
        least: with fewer outcomes nothing is said.
        share: of faults, that is too much.
        clock: seconds, monotonic.
    """

    def __init__(self, *, period_s: int, least: int, share: float, clock: Callable[[], float]) -> None:
        self._period_s, self._least, self._share, self._clock = period_s, least, share, clock
        self._seconds: deque[list[int]] = deque()
        self._all = self._faults = 0

    def add(self, *, fault: bool) -> bool:
        """Take an outcome; returns whether there are too many faults."""
        now = int(self._clock())
        if not self._seconds or self._seconds[-1][0] != now:
            self._seconds.append([now, 0, 0])
        self._seconds[-1][1] += 1
        self._seconds[-1][2] += fault
        self._all += 1
        self._faults += fault
        while self._seconds[0][0] <= now - self._period_s:
            _, gone, faults = self._seconds.popleft()
            self._all -= gone
            self._faults -= faults
        return fault and self._all >= self._least and self._faults >= self._share * self._all

    def clear(self) -> None:
        """Forget all."""
        self._seconds.clear()
        self._all = self._faults = 0
