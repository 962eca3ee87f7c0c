"""Output kinds: what an answer is, when two say the same, and the one spelling in which they are kept."""

import datetime as dt
import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overproof.errors import DataError
from overproof.outputs import Classes, Field, Fields, Text, alike, chrf, kind_of, output_of

INVOICE = Fields(fields=(
    Field(name="supplier"), Field(name="total", type="number"), Field(name="due", type="date", optional=True),
    Field(name="currency", type="choice", values=("EUR", "US dollar"), optional=True), Field(name="zip code", optional=True),
))  # fmt: skip
WRITABLE = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
WORDS = WRITABLE.filter(lambda text: text.strip())
RECORDS = st.fixed_dictionaries(
    {"supplier": WORDS, "total": st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=4)},
    optional={"due": st.dates(), "currency": st.sampled_from(["eur", "EUR", "us_dollar", None]), "zip code": st.none() | WRITABLE},
)


def said(record: dict) -> str:
    """A record as a model may write it."""
    return json.dumps(record, default=lambda v: v.isoformat() if isinstance(v, dt.date) else float(v))


@given(RECORDS)
def test_a_record_has_one_spelling_that_parses_to_itself(record) -> None:
    """Parsing is idempotent, keeps every field in order, and the canonical form is UTF-8 that JSON reads."""
    found = INVOICE.parse(said(record))
    assert INVOICE.parse(found) == found
    assert list(json.loads(found)) == ["supplier", "total", "due", "currency", "zip code"]
    assert INVOICE.parse(f"```json\n{said(record)}\n```") == found
    found.encode()
    assert INVOICE.equal(found, found)


@given(RECORDS, RECORDS)
def test_records_are_equal_iff_every_field_is(one, other) -> None:
    """Equality is the same both ways and is that of the fields."""
    a, b = INVOICE.parse(said(one)), INVOICE.parse(said(other))
    assert INVOICE.equal(a, b) == INVOICE.equal(b, a) == all(INVOICE.compare(a, b))


@pytest.mark.parametrize(("left", "right"), [
    ({"supplier": "ACME  Ltd", "total": 12.5}, {"supplier": "acme ltd", "total": "12.50"}),
    ({"supplier": "ａｃｍｅ", "total": 100}, {"supplier": "Acme", "total": 1e2, "due": None}),
    ({"supplier": "a", "total": 1, "currency": "us-dollar"}, {"supplier": "a", "total": 1.0, "currency": "US dollar", "zip code": " "}),
])  # fmt: skip
def test_what_says_the_same_is_equal_whatever_its_spelling(left, right) -> None:
    """Case, width, white space and trailing noughts are no difference."""
    assert INVOICE.equal(INVOICE.parse(json.dumps(left)), INVOICE.parse(json.dumps(right)))


@pytest.mark.parametrize(("text", "words"), [
    ("no json", "no JSON object"), ("[1]", "no JSON object"), ('{"supplier": "a", "supplier": "b", "total": 1}', "no JSON object"),
    ('{"supplier": "a", "total": 1, "vat": 2}', "unknown field 'vat'"), ('{"supplier": "a"}', "field 'total': got None, expected a value"),
    ('{"supplier": " ", "total": 1}', "field 'supplier'"), ('{"supplier": "a", "total": NaN}', "a finite number"),
    ('{"supplier": "a", "total": true}', "a finite number"), ('{"supplier": "a", "total": "1e400"}', "a finite number"),
    ('{"supplier": "a", "total": 1, "due": "1.2.2025"}', "YYYY-MM-DD"), ('{"supplier": "a", "total": 1, "currency": "CHF"}', "one of EUR, US dollar"),
    ('{"supplier": "\\ud800", "total": 1}', "UTF-8"), ("[" * 100_000, "no JSON object"), ('{"supplier": 5, "total": 1}', "expected a text"),
])  # fmt: skip
def test_what_is_no_such_record_is_refused_with_the_field(text, words) -> None:
    """A wrong record never becomes a nearly right one."""
    with pytest.raises(DataError, match=words):
        INVOICE.parse(text)


