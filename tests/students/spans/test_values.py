"""Numbers and dates are found however people write them."""

import datetime as dt
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overproof.students.spans.values import dates_in, later, month_of, numbers_in, plain

SPELLINGS = (
    lambda d: d.isoformat(), lambda d: f"{d.day:02}.{d.month:02}.{d.year}", lambda d: f"{d.day} {d:%B} {d.year}", lambda d: f"{d:%B} {d.day}, {d.year}",
    lambda d: f"{d:%B} {d.day}th, {d.year}", lambda d: f"{d.day:02}-{d:%b}-{d.year}", lambda d: f"{d.month}/{d.day}/{d.year}", lambda d: f"{d.day:02}/{d.month:02}/{d.year % 100:02}",
)


@given(st.dates(dt.date(2000, 1, 1), dt.date(2068, 12, 31)), st.sampled_from(SPELLINGS), st.sampled_from(["{}", "on {}.", "Date:{} 12:30", "No 50 dated {} ok", "({})"]))
def test_every_spelling_of_a_date_is_found(day, spell, frame):
    """Whatever the spelling and what stands around it, the day is among the readings, and its characters are."""
    text = frame.format(spell(day))
    found = [one for one in dates_in(text) if one.value == day.isoformat()]
    assert found
    assert text[found[0].start : found[0].end] == spell(day)


@given(st.decimals(min_value=0, max_value=10**8, places=2), st.sampled_from([(",", "."), (".", ","), (" ", ","), ("", "."), ("", ","), ("'", ".")]), st.sampled_from(["{}", "€{}", "EUR {} incl.", "Total  {}€", "{}, paid"]))
def test_every_spelling_of_an_amount_is_found(amount, marks, frame):
    """Grouping and decimal mark of any convention give the same amount."""
    spelled = f"{amount:,.2f}".replace(",", "\0").replace(".", marks[1]).replace("\0", marks[0])
    assert plain(amount) in {one.value for one in numbers_in(frame.format(spelled))}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1.234", {"1234": (",", False), "1.234": (".", False)}), ("0.125", {"0.125": (".", True)}), ("1,234.50", {"1234.5": (".", True)}),
        ("-3.5", {"-3.5": (".", True)}), ("2 350,00", {"2350": (",", False), "350": ("", False)}), ("12%", {"12": ("", True)}), ("1.2.3", {}),
    ],
)
def test_a_spelling_with_two_readings_says_so(text, values):
    """Where a number can be read two ways both are there and neither is sure."""
    assert {one.value: (one.mark, one.sure) for one in numbers_in(text)} == values


def test_day_and_month_are_told_apart_only_where_they_can_be():
    """03/04/2026 has two unsure readings, 03/14/2026 one sure, 05/05/2026 one without an order."""
    assert [(one.value, one.mark, one.sure) for one in dates_in("03/04/2026")] == [("2026-04-03", "dmy", False), ("2026-03-04", "mdy", False)]
    assert [(one.value, one.mark, one.sure) for one in dates_in("03/14/2026")] == [("2026-03-14", "mdy", True)]
    assert [(one.value, one.mark, one.sure) for one in dates_in("05/05/2026")] == [("2026-05-05", "", True)]


def test_what_is_no_date_is_none():
    """The 31st of April, a word that is no month, and a version number give nothing."""
    assert [*dates_in("31.04.2026, 12 Lunch 2026, 2026-13-01, 10.1.2.30")] == []
    assert (month_of("März"), month_of("sept."), month_of("août"), month_of("lunch")) == (3, 9, 8, None)


@given(st.dates(dt.date(1990, 1, 1), dt.date(2090, 1, 1)), st.integers(-400, 400))
def test_days_on_and_back_is_where_one_was(day, days):
    """Counting days is the calendar's own."""
    assert later(later(day.isoformat(), days), -days) == day.isoformat()
    assert later("9999-12-31", 1) is None
    assert plain(Decimal("1E+3")) == "1000"
