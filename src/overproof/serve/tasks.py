"""How the gateway knows the task: by the model's name, or by the fixed part of the prompt."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from overproof.errors import DataError
from overproof.importers import ColumnMapping
from overproof.importers.bodies import asked
from overproof.importers.calls import HISTORY, Taken, Taker, derived, prompt_digest, short, taker
from overproof.importers.frames import Frame
from overproof.importers.rows import ID_CHARS, LABEL_NAMES, BadRow
from overproof.importers.turns import Said
from overproof.project import Project
from overproof.serve.shapes import BadCall, Call

PREFIX = "overproof/"
ATTRIBUTE_HEADER = b"x-overproof-attr-"
MOST_ATTRIBUTES = 32
LEAST_FIXED = 20
"""Characters without white space that a frame needs to be known by it alone: "Message: {text}" is anybody's prompt."""
_HEAD_WORDS = 6
_MODEL = re.compile(rb'("model"[ \t\r\n]*:[ \t\r\n]*)"(?:[^"\\]|\\.)*"')
_ODD_SHAPES = (AttributeError, IndexError, KeyError, TypeError, ValueError)  # a caller may send anything that is JSON

_INSTRUCTIONS = frozenset({"system", "instructions", "systemInstruction", "system_instruction"})

Headers = Iterable[tuple[bytes, bytes]]


class Recognised(msgspec.Struct, frozen=True, kw_only=True):
    """A call of a known task."""

    task: str
    fields: Mapping[str, str]
    """The same that an import of the logged call gives; empty where the task was named and its message doesn't fit."""
    by: Literal["alias", "fingerprint"]
    unseen: str = ""
    """What the answer may rest on besides the fields, one phrase: such a call is the teacher's. Empty where there is nothing."""
    derived: Mapping[str, str] = {}
    """Attributes that follow from the messages; see `importers.calls.derived`."""
    upstream_model: str = ""
    """The teacher's own name, where the caller used one of ours."""

    def upstream_body(self, raw: bytes) -> bytes:
        """
        What goes to the teacher: the caller's bytes, with the teacher's model in place of our name for the task.

        Args:
            raw: the request's body.

        Returns: the body; the same object where nothing has to be replaced.
        Raises: BadCall where the key `model` is spelled with escapes.
        """
        return with_model(raw, self.upstream_model) if self.upstream_model else raw


class _Entry:
    """One project's task, and what its calls look like."""

    def __init__(self, project: Project) -> None:
        task, template = project.task, project.traffic.template
        self.task = task.name
        self.model = project.teacher.model
        self.aliases = (PREFIX + task.name, *project.gateway.aliases)
        self.history = HISTORY in task.input
        places = [name for name in task.input if "{" + name + "}" in task.prompt]
        self.system = "" if places else task.prompt.strip()
        """The system message that its calls have; empty where the prompt goes into the user message."""
        frame = Frame.of(template or task.prompt, [name for name in task.input if name != HISTORY])
        self.bare = bool(template or places) and sum(len("".join(piece.split())) for piece in frame.fixed) >= LEAST_FIXED
        """Whether it is known by the user message alone."""
        self.shape = (_normal(self.system), frame.fixed if template or places else ())
        whole = not (template or places or self.history) and len(task.input) == 1
        self.field = task.input[0] if whole and self.system else ""
        """The one input field, where it is all of the user message behind the task's own system message; else empty."""
        self.taker: Taker = taker(ColumnMapping(fields=task.input, prompt=task.prompt, template=template))

    def taken(self, turns: Sequence[Said]) -> Taken | str:
        """The fields, or why they don't fit."""
        try:
            return self.taker(turns)
        except BadRow as problem:
            return str(problem)

    def recognised(self, turns: Sequence[Said], taken: Taken, *, alias: bool) -> Recognised:
        return Recognised(
            task=self.task, fields=taken.fields, by="alias" if alias else "fingerprint", derived=derived(turns, taken.last),
            unseen=_unseen(turns, taken.last, covered=self.history or alias), upstream_model=self.model if alias else "",
        )  # fmt: skip


