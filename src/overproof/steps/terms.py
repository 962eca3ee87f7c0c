"""Facts about terms of use: registry entries, the posture of their text, and the attestation record as it was written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from overproof.data import digest_of
from overproof.errors import TermsError
from overproof.registry import suggest

STUDENT_KINDS = ("classifier", "embedding", "extractor", "generative")
DISTRIBUTIONS = ("internal", "hosted", "distributed")
CHANNELS = ("api", "consumer", "order-form", "open-weights", "reseller", "own")
ROLES = ("teacher", "judge", "augmenter", "base", "answered-log")
TOPICS = ("train-on-output", "publish-benchmark", "reverse-engineer", "field-of-use")
EFFECTS = ("restricts", "requires-authorisation", "excepts", "grants", "obliges")
POSTURES = (  # most demanding first
    "authorisation-required",
    "unknown",
    "restriction-cited",
    "permission-cited",
    "no-restriction-found",
)
PERMISSIONS = ("order-form", "contract", "email-permission")
EVIDENCE_KINDS = (*PERMISSIONS, "assessment", "terms-text")
SERVICE_CHANNELS = ("api", "consumer", "reseller", "order-form")
BASES = "bases.json"
OWN_HARDWARE = "runs-on-hardware-of-others"


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One text that binds a channel, as it was read."""

    key: str
    title: str
    source: str
    """Where the text was read."""
    updated: str = ""
    effective: str = ""
    """ISO date; empty where the text names none."""
    seen: str = ""
    """ISO date of the reading."""
    text_sha256: str = ""
    fresh_days: int = 90
    """How long a reading is trusted; 0 where a licence is bound to a revision of weights."""
    read: bool = True
    """False where nobody has read the text: its posture is unknown."""
    newer_known: str = ""
    """Date of a later version that is known to exist and was not read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clause:
    """One clause that bears on answers of the model."""

    document: str
    ref: str
    topic: str
    effect: str
    says: str
    """Our own words."""
    quote: str = ""
    """The clause's words, at most 40."""
    condition: str = ""
    """The state in which the clause stands in the way; the attestor says whether it holds."""
    cancels: tuple[str, ...] = ()
    """References of clauses that this one sets aside where it matches."""
    students: tuple[str, ...] = ()
    """Student kinds that it speaks of; empty for all."""
    distributions: tuple[str, ...] = ()
    """Distributions that it speaks of; empty for all."""
    obligation: str = ""

    def matches(self, student_kind: str, distribution: str) -> bool:
        """True iff the clause speaks of this use."""
        kinds, ways = self.students or STUDENT_KINDS, self.distributions or DISTRIBUTIONS
        return student_kind in kinds and distribution in ways


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What is known about the terms of one channel to one provider."""

    id: str
    provider: str
    channel: str
    documents: tuple[Document, ...]
    clauses: tuple[Clause, ...]
    base_urls: tuple[str, ...] = ()
    """Addresses that choose this entry."""
    region: str = ""
    note: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 over all that the entry says."""
        return digest_of(dataclasses.asdict(self))


