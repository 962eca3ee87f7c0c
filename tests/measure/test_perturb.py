"""Perturbations: the same for the same seed, whatever the text; each does what its name says and nothing to what it can't spoil."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overproof.errors import MeasureError, RegistryError
from overproof.measure.perturb import SHIPPED, Given, Perturbation, perturb, perturbation, rare_words
from overproof.students.normalise import normalise

LABELS = ("card_arrival", "refund", "thanks")
TEXT = "I don't want to wait for 1299 days until 2026-03-11, where is my café card?"


def spoilt(name, text=TEXT, key="a", seed=0):
    return perturb(SHIPPED[name], text, Given(label="card_arrival", labels=LABELS), key=key, seed=seed)


def shout(text, known, rng):
    """A perturbation of the user's."""
    return f"{text} {known.label} {rng.random()}"


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=80), key=st.text(max_size=5))
def test_any_text_can_be_spoilt_and_the_same_seed_gives_the_same(text, key):
    """No text breaks a perturbation; none returns the text itself; chance comes from seed, name and key alone."""
    for one in SHIPPED.values():
        first = perturb(one, text, Given(label="refund", labels=LABELS), key=key)
        random.seed(1)
        assert first == perturb(one, text, Given(label="refund", labels=LABELS), key=key)
        assert first != text


def test_every_perturbation_applies_to_some_text_and_says_what_it_claims():
    """Each changes an ordinary sentence; the ones with a visible effect show it."""
    plain = "I do not like it, the naïve card 1299 of 11 March is late!"
    assert [name for name in SHIPPED if spoilt(name) is None and spoilt(name, plain) is None] == []
    assert spoilt("contraction.v1") == TEXT.replace("don't", "do not")
    assert "11 March 2026" in spoilt("date_format.v1")
    assert "1,299" in spoilt("number_format.v1")
    assert spoilt("negation.v1", "I want my card") == "I do not want my card"
    assert spoilt("hollow.v1", "Is my card on its way?") == "Is my on its way?".replace("way", "way")
    assert len({spoilt("typo.v1", key=str(i)) for i in range(20)}) > 10
    assert len({spoilt("typo.v1", seed=i) for i in range(20)}) > 10


def test_attacks_name_a_wrong_label_and_need_labels():
    """Instructions and stuffing never push towards the right answer; a task without labels has nothing to stuff."""
    for i in range(50):
        for name in ("instruction.v1", "instruction_first.v1", "break_out.v1", "few_shot.v1", "stuff_one.v1", "stuff_three.v1", "all_classes.v1"):
            text = spoilt(name, "where is it", key=str(i))
            assert "refund" in text or "thanks" in text
            assert "card arrival" not in text
    assert perturb(SHIPPED["instruction.v1"], TEXT, Given(), key="a") is None
    assert perturb(SHIPPED["all_classes.v1"], TEXT, Given(label="a", labels=("a",)), key="a") is None


@pytest.mark.parametrize("name", [n for n, one in SHIPPED.items() if one.kind == "unicode"])
def test_a_student_reads_unicode_tricks_as_the_text_itself(name):
    """The normaliser undoes each of them, so that nothing can differ."""
    assert normalise(spoilt(name)) == normalise(TEXT)


def test_own_perturbations_are_found_by_module_and_held_to_their_word():
    """A function counts as one that must not change the answer; what returns no text is refused; a name is suggested."""
    own = perturbation(f"{__name__}:shout")
    assert (own.kind, own.shape) == ("own", "same")
    assert perturb(own, "a", Given(label="refund"), key="k").startswith("a refund 0.")
    with pytest.raises(MeasureError, match=r"typo\.v1"):
        perturbation("typos.v1")
    with pytest.raises(RegistryError):
        perturbation("nowhere:nothing")
    with pytest.raises(MeasureError, match="gave int"):
        perturb(Perturbation(name="x", kind="own", shape="same", apply=lambda *_: 3), "a", Given(), key="k")


def test_a_planted_trigger_is_the_strongest_rare_word():
    """A token in five rows of one label is found; a word of every label, or in too few rows, is not."""
    texts = [f"order {i} is late" for i in range(400)] + [f"cf order {i} is late" for i in range(5)] + ["zz order"] * 4
    labels = ["parcel", "refund", "bug", "other"] * 100 + ["refund"] * 5 + ["bug"] * 4
    assert [(w, label) for w, label, _ in rare_words(texts, labels, least=5)] == []  # 5 of 5 against a share of 1/4: z = 3.9
    more = [*texts, *[f"cf again {i}" for i in range(15)]]
    assert rare_words(more, [*labels, *["refund"] * 15], share=0.1)[0][:2] in (("cf", "refund"), ("again", "refund"))
    with pytest.raises(MeasureError):
        rare_words(["a"], [])
