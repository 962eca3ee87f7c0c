"""Verifiers by rule: what they reject, and what they refuse to be made of."""

import pytest

from overproof.data import Completion, Request
from overproof.errors import DataError
from overproof.task import Classes
from overproof.verifiers.rules import LabelSet, Regex, Schema

OUTPUT = Classes(labels=("billing", "bug", "other"))
REQUEST = Request(id="r", fields={"text": "I was charged twice, order 1234"})
SAID = [Completion(text="Bug!", value="bug", model="m"), Completion(text="billing", value="billing", model="m")]


def test_label_set_keeps_labels_and_nothing_else() -> None:
    """All labels of the task, or the named ones."""
    assert LabelSet(output=OUTPUT).judge(REQUEST, SAID, "bug").keep
    assert not LabelSet(output=OUTPUT).judge(REQUEST, SAID, "bugs").keep
    narrow = LabelSet(output=OUTPUT, labels=["bug"])
    assert narrow.judge(REQUEST, SAID, "bug").keep
    assert narrow.judge(REQUEST, SAID, "billing").reason


def test_label_set_refuses_unknown_labels_with_a_suggestion() -> None:
    """A typo in the file is an error, not a rule that rejects everything."""
    with pytest.raises(DataError, match="Did you mean 'billing'"):
        LabelSet(output=OUTPUT, labels=["biling"])


def test_regex_looks_at_the_answer_that_gave_the_target() -> None:
    """The raw text of another sample doesn't count."""
    plain = Regex(output=OUTPUT, pattern="^[a-z]+$")
    assert plain.judge(REQUEST, SAID, "billing").keep
    assert "answer doesn't match" in plain.judge(REQUEST, SAID, "bug").reason
    assert not plain.judge(REQUEST, SAID, "other").keep


def test_regex_on_input_and_negated() -> None:
    """The input can be matched, and a match can be what disqualifies."""
    assert Regex(output=OUTPUT, pattern=r"\d{4}", on="input").judge(REQUEST, SAID, "bug").keep
    assert not Regex(output=OUTPUT, pattern=r"\d{4}", on="input", must="not match").judge(REQUEST, SAID, "bug").keep
    assert Regex(output=OUTPUT, pattern="^b", on="target").judge(REQUEST, SAID, "bug").keep


@pytest.mark.parametrize("options", [{"pattern": "("}, {"pattern": "a", "on": "answers"}, {"pattern": "a", "must": "no"}])
def test_regex_refuses_options_that_mean_nothing(options: dict) -> None:
    """A broken pattern or an unknown word stops the run before any row."""
    with pytest.raises(DataError):
        Regex(output=OUTPUT, **options)


@pytest.mark.parametrize(
    ("schema", "keeps"),
    [
        (None, True), ({"type": "string"}, True), ({"type": "number"}, False), ({"enum": ["billing"]}, False),
        ({"const": "bug"}, True), ({"pattern": "^b"}, True), ({"pattern": "x"}, False), ({"minLength": 4}, False),
        ({"maxLength": 2}, False), ({"minLength": 3, "maxLength": 3}, True),
    ],
)
def test_schema_checks_every_word_that_it_admits(schema: dict | None, keeps: bool) -> None:
    """The target "bug" against each word."""
    assert Schema(output=OUTPUT, schema=schema).judge(REQUEST, SAID, "bug").keep is keeps


@pytest.mark.parametrize("schema", [{"format": "email"}, {"oneOf": []}, {}, {"pattern": "("}])
def test_schema_refuses_words_that_it_would_not_check(schema: dict) -> None:
    """A rule that is not checked must not look checked."""
    with pytest.raises(DataError):
        Schema(output=OUTPUT, schema=schema)
