"""From one logged model call to one row of the traffic log; every vendor's importer ends here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from overproof.data import Completion, Request, Skipped, TrafficRecord
from overproof.importers import ColumnMapping, Notes
from overproof.importers.bodies import Answer
from overproof.importers.frames import Frame, declared
from overproof.importers.objects import Row, objects
from overproof.importers.rows import (
    ATTRIBUTE_CHARS,
    ID_CHARS,
    LABEL_NAMES,
    BadRow,
    ColumnReader,
    dig,
    framed,
    made_id,
    moment,
    number,
    scalar_text,
)
from overproof.importers.turns import Said

HISTORY = "history"
"""An input field of this name takes the turns before the last user message; else they are kept as context only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One model call as a vendor's log holds it; figures and times are as found."""

    messages: Sequence[Said]
    """What was sent, system prompt first, without the answer."""
    answer: Answer | None
    """None where the log holds requests only."""
    id: Any = None
    at: Any = None
    session: Any = None
    model: Any = None
    finish: Any = None
    """Read where the answer itself doesn't say."""
    tokens_in: Any = None
    tokens_out: Any = None
    latency_s: Any = None
    cost_usd: Any = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Tags and metadata; short scalars become attributes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Passed:
    """An entry that is no model call of its own, and why."""

    why: str


class CallImporter:
    """
    Base of the vendors' importers: a subclass turns a row into calls, this class does the rest.

    The variable part of a call becomes the input fields: taken apart by the template, else by the task's prompt where
    that has places for fields, else it is the last user message.
    """

    name: ClassVar[str] = ""
    """As registered, for example "langfuse.v1"."""
    known_by: ClassVar[str] = ""
    """What a file is recognized by, in a few words."""
    under: ClassVar[tuple[str, ...]] = ()
    """Keys under which a document of the vendor's keeps its rows."""
    understood: ClassVar[frozenset[str]] = frozenset()
    """Names of a row that are read or known to be of no use; others are noted."""
    scalars: ClassVar[bool] = False
    """Whether short scalars of other names become attributes, as in logs that teams write themselves."""

    def __init__(self) -> None:
        self.notes = Notes()

    def calls(self, row: Mapping[str, Any], mapping: ColumnMapping) -> Iterator[Call | Passed | BadRow]:
        """
        The calls that a row holds.

        Args:
            row: as found.
            mapping: which column is what.

        Returns: one call, mostly; of several, one that can't be read is yielded as its `BadRow`.
        Raises: BadRow where the row can't be read.
        """
        raise NotImplementedError

    def sniff(self, head: bytes, name: str) -> float:
        """How sure; see `Importer.sniff`."""
        raise NotImplementedError

    def read(self, path: Path, mapping: ColumnMapping) -> Iterator[TrafficRecord | Skipped]:
        """The calls; see `Importer.read`."""
        yield from self.take(objects(path, under=self.under), mapping, path)

    def take(
        self, rows: Iterable[Row | Skipped], mapping: ColumnMapping, path: Path
    ) -> Iterator[TrafficRecord | Skipped]:
        """
        Records of rows that may come from elsewhere than a file, for example from a query.

        Args:
            rows: as found.
            mapping: which column is what.
            path: what the rows are said to come from.

        Returns: a record per call; a row that can't be read is a `Skipped`.
        Raises: DataError where a mapped column is in no row.
        """
        reader = ColumnReader(mapping=mapping, source=f"{path.name} ({self.name})")
        fields_of = taker(mapping)
        for row in rows:
            if isinstance(row, Skipped):
                yield row
                continue
            reader.rows += 1
            self._note(row.value)
            calls = iter(self.calls(row.value, mapping))
            place = 0
            while True:
                place += 1
                where = row.number if place == 1 else f"{row.number}.{place}"
                try:
                    call = next(calls)
                    if isinstance(call, Passed):
                        self.notes.passed[call.why] += 1
                        continue
                    if isinstance(call, BadRow):
                        raise call
                    yield self._record(row.value, call, reader, fields_of, where)
                except StopIteration:
                    break
                except BadRow as error:
                    yield _aside(path, where, str(error), row.raw)
                except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                    # Vendors change their formats: one row of a shape that nobody foresaw must not stop a million.
                    what = f"a shape that this importer doesn't know ({type(error).__name__}: {error})"
                    yield _aside(path, where, what[:300], row.raw)
                    break
        reader.check(path)

    def _note(self, row: Mapping[str, Any]) -> None:
        for name, value in row.items():
            if name not in self.understood and value is not None and not (self.scalars and short(value)):
                self.notes.ignored[str(name)] += 1

    def _record(
        self, row: Mapping[str, Any], call: Call, reader: ColumnReader, fields_of: Taker, where: int | str
    ) -> TrafficRecord:
        taken = fields_of(call.messages)
        fields, last = taken.fields, taken.last
        answer = call.answer
        found = _Found(row, reader)
        at = moment(found.get("at", call.at if call.at is not None else answer.at if answer else None))
        identity = scalar_text(found.get("id", call.id if call.id is not None else answer.id if answer else None))
        return TrafficRecord(
            request=Request(
                id=identity if identity and len(identity) <= ID_CHARS else made_id(fields, at, where),
                fields=fields,
                at=at,
                attributes=self._attributes(row, call, reader, last),
                session=scalar_text(found.get("session", call.session)) or None,
            ),
            completion=None if answer is None else _completion(call, answer, found),
            gold=reader.gold(row) if "gold" in reader.mapping.columns else None,
            gold_from=reader.gold_from(row),
            source=reader.source,
            context=tuple(one.turn for i, one in enumerate(call.messages) if i != last),
            calls=() if answer is None or answer.said is None else answer.said.turn.calls,
        )

    def _attributes(self, row: Mapping[str, Any], call: Call, reader: ColumnReader, last: int) -> dict[str, str]:
        found: dict[str, str] = {}
        chosen = reader.mapping.attributes is not None
        if not chosen:
            found = {str(k): text for k, v in call.attributes.items() if (text := short(v)) and k not in LABEL_NAMES}
        found |= derived(call.messages, last)
        if chosen or self.scalars:
            rest = row if chosen else {k: v for k, v in row.items() if k not in self.understood}
            found |= reader.attributes(rest)
        return found


