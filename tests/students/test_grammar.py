"""The grammar of records, judged by what llama.cpp writes under it and by the days of the calendar."""

import datetime as dt
import itertools
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overproof.outputs import Field, Fields
from overproof.students.grammar import RULES, grammar_of, spans_of


def as_regex(rule):
    """A rule of literals, classes, groups and other rules as a Python pattern."""
    found = ""
    for part in re.findall(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|\{[0-9,]+\}|[a-z]+|[()|?*+]', rule):
        if part.startswith('"'):
            found += re.escape(part[1:-1].replace('\\"', '"').replace("\\\\", "\\"))
        elif part[0].isalpha():
            found += f"(?:{as_regex(RULES[part])})"
        else:
            found += part
    return found


DATE, NUMBER, MARK, GAP = (re.compile(as_regex(RULES[name])) for name in ("date", "number", "mark", "gap"))


@pytest.mark.parametrize(
    ("years", "months", "days"),
    [(range(1000, 3000), (2,), (28, 29, 30)), ((1900, 2000, 2023, 2024), range(20), range(40)), ((0, 1, 999, 3000, 9999), (1, 2), (28, 29))],
)
def test_dates_are_the_days_of_the_calendar(years, months, days):
    """A date is admitted exactly where there is such a day, from the year 1000 to 2999."""
    for year, month, day in itertools.product(years, months, days):
        text = f"{year:04d}-{month:02d}-{day:02d}"
        try:
            real = 1000 <= dt.date.fromisoformat(text).year <= 2999
        except ValueError:
            real = False
        assert bool(DATE.fullmatch(f'"{text}"')) == real, text


@given(st.decimals(min_value=-(10**15) + 1, max_value=10**15 - 1, places=2, allow_nan=False))
def test_every_canonical_number_of_fifteen_digits_is_admitted(number):
    """What a record shows for an amount is what the grammar lets a model write."""
    kind = Fields(fields=(Field(name="n", type="number"),))
    shown = kind.write({"n": number})[len('{"n": ') : -1]
    assert NUMBER.fullmatch(shown)
    assert kind.parse('{"n": ' + shown + "}") == '{"n": ' + shown + "}"


@given(st.text(min_size=1, max_size=3))
def test_no_admitted_text_is_refused_by_the_kind(text):
    """A mark at each end means that stripping never empties or changes a text."""
    written = json.dumps(text, ensure_ascii=False)[1:-1]
    parts = re.fullmatch(f"(?:{MARK.pattern})(?:(?:{GAP.pattern})?(?:{MARK.pattern}))*", written)
    if parts:
        assert text.strip() == text
        assert text
        kind = Fields(fields=(Field(name="t"),))
        assert kind.values(kind.parse('{"t": "' + written + '"}')) == {"t": text}


@given(st.text(alphabet=st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=20))
def test_visible_texts_can_be_written(text):
    """Letters, digits, punctuation and symbols of any script are within reach of a model."""
    written = json.dumps(text, ensure_ascii=False)[1:-1]
    assert re.fullmatch(f"(?:(?:{MARK.pattern}))+", written)


def test_values_are_found_by_their_bytes():
    """Spans count bytes, so that tokens of other scripts are laid to the right field."""
    kind = Fields(fields=(Field(name="n\u00e4me"), Field(name="paid", type="number", optional=True)))
    text = kind.write({"n\u00e4me": "Łódź", "paid": None})
    spans = spans_of(kind, text)
    assert {name: text.encode()[first:past].decode() for name, (first, past) in spans.items()} == {"n\u00e4me": '"Łódź"', "paid": "null"}


def test_names_and_choices_are_written_as_json_writes_them():
    """Quotes and backslashes in names and choices are escaped for JSON and then for the grammar."""
    kind = Fields(fields=(Field(name='a"b', type="choice", values=("x\\y", 'z"')),))
    assert grammar_of(kind, max_chars=9).splitlines()[:2] == [
        r'root ::= "{\"a\\\"b\": " f0 "}"',
        r'f0 ::= "\"x\\\\y\"" | "\"z\\\"\""',
    ]


def test_a_text_of_no_length_still_has_one_mark():
    """However small the bound, a text has one mark, since an empty text is no answer."""
    kind = Fields(fields=(Field(name="t"),))
    assert '"\\"" mark (gap? mark){0,0} "\\""' in grammar_of(kind, max_chars=0)
    assert '"\\"" mark (gap? mark)* "\\""' in grammar_of(kind, max_chars=10**6)


@pytest.mark.parametrize("text", ["", "[1]", '{"t": '])
def test_another_form_is_said_to_be_one(text):
    """Asking for the spans of what is no record raises instead of guessing."""
    with pytest.raises(ValueError):
        spans_of(Fields(fields=(Field(name="t"),)), text)