def test_a_numbers_canonical_form_is_a_plain_decimal() -> None:
    """No exponent, no trailing nought, no minus nought, and large figures keep every digit."""
    numbers = {"1e3": "1000", "-0.00": "0", "12.500": "12.5", "0.00000012": "0.00000012", "123456789012345678901.25": "123456789012345678901.25"}
    kind = Fields(fields=(Field(name="n", type="number"),))
    for raw, plain in numbers.items():
        assert kind.parse(f'{{"n": {raw}}}') == f'{{"n": {plain}}}'
        assert kind.values(kind.parse(f'{{"n": {raw}}}'))["n"] == Decimal(plain)


@given(WORDS, WORDS)
def test_similarity_is_a_fraction_the_same_both_ways_and_one_for_the_same_text(left, right) -> None:
    """So that an order of arguments never decides a verdict."""
    kind = Text()
    assert kind.similarity(left, right) == kind.similarity(right, left)
    assert 0.0 <= kind.similarity(left, right) <= 1.0 + 1e-12
    assert kind.similarity(left, left) == 1.0
    assert kind.equal(left, f" {left}\n")


def brute_chrf(answer: str, reference: str) -> float:
    """Counted pair by pair."""
    a, b = "".join(answer.split()), "".join(reference.split())
    scores = []
    for n in range(1, 7):
        ours, theirs = [a[i : i + n] for i in range(len(a) - n + 1)], [b[i : i + n] for i in range(len(b) - n + 1)]
        if not ours and not theirs:
            break
        left, hits = list(theirs), 0
        for gram in ours:
            if gram in left:
                left.remove(gram)
                hits += 1
        p, r = hits / max(1, len(ours)), hits / max(1, len(theirs))
        scores.append(5 * p * r / (4 * p + r) if hits else 0.0)
    return sum(scores) / len(scores) if scores else 1.0


@given(st.text("ab c", max_size=12), st.text("ab c", max_size=12))
def test_chrf_is_the_mean_f2_over_character_n_grams(answer, reference) -> None:
    """The same as counting pair by pair."""
    assert chrf(answer, reference) == pytest.approx(brute_chrf(answer, reference))


def test_a_text_is_one_to_max_chars_that_can_be_written() -> None:
    """Empty, overlong and unwritable answers are refused."""
    kind = Text(max_chars=5)
    assert kind.parse("  abc \n") == "abc"
    for bad in (" ", "abcdef", "\ud800"):
        with pytest.raises(DataError):
            kind.parse(bad)


@pytest.mark.parametrize("kind", [
    Classes(labels=("a b", "c")), INVOICE, Text(metric="exact", same_at=1.0, max_chars=7), Fields(fields=(Field(name="z"), Field(name="a", type="number"))),
])  # fmt: skip
def test_an_output_kind_can_be_written_down_and_read_again(kind) -> None:
    """Through JSON too: what goes into files and processes comes back equal, fields in order."""
    assert output_of(json.loads(json.dumps(kind_of(kind)))) == kind


@pytest.mark.parametrize("words", [
    {}, {"classes": ["a"]}, {"fields": {}}, {"fields": {"a": "money"}}, {"fields": {"a": ["x"]}}, {"fields": {"a": ["Yes", "yes"]}}, {"fields": {"a": 5}},
    {"text": {"same_at": "high"}}, {"text": {"same_at": 0}}, {"text": {"max_chars": 1.5}}, {"text": {"metric": "bleu"}}, {"text": {"chars": 1}},
    {"text": 1}, {"classes": ["a", "b"], "text": {}},
])  # fmt: skip
def test_a_description_that_is_no_output_kind_is_refused_in_words(words) -> None:
    """A slip in the project file is an error of ours, never a traceback."""
    with pytest.raises(DataError):
        output_of(words)


def test_answers_that_say_the_same_are_counted_as_one() -> None:
    """The first of them stands for all; labels are left as they are."""
    texts = ["Refund the order 77.", "A parcel is lost.", "refund the order 77"]
    assert alike(Text(), texts) == [texts[0], texts[1], texts[0]]
    assert alike(None, ["a", "A"]) == ["a", "A"]
    assert not INVOICE.equal(*(INVOICE.parse(said({"supplier": "a", "total": 1, "zip code": z})) for z in (None, "1")))
    records = [INVOICE.parse(said({"supplier": s, "total": 1})) for s in ("Acme", "ACME", "Other")]
    assert alike(INVOICE, records) == [records[0], records[0], records[2]]