def short(value: Any) -> str | None:
    """
    A value that can be an attribute.

    Args:
        value: anything from a row.

    Returns: its text; None for what is empty, nested or longer than `ATTRIBUTE_CHARS`.
    """
    text = scalar_text(value)
    return text if text and len(text) <= ATTRIBUTE_CHARS else None


@lru_cache(maxsize=64)
def prompt_digest(system: str) -> str:
    """
    A system prompt as an attribute.

    Args:
        system: its text.

    Returns: twelve hexadecimal digits.
    """
    return hashlib.sha256(system.encode("utf-8", "replace")).hexdigest()[:12]


def derived(messages: Sequence[Said], last: int) -> dict[str, str]:
    """
    The attributes that follow from a call's messages, so that logs and live traffic are cut alike.

    Args:
        messages: system prompt first.
        last: place of the last user message.

    Returns: "system_prompt" (a digest) where there is one, "turns", and "tool_results" where the answer rests on some.
    """
    found: dict[str, str] = {}
    system = "\n".join(one.turn.text for one in messages if one.turn.role == "system")
    if system:
        found["system_prompt"] = prompt_digest(system)
    found["turns"] = str(sum(one.turn.role == "user" for one in messages))
    after = sum(one.turn.role == "tool" for one in messages[last + 1 :])
    if after:  # the answer rests on what a tool said, which the fields don't hold
        found["tool_results"] = str(after)
    return found


def _aside(path: Path, where: int | str, reason: str, raw: bytes | str) -> Skipped:
    text = raw[:8000].decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    clean = reason.encode("utf-8", "replace").decode()
    return Skipped(where=f"{path.name}:{where}", reason=clean, raw=text[:2000].encode("utf-8", "replace").decode())


