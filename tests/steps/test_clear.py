"""The terms gate: what texts say, what an attestation has to bring, and the only way to a clearance."""

import ast
import dataclasses
import hashlib
import re
from collections.abc import Callable
from datetime import date, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from overproof.data import Clearance, TeacherPin
from overproof.errors import DataError, TermsError
from overproof.steps.clear import SCOPES, ClearRecipe, clear, decisive_day, recheck, sentence, student_kind
from overproof.steps.terms import (
    DISTRIBUTIONS,
    EFFECTS,
    STUDENT_KINDS,
    TOPICS,
    Attestation,
    EvidenceFile,
    Person,
    ReadDocument,
    Terms,
    entry_for,
    posture,
    read_entry,
    read_terms,
    registry_ids,
)

FRESH = "2026-08-23"
WORDS = {
    "P": "permission-cited",
    "N": "no-restriction-found",
    "R": "restriction-cited",
    "A": "authorisation-required",
    "U": "unknown",
}
COLUMNS = (
    ("classifier", "internal"),
    ("classifier", "hosted"),
    ("classifier", "distributed"),
    ("extractor", "internal"),
    ("extractor", "hosted"),
    ("extractor", "distributed"),
    ("generative", "internal"),
    ("generative", "distributed"),
)
MATRIX = {
    "openai-api": "P R R R R R R R",
    "openai-consumer": "R R R R R R R R",
    "anthropic-api": "A A A A A A A A",
    "google-gemini-api": "U U U U U U U U",
    "google-consumer": "A A A A A A A A",
    "xai-api": "A A A A A A A A",
    "qwen-chat-consumer": "A A A A A A A A",
    "microsoft-copilot-consumer": "A A A A A A A A",
    "mistral-api": "N N N N N N N N",
    "deepseek-api": "P P P P P P P P",
    "deepseek-weights": "P P P P P P P P",
    "meta-api": "R R R R R R R R",
    "llama-2": "R R R R R R A A",
    "llama-3.0": "R R R R R R A A",
    "llama-3.1": "P P+o P+o P P+o P+o P P+o",
    "gemma": "N+o N+o N+o N+o N+o N+o N+o N+o",
    "apache-2.0-weights": "N N N N N N N N",
    "qwen2.5-72b": "N+o N+o N+o N+o N+o N+o N+o N+o",
    "qwen2.5-3b": "R+o R+o R+o R+o R+o R+o R+o R+o",
    "own-answers": "N N N N N N N N",
    "apache-2.0-recording": "N N N+o N N N+o N N+o",
    "unknown": "U U U U U U U U",
    "bedrock": "U U U U U U U U",
    "azure-openai": "U U U U U U U U",
    "vertex-ai": "U U U U U U U U",
    "alibaba-cloud-api": "U U U U U U U U",
    "cohere-api": "U U U U U U U U",
    "perplexity-api": "U U U U U U U U",
    "openrouter": "U U U U U U U U",
    "together": "U U U U U U U U",
    "fireworks": "U U U U U U U U",
}


def test_every_entry_has_a_row_in_the_matrix() -> None:
    """No registry entry ships without its golden row."""
    assert set(MATRIX) == set(registry_ids())


@pytest.mark.parametrize("entry_id", MATRIX)
def test_matrix(entry_id: str) -> None:
    """Each entry gives the posture and obligations that were read out of its texts, for every use."""
    for cell, (kind, distribution) in zip(MATRIX[entry_id].split(), COLUMNS, strict=True):
        found = posture([read_entry(entry_id)], student_kind=kind, distribution=distribution, today=FRESH)
        assert (found.word, bool(found.obligations)) == (WORDS[cell[0]], cell.endswith("+o")), (kind, distribution)


@pytest.mark.parametrize("entry_id", MATRIX)
def test_entries_keep_to_the_closed_words_and_quote_little(entry_id: str) -> None:
    """Quotes have at most 40 words, effective lies before seen, each clause belongs to a document."""
    entry = read_entry(entry_id)
    keys = {d.key for d in entry.documents}
    for clause in entry.clauses:
        assert len(clause.quote.split()) <= 40
        assert clause.document in keys
        assert clause.topic in TOPICS
        assert clause.effect in EFFECTS
        assert set(clause.cancels) <= {c.ref for c in entry.clauses}
    for document in entry.documents:
        assert document.source
        assert not document.seen or document.effective <= document.seen