@dataclass(frozen=True, kw_only=True, slots=True)
class Base:
    """Frozen weights that a student stands on, and the entry that their licence falls under."""

    student: str
    """Shown name of the student."""
    sha256: str
    """SHA-256 of the weights."""
    entry: Entry | None
    """None where neither the record nor the bundled list names a licence for these weights."""
    named: str = ""
    """The weights' published name, where it is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One entry that binds the use, in one role."""

    role: str
    """One of `ROLES`."""
    entry: str
    """Registry id."""
    word: str
    """What its texts alone say, one of `POSTURES`."""
    about: str = ""
    """What the layer is about, where the role doesn't say it: the student whose base it is."""

    def __str__(self) -> str:
        """For example "base of encoder.v1: apache-2.0-weights, no-restriction-found"."""
        return f"{self.role}{f' of {self.about}' if self.about else ''}: {self.entry}, {self.word}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Posture:
    """What the texts say about one use; speaks of text only."""

    word: str
    """One of `POSTURES`."""
    cited: tuple[tuple[Document, Clause], ...]
    evidence: tuple[tuple[str, ...], ...]
    """Each item is satisfied by a file of any of its kinds."""
    second_person: bool
    obligations: tuple[str, ...]
    conditions: tuple[str, ...]
    """Questions that the attestor has to answer with true or false."""
    layers: tuple[Layer, ...] = ()
    """Each entry by itself: the teacher's, a reseller's, those of the students' bases."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """Somebody who answers for a statement."""

    name: str = ""
    role: str = ""
    email: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadDocument:
    """A document that the attestor read."""

    key: str = ""
    title: str = ""
    effective: str = ""
    url: str = ""
    text_sha256: str = ""
    read_on: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvidenceFile:
    """A file that backs an attestation."""

    kind: str = ""
    file: str = ""
    sha256: str = ""
    covers: str = ""
    found: str = ""
    """SHA-256 of the file as it is on disk; empty where it is missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadBase:
    """The licence of frozen weights, as the attestor read it."""

    sha256: str = ""
    registry_id: str = ""
    read_on: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attestation:
    """The record that a person wrote: what they read, for which model and use, and what they conclude."""

    id: str = ""
    registry_id: str = ""
    registry_digest: str = ""
    role: str = ""
    channel: str = ""
    contracting_party: str = ""
    account_or_contract: str = ""
    provider: str = ""
    base_url: str = ""
    model: str = ""
    revision: str = ""
    student_kind: str = ""
    distribution: str = ""
    purpose: str = ""
    field_of_use: str = ""
    regions: tuple[str, ...] = ()
    statement: str = ""
    attested_by: Person = field(default_factory=Person)
    attested_on: str = ""
    second_person: Person | None = None
    documents: tuple[ReadDocument, ...] = ()
    conditions: Mapping[str, bool] = field(default_factory=dict)
    evidence: tuple[EvidenceFile, ...] = ()
    bases: tuple[ReadBase, ...] = ()
    expires: str = ""
    supersedes: tuple[str, ...] = ()
    """Ids of earlier records whose labels this one takes over."""
    ends: str = ""
    """ISO date on which the provider stops serving the model; empty where none is known."""
    ends_source: str = ""
    """Where that date was read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """Input of the clear step: the attestation and every registry entry that binds the teacher's address."""

    file: str
    """Name of the attestation file, for messages."""
    attestation: Attestation
    entries: tuple[Entry, ...]
    """The entry that the attestation names first, then further layers, for example a reseller's."""
    bases: tuple[Base, ...] = ()
    """Frozen weights that the students stand on."""


def registry_ids() -> list[str]:
    """Ids of the bundled entries, sorted."""
    return sorted(item.name.removesuffix(".toml") for item in _folder().iterdir() if item.name.endswith(".toml"))


def read_entry(entry_id: str, *, overlay: Path | None = None) -> Entry:
    """
    One registry entry, with the project's own readings laid over it.

    Args:
        entry_id: for example "openai-api".
        overlay: folder that may hold a file of the same name with fresher dates or further documents and clauses.

    Returns: the entry; no clause of the bundled one is ever missing from it.
    Raises: TermsError for an unknown id or a malformed file.
    """
    if entry_id not in registry_ids():
        raise TermsError(
            f"no terms entry named {entry_id!r}. {suggest(entry_id, registry_ids())}",
            next_action="set registry_id in the terms record to one of the names above",
        )
    entry = _entry(tomllib.loads((_folder() / f"{entry_id}.toml").read_text(encoding="utf-8")), entry_id)
    path = overlay / f"{entry_id}.toml" if overlay else None
    if path is None or not path.is_file():
        return entry
    own = _entry(_toml(path), path.name)
    documents = {d.key: d for d in entry.documents}
    for document in own.documents:
        old = documents.get(document.key)
        if old and max(old.seen, old.effective) > max(document.seen, document.effective):
            raise TermsError(
                f"{path.name}: document {document.key!r} is older than the bundled reading of {old.seen or old.effective}",
                next_action="remove it from the overlay, or read the newer text",
            )
        documents[document.key] = document
    known = {(c.document, c.ref) for c in entry.clauses}
    added = tuple(c for c in own.clauses if (c.document, c.ref) not in known)
    return dataclasses.replace(entry, documents=tuple(documents.values()), clauses=entry.clauses + added)


def entry_for(base_url: str) -> str | None:
    """
    The entry that lists an address.

    Args:
        base_url: the teacher's address.

    Returns: an entry id, or None where no entry lists the address.
    """
    host = urlsplit(base_url).hostname
    for entry_id in registry_ids():
        if host and host in {urlsplit(url).hostname for url in read_entry(entry_id).base_urls}:
            return entry_id
    return None