class Tasks:
    """
    The tasks that one gateway knows.

    Args:
        projects: one a task.

    Raises: DataError where two tasks have one name or alias, or a template has no place for a field.
    """

    def __init__(self, projects: Sequence[Project]) -> None:
        entries = [_Entry(project) for project in projects]
        self._aliases: dict[str, _Entry] = {}
        self._systems: dict[str, list[_Entry]] = {}
        for entry in entries:
            for alias in dict.fromkeys(entry.aliases):
                if (other := self._aliases.setdefault(alias, entry)) is not entry:
                    raise DataError(f"model name {alias!r} means both {other.task!r} and {entry.task!r}", next_action="rename one task, or mend [gateway] aliases")
            if entry.system:
                self._systems.setdefault(_normal(entry.system), []).append(entry)
        self._exact = {entry.system: self._systems[_normal(entry.system)] for entry in entries if entry.system}
        self._heads = {_head(text) for text in self._systems}
        self._bare = [entry for entry in entries if entry.bare]
        self.alike = _alike(entries)
        """Tasks whose calls look the same, in groups; they are known by their model names alone."""
        for names in self.alike:
            warnings.warn(f"the tasks {', '.join(names)} have the same prompt: their calls are only known by model name, as {PREFIX}{names[0]}", RuntimeWarning, stacklevel=2)

    def recognise(self, call: Call) -> Recognised | None:
        """
        The task of a call.

        Args:
            call: a chat or text completion.

        Returns: the task with its fields; None where it is none of ours, or could be of two.
        """
        try:
            named = self._aliases.get(call.model)
            return self._named(named, call) if named is not None else self._found(call)
        except _ODD_SHAPES:  # what can't be read is passed through
            return None

    def _named(self, entry: _Entry, call: Call) -> Recognised:
        try:
            turns = asked(call.body)
            taken = "there are no messages" if turns is None else entry.taken(turns)
        except _ODD_SHAPES as problem:
            turns, taken = None, str(problem)[:200]
        if turns is None or isinstance(taken, str):
            return Recognised(task=entry.task, fields={}, by="alias", unseen=str(taken), upstream_model=entry.model)
        return entry.recognised(turns, taken, alias=True)

    def _plainly(self, body: Mapping[str, Any]) -> Recognised | None:
        """The commonest shape by far, at a tenth of the cost: a task's system message word for word, and one user message."""
        match body.get("messages"):
            case [{"role": "system", "content": str(system), **odd}, {"role": "user", "content": str(text), **more}] if not (odd or more):
                found = self._exact.get(system.strip()) if _INSTRUCTIONS.isdisjoint(body) else None
                if found is not None and len(found) == 1 and (entry := found[0]).field:
                    told = {"system_prompt": prompt_digest(system), "turns": "1"}
                    return Recognised(task=entry.task, fields={entry.field: text}, by="fingerprint", derived=told)
        return None

    def _found(self, call: Call) -> Recognised | None:
        if (plain := self._plainly(call.body)) is not None:
            return plain
        system = _system_of(call.body)
        candidates = self._bare if not system else self._by_system(system.strip())
        turns = asked(call.body) if candidates else None
        if turns is None:
            return None
        fitting = [(entry, taken) for entry in candidates if isinstance(taken := entry.taken(turns), Taken)]
        if len(fitting) != 1:
            return None
        entry, taken = fitting[0]
        return entry.recognised(turns, taken, alias=False)

    def _by_system(self, text: str) -> Sequence[_Entry]:
        found = self._exact.get(text)
        if found is None and _head(text) in self._heads:  # folding a long text costs more than all else
            found = self._systems.get(_normal(text))
        return found or ()

    def models(self) -> list[dict[str, Any]]:
        """The entries of `/v1/models` that name our tasks."""
        return [{"id": alias, "object": "model", "created": 0, "owned_by": "overproof"} for alias in self._aliases]


def _normal(text: str) -> str:
    return " ".join(text.split())


def _head(text: str) -> str:
    return " ".join(text.split(None, _HEAD_WORDS)[:_HEAD_WORDS])


def _alike(entries: Sequence[_Entry]) -> list[list[str]]:
    groups: dict[Any, list[str]] = {}
    for entry in entries:
        if entry.system or entry.bare:
            groups.setdefault(entry.shape, []).append(entry.task)
    return [names for names in groups.values() if len(names) > 1]


