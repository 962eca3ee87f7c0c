import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overproof.data import Request
from overproof.errors import DataError
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


ATTACK = dict(zip("aceopxyijshdlqwAEOPCTHKMB", "асеорхуіјѕһԁӏԛԝАЕОРСТНКМВ", strict=True))
PLAIN = (
    "Где мой заказ? Я жду уже две недели, а трек не обновляется.",
    "Πού είναι η παραγγελία μου; Περιμένω εδώ και δύο εβδομάδες.",
    "Որտե՞ղ է իմ պատվերը։",
    "Où est ma commande ? Ça fait déjà deux semaines, c'est gênant.",
    "Größe und Maß stimmen nicht, bitte zurückschicken.",
    "¿Dónde está mi pedido? Llevo dos semanas esperando, señor.",
    "मेरा ऑर्डर कहाँ है? दो हफ्ते हो गए।",
    "Đơn hàng của tôi đâu rồi? Tôi đã đợi hai tuần nữa.",
    "أَيْنَ طَلَبِي؟",
    "我的订单在哪里?",
    "Bọ̀ǹjì ọ́ ẹ́",
)


@pytest.mark.parametrize("sentence", PLAIN)
def test_real_sentences_of_any_script_stay_as_they_are(sentence):
    """Russian, Greek, Armenian, French, German, Spanish, Hindi, Vietnamese, Arabic, Chinese and Yoruba are content."""
    assert normalise(sentence) == " ".join(unicodedata.normalize("NFKC", sentence).split())


@given(st.sampled_from(["Why was my card charged twice?", "please close the account", "Cancel My Order", "I lost a parcel on Monday"]), st.integers(0, 2**30))
def test_any_mix_of_look_alikes_is_undone(sentence, bits):
    """Whichever letters an attacker swaps for look-alikes, all of them included, the sentence comes back."""
    attacked = "".join(ATTACK.get(c, c) if bits >> (i % 30) & 1 else c for i, c in enumerate(sentence))
    assert normalise(attacked) == sentence
    assert normalise("".join(ATTACK.get(c, c) for c in sentence)) == sentence


def test_a_foreign_word_beside_latin_ones_stays_foreign():
    """A word with a letter that is nobody's double is not touched, whatever stands beside it."""
    assert normalise("please ship to Москва, улица Ленина") == "please ship to Москва, улица Ленина"


def test_struck_through_and_piled_letters_read_as_plain_words():
    """Overlays go from every letter; a pile of marks goes as a whole."""
    assert normalise("r\u0336e\u0336f\u0336und") == "refund"
    assert normalise("b\u030d\u0316\u0317u\u0300\u033f\u033e\u0301") == "bu"
    assert normalise("ᾧ ệ ọ̀") == "ᾧ ệ ọ̀"


def test_a_folder_of_the_first_normaliser_is_read_by_it():
    """What was fitted on unfolded look-alikes goes on seeing them; an unknown name is refused."""
    assert normalise("раypal", "nfkc.v1") == "раypal"
    assert normalise("раypal") == "paypal"
    with pytest.raises(DataError, match=r"nfkc\.v9"):
        normalise("a", "nfkc.v9")


@given(st.text(alphabet="aebnzшщλфacбж 1.\u0301\u0316\u0336" + "".join(ATTACK.values()) + "нкмтωπгԱ", max_size=30))
def test_folding_look_alikes_twice_changes_nothing(text):
    """Idempotent where the scripts are mixed on purpose."""
    once = normalise(text)
    assert normalise(once) == once
