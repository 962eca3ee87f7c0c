"""What a release says of itself: `release.json`, written once and read as if a stranger had written it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast, get_args

from overproof.errors import DataError
from overproof.evidence import (
    Calibrator,
    CalibratorMethod,
    Confidence,
    FieldCalibrator,
    ScopeRule,
    SliceCalibrator,
)
from overproof.measure.reading import ODDS
from overproof.measure.slices import OTHER
from overproof.outputs import Classes, Fields, Output, kind_of, output_of
from overproof.students.files import read_json, write_json
from overproof.students.generated import canonical
from overproof.students.normalise import NORMALISER, NORMALISERS
from overproof.students.seen import REPETITION, TWO_ANSWERS
from overproof.task import Slice

RELEASE = "release.json"
FORMAT = "overproof.bundle.v3"
FORMAT_2 = "overproof.bundle.v2"  # labels only; still read
FORMAT_1 = "overproof.bundle.v1"  # one temperature, no out-of-scope rules; still read
MOST_SELFTESTS = 64  # loading answers them all
REFUSED = "do not use this bundle; fetch it again from where it was released"


@dataclass(frozen=True, kw_only=True, slots=True)
class Threshold:
    """Where the student may answer in one slice."""

    slice: Slice
    """The last one is "other" and admits every request."""
    threshold: float | None
    """Least confidence at which the student answers; None: the teacher answers all of the slice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfTest:
    """An input and what the student says to it, on the machine that packed it."""

    fields: Mapping[str, str]
    value: str | None
    """The canonical answer; None where the student has none."""
    probability: float
    """Confidence in `value`, as calibrated for requests of no slice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """What `release.json` says."""

    task: str
    input: tuple[str, ...]
    """Names of the input fields, in order."""
    output: Output
    """What an answer is."""
    candidate: str
    """Shown name of the student."""
    use: str
    """Part name that loads the student."""
    confidence: Confidence
    """How the student's scores are read, out-of-scope rules included; the same that the certificate rests on."""
    thresholds: tuple[Threshold, ...]
    """In the order in which slices are tried, "other" last."""
    label_kind: str
    """What the certificate's errors are counted against: "gold" or "teacher:<model>"."""
    plan_hash: str
    """Names the plan that the thresholds were certified under."""
    expires: str
    """ISO date, the last day on which the certificate holds."""
    selftest: tuple[SelfTest, ...]
    on_expiry: Literal["refuse", "warn"] = "refuse"
    """After that day: "refuse" leaves every request to the teacher, "warn" goes on and says so."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in order; none for records and texts."""
        return self.output.labels

    def ended(self, today: date | None = None) -> str:
        """
        Whether the certificate has ended.

        Args:
            today: the day; by default that of the clock, in UTC.

        Returns: a clause, or an empty text while it holds.
        """
        day = today or datetime.now(UTC).date()
        return f"the certificate ended on {self.expires}" if day.isoformat() > self.expires else ""


def write_card(path: Path, card: Card) -> None:
    """
    Write `release.json`, the same bytes for the same card.

    Args:
        path: the file.
        card: what it says.
    """
    write_json(path, _raw_of(card))


def _raw_of(card: Card) -> dict[str, Any]:
    confidence = dataclasses.asdict(card.confidence)
    if not card.confidence.fields:
        del confidence["fields"]  # as cards were written before fields had readings
    if not card.confidence.mixed:
        del confidence["mixed"]
    return {
        "format": FORMAT,
        "normaliser": NORMALISER,
        "task": card.task,
        "input": list(card.input),
        "output": [[key, [*form.items()] if key == "fields" else form] for key, form in kind_of(card.output).items()],
        "candidate": card.candidate,
        "use": card.use,
        "confidence": confidence,
        "slices": [
            {
                "name": one.slice.name,
                "where": [[name, list(values)] for name, values in one.slice.where],
                "threshold": one.threshold,
            }
            for one in card.thresholds
        ],
        "label_kind": card.label_kind,
        "plan_hash": card.plan_hash,
        "expires": card.expires,
        "on_expiry": card.on_expiry,
        "selftest": [
            {"fields": dict(row.fields), "value": row.value, "probability": row.probability} for row in card.selftest
        ],
    }


