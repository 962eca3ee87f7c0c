"""The release bundle: what it is made of, and the loader that trusts nothing in it."""

from __future__ import annotations

import json
import os
import re
import stat
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from overproof.data import Request
from overproof.errors import DataError
from overproof.measure.reading import Read, field_chances, read_columns, read_scores
from overproof.measure.scope import softmax_rows
from overproof.measure.slices import OTHER, partition
from overproof.outputs import Classes
from overproof.students import Generator, Student
from overproof.students.card import REFUSED, RELEASE, Card, SelfTest, Threshold, read_card
from overproof.students.edges import near_edge
from overproof.students.files import MAX_SETTINGS_BYTES, read_json
from overproof.students.generated import write_answers
from overproof.students.mixture import Mixture
from overproof.students.parts import load_part
from overproof.students.runtimes import STREAMS
from overproof.students.seen import Batches, Batching, Features, look_at
from overproof.students.weights import sha256_of

MANIFEST, STUDENT = "manifest.json", "student"
MAX_FILES = 64
MAX_BYTES = 4 * 2**30
# Formats that hold data and no code: a GGUF file may carry a chat template, a program in text; `llama.check_gguf` refuses it.
ENDINGS = (".json", ".npz", ".onnx", ".gguf")
Cause = Literal["confident", "unsure", "uncertified", "out_of_scope", "mixed", "expired"]
TOLERANCE = 1e-3  # the most that a self-test probability may differ on another machine


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What the bundle says to one request."""

    value: str | None
    """The canonical answer; None where the teacher has to answer."""
    confidence: float
    """Calibrated confidence of the student, in [0, 1]."""
    route: Literal["student", "teacher"]
    cause: Cause
    """Why this route, in one word for counting."""
    reason: str
    """Why this route, one sentence."""
    slice: str
    """The slice whose threshold was used."""
    guess: str | None
    """What the student would say; not certified where the route is the teacher. None where it has nothing to say."""
    fields: Mapping[str, float] = field(default_factory=dict)
    """For records: the chance, in [0, 1], that each field says what the teacher would say, by the field's own calibrator; as the student
    states it in a bundle that carries none. Nothing is certified by it."""


class Bundle:
    """
    A released student with its thresholds. `load_bundle` makes one.

    Args:
        card: what `release.json` says.
        student: the loaded student.
        mixture: what looks for messages that are put together; needed where the card has rules on it.
    """

    def __init__(self, card: Card, student: Student | Generator, mixture: Mixture | None = None) -> None:
        self.card = card
        self._student, self._mixture = student, mixture
        self._slices = tuple(one.slice for one in card.thresholds if one.slice.name != OTHER)
        self._batches = student if isinstance(student, Batches) else None
        self.batching = self._batches.batching if self._batches else Batching()
        """How its requests go together when it serves."""

    def sizes(self, requests: Sequence[Request]) -> Sequence[int]:
        """Length of each request in the student's unit; in characters where it has none."""
        return self._batches.sizes(requests) if self._batches else [len(request.text) for request in requests]

    def _look(self, requests: Sequence[Request], slices: Sequence[str]) -> _Look:
        how, output = self.card.confidence, self.card.output
        if not isinstance(output, Classes):
            written = write_answers(cast("Generator", self._student), output, requests)
            read = read_columns(how, written.columns, slices=slices)
            answered = np.array([value is not None for value in written.values], dtype=bool)
            read = replace(read, confidence=np.where(answered, read.confidence, 0.0))
            return _Look(guesses=written.values, read=read, fields=written.fields)
        seen = look_at(cast("Student", self._student), requests, self._mixture if how.mixed else None)
        logits: NDArray[np.float64] = np.asarray(seen.logits, dtype=np.float64)
        if logits.shape != (len(requests), len(output.labels)) or not np.isfinite(logits).all():
            raise DataError(f"student {self.card.candidate!r} gave scores that can't be read", next_action=REFUSED)
        columns = {name: np.asarray(column, dtype=np.float64) for name, column in seen.columns.items()}
        guesses = tuple(output.labels[at] for at in logits.argmax(axis=1))
        chances = softmax_rows(logits / how.everywhere.temperature)
        read = read_scores(how, logits, slices=slices, columns=columns)
        return _Look(guesses=guesses, read=read, chances=chances, logits=logits, columns=columns)

    def answer(
        self, fields: Mapping[str, str], attributes: Mapping[str, str] | None = None, *, today: date | None = None
    ) -> Answer:
        """
        Answer one request, or say that the teacher has to.

        Args:
            fields: exactly the task's input fields.
            attributes: what slices are cut by; a missing one is in no slice that asks for it.
            today: the day that the certificate's end is held against; by default that of the clock, in UTC.

        Returns: the answer with its route and the reason; after the certificate's end the teacher's, whatever the
            confidence, unless the bundle was packed to warn only.
        Raises: DataError for other fields.
        """
        return self.answers([Request(id="", fields=fields, attributes=attributes or {})], today=today)[0]

    def answers(self, requests: Sequence[Request], *, today: date | None = None) -> list[Answer]:
        """
        Answer many requests in one pass, each as `answer` would: where padding could have moved a row over an edge, the
        row is looked at again by itself.

        Args:
            requests: any number, each with exactly the task's input fields.
            today: see `answer`.

        Returns: one answer each; a confidence may differ in the sixth digit from that of the request alone.
        Raises: DataError for other fields.
        """
        if not requests:
            return []
        known = [self._request(one.fields, one.attributes) for one in requests]
        part = partition(self._slices, known)
        places = part.index.tolist()
        look = self._look(known, [part.names[at] for at in places])
        ended = self.card.ended(today)
        sure, foreign = look.read.confidence.tolist(), look.read.foreign.tolist()
        found = [
            self._answer(look, row, self.card.thresholds[at], sure=sure[row], foreign=foreign[row], ended=ended)
            for row, at in enumerate(places)
        ]
        if len(known) > 1 and self._batches and look.logits is not None:
            least = np.array([one.threshold if one.threshold is not None else np.inf for one in self.card.thresholds])[part.index]
            for row in near_edge(self.card.confidence, look.logits, look.columns, look.read.confidence, least).nonzero()[0].tolist():
                found[row] = self.answers([known[row]], today=today)[0]
        return found

    def _answer(self, look: _Look, row: int, bar: Threshold, *, sure: float, foreign: bool, ended: str) -> Answer:
        name, threshold, guess = bar.slice.name, bar.threshold, look.guesses[row]
        cause: Cause
        if look.read.mixed[row]:
            cause, reason = "mixed", f"mixed: the message looks put together (by {', '.join(rule.score for rule in self.card.confidence.mixed)})"
        elif foreign:
            rules = ", ".join(rule.score for rule in self.card.confidence.scope)
            cause, reason = "out_of_scope", f"out_of_scope: the request looks foreign to the task (by {rules})"
        elif guess is None:
            cause, reason = "unsure", "the student has no answer"
        elif threshold is None:
            cause, reason = "uncertified", f"no threshold is certified for slice {name!r}"
        else:
            cause, sign = ("confident", ">=") if sure >= threshold else ("unsure", "<")
            reason = f"confidence {sure:.4f} {sign} {threshold:.4f}, the threshold of slice {name!r}"
        if ended:
            reason = f"{ended}; {reason}" if self.card.on_expiry == "warn" else ended
            cause = cause if self.card.on_expiry == "warn" else "expired"
        kept = cause == "confident"
        return Answer(
            value=guess if kept else None, confidence=sure, route="student" if kept else "teacher", cause=cause,
            reason=reason, slice=name, guess=guess, fields=self._chances(look.fields[row]) if look.fields else {},
        )  # fmt: skip

    def _chances(self, odds: Mapping[str, float]) -> dict[str, float]:
        return {name: float(field_chances(self.card.confidence, name, np.array([value]))[0]) for name, value in odds.items()}

    def decide(self, requests: Sequence[Request]) -> tuple[str | None, ...]:
        """
        Answer many requests as on a day before the certificate's end, without the words.

        Args:
            requests: any number.

        Returns: the student's canonical answer to each, None where the teacher has to answer.
        """
        part = partition(self._slices, requests)
        look = self._look(requests, [part.names[i] for i in part.index])
        # no confidence reaches a threshold that isn't there
        least = np.array([np.inf if one.threshold is None else one.threshold for one in self.card.thresholds])
        kept = (look.read.confidence >= least[part.index]) & ~look.read.foreign
        return tuple(guess if keep else None for guess, keep in zip(look.guesses, kept, strict=True))

    def features(self, requests: Sequence[Request]) -> NDArray[np.float32] | None:
        """
        Where requests lie for the student, by vectors of its own.

        Args:
            requests: any number.

        Returns: shape (n, d); None where it has no such vectors.
        """
        return self._student.features(requests) if isinstance(self._student, Features) else None

    def slices_of(self, requests: Sequence[Request]) -> list[str]:
        """
        The slice whose threshold holds for each request.

        Args:
            requests: any number.

        Returns: one name each, out of the card's thresholds.
        """
        part = partition(self._slices, requests)
        return [part.names[at] for at in part.index]

    def _request(self, fields: Mapping[str, str], attributes: Mapping[str, str]) -> Request:
        names = self.card.input
        if set(fields) != set(names) or not all(isinstance(value, str) for value in fields.values()):
            raise DataError(
                f"task {self.card.task!r} takes the text fields {', '.join(map(repr, names))}, "
                f"got {', '.join(map(repr, fields)) or 'none'}",
                next_action="give every input field as a string, and nothing else",
            )
        return Request(id="", fields={name: fields[name] for name in names}, attributes=dict(attributes))

    def probe(self, texts: Sequence[str]) -> tuple[SelfTest, ...]:
        """
        What the student says to texts of ours, for the self-test of another machine.

        Args:
            texts: each goes into the first input field, the others stay empty.

        Returns: one row each.
        """
        inputs = [{name: text if at == 0 else "" for at, name in enumerate(self.card.input)} for text in texts]
        look = self._look([self._request(fields, {}) for fields in inputs], [OTHER] * len(inputs))
        return tuple(
            SelfTest(fields=fields, value=guess, probability=float(sure))
            for fields, guess, sure in zip(inputs, look.guesses, look.read.confidence, strict=True)
        )

    def check(self) -> None:
        """
        Run the self-test: the student must say here what it said where it was packed.

        Raises: DataError.
        """
        rows = self.card.selftest
        requests = [self._request(row.fields, {}) for row in rows]
        look = self._look(requests, [OTHER] * len(rows))
        for at, row in enumerate(rows):
            got = float(look.read.confidence[at])
            if abs(got - row.probability) > TOLERANCE or not self._says(look, at, row.value):
                raise DataError(
                    f"self-test: {row.value!r:.80} has confidence {row.probability:.4f} where the bundle was packed, "
                    f"{look.guesses[at]!r:.80} has {got:.4f} here",
                    next_action="compare the versions of onnxruntime, tokenizers and numpy with the packing machine's",
                )

    def _says(self, look: _Look, at: int, value: str | None) -> bool:
        guess = look.guesses[at]
        if guess is None or value is None:
            return guess is value
        if look.chances is None:
            return self.card.output.equal(guess, value)
        row = look.chances[at]
        return float(row.max() - row[self.card.labels.index(value)]) <= 2 * TOLERANCE  # two labels may be level