class _Found:
    """A role's value: from the column that the mapping names, else what the vendor's format says."""

    def __init__(self, row: Mapping[str, Any], reader: ColumnReader) -> None:
        self._row, self._reader = row, reader

    def get(self, role: str, default: Any) -> Any:
        named = self._reader.mapping.columns.get(role)
        if named is None:
            return default
        value = dig(self._row, named)
        if value is not None or named in self._row:
            self._reader.met.add(named)
        return value


def _completion(call: Call, answer: Answer, found: _Found) -> Completion:
    if call.finish is not None and not answer.finish:
        answer = replace(answer, finish=call.finish)
    verdict = answer.verdict()
    milliseconds = number(found.get("latency_ms", None), "latency_ms")
    seconds = number(found.get("latency_s", call.latency_s), "latency_s")
    tokens = [
        number(found.get(role, one if one is not None else other), role)
        for role, one, other in (
            ("tokens_in", answer.tokens_in, call.tokens_in),
            ("tokens_out", answer.tokens_out, call.tokens_out),
        )
    ]
    model = scalar_text(answer.model) or scalar_text(found.get("model", call.model))
    return Completion(
        text="" if answer.said is None else answer.said.turn.text,
        value=None,
        model=model or "",
        finish=verdict.finish,
        tokens_in=None if tokens[0] is None else int(tokens[0]),
        tokens_out=None if tokens[1] is None else int(tokens[1]),
        latency_s=seconds if milliseconds is None else milliseconds / 1_000,
        cost_usd=number(found.get("cost_usd", call.cost_usd), "cost_usd"),
        reason=verdict.reason,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """The input fields of a call, and which message they came from."""

    fields: dict[str, str]
    last: int
    """Place of the last user message."""


Taker = Callable[[Sequence[Said]], Taken]


def taker(mapping: ColumnMapping) -> Taker:
    """
    How the messages of a call become input fields: the inverse of how a teacher's prompt is filled.

    Args:
        mapping: the fields, and the template or the task's prompt.

    Returns: a function of the messages; it raises BadRow where they don't fit.
    Raises: DataError for a template without a place for each field.
    """
    names = [name for name in mapping.fields if name != HISTORY]
    whole = declared(mapping.template, names) if mapping.template else None
    places = [name for name in names if "{" + name + "}" in mapping.prompt]
    rest = [name for name in names if name not in places]
    form = Frame.of(mapping.prompt, places, open_end=bool(rest)) if places else None

    def take(messages: Sequence[Said]) -> Taken:
        last = max((i for i, one in enumerate(messages) if one.turn.role == "user"), default=None)
        if last is None:
            raise BadRow("no user message")
        text, found = messages[last].text, dict[str, str]()
        if whole is not None:
            found = framed(whole, text)
        else:
            if form is not None:
                apart = form.apart(text)
                if apart is None:
                    raise BadRow("the user message doesn't fit the task's prompt: another task's call?")
                found, text = apart
            if rest:
                found |= _unjoined(text, rest)
        if HISTORY in mapping.fields:
            earlier = [one.turn for one in messages[:last] if one.turn.role != "system"]
            found[HISTORY] = "\n".join(f"{one.role}: {one.text}" for one in earlier)
        return Taken(fields={name: found[name] for name in mapping.fields}, last=last)

    return take


def _unjoined(text: str, names: Sequence[str]) -> dict[str, str]:
    """Several fields in one message: a JSON object with their names, else parts between blank lines, the last open."""
    if len(names) == 1:
        return {names[0]: text}
    if text.lstrip().startswith("{"):
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if isinstance(value, dict) and all(isinstance(value.get(name), str) for name in names):
            return {name: value[name] for name in names}
    parts = text.split("\n\n", len(names) - 1)
    if len(parts) != len(names):
        raise BadRow(f"the user message has {len(parts)} parts between blank lines, expected {list(names)!r}")
    return dict(zip(names, parts, strict=True))