def test_an_old_reading_is_unknown_and_never_asks_for_less() -> None:
    """After `fresh_days` the posture is unknown; a clause that asks for an authorisation still does."""
    late = "2026-12-01"
    use = {"student_kind": "classifier", "distribution": "internal"}
    assert posture([read_entry("openai-api")], today="2026-11-20", **use).word == "permission-cited"
    assert posture([read_entry("openai-api")], today=late, **use).word == "unknown"
    assert posture([read_entry("apache-2.0-weights")], today=late, **use).word == "no-restriction-found"
    found = posture([read_entry("anthropic-api")], today=late, **use)
    assert found.word == "authorisation-required"
    assert ("terms-text",) in found.evidence


def test_layers_join_and_the_most_demanding_word_wins() -> None:
    """A reseller that nobody read makes open weights unknown, and keeps their obligations."""
    layers = [read_entry("gemma"), read_entry("unknown")]
    found = posture(layers, student_kind="classifier", distribution="internal", today=FRESH)
    assert found.word == "unknown"
    assert found.second_person
    assert "terms-copy" in found.obligations


def test_the_address_chooses_the_entry() -> None:
    """A listed host gives its entry; a look-alike host and a reseller give none."""
    assert entry_for("https://api.openai.com/v1") == "openai-api"
    assert entry_for("https://api.openai.com.evil.example/v1") is None
    assert entry_for("https://reseller.example/v1") is None


def test_student_kind_is_derived_and_never_stretched() -> None:
    """Built-in classifiers are classifiers; a language model or an unknown part makes the student generative."""
    assert student_kind(["linear.v1", "encoder.v1", "majority.v1"]) == "classifier"
    assert student_kind(["linear.v1", "causal.v1"]) == "generative"
    assert student_kind(["mine:Student"]) == "generative"
    assert student_kind(["static.v1"]) == "classifier"
    assert student_kind(["span.v1"], written=True) == "extractor"
    assert student_kind(["span.v1"]) == "generative"
    for uses in (["span.v1", "causal.v1"], ["causal.v1"], ["nearest.v1"], ["mine:Generator"], []):
        assert student_kind(uses, written=True) == "generative"


PIN = TeacherPin(use="openai.v1", provider="OpenAI", model="big-2026-05-01", revision="", base_url="https://api.openai.com/v1")
RECIPE = ClearRecipe(pin=PIN, student_kind="classifier", distribution="internal", today=FRESH)


def record(entry_id: str = "openai-api", **changes: Any) -> Terms:
    entry = read_entry(entry_id)
    good = Attestation(
        id="a-1",
        registry_id=entry_id,
        registry_digest=entry.digest,
        role="teacher",
        channel=entry.channel,
        contracting_party="Northlane Ltd",
        account_or_contract="acct-7",
        provider=PIN.provider,
        base_url=PIN.base_url,
        model=PIN.model,
        revision=PIN.revision,
        student_kind="classifier",
        distribution="internal",
        purpose="routing of our own inbox",
        statement="We sort our own messages and give the classifier to nobody outside the company.",
        attested_by=Person(name="Dana Ruiz", role="head of support tools", email="dana@northlane.example"),
        attested_on="2026-08-22",
        documents=tuple(ReadDocument(key=d.key, effective=d.effective, read_on="2026-08-22") for d in entry.documents),
        expires="2026-11-01",
    )
    return Terms(file="teacher.toml", attestation=dataclasses.replace(good, **changes), entries=(entry,))


SECOND = Person(name="Ana Vogt", role="counsel", email="ana@northlane.example")
PROOF = EvidenceFile(kind="assessment", file="a.md", sha256="ab", found="ab")