def posture(
    entries: Sequence[Entry], *, student_kind: str, distribution: str, today: str, bases: Sequence[Base] = ()
) -> Posture:
    """
    What the texts say about one use, over all documents and layers: the most demanding word wins.

    Args:
        entries: every entry that binds the teacher: the model's first, then for example a reseller's.
        student_kind: one of `STUDENT_KINDS`.
        distribution: one of `DISTRIBUTIONS`.
        today: ISO date.
        bases: frozen weights that the students stand on.

    Returns: the posture, with the clauses it cites and what an attestation has to bring.
    """
    words: list[str] = []
    cited: list[tuple[Document, Clause]] = []
    obligations: list[str] = []
    conditions: list[str] = []
    layers: list[Layer] = []
    bound = [("teacher" if i == 0 else "reseller", "", "train-on-output", e) for i, e in enumerate(entries)]
    bound += [("base", b.student, "field-of-use", b.entry) for b in bases if b.entry is not None]
    for role, about, topic, entry in bound:
        own: list[str] = []
        for document in entry.documents:
            mine = [c for c in entry.clauses if c.document == document.key and c.matches(student_kind, distribution)]
            gone = {ref for c in mine if c.effect == "excepts" for ref in c.cancels}
            mine = [c for c in mine if c.ref not in gone]
            own += _words(document, mine, today, topic=topic)
            speaking = [c for c in mine if c.topic == topic and c.effect != "obliges"]
            cited += [(document, c) for c in speaking]
            obligations += [c.obligation for c in mine if c.obligation]
            conditions += [c.condition for c in (mine if role != "base" else speaking) if c.condition]
        words += own
        layers.append(Layer(role=role, entry=entry.id, word=min(own or ["unknown"], key=POSTURES.index), about=about))
    word = min(words or ["unknown"], key=POSTURES.index)
    return Posture(
        word=word,
        cited=tuple(cited),
        evidence=_demanded(words),
        second_person=POSTURES.index(word) < POSTURES.index("permission-cited"),
        obligations=tuple(dict.fromkeys(obligations)),
        conditions=tuple(dict.fromkeys(conditions)),
        layers=tuple(layers),
    )


def _demanded(words: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    demanded: list[tuple[str, ...]] = []
    if "authorisation-required" in words:
        demanded.append(PERMISSIONS)
    if "unknown" in words or not words:
        demanded += [("terms-text",), ("assessment",)]
    if "restriction-cited" in words:
        demanded.append(("assessment", *PERMISSIONS))
    return tuple(dict.fromkeys(demanded))


def _words(document: Document, clauses: list[Clause], today: str, *, topic: str) -> list[str]:
    words = []
    stale = document.fresh_days and (
        not document.seen or (date.fromisoformat(today) - date.fromisoformat(document.seen)).days > document.fresh_days
    )
    if not document.read or stale or document.newer_known > max(document.effective, document.updated):
        words.append("unknown")
    effects = {c.effect for c in clauses if c.topic == topic}
    if "requires-authorisation" in effects:  # an old reading never asks for less than a fresh one
        words.append("authorisation-required")
    elif "restricts" in effects:
        words.append("restriction-cited")
    elif effects & {"excepts", "grants"}:
        words.append("permission-cited")
    else:
        words.append("no-restriction-found")
    return words


def read_terms(path: Path, *, base_url: str = "", weights: Mapping[str, str] = MappingProxyType({})) -> Terms:
    """
    Read a terms record with the entries that it falls under; judges nothing yet.

    Args:
        path: the attestation, a TOML file; evidence files and `overlay/` lie beside it.
        base_url: the teacher's address; empty for recorded answers.
        weights: student name to the SHA-256 of the frozen weights that it stands on.

    Returns: everything that `clear` needs, with the digests of the evidence as found on disk.
    Raises: TermsError if the file is missing or malformed, or names an unknown entry.
    """
    if not path.is_file():
        raise TermsError(
            f"no terms record at {path.name!r}: nobody has vouched for the use of this teacher's answers",
            next_action=f"run `overproof init --terms ENTRY` to get one to fill in, then save it as {path.name}",
        )
    raw = _toml(path)
    try:
        attestation = _attestation(raw, path.parent)
    except (TypeError, ValueError, AttributeError) as error:
        raise TermsError(f"{path.name} can't be read: {error}", next_action="compare it with docs/terms.md") from error
    overlay = path.parent / "overlay"
    named = read_entry(attestation.registry_id, overlay=overlay)
    listed = entry_for(base_url)
    layers = [named]
    if listed is not None and listed != named.id:
        layers.append(read_entry(listed, overlay=overlay))
    elif base_url and listed is None and not _runs_here(base_url, attestation) and named.id != "unknown":
        layers.append(read_entry("unknown", overlay=overlay))
    bases = tuple(_base(name, sha256, attestation, overlay) for name, sha256 in sorted(weights.items()))
    return Terms(file=path.name, attestation=attestation, entries=tuple(layers), bases=bases)


def _base(student: str, sha256: str, attestation: Attestation, overlay: Path) -> Base:
    """What the record says of the weights, else what the bundled list says."""
    known = {item["sha256"]: item for item in json.loads((_folder() / BASES).read_text(encoding="utf-8"))}
    listed = known.get(sha256, {})
    entry_id = next((b.registry_id for b in attestation.bases if b.sha256 == sha256), listed.get("entry"))
    entry = read_entry(entry_id, overlay=overlay) if entry_id else None
    return Base(student=student, sha256=sha256, entry=entry, named=listed.get("name", ""))


def _runs_here(base_url: str, attestation: Attestation) -> bool:
    """Weights of one's own on a machine of one's own have no reseller in between."""
    if attestation.channel not in ("open-weights", "own"):
        return False
    host = urlsplit(base_url).hostname or ""
    return host in ("localhost", "127.0.0.1", "::1") or attestation.conditions.get(OWN_HARDWARE) is False


def _folder() -> Any:
    return files("overproof") / "terms"


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TermsError(f"{path.name}: {error}", next_action=f"mend the TOML of {path.name}") from error


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v.isoformat()[:10] if isinstance(v, date) else v for k, v in table.items()}


