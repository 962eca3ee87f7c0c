"""Values to canonical bytes and back: dataclasses, tuples, mappings, plain scalars, folders."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import importlib
import io
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from overproof.data import Folder
from overproof.errors import CorruptArtifact, StoreError
from overproof.store.window import Torn, Window

FORMAT = 1
_BLOCK = 1 << 20  # bytes
_MANY = 1_000  # items whose trees exist at one time
_SHORT = 32  # characters of a text that is worth a look whether it was there before
_SHARED = 10_000  # different ones that are kept at a time
_Readers = list[tuple[type, tuple[str, ...]]]
_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """A value's canonical bytes in a file."""

    digest: str
    """SHA-256 of the bytes."""
    folders: tuple[str, ...]
    """See `Encoded`."""
    types: tuple[tuple[str, tuple[str, ...]], ...]
    """See `Encoded`."""
    head: bytes
    """What stands before the body: the classes are known only at its end."""
    body: IO[bytes]

    def blocks(self) -> Iterator[bytes]:
        """All bytes, a block at a time."""
        yield self.head
        self.body.seek(0)
        yield from iter(lambda: self.body.read(_BLOCK), b"")
        yield b"}"


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
    with io.BytesIO() as body:
        written = write(value, body, keep=keep)
        data = b"".join(written.blocks())
    return Encoded(data=data, digest=written.digest, folders=written.folders, types=written.types)


def write(value: Any, body: IO[bytes], *, keep: Callable[[Folder], str] | None = None) -> Written:
    """
    As `encode`, for a value whose bytes may be too many for the memory.

    Args:
        value: see `encode`.
        body: takes most of the bytes; empty, and open for reading too.
        keep: see `encode`.

    Returns: digest and references, and the bytes block by block while `body` is open.
    Raises: see `encode`.
    """
    writer = _Writer(keep)
    try:
        for piece in writer.pieces(value):
            body.write(piece.encode("utf-8", "surrogatepass"))
    except _Unfit as error:
        place = type(value).__name__ + "".join(reversed(error.place))
        raise StoreError(f"{place}: {error.what}", next_action=error.next_action) from error
    types = [[name, list(fields)] for name, fields in writer.types.items()]
    head = f'{{"format":{FORMAT},"types":{_dumps(types)},"value":'.encode("utf-8", "surrogatepass")
    written = Written(
        digest="", folders=tuple(dict.fromkeys(writer.folders)), types=tuple(writer.types.items()), head=head, body=body
    )
    whole = hashlib.sha256()
    for block in written.blocks():
        whole.update(block)
    return dataclasses.replace(written, digest=whole.hexdigest())


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
    return read(io.BytesIO(data), find=find, where=where)


def read(file: IO[bytes], *, find: Callable[[str], Path], where: str = "artifact") -> Any:
    """
    As `decode`, from a file; what it has in memory beside the value is a window of the bytes.

    Args:
        file: what `encode` or `write` made.
        find: see `decode`.
        where: see `decode`.

    Returns: see `decode`.
    Raises: see `decode`.
    """
    window, said = Window(file), dict[str, Any]()
    try:
        for key in window.keys():  # noqa: SIM118 - no mapping
            if key == "value":
                return _read_value(window, said, find, where)
            (said[key],) = window.whole(large=True) or (None,)
        return _read_value(window, {}, find, where)
    except Torn as error:
        raise CorruptArtifact(f"{where} is not an artifact: {error}", next_action=_REPEAT) from error


