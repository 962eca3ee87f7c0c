"""JSON from a file value by value: what is longer than a window is taken apart, so that no document is ever in memory whole."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import IO, Any

_BLOCK = 1 << 20  # bytes read at a time
_AHEAD = 1 << 16  # characters: what is shorter is parsed in one go; no number that Python reads is longer
_DECODER = json.JSONDecoder()


class Torn(ValueError):
    """The text ends too early, or is no JSON."""


class Window:
    """
    A moving view of a JSON text without white space between its tokens.

    Args:
        file: UTF-8, read from where it stands.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._bytes = codecs.getincrementaldecoder("utf-8")("surrogatepass")
        self._text, self._at, self._ended = "", 0, False

    def whole(self, *, least: int = 0, large: bool = False) -> tuple[Any] | None:
        """
        The next value in a tuple; None, and nothing is taken, for an array or object longer than the window.

        Args:
            least: characters that the window shall have at least.
            large: take any value whole.

        Returns: the value.
        Raises: Torn where the text is damaged.
        """
        self._fill(max(_AHEAD, least))
        try:
            value, end = _DECODER.raw_decode(self._text, self._at)
        except json.JSONDecodeError as error:
            if self._ended:
                raise Torn(str(error)) from error
        else:
            self._at = end
            return (value,)
        if not large and self._text[self._at] in "[{":
            return None
        return self.whole(least=2 * (len(self._text) - self._at), large=large)

    def items(self) -> Iterator[None]:
        """Stops before each item of the array that begins here; whoever asks for the next must have taken the last one."""
        self.take("[")
        if self.skip("]"):
            return
        while True:
            yield
            if self.skip("]"):
                return
            self.take(",")

    def keys(self) -> Iterator[str]:
        """As `items`, for the object that begins here: each key, with its value still to be taken."""
        self.take("{")
        if self.skip("}"):
            return
        while True:
            found = self.whole()
            if found is None or not isinstance(found[0], str):
                raise Torn("an object's key is no text")
            self.take(":")
            yield found[0]
            if self.skip("}"):
                return
            self.take(",")

    def peek(self) -> str:
        """The next character; empty at the end."""
        self._fill(1)
        return self._text[self._at : self._at + 1]

    def take(self, mark: str) -> None:
        """Step over one character; Torn for another one."""
        if not self.skip(mark):
            raise Torn(f"{mark!r} is missing")

    def skip(self, mark: str) -> bool:
        """Step over one character if it is this one."""
        if self.peek() != mark:
            return False
        self._at += 1
        return True

    def end(self) -> None:
        """Torn where there is more."""
        if self.peek():
            raise Torn("there is more behind the end")

    def _fill(self, least: int) -> None:
        if self._ended or len(self._text) - self._at >= least:
            return
        parts = [self._text[self._at :]]
        ahead = len(parts[0])
        while not self._ended and ahead < least:
            raw = self._file.read(_BLOCK)
            self._ended = not raw
            try:
                parts.append(self._bytes.decode(raw, final=self._ended))
            except UnicodeDecodeError as error:
                raise Torn(str(error)) from error
            ahead += len(parts[-1])
        self._text, self._at = "".join(parts), 0