def read_card(path: Path) -> Card:
    """
    Read `release.json`.

    Args:
        path: the file.

    Returns: what it says.
    Raises: DataError for anything that is missing, of another type or out of range.
    """
    raw = read_json(path)
    try:
        card = _card_of(raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{RELEASE} is malformed: {error}", next_action=REFUSED) from error
    again = {**_raw_of(card), "normaliser": raw["normaliser"]}  # any known one
    if raw["format"] == FORMAT and json.loads(json.dumps(again)) != raw:  # nothing in it is passed over
        raise DataError(f"{RELEASE} is malformed: it says other things than this version writes", next_action=REFUSED)
    return card


def _card_of(raw: Any) -> Card:
    if raw["format"] not in (FORMAT, FORMAT_2, FORMAT_1) or raw["normaliser"] not in NORMALISERS:
        raise ValueError(f"format {raw['format']!r} with normaliser {raw['normaliser']!r} is not known here")
    thresholds = tuple(_threshold_of(one) for one in raw["slices"])
    names = [one.slice.name for one in thresholds]
    if not names or names[-1] != OTHER or len(set(names)) != len(names) or thresholds[-1].slice.where:
        raise ValueError(f"slices must have different names and end in {OTHER!r}, which admits all")
    output = _output_of(raw)
    if len(raw["selftest"]) > MOST_SELFTESTS:
        raise ValueError(f"more than {MOST_SELFTESTS} self-tests")
    return Card(
        task=_text(raw["task"]),
        input=_texts(raw["input"]),
        output=output,
        candidate=_text(raw["candidate"]),
        use=_text(raw["use"]),
        confidence=replace(confidence_from(raw, names), fields=_fields_of(raw.get("confidence", {}), output)),
        thresholds=thresholds,
        label_kind=_text(raw["label_kind"]),
        plan_hash=_text(raw["plan_hash"]),
        expires=date.fromisoformat(_text(raw["expires"])).isoformat(),
        on_expiry=_one_of(raw.get("on_expiry", "refuse")),
        selftest=tuple(_selftest_of(row, output) for row in raw["selftest"]),
    )


def _threshold_of(raw: Any) -> Threshold:
    where = tuple((_text(name), _texts(values)) for name, values in raw["where"])
    if any(name == "label" for name, _ in where):
        raise ValueError("nothing can be routed by the label")
    value = None if raw["threshold"] is None else _between(raw["threshold"], -1.0, 1.0)
    return Threshold(slice=Slice(name=_text(raw["name"]), where=where), threshold=value)


def _selftest_of(raw: Any, output: Output) -> SelfTest:
    fields = {_text(name): _text(value) for name, value in raw["fields"].items()}
    value = raw["value"] if "value" in raw else raw["label"]
    if value is not None or isinstance(output, Classes):
        known = value in output.labels if isinstance(output, Classes) else canonical(output, _text(value))
        if not known:
            raise ValueError(f"self-test answer {str(value)[:80]!r} is none of the task's")
    return SelfTest(fields=fields, value=value, probability=_between(raw["probability"], 0.0, 1.0))


def _output_of(raw: Any) -> Output:
    if raw["format"] != FORMAT:
        labels = _texts(raw["labels"])
        if len(set(labels)) != len(labels) or len(labels) < 2:
            raise ValueError("labels must be different, at least two")
        return Classes(labels=labels)
    try:
        [[kind, form]] = raw["output"]
        return output_of({kind: dict(form) if kind == "fields" else form})  # pairs: files sort their keys, and fields have an order
    except DataError as error:
        raise ValueError(error.what) from error


def confidence_from(raw: Any, names: Sequence[str]) -> Confidence:
    """
    How a card's student is read.

    Args:
        raw: what `release.json` holds.
        names: its slices.

    Returns: the reading; version 1 has one temperature and no rules.
    Raises: KeyError, TypeError, ValueError for anything of another type, out of range or of another slice.
    """
    if raw["format"] == FORMAT_1:
        temperature = _between(raw["temperature"], 1e-6, 1e6)
        return Confidence(everywhere=Calibrator(method="temperature", temperature=temperature))
    found = raw["confidence"]
    own = tuple(
        SliceCalibrator(slice=_text(one["slice"]), calibrator=_calibrator_of(one["calibrator"])) for one in found["own"]
    )
    if not {one.slice for one in own} <= set(names):
        raise ValueError("a slice that is not there has a calibrator of its own")
    scope, mixed = _rules_of(found["scope"]), _rules_of(found.get("mixed", []))
    if not {rule.score for rule in mixed} <= {TWO_ANSWERS, REPETITION}:
        raise ValueError("a message that is put together is known by two_answers or repetition")
    return Confidence(everywhere=_calibrator_of(found["everywhere"]), own=own, scope=scope, mixed=mixed)


def _rules_of(raw: Any) -> tuple[ScopeRule, ...]:
    return tuple(ScopeRule(score=_text(rule["score"]), threshold=_between(rule["threshold"], -1e9, 1e9)) for rule in raw)


def _fields_of(raw: Mapping[str, Any], output: Output) -> tuple[FieldCalibrator, ...]:
    found = tuple(FieldCalibrator(field=_text(one["field"]), calibrator=_calibrator_of(one["calibrator"])) for one in raw.get("fields", []))
    order = [one.name for one in output.fields] if isinstance(output, Fields) else []
    if [one.field for one in found] != [name for name in order if name in {one.field for one in found}]:
        raise ValueError("the readings of fields are not those of the task's fields, each once and in order")
    if any((one.calibrator.method, one.calibrator.inputs) != ("platt", (ODDS,)) for one in found):
        raise ValueError("a field is read by the student's log-odds of it alone")
    return found


def _calibrator_of(raw: Any) -> Calibrator:
    method = _text(raw["method"])
    if method not in get_args(CalibratorMethod):
        raise ValueError(f"calibrator {method!r} is not known here")
    lists = {key: tuple(_between(v, -1e12, 1e12) for v in raw[key]) for key in ("mean", "scale", "weight", "stated", "observed")}
    inputs = _texts(raw["inputs"])
    weighted, stepped = method in ("platt", "head"), method in ("isotonic", "venn-abers")
    steps = 2 * len(lists["stated"]) + 1 if method == "venn-abers" else len(lists["stated"])
    fits = len(lists["mean"]) == len(lists["scale"]) == len(inputs) and len(lists["observed"]) == steps
    rising = all(a < b for a, b in pairwise(lists["stated"]))
    if not fits or not rising or len(lists["weight"]) != weighted * (len(inputs) + 1) or any(v <= 0 for v in lists["scale"]):
        raise ValueError(f"the numbers of calibrator {method!r} don't belong together")
    if bool(inputs) != weighted or bool(lists["stated"]) != stepped or any(not 0 <= v <= 1 for v in lists["observed"]):
        raise ValueError(f"the numbers of calibrator {method!r} are not its own")
    temperature = _between(raw["temperature"], 1e-6, 1e6)
    return Calibrator(method=cast("CalibratorMethod", method), temperature=temperature, inputs=inputs, n=int(_between(raw["n"], 0, 1e12)), **lists)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} is not a text")
    return value


def _one_of(value: Any) -> Literal["refuse", "warn"]:
    if value not in ("refuse", "warn"):
        raise ValueError(f"on_expiry {str(value)[:40]!r} is neither 'refuse' nor 'warn'")
    return "warn" if value == "warn" else "refuse"


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{str(value)[:40]!r} is not a list of texts")
    return tuple(_text(one) for one in value)


def _between(value: Any, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ValueError(f"{str(value)[:40]!r} is not a number from {least:g} to {most:g}")
    if not math.isfinite(value):
        raise ValueError("a number is not finite")
    return float(value)