def test_a_whole_record_gives_a_clearance_that_names_everything() -> None:
    """The clearance carries posture, clause, quote, statement, person and use, and its id covers all of it."""
    made = clear(record(), RECIPE)
    assert isinstance(made, Clearance)
    assert made.posture == "permission-cited"
    assert "not distributed or made commercially available" in made.cited[0]
    assert made.attested_by == "Dana Ruiz <dana@northlane.example>"
    assert made.expires == "2026-11-01"
    other = clear(record(statement="We sort our own messages, and nobody else ever gets the classifier from us."), RECIPE)
    assert made.id != other.id
    assert made.id == clear(record(), RECIPE).id


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "expired": ({"expires": "2026-08-22"}, "expired"),
    "no expiry": ({"expires": ""}, "expires is missing"),
    "expiry too far": ({"expires": "2027-08-22"}, "at most 90 days"),
    "entry changed": ({"registry_digest": "0" * 64}, "registry_digest"),
    "no digest": ({"registry_digest": ""}, "registry_digest"),
    "older document": (
        {"documents": (ReadDocument(key="services-agreement", effective="2025-01-01", read_on="2026-08-22"),)},
        "effective now",
    ),
    "document not read": ({"documents": ()}, "services-agreement"),
    "read after attesting": (
        {"documents": (ReadDocument(key="services-agreement", effective="2026-01-01", read_on="2026-08-23"),)},
        "after the attestation",
    ),
    "other model": ({"model": "big-2026-06-01"}, "[model] model"),
    "other revision": ({"revision": "r2"}, "[model] revision"),
    "other provider": ({"provider": "Else"}, "[model] provider"),
    "other address": ({"base_url": "https://else.example/v1"}, "[model] base_url"),
    "other channel": ({"channel": "consumer"}, "channel"),
    "other kind": ({"student_kind": "embedding"}, "student_kind"),
    "other distribution": ({"distribution": "hosted"}, "distribution"),
    "strange role": ({"role": "boss"}, "role"),
    "no id": ({"id": ""}, "id is empty"),
    "no party": ({"contracting_party": " "}, "contracting_party"),
    "no account": ({"account_or_contract": ""}, "account_or_contract"),
    "no purpose": ({"purpose": ""}, "purpose"),
    "short statement": ({"statement": "We may."}, "statement"),
    "template statement": ({"statement": "<" + "your own words " * 5}, "statement"),
    "a team attests": ({"attested_by": Person(name="Support Team", role="x", email="t@x.example")}, "attested_by"),
    "no address": ({"attested_by": Person(name="Dana Ruiz", role="x", email="dana")}, "attested_by"),
    "no role of a person": ({"attested_by": Person(name="Dana Ruiz", email="d@x.example")}, "attested_by"),
    "future": ({"attested_on": "2026-09-01"}, "future"),
    "no date": ({"attested_on": "soon"}, "attested_on"),
    "evidence missing": ({"evidence": (dataclasses.replace(PROOF, found=""),)}, "is not there"),
    "evidence altered": ({"evidence": (dataclasses.replace(PROOF, found="cd"),)}, "altered"),
    "evidence of no kind": ({"evidence": (dataclasses.replace(PROOF, kind="hunch"),)}, "hunch"),
    "same second person": (
        {"second_person": Person(name="Ana", role="x", email="DANA@northlane.example")},
        "somebody else",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_record_is_refused_by_name(name: str) -> None:
    """One wrong field each: no clearance, and the message names the field."""
    changes, word = BROKEN[name]
    with pytest.raises(TermsError, match=re.escape(word)) as caught:
        clear(record(**changes), RECIPE)
    assert caught.value.exit_code == 3
    assert caught.value.what.count("\n  - ") == 1, caught.value.what


def test_all_points_are_told_at_once() -> None:
    """Three mistakes give three lines."""
    with pytest.raises(TermsError, match="3 points"):
        clear(record(id="", purpose="", role=""), RECIPE)


@pytest.mark.parametrize("model", ["gpt-latest", "big-model", "chat-latest-2026-05-01", "latest"])
def test_a_moving_alias_is_refused(model: str) -> None:
    """A model id without date, version or revision pins nothing, whatever the record says."""
    recipe = dataclasses.replace(RECIPE, pin=dataclasses.replace(PIN, model=model))
    with pytest.raises(TermsError, match="moves"):
        clear(record(model=model), recipe)


def test_a_restriction_asks_for_a_second_person_an_assessment_and_an_answer() -> None:
    """A hosted classifier on openai-api: refused bare, cleared with all three, refused where the condition holds."""
    recipe = dataclasses.replace(RECIPE, distribution="hosted")
    bare = record(distribution="hosted")
    with pytest.raises(TermsError) as caught:
        clear(bare, recipe)
    for word in ("competes-with-provider", "second_person", "assessment"):
        assert word in caught.value.what
    whole: dict[str, Any] = {
        "distribution": "hosted", "second_person": SECOND, "evidence": (PROOF,), "conditions": {"competes-with-provider": False},
    }  # fmt: skip
    assert clear(record(**whole), recipe).posture == "restriction-cited"
    with pytest.raises(TermsError, match="stands in the way"):
        clear(record(**{**whole, "conditions": {"competes-with-provider": True}}), recipe)


def outcome(terms: Terms, today: str) -> str:
    try:
        return clear(terms, dataclasses.replace(RECIPE, today=today)).posture
    except TermsError as error:
        return error.what


@pytest.mark.parametrize("expires", ["2026-11-01", "2026-11-20", "2026-08-22", ""])
@pytest.mark.parametrize("entry_id", ["openai-api", "apache-2.0-weights"])
def test_the_decisive_day_decides_as_today(entry_id: str, expires: str) -> None:
    """On every day of a year the decision is that of the decisive day, which is rarely a new one."""
    terms = record(entry_id, expires=expires)
    days = [(date(2026, 8, 1) + timedelta(days=i)).isoformat() for i in range(200)]
    decisive = {day: decisive_day(terms, day) for day in days}
    assert all(outcome(terms, day) == outcome(terms, chosen) for day, chosen in decisive.items())
    assert all(chosen <= day for day, chosen in decisive.items())
    assert len({chosen for day, chosen in decisive.items() if day >= "2026-08-22"}) <= 3


def test_an_assessment_never_replaces_an_authorisation() -> None:
    """anthropic-api asks for a contract, order form or e-mail, and takes nothing else."""
    answers: dict[str, Any] = {"second_person": SECOND, "conditions": {"competes-with-provider": False}}
    with pytest.raises(TermsError, match="order-form or contract or email-permission"):
        clear(record("anthropic-api", evidence=(PROOF,), **answers), RECIPE)
    paper = dataclasses.replace(PROOF, kind="contract")
    assert clear(record("anthropic-api", evidence=(paper,), **answers), RECIPE).posture == "authorisation-required"


def test_own_answers_need_an_attestation_too() -> None:
    """Answers of one's own pass without a second person, not without the question who wrote them."""
    pin = TeacherPin(use="recorded.v1", provider="recording", model="readers-2025-06", revision="ab12cd34")
    recipe = dataclasses.replace(RECIPE, pin=pin)
    mine = {"provider": "recording", "base_url": "", "model": pin.model, "revision": pin.revision, "expires": ""}
    with pytest.raises(TermsError, match="written-by-a-provider-model"):
        clear(record("own-answers", **mine), recipe)
    made = clear(record("own-answers", conditions={"written-by-a-provider-model": False}, **mine), recipe)
    assert (made.posture, made.expires) == ("no-restriction-found", None)


def write(folder: Path, text: str) -> Path:
    path = folder / "teacher.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_record_is_read_from_toml_with_its_evidence(tmp_path: Path) -> None:
    """Dates, tables and evidence digests arrive; an unlisted address adds the unknown layer."""
    (tmp_path / "note.md").write_bytes(b"why")
    text = 'id = "x"\nregistry_id = "openai-api"\nattested_on = 2026-08-22\n[conditions]\ncompetes_with_provider = false\n'
    text += f'[[evidence]]\nkind = "assessment"\nfile = "note.md"\nsha256 = "{hashlib.sha256(b"why").hexdigest()}"\n'
    terms = read_terms(write(tmp_path, text), base_url="https://reseller.example/v1")
    assert terms.attestation.attested_on == "2026-08-22"
    assert terms.attestation.conditions == {"competes-with-provider": False}
    assert terms.attestation.evidence[0].found == terms.attestation.evidence[0].sha256
    assert [e.id for e in terms.entries] == ["openai-api", "unknown"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("id = ", "teacher.toml"),
        ('registry_id = "openai-ap"', "openai-api"),
        ('registry_id = "openai-api"\nallowed = true', "allowed"),
        ('registry_id = "openai-api"\npurpose = 3', "purpose"),
        ('registry_id = "openai-api"\n[conditions]\nx = "no"', "true or false"),
        ('registry_id = "openai-api"\nconditions = 3', "teacher.toml"),
    ],
)
def test_a_malformed_record_is_a_terms_error(tmp_path: Path, text: str, word: str) -> None:
    """Whatever the file holds, the answer is an error that names it, never a traceback."""
    with pytest.raises(TermsError, match=re.escape(word)):
        read_terms(write(tmp_path, text))