def _read_value(window: Window, said: Mapping[str, Any], find: Callable[[str], Path], where: str) -> Any:
    if "types" not in said or "format" not in said:
        raise Torn("it doesn't say its classes")
    if said["format"] != FORMAT:
        raise StoreError(
            f"{where} has artifact format {said['format']!r}, this version reads {FORMAT}", next_action=_REPEAT
        )
    readers = [(_class(name, where), tuple(fields)) for name, fields in said["types"]]
    try:
        value = _Reader(window, readers, find).value()
    except Torn:
        raise
    except (TypeError, KeyError, IndexError, ValueError) as error:
        raise StoreError(
            f"{where} doesn't fit the classes of this version: {error}", next_action=_REPEAT
        ) from error
    window.take("}")
    window.end()
    return value


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

    def pieces(self, value: Any) -> Iterator[str]:
        """The JSON text of one value; long tuples in the fields of dataclasses come in several pieces."""
        if isinstance(value, tuple) and len(value) > _MANY:
            for start in range(0, len(value), _MANY):
                yield "," if start else "["
                yield _dumps(self._items(value[start : start + _MANY], first=start))[1:-1]
            yield "]"
        elif dataclasses.is_dataclass(value) and not isinstance(value, type | Folder):
            number, fields = self._number(type(value))
            mark = f'{{"{number}":['
            for name in fields:
                yield mark
                mark = ","
                try:
                    yield from self.pieces(getattr(value, name))
                except _Unfit as error:
                    error.place.append(f".{name}")
                    raise
            yield "]}" if fields else f"{mark}]}}"
        else:
            yield _dumps(self.put(value))

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

    def _items(self, values: Sequence[Any], first: int = 0) -> list[Any]:
        done: list[Any] = []
        try:
            for item in values:
                done.append(self.put(item))  # noqa: PERF401 - len(done) is the place of the failure
        except _Unfit as error:
            error.place.append(f"[{first + len(done)}]")
            raise
        return done

    def _mapping(self, value: Mapping[Any, Any]) -> Any:
        keys = list(value)
        items = self._items(list(value.values()))
        if all(type(key) is str and not key.startswith("$") for key in keys):
            return dict(zip(keys, items, strict=True))
        return {"$map": [[self.put(key), item] for key, item in zip(keys, items, strict=True)]}

    def _record(self, value: Any) -> Any:
        number, fields = self._number(type(value))
        done: list[Any] = []
        try:
            for name in fields:
                done.append(self.put(getattr(value, name)))  # noqa: PERF401 - as above
        except _Unfit as error:
            error.place.append(f".{fields[len(done)]}")
            raise
        return {number: done}

    def _number(self, kind: type) -> tuple[str, tuple[str, ...]]:
        """A class's name in the text, and its fields."""
        if kind not in self.numbers:
            name = f"{kind.__module__}:{kind.__qualname__}"
            if "<locals>" in name:
                raise _Unfit(f"class {name} is local to a function", "define it at the top of its module")
            fields = tuple(f.name for f in dataclasses.fields(kind) if f.init)
            self.numbers[kind] = (f"${len(self.types)}", fields)
            self.types[name] = fields
        return self.numbers[kind]


class _Reader:
    """Builds a value from its JSON text; equal short texts and equal mappings of them become one object."""

    def __init__(self, window: Window, readers: _Readers, find: Callable[[str], Path]) -> None:
        self._window, self._readers, self._find = window, readers, find
        self._texts: dict[str, str] = {}
        self._maps: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}

    def value(self) -> Any:
        """The value that begins where the window stands."""
        found = self._window.whole()
        return self._of(found[0]) if found is not None else self._tagged() if self._window.peek() == "{" else tuple(self._items())

    def _items(self) -> Iterator[Any]:
        for _ in self._window.items():
            yield self.value()

    def _tagged(self) -> Any:
        """A long object: its parts are read one by one."""
        plain: dict[str, Any] = {}
        for key in self._window.keys():  # noqa: SIM118 - no mapping
            if not key.startswith("$"):
                plain[sys.intern(key)] = self.value()
                continue
            inner = self._window.whole()
            if inner is not None:
                done = self._tag(key, inner[0])
            elif key == "$list":
                done = list(self._items())
            elif key == "$map":
                done = dict(self._items())
            else:
                done = self._made(key, self._items())
            self._window.take("}")
            return done
        return plain

    def _of(self, tree: Any) -> Any:
        if isinstance(tree, str):
            return self._text(tree)
        if isinstance(tree, list):
            return tuple([self._of(item) for item in tree])  # a list first: a tuple of a generator is copied as it grows
        if not isinstance(tree, dict):
            return tree
        if len(tree) == 1:
            ((key, inner),) = tree.items()
            if key.startswith("$"):
                return self._tag(key, inner)
        return self._mapping({sys.intern(key): self._of(item) for key, item in tree.items()})

    def _tag(self, key: str, inner: Any) -> Any:
        if key == "$list":
            return [self._of(item) for item in inner]
        if key == "$map":
            return {self._of(k): self._of(v) for k, v in inner}
        if key == "$bytes":
            return base64.b64decode(inner, validate=True)
        if key == "$folder":
            return Folder(path=self._find(inner), digest=inner)
        return self._made(key, map(self._of, inner))

    def _made(self, key: str, values: Iterable[Any]) -> Any:
        kind, fields = self._readers[int(key[1:])]
        return kind(**dict(zip(fields, values, strict=True)))

    def _text(self, text: str) -> str:
        if len(text) > _SHORT:
            return text
        if len(self._texts) >= _SHARED:  # texts that are new in every row must not fill the memory
            self._texts.clear()
        return self._texts.setdefault(text, text)

    def _mapping(self, found: dict[str, Any]) -> dict[str, Any]:
        if not all(type(text) is str and len(text) <= _SHORT for text in found.values()):
            return found
        if len(self._maps) >= _SHARED:
            self._maps.clear()
        return self._maps.setdefault(tuple(found.items()), found)


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
