"""Permission to teach: checks the attestation against the registry, the pin and the use; the only maker of a `Clearance`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from overproof.data import Clearance, TeacherPin, digest_of
from overproof.errors import DataError, TermsError
from overproof.project import is_person, moving_model
from overproof.steps.terms import (
    CHANNELS,
    DISTRIBUTIONS,
    EVIDENCE_KINDS,
    PERMISSIONS,
    ROLES,
    SERVICE_CHANNELS,
    STUDENT_KINDS,
    Attestation,
    Clause,
    Document,
    Entry,
    Person,
    Posture,
    Terms,
    posture,
)
from overproof.store.artifacts import Step

MIN_STATEMENT = 40
SCOPES = ("label", "train", "ship", "promote")
SERVICE_DAYS = 90
CONTRACT_DAYS = 365
DISCLAIMER = "This is not legal advice."


@dataclass(frozen=True, kw_only=True, slots=True)
class ClearRecipe:
    """The use that the attestation has to cover."""

    pin: TeacherPin
    student_kind: str
    """One of governance's kinds; derived by `student_kind`, never typed by the user."""
    distribution: str
    """"internal", "hosted" or "distributed"."""
    today: str
    """ISO date: the later of the wall clock and the newest stored time."""


def student_kind(uses: Sequence[str], *, written: bool = False) -> str:
    """
    The kind of student that terms speak of, from the parts that will learn from the answers.

    Args:
        uses: part names, for example ("linear.v1", "encoder.v1").
        written: the answers are records or texts, which a part that is no extractor gives back as the teacher wrote them.

    Returns: "classifier" for the built-in classifiers, "extractor" for encoders that point at the words of a text;
        "generative" as soon as one part is a language model or not known, since no clause is stretched in the reader's favour.
    """
    known = re.compile(r"span\.v\d+" if written else r"(linear|static|encoder|majority|nearest|ngram)\.v\d+")
    if not uses or not all(known.fullmatch(use) for use in uses):
        return "generative"
    return "extractor" if written else "classifier"


def clear(terms: Terms, recipe: ClearRecipe) -> Clearance:
    """
    Check an attestation and mint the permission to use a teacher's answers.

    Args:
        terms: the attestation and the registry entries that bind the teacher.
        recipe: the exact teacher and the use.

    Returns: the clearance that `teach` asks for.
    Raises: TermsError listing every point at which the record falls short.
    """
    found = posture(
        terms.entries,
        student_kind=recipe.student_kind,
        distribution=recipe.distribution,
        today=recipe.today,
        bases=terms.bases,
    )
    record = terms.attestation
    problems = [
        *_identity(record, recipe),
        *_registry(record, terms.entries, recipe),
        *_bases(terms),
        *_conditions(record, found),
        *_people(record, found),
        *_evidence(record, found),
        *_dates(record, recipe),
    ]
    if problems:
        lines = "\n".join(f"  - {p}" for p in problems)
        count = f"{len(problems)} point{'s' if len(problems) != 1 else ''}"
        raise TermsError(
            f"{terms.file} doesn't cover this use ({recipe.student_kind}, {recipe.distribution}; "
            f"posture of the texts: {found.word}): {count}\n{lines}",
            next_action=f"mend {terms.file}; `overproof show terms` prints the clauses and what they ask for",
        )
    return _mint(terms, recipe, found)


def recheck(clearance: Clearance, *, scope: str, today: str, student_kind: str, distribution: str) -> None:
    """
    Ask again, at the moment of use, whether a clearance still covers it.

    Args:
        clearance: as minted, perhaps long ago.
        scope: one of `SCOPES`: what is about to happen.
        today: ISO date: the later of the wall clock and the newest stored time.
        student_kind: of the student at hand.
        distribution: of the student at hand; a student of labels cleared for own use can't be handed on.

    Raises: TermsError naming each point at which it falls short; DataError for an unknown scope.
    """
    if scope not in SCOPES:
        raise DataError(f"no scope {scope!r}; there are {', '.join(SCOPES)}", next_action="name what is about to happen")
    if short := shortfalls(clearance, today=today, student_kind=student_kind, distribution=distribution):
        raise TermsError(
            f"can't {scope} under {clearance.record or 'the clearance'!r}: " + "; ".join(short),
            next_action="renew the attestation in the terms record, then run again; nothing is lost meanwhile",
        )


def shortfalls(clearance: Clearance, *, today: str, student_kind: str, distribution: str) -> list[str]:
    """
    Points at which a clearance doesn't cover a use.

    Args:
        clearance: as minted.
        today: ISO date.
        student_kind: of the student.
        distribution: of the student.

    Returns: one clause for each; empty where it covers the use.
    """
    found = []
    if clearance.expires is not None and clearance.expires < today:
        found.append(f"the attestation ran out on {clearance.expires}")
    found.extend(
        f"the attestation speaks of {named} {attested!r}, the project of {wanted!r}"
        for named, attested, wanted in (
            ("student kind", clearance.student_kind, student_kind),
            ("distribution", clearance.distribution, distribution),
        )
        if attested != wanted
    )
    return found