def _system_of(body: Mapping[str, Any]) -> str:
    """The system messages together, without making turns of a long conversation that may be nobody's."""
    if not _INSTRUCTIONS.isdisjoint(body):
        raise BadRow("instructions beside the messages")
    found = [one["content"] for one in body.get("messages") or () if one.get("role") in ("system", "developer")]
    return "\n".join(content if isinstance(content, str) else _joined(content) for content in found)


def _joined(parts: Sequence[Mapping[str, Any]]) -> str:
    if any(part["type"] != "text" for part in parts):
        raise BadRow("a part of the system message is no text")
    return "\n".join(part["text"] for part in parts)


def _unseen(turns: Sequence[Said], last: int, *, covered: bool) -> str:
    for i, one in enumerate(turns):
        if one.turn.role == "system" or i == last:
            continue
        if i > last:
            return "turns after the last user message"
        if one.unread or one.turn.calls or one.turn.role == "tool":
            return "tools or pictures in earlier turns"
        if not covered:
            return "earlier turns that are no input of the task"
    return ""


def with_model(raw: bytes, model: str) -> bytes:
    """
    A request with another model, byte for byte the same otherwise.

    Args:
        raw: a JSON object whose key `model` has a string.
        model: the new one.

    Returns: the bytes.
    Raises: BadCall where the place can't be found: the key is spelled with escapes.
    """
    new = json.dumps(model).encode()
    wanted = json.loads(raw) | {"model": model}
    for hit in _MODEL.finditer(raw):
        changed = b"".join((raw[: hit.start()], hit[1], new, raw[hit.end() :]))
        if json.loads(changed) == wanted:  # so it was no key of an inner object
            return changed
    raise BadCall("the key 'model' can't be found in the request's body", next_action="write it without escapes", param="model")


def attributes_of(headers: Headers, call: Call, recognised: Recognised | None = None) -> dict[str, str]:
    """
    What slices are cut by: `metadata` and `user` of the body, `x-overproof-attr-NAME` headers, and what follows from the messages.

    Args:
        headers: names in lower case, as ASGI gives them.
        call: the request.
        recognised: its task.

    Returns: at most `MOST_ATTRIBUTES` short texts; a header goes before `metadata`, and neither can say what the messages say.
    """
    found: dict[str, str] = {}
    metadata = call.body.get("metadata")
    if isinstance(metadata, dict):
        found = {name: text for name, value in metadata.items() if (text := short(value)) and len(name) <= ID_CHARS}
    if user := short(call.body.get("user")):
        found.setdefault("user", user)
    for name, value in headers:
        if name.startswith(ATTRIBUTE_HEADER) and (text := short(value.decode("utf-8", "replace").strip())):
            found[name[len(ATTRIBUTE_HEADER) :].decode("utf-8", "replace")] = text
    for label in LABEL_NAMES.intersection(found):
        del found[label]
    if len(found) > MOST_ATTRIBUTES:
        found = dict(list(found.items())[-MOST_ATTRIBUTES:])  # headers come last
    return found if recognised is None else {**found, **recognised.derived}


def session_of(how: str, headers: Headers, call: Call) -> str | None:
    """
    The key that keeps one caller in one arm, and marks rows that aren't independent.

    Args:
        how: `[gateway] session`: "user", "metadata.NAME" or "header.NAME".
        headers: names in lower case.
        call: the request.

    Returns: a text of at most `ID_CHARS`, a digest for a longer one; None where there is none.
    """
    source, _, name = how.partition(".")
    value: Any = None
    if source == "header":
        wanted = name.lower().encode()
        value = next((one.decode("utf-8", "replace").strip() for key, one in headers if key == wanted), None)
    elif source == "metadata":
        metadata = call.body.get("metadata")
        value = metadata.get(name) if isinstance(metadata, dict) else None
    else:
        value = call.body.get("user")
    if isinstance(value, str) and len(value) > ID_CHARS:
        return hashlib.sha256(value.encode("utf-8", "replace")).hexdigest()
    return short(value)