@dataclass(frozen=True, kw_only=True, slots=True)
class _Look:
    guesses: tuple[str | None, ...]
    read: Read
    fields: tuple[Mapping[str, float], ...] = ()
    chances: NDArray[np.float64] | None = None
    logits: NDArray[np.float64] | None = None
    columns: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


def load_bundle(folder: Path | str, *, manifest_sha256: str | None = None, streams: int = 1) -> Bundle:
    """
    Load a release bundle after checking every file, and run its self-test.

    Args:
        folder: the bundle.
        manifest_sha256: digest that `manifest.json` must have, where you hold one from a trusted place; it pins
            every other file.
        streams: threads that will ask it at the same time.

    Returns: the bundle, ready to answer.
    Raises: DataError for a file that is missing, extra, changed, linked or of a format that could run code, and for
        a self-test that fails; MissingExtra.
    """
    root = Path(folder)
    verify_files(root, manifest_sha256=manifest_sha256)
    card = read_card(root / RELEASE)
    if ":" in card.use:
        raise DataError(
            f"{RELEASE}: student {card.use!r} names code by module, which a bundle must not do", next_action=REFUSED
        )
    before = STREAMS.set(streams)
    try:
        student = load_part(card.use, root / STUDENT, None if isinstance(card.output, Classes) else card.output)
    finally:
        STREAMS.reset(before)
    if isinstance(card.output, Classes) and tuple(getattr(student, "labels", ())) != card.labels:
        raise DataError(f"{RELEASE} and the student have different labels", next_action=REFUSED)
    if not isinstance(card.output, Classes) and getattr(student, "output", None) != card.output:
        raise DataError(f"{RELEASE} and the student have different outputs", next_action=REFUSED)
    bundle = Bundle(card, student, Mixture.load(root / STUDENT) if card.confidence.mixed else None)
    bundle.check()
    if ended := card.ended():
        then = "it goes on as asked for" if card.on_expiry == "warn" else "every request is the teacher's"
        warnings.warn(f"{ended}: {then}; run `overproof run` on newer traffic", RuntimeWarning, stacklevel=2)
    return bundle