def decisive_day(terms: Terms, today: str) -> str:
    """
    The last day on which what `clear` says could have changed; a recipe with it is the same until the next such day.

    Args:
        terms: the attestation and its entries.
        today: ISO date.

    Returns: an ISO date, not after `today`, on which `clear` decides as it does today.
    """
    record, after = terms.attestation, timedelta(days=1)
    days = {record.attested_on, *(d.read_on for d in record.documents)}
    if _is_date(record.expires):
        days.add((date.fromisoformat(record.expires) + after).isoformat())
    entries = [*terms.entries, *(b.entry for b in terms.bases if b.entry is not None)]
    for document in (d for e in entries for d in e.documents if d.seen and d.fresh_days):
        days.add((date.fromisoformat(document.seen) + timedelta(days=document.fresh_days) + after).isoformat())
    return max((day for day in days if _is_date(day) and day <= today), default=today)


def _mint(terms: Terms, recipe: ClearRecipe, found: Posture) -> Clearance:
    record = terms.attestation
    draft = Clearance(
        id="",
        pin=recipe.pin,
        registry_id="+".join(e.id for e in terms.entries),
        registry_digest=registry_digest(terms.entries),
        posture=found.word,
        cited=tuple(sentence(document, clause) for document, clause in found.cited),
        obligations=found.obligations,
        attested_by=f"{record.attested_by.name} <{record.attested_by.email}>",
        attested_on=record.attested_on,
        expires=record.expires or None,
        statement=record.statement,
        student_kind=recipe.student_kind,
        distribution=recipe.distribution,
        record=record.id,
        supersedes=record.supersedes,
        layers=tuple(str(layer) for layer in found.layers),
    )
    return dataclasses.replace(draft, id=digest_of(dataclasses.asdict(draft)))


def sentence(document: Document, clause: Clause) -> str:
    """
    A clause as every page and the terminal print it.

    Args:
        document: the text it stands in.
        clause: the clause.

    Returns: title, date, reference, and the quote or, where none is at hand, our words marked as such.
    """
    dated = f", effective {document.effective}" if document.effective else ""
    words = f"says: «{clause.quote}»" if clause.quote else f"in our words: {clause.says}"
    return f"«{document.title}»{dated}, clause «{clause.ref}», {words}."


def registry_digest(entries: Sequence[Entry]) -> str:
    """
    What a record has to carry to say which state of the registry it was written against.

    Args:
        entries: every entry that binds the teacher, at least one.

    Returns: SHA-256 in hexadecimal.
    """
    return entries[0].digest if len(entries) == 1 else digest_of([e.digest for e in entries])


def _identity(record: Attestation, recipe: ClearRecipe) -> Iterable[str]:
    pin = recipe.pin
    if not record.id:
        yield "id is empty; give the record a name of its own"
    if why := moving_model(pin.model, pin.revision):
        yield why
    pairs = [
        ("[model] provider", record.provider, pin.provider),
        ("[model] base_url", record.base_url.rstrip("/"), pin.base_url.rstrip("/")),
        ("[model] model", record.model, pin.model),
        ("[model] revision", record.revision, pin.revision),
        ("[use] student_kind", record.student_kind, recipe.student_kind),
        ("[use] distribution", record.distribution, recipe.distribution),
    ]
    for key, got, expected in pairs:
        if got != expected:
            yield f"{key} is {got!r}, but the project uses {expected!r}"
    closed = [
        ("role", record.role, ROLES),
        ("channel", record.channel, CHANNELS),
        ("[use] student_kind", record.student_kind, STUDENT_KINDS),
        ("[use] distribution", record.distribution, DISTRIBUTIONS),
    ]
    for key, got, words in closed:
        if got not in words:
            yield f"{key} is {got!r}; it is one of {', '.join(words)}"
    for key in ("contracting_party", "account_or_contract", "purpose"):
        if not getattr(record, key).strip():
            yield f"{key} is empty"