def test_a_missing_record_says_how_to_get_one(tmp_path: Path) -> None:
    """No file: exit code 3 and the verb that writes a form."""
    with pytest.raises(TermsError) as caught:
        read_terms(tmp_path / "none.toml")
    assert "overproof init" in caught.value.next_action


def test_an_overlay_can_refresh_a_reading_but_never_drop_a_clause(tmp_path: Path) -> None:
    """A fresher date in the project's overlay ends staleness; clauses of the bundle stay; an older one is refused."""
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    form = (
        'id = "openai-api"\nprovider = "OpenAI"\nchannel = "api"\n[[document]]\nkey = "services-agreement"\n'
        'title = "OpenAI Services Agreement"\nsource = "read by us"\neffective = 2026-01-01\nseen = {}\n'
    )
    (overlay / "openai-api.toml").write_text(form.format("2026-12-01"))
    entry = read_entry("openai-api", overlay=overlay)
    use = {"student_kind": "classifier", "distribution": "internal", "today": "2026-12-20"}
    assert posture([entry], **use).word == "permission-cited"
    assert entry.clauses == read_entry("openai-api").clauses
    assert entry.digest != read_entry("openai-api").digest
    (overlay / "openai-api.toml").write_text(form.format("2026-01-01"))
    with pytest.raises(TermsError, match="older"):
        read_entry("openai-api", overlay=overlay)


