"""What names a person or opens a door is replaced, the same thing by the same surrogate, and nothing else is touched."""

import json
import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overproof.data import Completion, Outcome, Request, Skipped, ToolCall, TrafficRecord, Turn
from overproof.errors import DataError
from overproof.privacy import checks
from overproof.privacy.presidio import installed_model
from overproof.privacy.redact import Policy, Redactor, redactor_of, scrub
from overproof.privacy.score import read_cases, score
from overproof.settings import PrivacyTable

KEY = b"0123456789abcdef0123456789abcdef"
CASES = read_cases(Path(__file__).with_name("pii_cases.jsonl"))
TEXTS = [case.text for case in CASES]
VALUES = sorted({value for case in CASES for _, value in case.entities})


def redactor(**policy) -> Redactor:
    return Redactor(Policy(**policy), key=KEY)


def test_precision_and_recall_hold_on_the_test_set() -> None:
    """At least 300 entities and 300 look-alikes; floors well below what is measured, so that a loss shows."""
    found = score(CASES)
    assert sum(one.expected for one in found.types) >= 300
    assert found.negatives >= 300
    for one in found.types:
        floor = 0.98 if one.category in ("card", "iban", "national_id") else 0.93
        assert one.found >= floor * one.expected, found.missed
        assert one.right >= 0.88 * one.claimed, found.alarms
    assert found.false_alarms <= 4, found.alarms


def test_the_same_entity_gets_the_same_surrogate_in_every_spelling() -> None:
    """Cards, IBANs, addresses and numbers are one entity however they are written; another one is another."""
    r = redactor()
    same = ("card 4111 1111 1111 1111", "card 4111-1111-1111-1111", "card ４１１１１１１１１１１１１１１１", "card 4111\u200b111111111111")
    assert len({r.text(text) for text in same}) == 1
    assert r.text("to A.B@Example.com") == r.text("to a.b@example.com") != r.text("to a.c@example.com")
    assert r.text("tel +49 171 2345678") == r.text("tel 0049 171 2345678")
    assert r.text("iban DE89 3704 0044 0532 0130 00") == r.text("iban DE89370400440532013000")


def test_another_key_gives_another_surrogate_and_a_mask_only_the_kind() -> None:
    """Nobody without the project's key can make or compare surrogates."""
    text = "write to maria@example.com"
    assert redactor().text(text) != Redactor(Policy(), key=KEY[::-1]).text(text)
    assert Redactor(Policy(mode="mask")).text(text) == "write to <EMAIL>"
    assert redactor(mode="off").text(text) == text
    with pytest.raises(DataError):
        Redactor(Policy())
    with pytest.raises(DataError):
        Policy(redact=("emails",))


@pytest.mark.parametrize("mode", ["surrogate", "mask"])
def test_redacting_twice_changes_nothing(mode: str) -> None:
    """A surrogate is no entity: what is imported again stays as it is."""
    r = redactor(mode=mode)
    for text in TEXTS:
        once = r.text(text)
        assert r.text(once) == once


def test_a_number_that_only_its_neighbour_hid_goes_too() -> None:
    """Two telephone numbers in a row are both gone at once, not the second one on a later import."""
    once = redactor().text("(030) 1234 5678 0033 6 12 34 56 78")
    assert "12 34" not in once
    assert redactor().text(once) == once


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(VALUES + TEXTS) | st.text(max_size=12), max_size=5), st.sampled_from([" ", "\n", ", ", "; "]))
def test_any_mixture_survives_a_second_pass_and_keeps_what_lies_between(parts: list[str], glue: str) -> None:
    """Idempotent on arbitrary text, and all that is no entity comes out as it went in."""
    text = glue.join(parts)
    r = redactor()
    once = r.text(text)
    assert r.text(once) == once
    rest, last = [], 0
    for one in r.find(text):
        assert last <= one.start < one.end <= len(text)
        rest.append(text[last : one.start])
        last = one.end
    assert re.sub(r"<[A-Z_]+_[a-p]{8}>", "", once) == re.sub(r"<[A-Z_]+_[a-p]{8}>", "", "".join([*rest, text[last:]]))


@settings(max_examples=200, deadline=None)
@given(st.integers(10**14, 10**15 - 1))
def test_exactly_one_check_digit_in_ten_makes_a_card(number: int) -> None:
    """Luhn accepts one last digit and refuses the other nine, and a swap of unequal neighbours is mostly seen."""
    assert sum(checks.luhn(f"{number}{d}") for d in range(10)) == 1


@given(st.integers(0, 10**18 - 1))
def test_one_pair_of_check_digits_makes_an_iban(number: int) -> None:
    """Of the 97 remainders exactly one fits; two digits can repeat it for the three lowest."""
    fits = [n for n in range(100) if checks.iban(f"DE{n:02d}{number:018d}")]
    assert len(fits) in (1, 2)
    assert all((a - b) % 97 == 0 for a in fits for b in fits)


def row(**change) -> TrafficRecord:
    given = {
        "request": Request(
            id="maria@example.com-1", fields={"text": "card 4111 1111 1111 1111"}, attributes={"note": "call +49 171 2345678"},
            session="maria@example.com",
        ),
        "completion": Completion(text='{"iban": "DE89370400440532013000"}', value=None, model="m", reason="answer 'a@example.com'"),
        "gold": "pay a@example.com",
        "source": "a@example.com.jsonl",
    }  # fmt: skip
    return TrafficRecord(**{**given, **change})


