"""Finding erased texts without keeping them: keyed hashes of their pieces, looked for at every byte of a file."""

from __future__ import annotations

import base64
import hmac
import html
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from overproof.store.graves import mark_of

PIECE = 40
"""Characters of a piece; an excerpt of twice that always holds a whole one."""
SHORTEST = 12
"""Characters below which a text isn't looked for: "thank you" is everywhere."""
_WINDOW = 8  # bytes that the first look compares
_BITS = 24  # kept of their hash: too few to turn it back, enough that few places need the second look
_BLOCK = 1 << 22


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Trace:
    """One spelling of one piece of a text."""

    mark: str
    """HMAC-SHA256 of its bytes, 32 hexadecimal digits."""
    size: int
    """Bytes."""
    prefix: int
    """Hash of its first eight bytes, for the first look."""


class Tracer:
    """
    Makes traces and keyed marks.

    Args:
        secret: the project's secret.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret, self._key = secret, hmac.digest(secret, b"overproof traces pieces", "sha256")
        self.factor = np.uint64(int.from_bytes(hmac.digest(secret, b"overproof traces factor", "sha256")[:8], "little") | 1)

    def mark(self, kind: str, text: str) -> str:
        """A keyed hash of a text, different for each kind of use."""
        return mark_of(self._secret, kind, text)

    def piece(self, raw: bytes) -> Trace:
        """The trace of some bytes, eight or more."""
        first = np.frombuffer(raw[:_WINDOW], "<u8")
        return Trace(mark=self.of_bytes(raw), size=len(raw), prefix=int(_mixed(first, self.factor)[0]))

    def of_bytes(self, raw: bytes) -> str:
        """The mark of a piece."""
        return hmac.digest(self._key, raw, "sha256").hex()[:32]

    def pieces(self, text: str) -> list[frozenset[Trace]]:
        """Each piece of a text in all its spellings; empty for a text that is too short to be looked for."""
        if len(text.strip()) < SHORTEST:
            return []
        starts = list(range(0, len(text), PIECE))
        if len(starts) > 1 and len(text) - starts[-1] < SHORTEST:
            starts[-1] = len(text) - SHORTEST
        return [frozenset(map(self.piece, spellings(text[at : at + PIECE]))) for at in starts]

    def identity(self, request_id: str) -> frozenset[Trace]:
        """A request's id as files quote it; empty for one that is too short to be looked for."""
        quoted = json.dumps(request_id, ensure_ascii=False).encode("utf-8", "surrogatepass")
        return frozenset({self.piece(quoted)}) if len(quoted) >= _WINDOW else frozenset()


def spellings(piece: str) -> set[bytes]:
    """The bytes that a piece may be in a file: plain, in JSON, in HTML, folded, in base64."""
    plain = piece.encode("utf-8", "surrogatepass")
    found = {plain, html.escape(piece).encode("utf-8", "surrogatepass"), html.escape(piece, quote=False).encode("utf-8", "surrogatepass")}
    found |= {json.dumps(piece, ensure_ascii=flag)[1:-1].encode("utf-8", "surrogatepass") for flag in (True, False)}
    found.add(" ".join(piece.casefold().split()).encode("utf-8", "surrogatepass"))
    for shift in range(3):  # where in a group of three bytes the piece begins isn't known
        whole = plain[: (len(plain) + shift) // 3 * 3 - shift]
        found.add(base64.b64encode(b"\0" * shift + whole)[(0, 2, 3)[shift] :])
    return {one for one in found if len(one) >= _WINDOW}


class Finder:
    """
    Looks for traces.

    Args:
        tracer: made them.
        traces: what to look for.
    """

    def __init__(self, tracer: Tracer, traces: Iterable[Trace]) -> None:
        self._tracer = tracer
        self._by_prefix: dict[int, dict[int, set[str]]] = {}
        for one in traces:
            self._by_prefix.setdefault(one.prefix, {}).setdefault(one.size, set()).add(one.mark)

    @cached_property
    def longest(self) -> int:
        """Bytes of the longest piece."""
        return max((size for sizes in self._by_prefix.values() for size in sizes), default=_WINDOW)

    @cached_property
    def _table(self) -> Any:
        table = np.zeros(1 << _BITS, dtype=bool)
        table[list(self._by_prefix)] = True
        return table

    def find(self, raw: bytes) -> list[str]:
        """The marks of what is in some bytes, one for each place."""
        if not self._by_prefix or len(raw) < _WINDOW:
            return []
        found: list[str] = []
        for shift in range(_WINDOW):
            whole = (len(raw) - shift) // _WINDOW
            prefixes = _mixed(np.frombuffer(raw, "<u8", count=whole, offset=shift), self._tracer.factor)
            for at in np.flatnonzero(self._table[prefixes]):
                start = shift + int(at) * _WINDOW
                for size, marks in self._by_prefix[int(prefixes[at])].items():
                    piece = raw[start : start + size]
                    if len(piece) == size and (mark := self._tracer.of_bytes(piece)) in marks:
                        found.append(mark)
        return found

    def find_text(self, text: str) -> list[str]:
        """The marks of what is in a text."""
        return self.find(text.encode("utf-8", "surrogatepass"))

    def find_file(self, path: Path) -> Counter[str]:
        """The marks of what is in a file, with the number of places; a file that is gone holds nothing."""
        try:
            with path.open("rb") as file:
                return self.find_blocks(iter(lambda: file.read(_BLOCK), b""))
        except FileNotFoundError:
            return Counter()

    def find_blocks(self, blocks: Iterable[bytes]) -> Counter[str]:
        """The same for bytes that come in blocks; a piece may lie over several."""
        found: Counter[str] = Counter()
        if not self._by_prefix:
            return found
        rest = b""
        for block in blocks:
            found.update(self.find(rest + block))
            rest = (rest + block)[-(self.longest - 1) :]
            found.subtract(self.find(rest))  # the next block finds these again
        found.update(self.find(rest))
        return +found

    def cleaned(self, text: str, ids: frozenset[str], marker: str) -> str:
        """A JSON text in which every string that holds a trace, or is one of the ids, is the marker; any other text whole or the marker."""
        try:
            value = json.loads(text)
        except ValueError:
            return marker if self.find_text(text) else text
        changed = self._clean(value, ids, marker)
        return text if changed == value else json.dumps(changed, ensure_ascii=False, separators=(",", ":"))

    def _clean(self, value: Any, ids: frozenset[str], marker: str) -> Any:
        if isinstance(value, str):
            return marker if value in ids or self.find_text(value) else value
        if isinstance(value, list):
            return [self._clean(one, ids, marker) for one in value]
        if isinstance(value, dict):
            return {self._clean(name, ids, marker): self._clean(one, ids, marker) for name, one in value.items()}
        return value


def files_under(root: Path) -> Iterator[Path]:
    """Every plain file under a folder, in order; links are not followed."""
    for folder, names, files in os.walk(root):
        names.sort()
        paths = (Path(folder, name) for name in sorted(files))
        yield from (path for path in paths if path.is_file() and not path.is_symlink())


def _mixed(words: Any, factor: Any) -> Any:
    return (words * factor) >> np.uint64(64 - _BITS)