FORBIDDEN = re.compile(r"\b(allowed|legal|illegal|lawful|compliant|complies|permitted|prohibited|safe to)\b", re.IGNORECASE)
ROOT = Path(str(files("overproof")))
PYTHON = [ROOT / "steps" / "clear.py", ROOT / "steps" / "terms.py", ROOT / "project.py", *sorted((ROOT / "cli").glob("*.py"))]


def hits(text: str) -> list[str]:
    return FORBIDDEN.findall(text.replace("This is not legal advice.", ""))


def test_no_printable_string_judges_the_law() -> None:
    """overproof says what a text says; the words of a judgement occur in quotations of documents only."""
    for path in PYTHON:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not hits(node.value), f"{path.name}:{node.lineno}"
    for path in [*sorted((ROOT / "templates").rglob("*.toml")), *sorted((ROOT / "templates").rglob("*.md"))]:
        assert not hits(path.read_text()), path.name
    for entry in map(read_entry, registry_ids()):
        own = [entry.note, entry.provider, *(c.says for c in entry.clauses), *(c.condition for c in entry.clauses)]
        assert not hits(" ".join(own)), entry.id


def test_the_scan_for_words_finds_them() -> None:
    """A planted word is found, in any case and in the middle of a sentence."""
    assert hits("This use is Permitted here. This is not legal advice.") == ["Permitted"]


@pytest.mark.parametrize("spoil", [lambda c: dataclasses.replace(c, quote=""), lambda c: c])
def test_a_cited_clause_is_printed_with_title_date_and_reference(spoil: Callable[[Any], Any]) -> None:
    """A quote stands in guillemets; without one the sentence says that the words are ours."""
    entry = read_entry("openai-api")
    clause = spoil(entry.clauses[1])
    line = sentence(entry.documents[0], clause)
    assert line.startswith("«OpenAI Services Agreement», effective 2026-01-01, clause «")
    assert ("says: «" in line) == bool(clause.quote)
    assert ("in our words" in line) == (not clause.quote)


