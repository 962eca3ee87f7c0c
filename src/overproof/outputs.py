"""What an answer is: one of a closed set of labels, a record of fields, or a short text."""

from __future__ import annotations

import datetime as dt
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, get_args

from overproof.errors import DataError

SUPPORTED_OUTPUTS = ("classes", "fields", "text")
MEND = "mend [task] output in the project file"
FieldType = Literal["text", "number", "date", "choice"]
TextMetric = Literal["chrf", "exact"]
CHRF_ORDER, CHRF_BETA = 6, 2.0  # Popović 2015: six character n-grams, recall counts twice


def normal_label(text: str) -> str:
    """
    Fold what models vary when they name a label: case, width, white space, underscores, quotes, a full stop.

    Args:
        text: a label, or a model's raw answer.

    Returns: the folded text; two labels of one task must not fold to the same text.
    """
    folded = unicodedata.normalize("NFKC", text).casefold().strip().strip("\"'`*.").strip()
    return re.sub(r"[\s_\-]+", " ", folded)


@dataclass(frozen=True, kw_only=True, slots=True)
class Classes:
    """An answer that is one of a closed set of labels."""

    labels: tuple[str, ...]
    """The labels, at least two, none folding to another (see `normal_label`)."""

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for label in self.labels:
            folded = normal_label(label)
            if not folded:
                raise DataError(f"label {label!r} is empty", next_action="remove it from [task] output.classes")
            if folded in seen:
                raise DataError(
                    f"labels {seen[folded]!r} and {label!r} are the same once case and punctuation are folded",
                    next_action="keep one of them in [task] output.classes",
                )
            seen[folded] = label
        if len(self.labels) < 2:
            raise DataError(
                f"a classification task needs at least two labels, got {list(self.labels)!r}",
                next_action="name every label in [task] output.classes",
            )

    def parse(self, text: str) -> str:
        """
        The label that a raw model answer names.

        Args:
            text: raw answer; the label alone, or a JSON object or string with the label as its only value.

        Returns: one of `labels`.
        Raises: DataError if the answer names no label.
        """
        table = {normal_label(label): label for label in self.labels}
        found = table.get(normal_label(text))
        if found is None and text.lstrip()[:1] in ("{", '"'):
            found = table.get(normal_label(_only_value(text)))
        if found is None:
            raise DataError(
                f"answer {text[:80]!r} names none of the {len(self.labels)} labels",
                next_action="look at the prompt, or add the label to [task] output.classes",
            )
        return found

    def equal(self, left: str, right: str) -> bool:
        """True iff both are the same label."""
        return normal_label(left) == normal_label(right)

    def json_schema(self) -> dict[str, Any]:
        """A JSON Schema that admits the labels and nothing else."""
        return {"type": "string", "enum": list(self.labels)}


