"""The breaker, on a clock that only the test moves."""

from hypothesis import given
from hypothesis import strategies as st

from overproof.serve.breaker import Breaker, Recent


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def feed(breaker: Breaker, outcomes: str) -> int:
    """Record outcomes ("x" is a fault); returns how many were admitted."""
    admitted = 0
    for one in outcomes:
        if ticket := breaker.admit():
            admitted += 1
            breaker.record(ticket, fault=one == "x")
    return admitted


def test_a_student_is_left_alone_after_five_faults_in_a_row() -> None:
    """Not after four, and not where a success stands between them."""
    breaker = Breaker.for_student(clock=Clock())
    feed(breaker, "xxxx." + "xxxx")
    assert breaker.state == "closed"
    feed(breaker, "x")
    assert (breaker.state, breaker.admit(), breaker.opened) == ("open", 0, 1)


def test_a_student_is_left_alone_at_ten_faults_of_the_last_fifty() -> None:
    """Nine stay; a tenth opens only while all ten are among the last fifty."""
    breaker = Breaker.for_student(clock=Clock())
    feed(breaker, "x...." * 9)
    assert breaker.state == "closed"
    feed(breaker, "x")
    assert breaker.state == "open"
    breaker = Breaker.for_student(clock=Clock())
    feed(breaker, "x....." * 100)  # 8 or 9 of any 50
    assert breaker.state == "closed"


def test_after_thirty_seconds_one_request_tries_and_decides() -> None:
    """A failed try waits again; a good one closes, with a clean slate."""
    clock = Clock()
    breaker = Breaker.for_student(clock=clock)
    feed(breaker, "xxxxx")
    clock.now += 29.9
    assert breaker.admit() == 0
    assert 0 < breaker.retry_after_s <= 0.2
    clock.now += 0.2
    ticket = breaker.admit()
    assert ticket
    assert [breaker.admit() for _ in range(3)] == [0, 0, 0]
    breaker.record(ticket, fault=True)
    clock.now += 29
    assert breaker.admit() == 0
    clock.now += 2
    breaker.record(breaker.admit(), fault=False)
    assert (breaker.state, breaker.retry_after_s, breaker.opened) == ("closed", 0.0, 2)
    feed(breaker, "xxxx")
    assert breaker.state == "closed"


def test_a_try_that_never_reports_does_not_keep_the_breaker_open_for_ever() -> None:
    """Its caller may have left; after another 30 s the next one tries."""
    clock = Clock()
    breaker = Breaker.for_student(clock=clock)
    feed(breaker, "xxxxx")
    clock.now += 31
    lost = breaker.admit()
    clock.now += 31
    second = breaker.admit()
    assert lost
    assert second
    breaker.record(lost, fault=False)
    assert breaker.state == "trying"
    breaker.record(second, fault=False)
    assert breaker.state == "closed"


def test_outcomes_from_before_the_opening_decide_nothing() -> None:
    """A slow success that was under way when it opened is no try, and a slow fault does not reopen it."""
    clock = Clock()
    breaker = Breaker.for_student(clock=clock)
    slow = breaker.admit()
    feed(breaker, "xxxxx")
    breaker.record(slow, fault=False)
    assert breaker.state == "open"
    clock.now += 31
    breaker.record(breaker.admit(), fault=False)
    for _ in range(10):
        breaker.record(slow, fault=True)
    assert breaker.state == "closed"


def test_an_upstream_is_left_alone_at_half_of_twenty_within_a_minute() -> None:
    """Nineteen say nothing; a minute later they are forgotten."""
    clock = Clock()
    breaker = Breaker.for_upstream(clock=clock)
    feed(breaker, "x" * 19)
    assert breaker.state == "closed"
    clock.now += 61
    feed(breaker, "x" * 19)
    assert breaker.state == "closed"
    feed(breaker, "x")
    assert breaker.state == "open"
    breaker = Breaker.for_upstream(clock=clock)
    feed(breaker, "x.." * 1000)  # a third
    assert breaker.state == "closed"


def test_a_success_never_opens_the_breaker() -> None:
    """Old successes that fall out of the minute must not make the next success look like trouble."""
    clock = Clock()
    breaker = Breaker.for_upstream(clock=clock)
    feed(breaker, "." * 30)
    clock.now += 30
    feed(breaker, "x" * 25)
    clock.now += 31
    ticket = breaker.admit()
    breaker.record(ticket, fault=False)
    assert breaker.state == "closed"
    breaker.record(breaker.admit(), fault=True)
    assert breaker.state == "open"


@given(st.lists(st.tuples(st.floats(0, 40), st.booleans()), max_size=200))
def test_counting_by_the_second_agrees_with_keeping_every_outcome(steps) -> None:
    """Against the plain definition, with seconds as the grain."""
    clock = Clock()
    recent = Recent(period_s=60, least=20, share=0.5, clock=clock)
    kept: list[tuple[int, bool]] = []
    for wait, bad in steps:
        clock.now += wait if wait > 30 else 0.0
        kept.append((int(clock.now), bad))
        inside = [fault for second, fault in kept if second > int(clock.now) - 60]
        assert recent.add(fault=bad) == (bad and len(inside) >= 20 and sum(inside) >= 0.5 * len(inside))
    assert len(recent._seconds) <= 60
