"""Even pace, learned limits, and a breaker: with a clock of our own."""

import asyncio
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from overproof.data import Completion, Outcome, RateLimits
from overproof.store.pacing import LAST_CALLS, Breaker, Pacer


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def said(status: int = 200, limits: RateLimits | None = None, tokens: int | None = None, wait: float | None = None) -> Outcome:
    answer = None if tokens is None else Completion(text="a", value="a", model="m", tokens_in=tokens, tokens_out=0)
    return Outcome(
        kind="ok" if status == 200 else "transient", completion=answer, reason="", http_status=status, retry_after_s=wait,
        fingerprint=None, request_id=None, limits=limits,
    )


def starts(pacer: Pacer, clock: Clock, seconds: float, *, late_s: float = 0.0) -> list[float]:
    found, end = [], clock.now + seconds
    while clock.now < end:
        clock.now += pacer.delay_s() + late_s
        pacer.started()
        found.append(clock.now)
    return found


@given(st.integers(30, 6000), st.floats(0, 0.05))
def test_an_allowed_rate_is_used_and_never_exceeded(rate: int, late_s: float) -> None:
    """At least 98 % of the allowed calls in two minutes even with late timers, and no minute holds more than allowed."""
    clock = Clock()
    late_s = min(late_s, 50 / rate * 0.5)  # one worker: it can't be later than its slots
    found = starts(Pacer(requests_per_minute=rate, clock=clock), clock, 120.0, late_s=late_s)
    assert len(found) >= 0.98 * rate * 2
    for i, start in enumerate(found):
        assert sum(start <= t < start + 60 for t in found[i : i + rate + 2]) <= rate + max(1, 0.3 * rate / 60 + 1)
        if i > 5:
            break


def test_the_headers_set_the_pace_and_the_user_overrules_them() -> None:
    """A limit said per minute is taken; one that resets in hours is no pace; the project file comes first."""
    clock = Clock()
    pacer = Pacer(clock=clock)
    assert 0 < pacer.interval_s < 0.1  # nobody has said anything yet
    pacer.learn(said())
    assert pacer.interval_s == 0.0
    pacer.learn(said(limits=RateLimits(requests_per_minute=600, requests_reset_s=1)))
    assert abs(pacer.interval_s - 0.1) < 0.002
    day = Pacer(clock=clock)
    day.learn(said(limits=RateLimits(requests_per_minute=200, requests_reset_s=4000)))
    assert day.interval_s == 0.0
    own = Pacer(requests_per_minute=60, clock=clock)
    own.learn(said(limits=RateLimits(requests_per_minute=600, requests_reset_s=1)))
    assert own.interval_s > 0.99


def test_tokens_pace_by_what_calls_really_use() -> None:
    """At 6,000 tokens a minute and 100 a call there are 60 calls a minute."""
    pacer = Pacer(tokens_per_minute=6000, clock=Clock())
    pacer.learn(said(tokens=100))
    assert abs(pacer.interval_s - 1.0) < 0.02


def test_a_refusal_slows_down_and_time_speeds_up_again() -> None:
    """429 multiplies the pace by 0.7, once for many at a time; it grows back to what is allowed."""
    clock = Clock()
    pacer = Pacer(requests_per_minute=600, clock=clock)
    fast = pacer.interval_s
    for _ in range(5):
        pacer.learn(said(429, wait=1.0))
    assert abs(pacer.interval_s - fast / 0.7) < 1e-9
    clock.now += 200
    pacer.delay_s()
    assert pacer.interval_s == fast


def test_a_used_up_limit_holds_everybody_until_the_reset() -> None:
    """429 without Retry-After waits for the reset that the headers name, a minute at most."""
    clock = Clock()
    pacer = Pacer(clock=clock)
    pacer.learn(said(429, limits=RateLimits(requests_left=0, requests_reset_s=12)))
    assert abs(pacer.delay_s() - 12) < 1e-6
    assert abs(pacer.delay_s() - 12) < 1e-6


def test_the_breaker_sees_a_teacher_that_limps_for_long() -> None:
    """Half of a hundred calls failed over half a minute is trouble; a burst or a tenth is not."""
    clock = Clock()
    breaker = Breaker(clock=clock)
    for i in range(LAST_CALLS):
        breaker.record(failed=i % 2 == 0)
    assert breaker.trouble == ""  # all within an instant
    for i in range(LAST_CALLS):
        clock.now += 0.5
        breaker.record(failed=i % 2 == 0)
    assert "50 of the last 100" in breaker.trouble
    for i in range(LAST_CALLS):
        clock.now += 0.5
        breaker.record(failed=i % 10 == 0)
    assert breaker.trouble == ""


def test_a_limit_that_is_used_up_is_left_one_slot_and_no_more_than_one_a_second() -> None:
    """At the edge of a limit the smallest jitter draws a refusal; ten responses at once are one sign."""
    clock = Clock()
    pacer = Pacer(requests_per_minute=600, clock=clock)
    pacer.started()
    before = pacer.delay_s()
    for _ in range(10):
        pacer.learn(said(limits=RateLimits(requests_per_minute=600, requests_left=0, requests_reset_s=1)))
    assert abs(pacer.delay_s() - 2 * before) < 1e-6


def test_calls_that_wait_for_their_turn_start_at_the_pace_that_is_known_when_they_start() -> None:
    """Sixteen workers come before anybody knows the limit; only the first slots are those of an unknown limit."""
    clock, found = Clock(), []
    pacer = Pacer(clock=clock)

    async def sleep(seconds: float) -> None:
        due = clock.now + seconds
        await asyncio.sleep(0)
        clock.now = max(clock.now, due)

    async def work() -> None:
        await pacer.turn(sleep)
        found.append(clock.now)
        pacer.learn(said(limits=RateLimits(requests_per_minute=60, requests_reset_s=1)))

    async def all_of_them() -> None:
        await asyncio.gather(*(work() for _ in range(16)))

    asyncio.run(all_of_them())
    gaps = [b - a for a, b in pairwise(found)]
    assert len(found) == 16
    assert min(gaps[1:]) > 0.99


def test_what_is_learned_while_a_call_waits_holds_for_that_call() -> None:
    """A Retry-After that another call brings home keeps back the one that is already waiting, and all behind it, in order."""
    clock, found, held = Clock(), [], []
    pacer = Pacer(requests_per_minute=60, clock=clock)

    async def sleep(seconds: float) -> None:
        if len(held) == 0:
            held.append(clock.now)
            pacer.hold(30.0)
        due = clock.now + seconds
        await asyncio.sleep(0)
        clock.now = max(clock.now, due)

    async def work(name: int) -> None:
        await pacer.turn(sleep)
        found.append((name, clock.now))

    async def all_of_them() -> None:
        await asyncio.gather(*(work(name) for name in range(4)))

    asyncio.run(all_of_them())
    assert [name for name, _ in found] == [0, 1, 2, 3]
    assert found[1][1] - found[0][1] >= 30.0


def test_a_pause_is_not_made_up_for_by_a_burst() -> None:
    """After ten idle seconds a few missed slots start at once, and no more."""
    clock = Clock()
    pacer = Pacer(requests_per_minute=600, clock=clock)
    pacer.started()
    clock.now += 10
    at_once = 0
    while pacer.delay_s() == 0:
        pacer.started()
        at_once += 1
    assert 1 <= at_once <= 4
