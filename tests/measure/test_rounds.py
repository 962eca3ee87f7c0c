"""Rounds of the same questions: false alarms stay rare whatever the noise, and changes are found."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overproof.errors import MeasureError
from overproof.measure.intervals import p_pass
from overproof.measure.rounds import least_alarm, read_rounds, usual


def said(rng, flicker, changed, rounds):
    """Rounds of answers: "0" is usual, "1" noise, "2" what a changed teacher says."""
    noisy = np.where(rng.random((rounds, len(flicker))) < flicker, "1", "0")
    return [tuple(row) for row in np.where(changed & (rng.random(noisy.shape) < 0.97), "2", noisy)]


def first(read):
    return next((i for i, one in enumerate(read) if one.alarm), None)


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.3])
def test_no_change_is_hardly_ever_an_alarm(noise) -> None:
    """
    30 rounds of 50 questions with the same teacher. A mean time of 90 rounds admits an alarm in 28 % of such months; quiet
    questions have hardly any, and half of them wavering in 30 % of the rounds is the worst that is tried.
    """
    rng = np.random.default_rng(7)
    alarms = 0
    for _ in range(100):
        flicker = np.where(rng.random(50) < 0.5, 0.002, noise)
        alarms += first(read_rounds(said(rng, flicker, np.zeros(50, bool), 10), said(rng, flicker, np.zeros(50, bool), 30), mean_rounds=90)) is not None
    assert alarms <= {0.0: 2, 0.02: 8, 0.3: 20}[noise]


def test_a_change_of_two_answers_of_fifty_is_found_and_dated() -> None:
    """A few answers that go on differing are found within eight rounds; the reading says since which round."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(40):
        flicker, changed = np.full(50, 0.01), np.arange(50) < 2
        after = said(rng, flicker, np.zeros(50, bool), 4) + said(rng, flicker, changed, 8)
        read = read_rounds(said(rng, flicker, np.zeros(50, bool), 10), after, mean_rounds=90)
        at = first(read)
        found.append(at is not None and at >= 4 and abs(read[at].since - 4) <= 2)
    assert sum(found) >= 36


def test_a_change_of_all_answers_needs_one_round() -> None:
    """What one round can show, one round shows."""
    (only,) = read_rounds([["a"] * 20] * 10, [["b"] * 20], mean_rounds=90)
    assert (only.alarm, only.differ, only.since) == (True, 20, 0)


def test_a_wavering_question_is_its_usual_answer() -> None:
    """The mode is the reference: the first answer may have been the rare one."""
    reference = [["x"], *[["a"]] * 9]
    assert usual(reference) == ("a",)
    assert read_rounds(reference, [["a"]], mean_rounds=90)[0].differ == 0


@given(st.integers(1, 120), st.floats(0.001, 0.6), st.floats(0.0005, 0.5))
def test_one_fewer_would_be_noise(n, noise, chance) -> None:
    """The alarm is the smallest count whose tail is rare enough."""
    c = least_alarm(n, noise, chance)
    assert c == n + 1 or 1 - p_pass(c - 1, n, noise) <= chance
    assert c == 1 or 1 - p_pass(c - 2, n, noise) > chance


def test_rounds_of_other_questions_are_refused() -> None:
    """One answer to each question, in each round; one round is no reference."""
    for reference, rounds in (([["a", "b"]] * 3, [["a"]]), ([["a"], ["a", "b"]], []), ([["a"]], [["a"]]), ([], []), ([[], []], [[]])):
        with pytest.raises(MeasureError):
            read_rounds(reference, rounds, mean_rounds=90)
