"""Values to canonical bytes and back: dataclasses, tuples, mappings, plain scalars, folders."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import importlib
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overproof.data import Folder
from overproof.errors import CorruptArtifact, StoreError

FORMAT = 1
_Readers = list[tuple[type, tuple[str, ...]]]
_REPEAT = "remove it from .overproof, then run again: the step will be repeated"


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """A value's canonical bytes, and what they refer to."""

    data: bytes
    """UTF-8 JSON; the same value always gives the same bytes."""
    digest: str
    """SHA-256 of `data`."""
    folders: tuple[str, ...]
    """Tree digests of the folders inside, without repeats."""
    types: tuple[tuple[str, tuple[str, ...]], ...]
    """(class as "module:name", field names) of every dataclass inside, in order of appearance."""


def encode(value: Any, *, keep: Callable[[Folder], str] | None = None) -> Encoded:
    """
    Canonical bytes of a value.

    The order of mappings is kept, not sorted: a request's text and a funnel depend on it.

    Args:
        value: None, bool, int, finite float, str, bytes, tuple, list, mapping, dataclass, `Folder`, nested at will.
        keep: puts a folder's files into the store and returns its tree digest; without it a folder must have one.

    Returns: bytes, digest and references.
    Raises: StoreError that names the place of what can't be stored (NaN, infinity, a path, an unknown type).
    """
    writer = _Writer(keep)
    try:
        tree = writer.put(value)
    except _Unfit as error:
        place = type(value).__name__ + "".join(reversed(error.place))
        raise StoreError(f"{place}: {error.what}", next_action=error.next_action) from error
    head = [[name, list(fields)] for name, fields in writer.types.items()]
    text = json.dumps(
        {"format": FORMAT, "types": head, "value": tree},
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )
    data = text.encode("utf-8", "surrogatepass")
    return Encoded(
        data=data,
        digest=hashlib.sha256(data).hexdigest(),
        folders=tuple(dict.fromkeys(writer.folders)),
        types=tuple(writer.types.items()),
    )


