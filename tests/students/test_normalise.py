import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from overproof.data import Request
from overproof.students.normalise import normalise, text_of


def test_invisible_characters_are_taken_out():
    """Zero-width, bidi, tag and control characters vanish, so that they can't split a word unseen."""
    assert normalise("re\u200bfu\u200d\ufeffnd\u202e\x00\x07 me\U000e0041") == "refund me"


def test_compatibility_forms_become_plain_letters():
    """Full-width and styled letters read as the letters that they look like."""
    assert normalise("ｒｅｆｕｎｄ 𝐧𝐨𝐰 ﬁne") == "refund now fine"


def test_white_space_becomes_single_spaces():
    """Tabs, line ends, no-break spaces and the blank line between fields are one space each."""
    assert normalise("  a\t\r\nb\u00a0c\u2028d ") == "a b c d"
    assert text_of(Request(id="1", fields={"subject": "a", "body": "b"})) == "a b"


def test_letters_of_other_scripts_stay():
    """Real Cyrillic, Greek, accents and emoji are content."""
    assert normalise("Где заказ? Ünïcode π 😡") == "Где заказ? Ünïcode π 😡"


def test_lone_surrogates_are_dropped():
    """Half a surrogate pair, which no tokenizer takes, is left out."""
    assert normalise("a\ud83db") == "ab"


@given(st.text(alphabet=st.characters(codec=None), max_size=40))
def test_folding_twice_changes_nothing(text):
    """The normaliser is idempotent and never leaves an invisible character, on any text at all."""
    once = normalise(text)
    assert normalise(once) == once
    assert not [c for c in once if unicodedata.category(c) in ("Cc", "Cf", "Cs")]