def verify_files(root: Path, *, manifest_sha256: str | None = None) -> None:
    """
    Compare a bundle's files with its manifest.

    Args:
        root: the bundle.
        manifest_sha256: see `load_bundle`.

    Raises: DataError.
    """
    found = _walk(root)
    if MANIFEST not in found or RELEASE not in found:
        raise DataError(f"{str(root)!r} is no bundle: {MANIFEST} or {RELEASE} is missing", next_action=REFUSED)
    if manifest_sha256 is not None and sha256_of(root / MANIFEST) != manifest_sha256:
        raise DataError(f"{MANIFEST} has another SHA-256 than the one given", next_action=REFUSED)
    listed = _read_manifest(root / MANIFEST)
    extra = sorted(set(found) - set(listed) - {MANIFEST})
    missing = sorted(set(listed) - set(found))
    if extra or missing:
        raise DataError(
            f"{str(root)!r}: files not in {MANIFEST}: {extra[:3]!r}; files missing: {missing[:3]!r}",
            next_action=REFUSED,
        )
    for path, entry in listed.items():
        if found[path] != entry["size"] or sha256_of(root / path) != entry["sha256"]:
            raise DataError(f"{path!r} is not the file that {MANIFEST} names", next_action=REFUSED)


def _walk(root: Path) -> dict[str, int]:
    """Relative path to size of every file; refuses links and anything that is no file or folder."""
    found: dict[str, int] = {}
    if not root.is_dir() or root.is_symlink():
        raise DataError(f"{str(root)!r} is not a folder", next_action="give the folder that holds release.json")
    pending = [root]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                path = Path(entry.path)
                if stat.S_ISDIR(status.st_mode):
                    pending.append(path)
                elif stat.S_ISREG(status.st_mode):
                    found[path.relative_to(root).as_posix()] = status.st_size
                else:
                    raise DataError(f"{path.name!r} is a link or no plain file", next_action=REFUSED)
                if len(found) + len(pending) > MAX_FILES:
                    raise DataError(f"{str(root)!r} holds more than {MAX_FILES} files", next_action=REFUSED)
    if sum(found.values()) > MAX_BYTES:
        raise DataError(f"{str(root)!r} holds more than {MAX_BYTES} bytes", next_action=REFUSED)
    return found