def test_closed_sets_hold_what_the_matrix_uses() -> None:
    """The matrix speaks of known kinds and distributions only."""
    assert {k for k, _ in COLUMNS} <= set(STUDENT_KINDS)
    assert {d for _, d in COLUMNS} <= set(DISTRIBUTIONS)


MINILM = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def test_known_weights_bring_their_licence_and_unknown_ones_are_asked_for(tmp_path: Path) -> None:
    """The student's base is a layer of its own; weights that nobody has named a licence for stop the run."""
    path = write(tmp_path, 'id = "x"\nregistry_id = "openai-api"\n')
    known, strange = read_terms(path, weights={"encoder.v1": MINILM, "mine": "ab" * 32}).bases
    assert (known.entry.id, known.named) == ("apache-2.0-weights", "sentence-transformers/all-MiniLM-L6-v2")
    assert strange.entry is None
    made = clear(dataclasses.replace(record(), bases=(known,)), RECIPE)
    assert made.layers == ("teacher: openai-api, permission-cited", "base of encoder.v1: apache-2.0-weights, no-restriction-found")
    with pytest.raises(TermsError, match=r"'mine' stands on weights abab.*\[\[base\]\]"):
        clear(dataclasses.replace(record(), bases=(known, strange)), RECIPE)


def test_a_base_named_in_the_record_adds_its_obligations(tmp_path: Path) -> None:
    """A base under its own licence carries that licence's duties into the clearance, whatever the teacher's terms say."""
    path = write(
        tmp_path,
        f'id = "x"\nregistry_id = "openai-api"\nattested_on = 2026-08-22\n'
        f'[[base]]\nsha256 = "{"ab" * 32}"\nregistry_id = "gemma"\nread_on = 2026-08-20\n',
    )
    found = read_terms(path, weights={"mine": "ab" * 32})
    made = clear(dataclasses.replace(record(bases=found.attestation.bases), bases=found.bases), RECIPE)
    assert "terms-copy" in made.obligations
    late = dataclasses.replace(found.attestation.bases[0], read_on="2026-08-23")
    with pytest.raises(TermsError, match=r"\[\[base\]\] abab.*read_on"):
        clear(dataclasses.replace(record(bases=(late,)), bases=found.bases), RECIPE)


def test_a_listed_reseller_joins_by_its_address() -> None:
    """A reseller that the registry names is a layer beside the model's own entry."""
    assert entry_for("https://openrouter.ai/api/v1") == "openrouter"
    layers = [read_entry("deepseek-weights"), read_entry("together")]
    found = posture(layers, student_kind="classifier", distribution="internal", today="2025-11-01")
    assert [str(layer) for layer in found.layers] == [
        "teacher: deepseek-weights, permission-cited",
        "reseller: together, restriction-cited",
    ]
    assert found.word == "restriction-cited"
    assert "competes-with-reseller" in found.conditions


@pytest.mark.parametrize("scope", SCOPES)
def test_a_clearance_is_asked_again_at_every_use(scope: str) -> None:
    """A lapsed record, another kind of student and a wider circle of users each stop label, train, ship and promote."""
    made, use = clear(record(), RECIPE), {"student_kind": "classifier", "distribution": "internal"}
    recheck(made, scope=scope, today="2026-11-01", **use)
    with pytest.raises(TermsError, match=rf"can't {scope} .*ran out on 2026-11-01"):
        recheck(made, scope=scope, today="2026-11-02", **use)
    with pytest.raises(TermsError, match="distribution 'internal', the project of 'distributed'"):
        recheck(made, scope=scope, today="2026-10-01", **{**use, "distribution": "distributed"})
    with pytest.raises(TermsError, match="student kind 'classifier', the project of 'generative'"):
        recheck(made, scope=scope, today="2026-10-01", **{**use, "student_kind": "generative"})


def test_an_unknown_scope_is_a_mistake_of_the_caller() -> None:
    """A misspelt scope never counts as covered."""
    with pytest.raises(DataError, match="no scope 'shipp'"):
        recheck(clear(record(), RECIPE), scope="shipp", today="2026-10-01", student_kind="classifier", distribution="internal")
