"""Frames: what a template takes apart, what is learned from prompts alone, and when nothing is learned."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overproof.data import Skipped
from overproof.errors import DataError
from overproof.importers import ColumnMapping
from overproof.importers.frames import LEAST_SAMPLE, Frame, declared, learn
from overproof.importers.table import JsonLines

WORDS = ["card", "login", "parcel", "refund", "the", "my", "is", "broken", "late", "please", "again", "order", "12", "Müller", "café", "can't", "see", "—", "today", "of", "and", "to", "a"]
TEMPLATE = "You are a router. Answer with one queue.\nSubject: {subject}\nBody: {body}\nQueues: bug, billing, other."


def messages(n, seed=0, longest=25):
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, longest))) for _ in range(n)]


def filled(template, **values):
    for name, value in values.items():
        template = template.replace("{" + name + "}", value)
    return template


@pytest.mark.parametrize(("template", "by_name"), [
    (TEMPLATE, True),
    ("<ticket><subject>{subject}</subject><body>{body}</body></ticket>", True),
    ("Classify this:\n\n{subject}\n---\n{body}", False),
    ('{"subject": "{subject}", "body": "{body}"}', True),
    ("Body: {body}\n\nSubject: {subject}\n\nAnswer:", True),
])  # fmt: skip
def test_the_frame_that_made_the_prompts_is_found_again(template, by_name):
    """From prompts alone, with two in a hundred of another task among them, the template comes back and takes them apart."""
    subjects, bodies = messages(300, 1, 6), messages(300, 2)
    texts = [filled(template, subject=s, body=b) for s, b in zip(subjects, bodies, strict=True)]
    texts[7::50] = ["Translate this: " + one for one in texts[7::50]]
    found = learn(texts, ("subject", "body"))
    assert found.frame.template == template
    assert (found.n, found.fitting, found.by_name) == (300, 294, by_name)
    assert found.frame.apart(texts[0])[0] == {"subject": subjects[0], "body": bodies[0]}
    assert len(found.examples) == 3


def test_one_field_needs_no_separator():
    """A prefix and a suffix are enough where the task has one field."""
    texts = [f"Classify: {one}\nOne word." for one in messages(40)]
    assert learn(texts, ("text",)).frame.template == "Classify: {text}\nOne word."


@pytest.mark.parametrize(("texts", "fields", "word"), [
    (messages(200), ("text",), "no fixed text"),
    ([f"Classify: {one}" for one in messages(LEAST_SAMPLE - 1)], ("text",), "too few"),
    ([filled(TEMPLATE, subject=s, body=b) for s, b in zip(messages(60, 1), messages(60, 2), strict=True)], ("text",), "2 variable parts"),
    ([f"Classify: {one}" for one in messages(60)], ("subject", "body"), "1 variable parts"),
    ([f"Classify: {one}" for one in messages(90)] + [f"Translate: {one}" for one in messages(10)], ("text",), "no fixed text"),
])  # fmt: skip
def test_no_frame_is_made_up(texts, fields, word):
    """Too few prompts, none in common, another number of parts, or a tenth of another kind: a refusal that says so."""
    with pytest.raises(DataError, match=word):
        learn(texts, fields)


def test_a_template_needs_a_place_for_each_field_and_text_between_places():
    """What can't be taken apart again is refused before any row is read."""
    with pytest.raises(DataError, match=r"no place \{body\}"):
        declared("Subject: {subject}", ("subject", "body"))
    with pytest.raises(DataError, match="touch"):
        declared("{subject}{body}", ("subject", "body"))


@settings(max_examples=200)
@given(
    st.lists(st.text(alphabet=st.characters(blacklist_characters="|{}", blacklist_categories=("Cs",)), max_size=40), min_size=2, max_size=2),
    st.text(alphabet="ab \n:.", max_size=10), st.text(alphabet="ab \n:.", max_size=10),
)  # fmt: skip
def test_what_a_template_fills_it_takes_apart(values, head, tail):
    """For any fields without the separator in them, apart is the inverse of filling, up to white space at the prompt's ends."""
    template = f">{head}{{a}}||{{b}}{tail}<"
    taken = Frame.of(template, ("a", "b")).apart(f">{head}{values[0]}||{values[1]}{tail}<")
    assert taken is not None
    assert taken[0] == {"a": values[0], "b": values[1]}


def test_a_template_takes_the_prompt_column_of_a_table_apart(tmp_path):
    """Rows with whole prompts give fields; a row that doesn't fit is kept aside and the column is no attribute."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "S: x B: y", "output": "bug", "tier": "plus"}\n{"prompt": "other"}\n{"tier": "plus"}\n')
    mapping = ColumnMapping(fields=("subject", "body"), template="S: {subject} B: {body}")
    good, odd, none = JsonLines().read(path, mapping)
    assert dict(good.request.fields) == {"subject": "x", "body": "y"}
    assert dict(good.request.attributes) == {"tier": "plus"}
    assert isinstance(odd, Skipped)
    assert "doesn't fit" in odd.reason
    assert "prompt=COLUMN" in none.reason