def _read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    raw = read_json(path, max_bytes=MAX_SETTINGS_BYTES)
    listed: dict[str, dict[str, Any]] = {}
    if not isinstance(raw, list) or not all(map(_is_entry, raw)):
        raise DataError(f"{MANIFEST} is malformed", next_action=REFUSED)
    for entry in raw:
        name = entry["path"]
        if problem := problem_of(name):
            raise DataError(f"{MANIFEST} names {name[:100]!r}: {problem}", next_action=REFUSED)
        if name in listed or name == MANIFEST:
            raise DataError(f"{MANIFEST} names {name!r} twice, or itself", next_action=REFUSED)
        listed[name] = entry
    # As one of us writes it, to the byte: a manifest is what a digest or a signature is over, and spaces are bytes too.
    spelled = (json.dumps(raw), json.dumps(raw, separators=(",", ":")) + "\n")
    if path.read_bytes().decode() not in spelled:  # no line end is translated
        raise DataError(f"{MANIFEST} is not spelled as it was written", next_action=REFUSED)
    return listed


def _is_entry(raw: Any) -> bool:
    types = {"path": str, "size": int, "sha256": str}
    return isinstance(raw, dict) and {key: type(value) for key, value in raw.items()} == types


def problem_of(path: str) -> str:
    """
    Why a file may not be in a bundle.

    Args:
        path: relative path with slashes.

    Returns: one phrase, empty where it may.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.\-]+(/[A-Za-z0-9_.\-]+)*", path):
        return "not a relative path of letters, digits, '_', '-', '.'"
    if {".", ".."} & set(path.split("/")):
        return "it leaves its folder"
    if not path.endswith(ENDINGS):
        return f"only {', '.join(ENDINGS)} may be in a bundle"
    return ""


def manifest_of(root: Path) -> list[dict[str, Any]]:
    """
    The manifest of a folder's files.

    Args:
        root: a folder without a manifest.

    Returns: path, size and SHA-256 of every file, by path.
    Raises: DataError for a file that may not be in a bundle.
    """
    entries = []
    for path, size in sorted(_walk(root).items()):
        if problem := problem_of(path):
            raise DataError(
                f"{path!r} can't go into a bundle: {problem}",
                next_action="let the student write its files in one of these formats",
            )
        entries.append({"path": path, "size": size, "sha256": sha256_of(root / path)})
    return entries