def decode(data: bytes, *, find: Callable[[str], Path], where: str = "artifact") -> Any:
    """
    The value that `encode` turned into these bytes.

    Args:
        data: what `encode` made.
        find: tree digest to the folder in which the store has its files.
        where: name of the bytes for messages.

    Returns: an equal value, with mappings in their order and folders at their place in the store.
    Raises: CorruptArtifact where the bytes are not readable; StoreError where a class has changed since.
    """
    try:
        document = json.loads(data.decode("utf-8", "surrogatepass"))
        head, tree, version = document["types"], document["value"], document["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptArtifact(f"{where} is not an artifact: {error}", next_action=_REPEAT) from error
    if version != FORMAT:
        raise StoreError(
            f"{where} has artifact format {version!r}, this version reads {FORMAT}", next_action=_REPEAT
        )
    readers = [(_class(name, where), tuple(fields)) for name, fields in head]
    try:
        return _get(tree, readers, find)
    except (TypeError, KeyError, IndexError, ValueError) as error:
        raise StoreError(
            f"{where} doesn't fit the classes of this version: {error}", next_action=_REPEAT
        ) from error


def changed_type(types: Iterable[tuple[str, Sequence[str]]]) -> str | None:
    """
    The first class whose fields no longer fit what was stored, so that a stored value can't be loaded.

    Args:
        types: pairs (class as "module:name", field names) as in `Encoded.types`.

    Returns: the class's name, or None where all fit.
    """
    for name, fields in types:
        try:
            shape = _shape(_class(name, name))
        except StoreError:
            return str(name)
        if not shape.needed <= set(fields) <= shape.known:
            return str(name)
    return None


class _Unfit(Exception):
    """What can't be stored; containers add their place on the way out, so that the good case pays nothing."""

    def __init__(self, what: str, next_action: str) -> None:
        super().__init__(what)
        self.what = what
        self.next_action = next_action
        self.place: list[str] = []


class _Writer:
    """Builds the JSON tree and collects classes and folders on the way."""

    def __init__(self, keep: Callable[[Folder], str] | None) -> None:
        self.keep = keep
        self.types: dict[str, tuple[str, ...]] = {}
        self.numbers: dict[type, tuple[str, tuple[str, ...]]] = {}
        self.folders: list[str] = []

    def put(self, value: Any) -> Any:
        """The JSON tree of one value."""
        if value is None or value is True or value is False or type(value) in (str, int):
            return value
        if isinstance(value, float):
            if not math.isfinite(value):
                raise _Unfit(f"{value!r} is not a finite number", "store None where a figure is missing")
            return float(value)
        if isinstance(value, str):
            return str(value)
        if isinstance(value, int):
            return int(value)
        if isinstance(value, tuple):
            return self._items(value)
        if isinstance(value, Folder):
            return self._folder(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._record(value)
        if isinstance(value, Mapping):
            return self._mapping(value)
        if isinstance(value, list):
            return {"$list": self._items(value)}
        if isinstance(value, bytes):
            return {"$bytes": base64.b64encode(value).decode()}
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise _Unfit(
            f"a {kind} can't be stored",
            "give steps plain numbers, strings, tuples, mappings and frozen dataclasses",
        )

    def _folder(self, folder: Folder) -> Any:
        digest = self.keep(folder) if self.keep else folder.digest
        if not digest:
            raise _Unfit("the folder is not in the store", "store the artifact that brings the folder first")
        self.folders.append(digest)
        return {"$folder": digest}

    def _items(self, values: Sequence[Any]) -> list[Any]:
        done: list[Any] = []
        try:
            for item in values:
                done.append(self.put(item))  # noqa: PERF401 - len(done) is the place of the failure
        except _Unfit as error:
            error.place.append(f"[{len(done)}]")
            raise
        return done

    def _mapping(self, value: Mapping[Any, Any]) -> Any:
        keys = list(value)
        items = self._items(list(value.values()))
        if all(type(key) is str and not key.startswith("$") for key in keys):
            return dict(zip(keys, items, strict=True))
        return {"$map": [[self.put(key), item] for key, item in zip(keys, items, strict=True)]}

    def _record(self, value: Any) -> Any:
        kind = type(value)
        if kind not in self.numbers:
            name = f"{kind.__module__}:{kind.__qualname__}"
            if "<locals>" in name:
                raise _Unfit(f"class {name} is local to a function", "define it at the top of its module")
            fields = tuple(f.name for f in dataclasses.fields(kind) if f.init)
            self.numbers[kind] = (f"${len(self.types)}", fields)
            self.types[name] = fields
        number, fields = self.numbers[kind]
        done: list[Any] = []
        try:
            for name in fields:
                done.append(self.put(getattr(value, name)))  # noqa: PERF401 - as above
        except _Unfit as error:
            error.place.append(f".{fields[len(done)]}")
            raise
        return {number: done}


def _get(tree: Any, readers: _Readers, find: Callable[[str], Path]) -> Any:
    if isinstance(tree, list):
        return tuple(_get(item, readers, find) for item in tree)
    if not isinstance(tree, dict):
        return tree
    if len(tree) == 1:
        ((key, inner),) = tree.items()
        if key.startswith("$"):
            return _get_tagged(key, inner, readers, find)
    return {key: _get(item, readers, find) for key, item in tree.items()}


def _get_tagged(key: str, inner: Any, readers: _Readers, find: Callable[[str], Path]) -> Any:
    if key == "$list":
        return [_get(item, readers, find) for item in inner]
    if key == "$map":
        return {_get(k, readers, find): _get(v, readers, find) for k, v in inner}
    if key == "$bytes":
        return base64.b64decode(inner, validate=True)
    if key == "$folder":
        return Folder(path=find(inner), digest=inner)
    kind, fields = readers[int(key[1:])]
    values = (_get(item, readers, find) for item in inner)
    return kind(**dict(zip(fields, values, strict=True)))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shape:
    known: frozenset[str]
    needed: frozenset[str]


@functools.cache
def _shape(kind: type) -> _Shape:
    known = [f for f in dataclasses.fields(kind) if f.init]
    missing = dataclasses.MISSING
    needed = [f.name for f in known if f.default is missing and f.default_factory is missing]
    return _Shape(known=frozenset(f.name for f in known), needed=frozenset(needed))


def _class(name: str, where: str) -> type:
    module, _, path = str(name).partition(":")
    # Bytes on disk may not choose what is imported: only this package, or what the program has loaded itself.
    loaded = sys.modules.get(module)
    if loaded is None and module.startswith("overproof."):
        try:
            loaded = importlib.import_module(module)
        except ImportError:
            loaded = None
    found: Any = loaded
    for part in path.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise StoreError(f"{where} names the unknown class {name!r}", next_action=_REPEAT)
    return found