def _only_value(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        return ""
    if isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))
    return value if isinstance(value, str) else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One named part of a record."""

    name: str
    type: FieldType = "text"
    """"text" verbatim, "number" as a decimal, "date" as YYYY-MM-DD, "choice" one of `values`."""
    values: tuple[str, ...] = ()
    """For "choice"."""
    optional: bool = False
    """True where null is an answer."""

    def read(self, value: Any) -> Any:
        """
        One raw value in its normal form.

        Args:
            value: what JSON gave.

        Returns: a string, for "number" a `Decimal`, or None.
        Raises: DataError.
        """
        if value is None or (self.optional and isinstance(value, str) and not value.strip()):
            if self.optional:
                return None
            raise self._unfit(value, "a value")
        if self.type == "number":
            return self._number(value)
        if not isinstance(value, str) or not value.strip():
            raise self._unfit(value, "a text")
        text = value.strip()
        if not _writable(text):
            raise self._unfit(value, "text that UTF-8 can write")
        if self.type == "date":
            try:
                return dt.date.fromisoformat(text).isoformat()
            except ValueError:
                raise self._unfit(value, "a date as YYYY-MM-DD") from None
        if self.type == "choice":
            found = {normal_label(one): one for one in self.values}.get(normal_label(text))
            if found is None:
                raise self._unfit(value, f"one of {', '.join(self.values)}")
            return found
        return text

    def _number(self, value: Any) -> Decimal:
        try:
            number = Decimal(str(value).strip()) if not isinstance(value, bool) else Decimal("nan")
        except InvalidOperation:
            number = Decimal("nan")
        if not number.is_finite() or abs(number.adjusted()) > 300:  # what a float can still hold
            raise self._unfit(value, "a finite number")
        return number

    def _unfit(self, value: Any, expected: str) -> DataError:
        return DataError(f"field {self.name!r}: got {value!r:.80}, expected {expected}", next_action="look at the prompt, or mend [task] output.fields")

    def equal(self, left: Any, right: Any) -> bool:
        """
        Whether two values say the same.

        Args:
            left: as `read` or the canonical JSON gives it.
            right: likewise.

        Returns: for numbers the same amount, for all others the same text once case, width and white space are folded.
        """
        if left is None or right is None:
            return left is right
        if self.type == "number":
            return Decimal(str(left)) == Decimal(str(right))
        return _folded(left) == _folded(right)

    def json_schema(self) -> dict[str, Any]:
        """A JSON Schema of this field alone."""
        found: dict[str, Any] = {"type": "number" if self.type == "number" else "string"}
        if self.type == "date":
            found["format"] = "date"
        if self.optional:
            found["type"] = [found["type"], "null"]
        if self.type == "choice":
            found["enum"] = [*self.values, None] if self.optional else list(self.values)
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Fields:
    """An answer that is a record: a JSON object with exactly these keys."""

    fields: tuple[Field, ...]
    """In the order in which answers are written."""
    labels: tuple[str, ...] = ()
    """Always empty: what asks for labels finds none."""

    def __post_init__(self) -> None:
        names = [field.name for field in self.fields]
        if not names or len(set(names)) < len(names) or not all(names):
            raise DataError(f"[task] output.fields has the names {names!r}, expected at least one and no two alike", next_action=MEND)
        for field in self.fields:
            if field.type == "choice" and not 2 <= len({normal_label(value) for value in field.values}) == len(field.values):
                raise DataError(f"field {field.name!r} is a choice of {list(field.values)!r}, expected two or more, no two alike", next_action=MEND)

    def parse(self, text: str) -> str:
        """
        The record that a raw model answer holds, in canonical form.

        Args:
            text: one JSON object, alone or in one fenced block; other keys than the fields' are refused.

        Returns: JSON with every field in order, numbers as plain decimals, dates as YYYY-MM-DD, absent ones null.
        Raises: DataError that names the field.
        """
        fenced = re.fullmatch(r"\s*```(?:json)?\s*(.*?)\s*```\s*", text, re.DOTALL)
        try:
            raw = json.loads(fenced[1] if fenced else text, parse_float=Decimal, object_pairs_hook=_no_twice)
        except (ValueError, RecursionError):
            raise DataError(f"answer {text[:80]!r} is no JSON object", next_action="look at the prompt") from None
        if not isinstance(raw, dict):
            raise DataError(f"answer {text[:80]!r} is no JSON object", next_action="look at the prompt")
        strange = sorted(set(raw) - {field.name for field in self.fields})
        if strange:
            raise DataError(f"answer has the unknown field {strange[0]!r}", next_action="look at the prompt, or add it to [task] output.fields")
        return self.write({field.name: field.read(raw.get(field.name)) for field in self.fields})

    def write(self, values: Mapping[str, Any]) -> str:
        """
        The canonical form of a record.

        Args:
            values: name to value as `Field.read` gives it; absent ones are null.

        Returns: JSON on one line.
        """
        shown = {
            field.name: None if (value := values.get(field.name)) is None else _plain(value) if isinstance(value, Decimal) else value
            for field in self.fields
        }
        parts = (f"{json.dumps(name)}: {value if isinstance(value, _Plain) else json.dumps(value, ensure_ascii=False)}" for name, value in shown.items())
        return "{" + ", ".join(parts) + "}"

    def values(self, canonical: str) -> dict[str, Any]:
        """
        The values of a record.

        Args:
            canonical: what `parse` returned.

        Returns: name to string, `Decimal` or None.
        """
        return dict(json.loads(canonical, parse_float=Decimal, parse_int=Decimal))

    def compare(self, left: str, right: str) -> tuple[bool, ...]:
        """
        Field by field, whether two records say the same.

        Args:
            left: canonical.
            right: canonical.

        Returns: one a field, in order.
        """
        one, other = self.values(left), self.values(right)
        return tuple(field.equal(one.get(field.name), other.get(field.name)) for field in self.fields)

    def equal(self, left: str, right: str) -> bool:
        """True iff every field says the same."""
        return left == right or all(self.compare(left, right))

    def json_schema(self) -> dict[str, Any]:
        """A JSON Schema that admits these records and nothing else."""
        return {
            "type": "object",
            "properties": {field.name: field.json_schema() for field in self.fields},
            "required": [field.name for field in self.fields],
            "additionalProperties": False,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """An answer that is a short text; two answers count as one where they are similar enough."""

    metric: TextMetric = "chrf"
    """"chrf" compares character n-grams, "exact" the text with case and white space folded."""
    same_at: float = 0.8
    """From this similarity on, in (0, 1], two texts count as the same answer."""
    max_chars: int = 2000
    """Longer answers are refused."""
    labels: tuple[str, ...] = ()
    """Always empty: what asks for labels finds none."""

    def __post_init__(self) -> None:
        given: tuple[Any, Any] = (self.same_at, self.max_chars)  # a project file may say anything
        sound = isinstance(given[0], int | float) and 0 < given[0] <= 1 and type(given[1]) is int and given[1] >= 1
        if self.metric not in get_args(TextMetric) or not sound:
            raise DataError(
                f"[task] output.text: metric {self.metric!r}, same_at {self.same_at!r}, max_chars {self.max_chars!r}; expected "
                f"{' or '.join(get_args(TextMetric))}, a number in (0, 1], at least 1", next_action=MEND)

    def parse(self, text: str) -> str:
        """
        A raw model answer without white space around it.

        Args:
            text: any.

        Returns: the text.
        Raises: DataError for an empty or overlong one.
        """
        found = text.strip()
        if not found or len(found) > self.max_chars or not _writable(found):
            raise DataError(f"answer of {len(found)} characters, expected 1 to {self.max_chars} that UTF-8 can write", next_action="look at the prompt, or raise [task] output.text.max_chars")
        return found

    def similarity(self, left: str, right: str) -> float:
        """
        How alike two texts are.

        Args:
            left: any text.
            right: any text.

        Returns: in [0, 1], the same both ways.
        """
        if self.metric == "exact" or _folded(left) == _folded(right):
            return float(_folded(left) == _folded(right))
        return (chrf(left, right) + chrf(right, left)) / 2

    def equal(self, left: str, right: str) -> bool:
        """True iff the two are similar enough to count as one answer."""
        return left == right or self.similarity(left, right) >= self.same_at

    def json_schema(self) -> dict[str, Any]:
        """A JSON Schema that admits texts of the right length."""
        return {"type": "string", "minLength": 1, "maxLength": self.max_chars}


Output = Classes | Fields | Text


def chrf(answer: str, reference: str) -> float:
    """
    Character n-gram F-score.

    Args:
        answer: the text that is judged.
        reference: what it is compared with.

    Returns: in [0, 1]; 1 for the same characters, white space apart.
    Source: Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation", equation 1, averaged over orders.
    """
    a, b = "".join(answer.split()), "".join(reference.split())
    scores = []
    for order in range(1, CHRF_ORDER + 1):
        ours, theirs = (Counter(text[i : i + order] for i in range(len(text) - order + 1)) for text in (a, b))
        if not ours and not theirs:
            break
        shared = sum((ours & theirs).values())
        precision, recall = (shared / max(1, sum(grams.values())) for grams in (ours, theirs))
        weighed = CHRF_BETA**2 * precision + recall
        scores.append((1 + CHRF_BETA**2) * precision * recall / weighed if weighed else 0.0)
    return sum(scores) / len(scores) if scores else 1.0


class _Plain(str):
    """Digits that go into JSON as they are."""

    __slots__ = ()


def _plain(value: Decimal) -> _Plain:
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return _Plain("0" if text in ("-0", "") else text)


def alike(output: Fields | Text | None, answers: Sequence[str]) -> list[str]:
    """
    Answers of which those that say the same are the same string, so that they can be counted.

    Args:
        output: what the answers are; None for labels, which are spelled alike already.
        answers: canonical, in order.

    Returns: for each the first of the answers that it equals; similarity is no equivalence, so order decides there.
    """
    if output is None:
        return list(answers)
    found: list[str] = []
    for answer in answers:
        found.append(next((one for one in dict.fromkeys(found) if output.equal(one, answer)), answer))
    return found


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", str(text)).casefold().split())


def _writable(text: str) -> bool:
    """No half of a surrogate pair: JSON escapes can say one, no file can hold it."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def output_of(kind: Mapping[str, Any]) -> Output:
    """
    The output kind that `[task] output` describes.

    Args:
        kind: one key: `classes` with a list of labels; `fields` with name to "text", "number", "date" (each with "?" at the
            end where null is an answer) or a list of choices; `text` with `metric`, `same_at`, `max_chars`.

    Returns: the output kind.
    Raises: DataError for another kind, labels that can't be told apart, or a type that there is not.
    """
    name, value = next(iter(kind.items()), ("", None))
    if len(kind) == 1 and name == "classes" and isinstance(value, list | tuple):
        return Classes(labels=tuple(value))
    if len(kind) == 1 and name == "fields" and isinstance(value, Mapping):
        return Fields(fields=tuple(_field(key, form) for key, form in value.items()))
    if len(kind) == 1 and name == "text" and isinstance(value, Mapping):
        strange = sorted(set(value) - {"metric", "same_at", "max_chars"})
        if strange:
            raise DataError(f"[task] output.text has no key {strange[0]!r}", next_action="use metric, same_at, max_chars")
        return Text(**value)
    raise DataError(
        f"[task] output is {dict(kind)!r:.120}; expected one of {', '.join(SUPPORTED_OUTPUTS)}",
        next_action='write output = { classes = ["one", "two"] }, { fields = { order_id = "text?" } } or { text = { same_at = 0.8 } }',
    )


def _field(name: str, form: Any) -> Field:
    if isinstance(form, list | tuple) and all(isinstance(one, str) for one in form):
        values = tuple(one for one in form if one != "?")
        return Field(name=name, type="choice", values=values, optional="?" in form)
    types = [one for one in get_args(FieldType) if one != "choice"]
    if not isinstance(form, str) or form.removesuffix("?") not in types:
        raise DataError(
            f"[task] output.fields: {name} = {form!r}, expected one of {', '.join(types)}, with ? where null is an answer, or a list of choices",
            next_action=MEND,
        )
    found: Any = form.removesuffix("?")
    return Field(name=name, type=found, optional=form.endswith("?"))


def kind_of(output: Output) -> dict[str, Any]:
    """
    The words that describe an output kind: what `output_of` reads.

    Args:
        output: any.

    Returns: what JSON can say, with one key.
    """
    if isinstance(output, Classes):
        return {"classes": list(output.labels)}
    if isinstance(output, Text):
        return {"text": {"metric": output.metric, "same_at": output.same_at, "max_chars": output.max_chars}}
    return {"fields": {
        one.name: [*one.values, *(["?"] if one.optional else [])] if one.type == "choice" else one.type + "?" * one.optional
        for one in output.fields
    }}  # fmt: skip
