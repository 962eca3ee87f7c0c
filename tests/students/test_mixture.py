"""Messages that are put together: what the table sees, that it travels with the bundle, and that nobody can swap it unseen."""


from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overproof.data import Example, Request, TrainSet
from overproof.errors import DataError
from overproof.students.mixture import MIXTURE, SCORES, WINDOW, Mixture, _repetition, _words
from overproof.students.seen import REPETITION, TWO_ANSWERS

TEXTS = {
    "parcel": ("where is my parcel today", "the courier lost my parcel again", "parcel tracking shows nothing today", "the courier never brought the parcel"),
    "refund": ("refund the money for this order", "money back for my broken order", "please refund the broken order", "when does the money come back"),
    "login": ("my password fails at login", "reset the password please", "locked out after login", "the login page rejects my password"),
}
ROWS = tuple((label, text) for label, texts in TEXTS.items() for text in texts)
VOCABULARY = [*sorted({word for _, text in ROWS for word in text.split()}), "unheard", "zzz"]


def taught(rows=ROWS):
    examples = tuple(Example(request=asked(text), target=label) for label, text in rows)
    return TrainSet(examples=examples, labels=("parcel", "refund", "login", "never taught"))


def asked(text):
    return Request(id="", fields={"text": text})


def scored(mixture, *texts):
    return {name: column.tolist() for name, column in mixture.columns([asked(text) for text in texts]).items()}


def plainly(mixture, text):
    """The score by its definition: each cut tried in turn, each piece under each label."""
    rows = [mixture._row[key] for word in _words(text) if (key := crc32(word.encode())) in mixture._row]
    table = mixture._table.astype(np.float64)
    if len(rows) < 2:
        return 0.0
    one = max(sum(table[at, k] for at in rows) for k in range(table.shape[1]))
    two = [
        max(sum(table[at, k] for at in rows[:cut]) for k in range(table.shape[1])) + max(sum(table[at, k] for at in rows[cut:]) for k in range(table.shape[1]))
        for cut in range(1, len(rows))
    ]
    return max(two) - one


def test_two_answers_in_one_message_stand_out_wherever_the_second_begins():
    """A message of one label scores below the same with another label's words behind it, before it or within."""
    mixture = Mixture.of(taught())
    own = "the courier lost my parcel"
    alone, behind, before, within = scored(mixture, own, f"{own} refund money", f"refund money {own}", "the courier refund money lost my parcel")[TWO_ANSWERS]
    assert alone < min(behind, before)
    assert alone <= within
    assert scored(mixture, own, f"{own} parcel today")[TWO_ANSWERS][1] == pytest.approx(alone, abs=0.7)


def test_what_is_said_again_and_again_is_counted_in_a_short_stretch():
    """Three copies count, fillers or not; a word that comes back after a while, and short words, don't."""
    again = scored(Mixture.of(taught()), "where is it refund money refund money refund money", "also refund, I mean refund! it is refund", "refund me " + "a b c d " * 3 + "refund", "no no no no")
    assert again[REPETITION] == [4.0, 2.0, 0.0, 0.0]
    assert _repetition(["word"] * 40) == WINDOW
    assert scored(Mixture.of(taught()), "注文注文注文")[REPETITION] == [0.0]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(VOCABULARY), max_size=30))
def test_the_score_is_that_of_the_definition(words):
    """For any message: equal to trying all cuts one by one, never negative, and the same in any company."""
    mixture, text = Mixture.of(taught()), " ".join(words)
    found = scored(mixture, text, "where is my parcel", text)
    assert found[TWO_ANSWERS][0] == pytest.approx(plainly(mixture, text), abs=1e-4)
    assert found[TWO_ANSWERS][0] >= -1e-5
    assert [found[name][0] for name in SCORES] == [found[name][2] for name in SCORES] == [scored(mixture, text)[name][0] for name in SCORES]


def test_a_long_message_is_cut_at_few_places_and_still_seen():
    """Two halves of two labels stand out in thousands of words; where the turn lies between two of the places, a little is lost."""
    mixture = Mixture.of(taught())
    own, mixed = "courier parcel today " * 2_000, "courier parcel today " * 1_000 + "refund money order " * 1_000
    low, high = scored(mixture, own, mixed)[TWO_ANSWERS]
    assert low < 1.0
    assert high > 1_000
    turns = "parcel " * 102 + "refund " * 98  # the places nearest to it are 100 and 103
    assert 0.9 * plainly(mixture, turns) < scored(mixture, turns)[TWO_ANSWERS][0] < plainly(mixture, turns) - 0.5


def test_words_of_one_text_and_labels_without_rows_are_in_no_table(tmp_path):
    """What only one customer wrote leaves in no bundle, not even as a checksum."""
    mixture = Mixture.of(taught((*ROWS, ("login", "my name is Ermintrude Blott"))))
    mixture.save(tmp_path)
    names = {crc32(word.encode()) for word in ("ermintrude", "blott", "name")}
    kept = np.load(tmp_path / MIXTURE)
    assert not names & set(kept["words"].tolist())
    assert kept["table"].shape[1] == 3
    assert np.exp(kept["table"].astype(float)).sum(axis=0) == pytest.approx(1.0, abs=1e-4)
    loaded = Mixture.load(tmp_path)
    assert scored(loaded, "refund my parcel") == scored(mixture, "refund my parcel")
    assert Mixture.load(tmp_path / "nowhere") is None


@pytest.mark.parametrize("broken", [
    {"words": np.array([3, 2, 1])}, {"words": np.array([1, 2])}, {"table": np.zeros((3, 0), dtype=np.float32)}, {"table": np.full((3, 2), np.nan, dtype=np.float32)},
])  # fmt: skip
def test_a_table_that_does_not_fit_is_refused(tmp_path, broken):
    """Words out of order, of another number, no label, or NaN."""
    np.savez(tmp_path / MIXTURE, **({"words": np.array([1, 2, 3]), "table": np.zeros((3, 2), dtype=np.float32)} | broken))
    with pytest.raises(DataError):
        Mixture.load(tmp_path)
