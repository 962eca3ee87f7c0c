"""How fast a teacher is asked: a paced clock that learns from what the provider says, and a breaker for one that limps."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from overproof.data import Outcome

SHARE = 0.995  # of an allowed rate: two clocks never agree quite
CATCH_UP_S = 0.3  # slots that were missed by so little are made up for, so that a late timer costs nothing
BACK_OFF = 0.7
GROW = 1.05
GROW_GUESS = 1.5  # for a limit that was guessed from refusals
GROW_EVERY_S = 10.0
UNHEARD_S = 0.05  # between calls until the first response has said what is allowed
LEAVE_EVERY_S = 1.0  # at most one slot in so long is left to a limit that is used up
FEW = 10
SIGN = 0.1  # share of the last fifty calls that were refused
LEAST_SIGN = 3  # refusals; one in the first ten calls is chance
LEARNING_S = 5.0
WINDOW_S = 60.0
LAST_CALLS = 100
MOST_FAILED = 0.5
SUSTAINED_S = 30.0
USUAL = 0.1  # weight of the newest call in the mean of tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Manners:
    """How a teacher is asked; none of it changes an answer."""

    requests_per_minute: float | None = None
    """What the account allows; None: what the provider's headers say."""
    tokens_per_minute: float | None = None
    """Likewise."""
    stop_on_fingerprint: bool = False
    """Whether another fingerprint than that of earlier labels stops the run; it is on record in any case."""
    baseline: bool = False
    """A candidate, no teacher: an answer that is no label is its failure, neither asked again nor a reason to stop."""
    own_machine: bool = False
    """Nobody sends a bill: an answer's cost is machine time, on record with the answer and not under the cap."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    """Waits; replaced in tests."""
    clock: Callable[[], float] = time.monotonic
    """Seconds, by the same clock as `sleep`."""


class Pacer:
    """
    Gives each call a moment to start, evenly spaced: bursts are what draws refusals from a per-minute limit.

    Args:
        requests_per_minute: what the user says is allowed; None: what the provider's headers say.
        tokens_per_minute: likewise.
        clock: seconds; replaced in tests.
    """

    def __init__(
        self,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._requests = requests_per_minute
        self._tokens = tokens_per_minute
        self._fixed = (requests_per_minute is not None, tokens_per_minute is not None)
        self._clock = clock
        self._heard = False
        self._mean_tokens = 0.0
        self._factor = 1.0
        self._guessed = False
        self._changed = -math.inf
        self._learned = -math.inf
        self._refusals: deque[bool] = deque(maxlen=50)
        self._left = -math.inf
        self._door = asyncio.Lock()
        self._starts: deque[float] = deque(maxlen=4096)
        self._next = -math.inf
        self._not_before = -math.inf

    @property
    def interval_s(self) -> float:
        """Seconds between two calls as things stand; 0 where a response came and named no limit."""
        found = 0.0 if self._heard else UNHEARD_S
        if self._requests:
            found = 60.0 / self._requests
        if self._tokens and self._mean_tokens:
            found = max(found, 60.0 * self._mean_tokens / self._tokens)
        return found / (SHARE * self._factor)

    async def turn(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """
        Wait until a call may start, and count it as started.

        One caller waits for the clock and the others for that one: a slot is given away when it comes, not before, so
        that what was learned meanwhile holds for all that have not started.

        Args:
            sleep: waits.
        """
        async with self._door:
            while (wait_s := self.delay_s()) > 0:
                await sleep(wait_s)
            self.started()

    def delay_s(self) -> float:
        """
        How long the next call has to wait as things stand.

        Returns: seconds; 0 for now.
        """
        now = self._clock()
        self._recover(now)
        return max(0.0, self._not_before - now, self._next - now if self.interval_s else 0.0)

    def started(self) -> None:
        """Count a call that starts now."""
        now = self._clock()
        due = self._next if math.isfinite(self._next) else now
        self._next = max(due, self._not_before, now - CATCH_UP_S) + self.interval_s
        self._starts.append(now)

    def learn(self, outcome: Outcome) -> None:
        """
        Take in what a response says about limits.

        Args:
            outcome: of any call.
        """
        now, said = self._clock(), outcome.limits
        self._heard = True
        answer = outcome.completion
        if answer is not None and answer.tokens_in is not None:
            used = float(answer.tokens_in + (answer.tokens_out or 0))
            self._mean_tokens = used if not self._mean_tokens else self._mean_tokens + USUAL * (used - self._mean_tokens)
        if said is not None:
            # A reset further off than a minute belongs to a limit per day; that one is only waited for when used up.
            if said.requests_per_minute and not self._fixed[0] and (said.requests_reset_s or 0.0) <= WINDOW_S:
                if self._requests is None:
                    self._learned = now
                self._requests, self._guessed = said.requests_per_minute, False
            if said.tokens_per_minute and not self._fixed[1] and (said.tokens_reset_s or 0.0) <= WINDOW_S:
                self._tokens = said.tokens_per_minute
            if outcome.http_status == 429 and outcome.retry_after_s is None:
                resets = [
                    reset
                    for left, reset in ((said.requests_left, said.requests_reset_s), (said.tokens_left, said.tokens_reset_s))
                    if left == 0 and reset is not None
                ]
                self.hold(min(max(resets, default=0.0), WINDOW_S))
            if said.requests_left == 0 and self._requests and now - self._left >= LEAVE_EVERY_S:
                self._left = now  # at the edge the smallest jitter draws a refusal: leave one slot, for good
                self._next += self.interval_s
        self._refusals.append(outcome.http_status == 429)
        # A stray refusal is no sign of a limit, and slowing down at each would end in a crawl.
        if outcome.http_status == 429 and sum(self._refusals) >= max(LEAST_SIGN, SIGN * len(self._refusals)):
            self._refused(now)

    def hold(self, seconds: float) -> None:
        """
        Start nothing for a while; holds for every worker, not only for the one that was told.

        Args:
            seconds: from now.
        """
        self._not_before = max(self._not_before, self._clock() + seconds)

    def _refused(self, now: float) -> None:
        # One refusal of many at once is one sign; those of calls from before the limit was known are none.
        if now - self._changed < 1.0 or now - self._learned < LEARNING_S:
            return
        if not self._requests:  # nobody named a limit: start from what was sent when it was too much
            recent = [start for start in self._starts if now - GROW_EVERY_S < start <= now]
            if len(recent) < FEW:  # Retry-After does for so few
                return
            self._requests = len(recent) * 60.0 / max(1.0, now - recent[0])
            self._guessed = True
        self._changed = now
        self._factor = max(self._factor * BACK_OFF, 0.05)

    def _recover(self, now: float) -> None:
        while self._factor < 1.0 and now - self._changed >= GROW_EVERY_S:
            self._changed += GROW_EVERY_S
            self._factor = min(1.0, self._factor * (GROW_GUESS if self._guessed else GROW))
        if self._guessed and self._requests and self._factor >= 1.0 and now - self._changed >= GROW_EVERY_S:
            self._changed, self._requests = now, self._requests * GROW_GUESS  # nobody named a limit: look for it again


class Breaker:
    """
    Notices that a teacher mostly fails, and for how long: what is left of a budget is worth more than more tries.

    A total outage ends sooner, by the tries of a single row; this one is for a teacher that limps.

    Args:
        clock: seconds; replaced in tests.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._recent: deque[tuple[float, bool]] = deque(maxlen=LAST_CALLS)

    def record(self, *, failed: bool) -> None:
        """
        Count a call.

        Args:
            failed: no answer came; a refusal for the rate is not a failure, a bad answer neither.
        """
        self._recent.append((self._clock(), failed))

    @property
    def trouble(self) -> str:
        """What is wrong, in words; empty while there is nothing."""
        bad = sum(failed for _, failed in self._recent)
        full = len(self._recent) == LAST_CALLS
        if not full or bad < MOST_FAILED * LAST_CALLS or self._recent[-1][0] - self._recent[0][0] < SUSTAINED_S:
            return ""
        return f"{bad} of the last {LAST_CALLS} calls failed"
