"""Grounding: what the input holds in another spelling is found, what it doesn't hold is not."""

import json
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overproof.data import Completion, Request
from overproof.errors import DataError
from overproof.task import Classes
from overproof.verifiers.grounding import Grounding, supports

TEXT = """Subject: Invoice INV-9K8-89391 from Ostalune  Print Ltd
dated 17 August 2025. The total comes to €1.644,90 (VAT 312,53). Terms: Net 30. PO 77/A. Paid: no"""
OUTPUT = Classes(labels=("x", "y"))


@pytest.mark.parametrize(
    ("value", "how"),
    [
        ("ostalune print ltd", "text"),
        ("INV 9K8 89391", "text"),
        (1644.90, "number"),
        ("1,644.90", "number"),
        (312.53, "number"),
        ("2025-08-17", "date"),
        ("17/08/2025", "date"),
        ("2025-09-16", "derived"),
        ("EUR", "code"),
        (None, "absent"),
        (True, "absent"),
        ("", "absent"),
        ("Ostalune Print GmbH", "unsupported"),
        (1644.91, "unsupported"),
        (1.6449, "unsupported"),
        ("2025-08-18", "unsupported"),
        ("2025-09-17", "unsupported"),
        ("USD", "unsupported"),
        ("INV-9K8-89392", "unsupported"),
    ],
)
def test_a_value_is_found_in_any_spelling_and_no_other(value: object, how: str) -> None:
    """Case, blanks, separators, date forms and symbols don't matter; a digit does."""
    assert supports({"v": value}, TEXT)[0].how == how


@pytest.mark.parametrize("form", ["%d %B %Y", "%B %d, %Y", "%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%d-%b-%Y"])
@given(day=st.dates(min_value=date(1990, 1, 1), max_value=date(2049, 12, 31)))
def test_every_day_is_found_in_every_form(form: str, day: date) -> None:
    """A day that the input names is supported however it is written there."""
    assert supports({"d": day.isoformat()}, f"due {day.strftime(form)} at the latest")[0].how in ("date", "text")


@given(amount=st.integers(min_value=0, max_value=10**9))
def test_every_amount_is_found_in_every_locale_and_its_neighbour_is_not(amount: int) -> None:
    """1,234.56, 1.234,56 and 1 234,56 are one number; a cent more is another."""
    english = f"{amount / 100:,.2f}"
    german = english.replace(",", "_").replace(".", ",").replace("_", ".")
    for text in (english, german, german.replace(".", " "), f"{amount / 100:.2f}"):
        assert supports({"a": amount / 100}, f"total {text} in all")[0].how == "number", text
    assert supports({"a": (amount + 1) / 100}, f"total {english}.")[0].how == "unsupported"


def test_lists_and_tables_are_walked_to_their_leaves() -> None:
    """Each value has the path that names it."""
    found = supports({"lines": [{"no": "77/A"}, {"no": "78/B"}], "x": 5}, TEXT, fields=["lines"])
    assert [(s.field, s.how) for s in found] == [("lines.0.no", "text"), ("lines.1.no", "unsupported")]


def test_a_free_text_is_held_to_its_figures_dates_and_codes() -> None:
    """Words may be chosen freely; what a reader would act on may not."""
    found = supports("Ostalune asks 1644.90 for INV-9K8-89391 by September 16, 2025, or 50 more.", TEXT)
    assert {s.value: s.how for s in found} == {
        "september 16, 2025": "derived", "INV-9K8-89391": "text", "1644.90": "number", "50": "unsupported",
    }  # fmt: skip


def test_the_verifier_names_the_fields_and_never_the_values() -> None:
    """Its reason can be counted; the score is the share that is supported."""
    request = Request(id="r", fields={"text": TEXT})

    def judge(answer: object, **options: object):
        text = json.dumps(answer)
        return Grounding(output=OUTPUT, **options).judge(request, [Completion(text=text, value=text, model="m")], text)

    found = judge({"total": 1644.9, "due": "2031-01-01"})
    assert (found.keep, found.reason, found.score) == (False, "not in the input: due", 0.5)
    assert judge({"total": 1644.9, "due": "2031-01-01"}, fields=["total"]).keep
    assert judge({"due": "2025-09-16"}).keep
    assert not judge({"due": "2025-09-16"}, derived=False).keep
    with pytest.raises(DataError, match="fields"):
        Grounding(output=OUTPUT, fields="total")