def test_every_part_of_a_row_is_redacted() -> None:
    """Id, fields, attributes, session, answer, reason, gold and source."""
    text = repr(redactor().row(row()))
    for value in ("maria@", "4111", "2345678", "DE89", "a@example.com"):
        assert value not in text
    assert text.count("<EMAIL_") == 5


def test_the_conversation_and_its_tool_calls_are_redacted_with_the_row() -> None:
    """What the model saw beside the fields is user text too, and so are the arguments of a tool."""
    call = ToolCall(name="find", arguments='{"mail": "a.b@example.com"}', id="c1")
    turns = (Turn(role="user", text="I am a.b@example.com", calls=(call,)), Turn(role="tool", text="a.b@example.com", call_id="c1"))
    row = TrafficRecord(request=Request(id="r", fields={"text": "hello"}), context=turns, calls=(call,))
    done = redactor().row(row)
    assert "a.b@example.com" not in repr(done)
    assert repr(done).count("<EMAIL_") == 4
    assert (done.context[1].role, done.context[1].call_id, done.request) == ("tool", "c1", row.request)
    plain = TrafficRecord(request=row.request, context=(Turn(role="user", text="hello"),))
    assert redactor().row(plain) is plain


def test_a_row_that_could_not_be_read_is_redacted_through_its_escapes_and_loses_its_cut_end() -> None:
    """Half a number matches no pattern, so the end of a row that was cut goes; escapes hide nothing."""
    raw = r'{"text": "mail\u0020maria\u0040example.com\n4111 1111 1111 1111\tok"'
    done = redactor().row(Skipped(where="a:1", reason="time 'maria@example.com' is no time", raw=raw))
    assert "maria" not in done.raw + done.reason
    assert "4111" not in done.raw
    cut = ("x" * 1985 + " 4111 1111 1111 1111")[:2000]
    assert "4111" not in redactor().row(Skipped(where="a:1", reason="r", raw=cut)).raw


def test_what_a_teacher_says_stays_json_and_stays_a_label() -> None:
    """A number that becomes a surrogate is quoted; a label of the task is never touched, whatever it looks like."""
    r = Redactor(Policy(), key=KEY, keep=("call 0171 2345678",))
    assert set(json.loads(r.answer('{"card": 4111111111111111, "n": 3, "ok": true}'))) == {"card", "n", "ok"}
    said = Completion(text="call 0171 2345678", value="call 0171 2345678", model="m")
    assert r.completion(said) is said
    bad = Outcome(kind="bad", completion=Completion(text="a@example.com", value=None, model="m"), reason="'a@example.com'",
                  http_status=200, retry_after_s=None, fingerprint=None, request_id="r1")  # fmt: skip
    assert "a@example" not in repr(r.outcome(bad))


def test_sessions_are_hashed_where_the_policy_asks() -> None:
    """Equal sessions stay equal, and a name that no pattern knows is gone."""
    r = redactor(sessions="hash")
    a, b = (r.row(row(request=Request(id=i, fields={"text": "x"}, session="maria.lopez"))) for i in "12")
    assert a.request.session == b.request.session != "maria.lopez"
    assert r.row(a).request.session == a.request.session
    assert redactor().row(row(request=Request(id="1", fields={"text": "x"}, session="u-17"))).request.session == "u-17"


def test_a_category_that_is_not_named_is_left_alone() -> None:
    """The policy decides by category."""
    text = "maria@example.com and 4111 1111 1111 1111"
    assert "maria@" in redactor(redact=("card",)).text(text)
    assert "4111" in redactor(redact=("email",)).text(text)


def test_a_message_is_masked_without_a_key() -> None:
    """What a terminal shows has no surrogate: nothing to compare with."""
    assert scrub("row 3: 'maria@example.com' is no time") == "row 3: '<EMAIL>' is no time"


def test_names_and_places_need_presidio() -> None:
    """With it a name is found, without it the policy is refused with what to install."""
    table = PrivacyTable(redact=("email", "person"))
    try:
        import presidio_analyzer  # noqa: F401
    except ImportError:
        with pytest.raises(Exception, match=r"overproof\[privacy\]"):
            redactor_of(table, key=lambda: KEY)
        pytest.skip("presidio-analyzer is not installed: names and places were not tested")
    if not any(point.name.startswith("en_") for point in entry_points(group="spacy_models")):
        with pytest.raises(DataError, match="no model of spaCy"):
            redactor_of(table, key=lambda: KEY)
        pytest.skip("no English model of spaCy is installed: names and places were not tested")
    found = redactor_of(table, key=lambda: KEY)
    assert "Maria" not in found.text("My name is Maria Lopez and I live in Madrid.")
    assert "Madrid" in found.text("My name is Maria Lopez and I live in Madrid.")  # nobody asked for places
    one, two = (found.text(f"{word} wrote: John Smith is here").split(": ")[1] for word in ("mia@example.com", "She"))
    assert one == two


def test_the_largest_installed_model_of_the_language_reads_names_and_none_is_fetched() -> None:
    """Without one the policy is refused, with what is installed."""
    names = ["de_core_news_lg", "en_core_web_sm", "en_core_web_md", "en_core_web_trf", "en_other"]
    assert installed_model("en", names) == "en_core_web_md"
    assert installed_model("en", ["en_other", "en_core_web_sm_own"]) == "en_core_web_sm_own"
    with pytest.raises(DataError, match="'fr'") as told:
        installed_model("fr", names)
    assert "de_core_news_lg" in told.value.next_action
    with pytest.raises(DataError):
        installed_model("e", names)