def _registry(record: Attestation, entries: Sequence[Entry], recipe: ClearRecipe) -> Iterable[str]:
    digest = registry_digest(entries)
    names = " + ".join(e.id for e in entries)
    if record.registry_digest != digest:
        yield (
            f"registry_digest is {record.registry_digest[:16] or 'empty'}, but the entry {names} is now {digest}: "
            f"read it again, then write this digest"
        )
    fits = record.channel == entries[0].channel or (record.channel == "order-form" and entries[0].channel == "api")
    if not fits:
        yield f"channel is {record.channel!r}, but the entry {entries[0].id!r} is about {entries[0].channel!r}"
    read = {d.key: d for d in record.documents}
    for document in (d for e in entries for d in e.documents):
        mine = read.get(document.key)
        if mine is None:
            yield f"no [[document]] with key {document.key!r} («{document.title}»): name every text that you read"
            continue
        if document.effective and mine.effective < document.effective:
            yield f"document {document.key!r}: you read the text of {mine.effective or 'no date'}, effective now is {document.effective}"
        if not _is_date(mine.read_on) or mine.read_on > recipe.today:
            yield f"document {document.key!r}: read_on is {mine.read_on!r}; write the day on which you read it"


def _bases(terms: Terms) -> Iterable[str]:
    for base in terms.bases:
        if base.entry is None:
            yield (
                f"student {base.student!r} stands on weights {base.sha256[:16]}…, whose licence nobody has named: "
                f"add [[base]] with sha256, registry_id and read_on"
            )
    for read in terms.attestation.bases:
        if not _is_date(read.read_on) or read.read_on > terms.attestation.attested_on:
            yield f"[[base]] {read.sha256[:16]}…: read_on is {read.read_on!r}; write the day on which you read the licence"


def _conditions(record: Attestation, found: Posture) -> Iterable[str]:
    permission = any(e.kind in PERMISSIONS and e.found and e.found == e.sha256 for e in record.evidence)
    for name in found.conditions:
        answer = record.conditions.get(name)
        if answer is None:
            yield f"[conditions] {name} is not answered; write true or false"
        elif answer and not permission:
            yield f"[conditions] {name} = true: the clause stands in the way, and no evidence of a permission is attached"


def _people(record: Attestation, found: Posture) -> Iterable[str]:
    words = record.statement.strip()
    if len(words) < MIN_STATEMENT or words.startswith("<"):
        yield f"statement has {len(words)} characters of its own; at least {MIN_STATEMENT}, in the attestor's words"
    yield from _person("attested_by", record.attested_by)
    if not found.second_person and record.second_person is None:
        return
    second = record.second_person
    if second is None:
        yield f"second_person is missing; the posture {found.word} asks for one"
        return
    yield from _person("second_person", second)
    first = record.attested_by
    if second.name.casefold() == first.name.casefold() or second.email.casefold() == first.email.casefold():
        yield "second_person is the attestor; it has to be somebody else, with another e-mail address"


def _person(key: str, person: Person) -> Iterable[str]:
    if why := is_person(person.name, person.email):
        yield f"{key}: {why}"
    if not person.role.strip():
        yield f"{key}: role is empty"


def _evidence(record: Attestation, found: Posture) -> Iterable[str]:
    good = set()
    for item in record.evidence:
        if item.kind not in EVIDENCE_KINDS:
            yield f"evidence {item.file!r}: kind {item.kind!r} is none of {', '.join(EVIDENCE_KINDS)}"
        elif not item.found:
            yield f"evidence {item.file!r} is not there"
        elif item.found != item.sha256:
            yield f"evidence {item.file!r} was altered: sha256 is {item.found}, the record says {item.sha256 or 'nothing'}"
        else:
            good.add(item.kind)
    for kinds in found.evidence:
        if not good & set(kinds):
            yield f"evidence of kind {' or '.join(kinds)} is missing; the posture {found.word} asks for it"


def _dates(record: Attestation, recipe: ClearRecipe) -> Iterable[str]:
    if not _is_date(record.attested_on):
        yield f"attested_on is {record.attested_on!r}; write an ISO date"
        return
    if record.attested_on > recipe.today:
        yield f"attested_on is {record.attested_on}, which lies in the future"
    late = [d.key for d in record.documents if d.read_on > record.attested_on]
    if late:
        yield f"document {late[0]!r} was read after the attestation"
    service = record.channel in SERVICE_CHANNELS
    if not record.expires:
        if service:
            yield f"expires is missing; at most {SERVICE_DAYS} days after attested_on for a service"
        return
    if not _is_date(record.expires):
        yield f"expires is {record.expires!r}; write an ISO date"
        return
    if record.expires < recipe.today:
        yield f"expired on {record.expires}"
    paper = record.channel == "order-form" or any(e.kind in ("order-form", "contract") for e in record.evidence)
    days = CONTRACT_DAYS if paper else SERVICE_DAYS
    last = date.fromisoformat(record.attested_on) + timedelta(days=days)
    if service and date.fromisoformat(record.expires) > last:
        yield f"expires is {record.expires}; at most {days} days after attested_on, so {last.isoformat()}"


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


CLEAR = Step(name="clear", version=2, fn=clear)