def _entry(raw: Mapping[str, Any], name: str) -> Entry:
    closed = {"topic": TOPICS, "effect": EFFECTS}
    clauses = []
    for table in raw.get("clause", []):
        when = table.get("when", {})
        rest: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items() if k != "when"}
        clause = Clause(**rest, students=tuple(when.get("student", ())), distributions=tuple(when.get("distribution", ())))
        words = [(clause.topic, TOPICS), (clause.effect, EFFECTS)]
        words += [(w, STUDENT_KINDS) for w in clause.students] + [(w, DISTRIBUTIONS) for w in clause.distributions]
        for word, known in words:
            if word not in known or set(when) - {"student", "distribution"}:
                raise TermsError(
                    f"{name}: unknown word {word!r} in clause {clause.ref!r}. {suggest(word, list(known))}",
                    next_action=f"use the closed words of docs/terms.md ({', '.join(closed)}, when)",
                )
        clauses.append(clause)
    scalars: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items() if k not in ("document", "clause")}
    documents = tuple(Document(**_plain(table)) for table in raw.get("document", []))
    return Entry(**scalars, documents=documents, clauses=tuple(clauses))


def _attestation(raw: Mapping[str, Any], folder: Path) -> Attestation:
    table = _plain(raw)
    nested = {**_plain(table.pop("model", {})), **_plain(table.pop("use", {}))}
    nested["regions"] = tuple(nested.get("regions", ()))
    nested.setdefault("revision", nested.pop("fingerprint", ""))
    second = table.pop("second_person", None)
    conditions = {k.replace("_", "-"): v for k, v in table.pop("conditions", {}).items()}
    if bad := [k for k, v in conditions.items() if not isinstance(v, bool)]:
        raise ValueError(f"condition {bad[0]!r} must be true or false")
    earlier = table.pop("supersedes", ())
    evidence = tuple(
        EvidenceFile(**_plain(item), found=_sha256(folder / str(item.get("file", "")))) for item in table.pop("evidence", [])
    )
    record = Attestation(
        attested_by=Person(**table.pop("attested_by", {})),
        second_person=Person(**second) if second else None,
        documents=tuple(ReadDocument(**_plain(item)) for item in table.pop("document", [])),
        conditions=conditions,
        evidence=evidence,
        bases=tuple(ReadBase(**_plain(item)) for item in table.pop("base", [])),
        supersedes=tuple(v for v in ((earlier,) if isinstance(earlier, str) else earlier) if v),
        **nested,
        **table,
    )
    texts = [f.name for f in dataclasses.fields(record) if f.type == "str" and not isinstance(getattr(record, f.name), str)]
    if texts:
        raise ValueError(f"{texts[0]!r} must be text in quotes")
    if record.ends:
        date.fromisoformat(record.ends)
        if not record.ends_source.strip():
            raise ValueError("ends without ends_source: say where the date was read")
    return record


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
