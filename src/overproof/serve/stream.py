"""What a response that passes by says: read from a copy of its bytes, streamed or not, without ever holding it up."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

import msgspec

from overproof.data import Completeness, Completion, ToolCall
from overproof.errors import DataError
from overproof.outputs import Output
from overproof.teachers.replies import Answer, error_text, json_object, provider_message, read_chat

MOST_BYTES = 8 * 1024 * 1024
"""Longest body that is read, after decoding; a longer one passes unread."""
MOST_STREAM = 64 * 1024 * 1024
"""The same for a stream, of which only the text is kept."""
MOST_LINE = 1024 * 1024
"""Longest event of a stream."""
MOST_CALLS = 64
ZLIB_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 47}
"""zlib's window argument; 47 takes the zlib format, which is what "deflate" should be, and gzip."""


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    index: int = 0
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    usage: Any = None
    error: Any = None


_CHUNK = msgspec.json.Decoder(_Chunk)
_BOM = b"\xef\xbb\xbf"


class _Called:
    """A tool call that comes in pieces."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id = self.name = ""
        self.arguments: list[str] = []


class Summary:
    """
    Fed with a response's bytes as they pass, however they are split; says afterwards what was answered.

    Reading a stream costs a little for each event; a JSON body is kept as it is until `completion` is called, which may be in
    another thread. Never raises, whatever it is fed.

    Args:
        status: HTTP status of the response.
        headers: its headers, names in lower case.
        secret: the upstream's key, which is taken out of all that is kept.
    """

    def __init__(self, status: int, headers: Iterable[tuple[bytes, bytes]], *, secret: str = "") -> None:
        kind = encoding = ""
        for name, value in headers:
            if name == b"content-type":
                kind = value.decode("latin-1").lower()
            elif name == b"content-encoding":
                encoding = value.decode("latin-1").strip().lower()
        self.status = status
        self.streamed = "event-stream" in kind
        """Whether the response is a stream of events."""
        self.encoded = encoding not in ("", "identity")
        """Whether its bytes are compressed."""
        self.begun = False
        """Whether a chunk with an answer's choices came."""
        self.failed = ""
        """An error that came as an event of the stream."""
        self.done = False
        """Whether `[DONE]` came."""
        self._secret, self._encoding = secret, encoding
        self._unread = f"the body is encoded as {encoding[:40]!r}, which is not read" if self.encoded and encoding not in ZLIB_BITS else ""
        self._zip = zlib.decompressobj(ZLIB_BITS[encoding]) if self.streamed and encoding in ZLIB_BITS else None
        self._raw = bytearray()
        self._size = 0
        self._data: list[bytes] = []
        self._whole: bool | None = None
        self._texts: list[str] = []
        self._refusals: list[str] = []
        self._calls: dict[int, _Called] = {}
        self._others = 0
        self._finish: str | None = None
        self._model: str | None = None
        self._fingerprint: str | None = None
        self._usage: Any = None
        self._answer: Answer | None = None
        self._kept = 0
        self._first = True
        self._held = False
        self._parsed = False

    def feed(self, chunk: bytes) -> None:
        """
        Take a piece of the body.

        Args:
            chunk: as it passed; empty is harmless.
        """
        if self._unread or self._whole is not None:
            return
        if self._zip is not None:
            self._inflate(chunk)
            return
        if self._too_long(len(chunk)):
            return
        if self.streamed:
            self._take(chunk)
        else:
            self._raw += chunk

    def end(self, *, whole: bool) -> None:
        """
        Say that nothing more will come.

        Args:
            whole: whether the body came whole, as its framing says.
        """
        if self._whole is not None:
            return
        if self.streamed and not self._unread:
            self._take(b"\n\n" if whole else b"")  # a last event may lack its empty line
            if whole and self._zip is not None and not self._zip.eof:
                self._unread = f"the body is not whole {self._encoding}"
        self._whole = whole

    @property
    def ended(self) -> bool:
        """Whether the answer itself said that it had ended; for streams, while they pass."""
        return self._finish is not None or self.done

    @property
    def finish_reason(self) -> str | None:
        """The upstream's own word."""
        self._read()
        return self._finish

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """Tools that the first choice called."""
        self._read()
        return tuple(ToolCall(id=one.id, name=one.name, arguments="".join(one.arguments)) for _, one in sorted(self._calls.items()))

    @property
    def complete(self) -> bool:
        """Whether the answer came whole: JSON that parses; or a stream with a finish_reason and `[DONE]`, all of it readable."""
        self._read()
        if not self._whole or self._unread or self.failed:
            return False
        return self._finish is not None and self.done if self.streamed else self._parsed

    @property
    def model(self) -> str:
        """The model that the response names; empty where none."""
        return self._read().model or ""

    @property
    def tokens_in(self) -> int | None:
        """Prompt tokens, as billed."""
        return self._read().tokens_in

    @property
    def tokens_out(self) -> int | None:
        """Answer tokens, as billed."""
        return self._read().tokens_out

    def completion(self, *, output: Output | None = None, latency_s: float | None = None, cost_usd: float | None = None) -> Completion:
        """
        The answer for the traffic log.

        Args:
            output: what the task accepts; None leaves `value` empty.
            latency_s: seconds from request to last byte.
            cost_usd: what it cost, where known.

        Returns: a completion; its `reason` says why it can't be a label, and is None only for a whole, unrefused answer.
        """
        answer = self._read()
        reason, value = self._why_not(answer), None
        if output is not None and not reason:
            try:
                value = output.parse(answer.text)
            except DataError as error:
                reason = error.what
        finish: Completeness = answer.finish if self.complete and 200 <= self.status <= 299 else "error"
        return Completion(
            text=answer.text, value=value, model=answer.model or "", finish=finish,
            tokens_in=answer.tokens_in, tokens_out=answer.tokens_out, latency_s=latency_s, cost_usd=cost_usd,
            reason=reason or None, tokens_cached=answer.tokens_cached or None, probability=answer.probability,
            fingerprint=answer.fingerprint,
        )  # fmt: skip

    def _why_not(self, answer: Answer) -> str:
        if self._whole is None:
            return "the answer has not ended"
        if not 200 <= self.status <= 299:
            return f"HTTP {self.status}: {self._message()}"[:300]
        if not self._whole:
            return "the answer was cut short"
        if self._unread or self.failed:
            return self._unread or f"the stream holds an error: {self.failed}"
        if self.streamed and self.begun and self._finish is None:
            return "the stream ended without a finish_reason"
        if self.streamed and self.begun and not self.done:
            return "the stream ended without [DONE]"
        if answer.reason:
            return answer.reason
        return f"the answer has {self._others + 1} choices; only the first is kept" if self._others else ""

    def _message(self) -> str:
        return self.failed or provider_message(self._body(), secret=self._secret)

    def _too_long(self, more: int) -> bool:
        self._size += more
        most = MOST_STREAM if self.streamed else MOST_BYTES
        if self._size > most:
            self._give_up(f"the body is longer than {most} bytes")
        return bool(self._unread)

    # streams

    def _inflate(self, chunk: bytes) -> None:
        assert self._zip is not None
        try:
            while chunk and not self._unread:
                piece = self._zip.decompress(chunk, 65_536)  # a small body may unpack to a huge one
                if not self._too_long(len(piece)):
                    self._take(piece)
                chunk = self._zip.unconsumed_tail
        except zlib.error:
            self._give_up(f"the body is not {self._encoding}")

    def _take(self, piece: bytes) -> None:
        """Lines end in LF, CR LF or CR. Source: WHATWG HTML §9.2.6."""
        raw = self._raw
        raw += piece
        if self._first and raw:
            if raw.startswith(_BOM):
                del raw[:3]
            self._first = raw != b"" and _BOM.startswith(raw)
        if b"\n" in piece or b"\r" in piece or self._held:
            self._held = raw.endswith(b"\r")  # may be the first half of CR LF
            text = bytes(raw[:-1] if self._held else raw)
            if b"\r" in text:
                text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            lines = text.split(b"\n")
            self._raw = raw = bytearray(lines.pop() + (b"\r" if self._held else b""))
            for line in lines:
                self._line(line)
                if self._unread:
                    return
        if len(raw) > MOST_LINE:
            self._give_up(f"the stream holds a line longer than {MOST_LINE} bytes")

    def _line(self, line: bytes) -> None:
        if not line:
            self._dispatch()
        elif len(line) > MOST_LINE:
            self._give_up(f"the stream holds a line longer than {MOST_LINE} bytes")
        elif line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])

    def _dispatch(self) -> None:
        if not self._data:
            return
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        self._data = []
        if data.strip() == b"[DONE]":
            self.done = True
            return
        try:
            chunk = _CHUNK.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            self._unread = self._unread or "the stream holds an event that is not a chunk of an answer"
            return
        if chunk.error is not None:
            self.failed = self.failed or error_text({"error": chunk.error}, secret=self._secret)
        self._model = chunk.model or self._model
        self._fingerprint = chunk.system_fingerprint or self._fingerprint
        self._usage = chunk.usage if chunk.usage is not None else self._usage
        for choice in chunk.choices or ():
            self.begun = True
            if choice.index:
                self._others = max(self._others, choice.index)
            else:
                self._gather(choice)

    def _gather(self, choice: _Choice) -> None:
        if self.done or (self._finish is not None and choice.delta is not None and choice.delta.content):
            self._unread = self._unread or "the stream goes on after its end"
        self._finish = choice.finish_reason or self._finish
        if choice.text:
            self._keep(choice.text)
        delta = choice.delta
        if delta is None:
            return
        if delta.content:
            self._keep(delta.content)
        if delta.refusal:
            self._refusals.append(delta.refusal)
        called = delta.tool_calls or ([_Call(function=delta.function_call)] if delta.function_call else [])
        for call in called:
            if call.index in self._calls or len(self._calls) < MOST_CALLS:
                known = self._calls.setdefault(call.index, _Called())
                known.id = call.id or known.id
                if call.function is not None:
                    known.name = (known.name + (call.function.name or ""))[:200]
                    known.arguments.append(call.function.arguments or "")

    def _keep(self, text: str) -> None:
        self._kept += len(text)
        if self._kept > MOST_BYTES:
            self._give_up(f"the answer is longer than {MOST_BYTES} characters")
        else:
            self._texts.append(text)

    def _give_up(self, why: str) -> None:
        self._unread = self._unread or why
        self._raw, self._data, self._texts = bytearray(), [], []

    # the end

    def _body(self) -> bytes:
        """The JSON body, decoded; empty where it can't be, which is then noted."""
        if self.streamed or self._unread or self._encoding not in ZLIB_BITS:
            return bytes(self._raw)
        unzip = zlib.decompressobj(ZLIB_BITS[self._encoding])
        try:
            found = unzip.decompress(bytes(self._raw), MOST_BYTES + 1)
        except zlib.error:
            self._give_up(f"the body is not {self._encoding}")
            return b""
        if not unzip.eof and len(found) <= MOST_BYTES:
            self._give_up(f"the body is not whole {self._encoding}")
            return b""
        if len(found) > MOST_BYTES:
            self._give_up(f"the body is longer than {MOST_BYTES} bytes")
            return b""
        return found

    def _read(self) -> Answer:
        if self._answer is not None:
            return self._answer
        answer = self._read_stream() if self.streamed else self._read_json()
        if self._whole is not None:
            self._answer = answer
        return answer

    def _read_stream(self) -> Answer:
        if not self.begun:
            return Answer(reason="the stream has no choices", model=self._model)
        message = {"content": "".join(self._texts), "refusal": "".join(self._refusals) or None, "tool_calls": list(self._calls)}
        said = {
            "model": self._model, "system_fingerprint": self._fingerprint, "usage": self._usage,
            "choices": [{"message": message, "finish_reason": self._finish}],
        }  # fmt: skip
        return read_chat(said, secret=self._secret)

    def _read_json(self) -> Answer:
        if self._whole is None or self._unread:
            return Answer(reason="the body is not read")
        said = json_object(self._body())
        if isinstance(said, Answer):
            return said
        self._parsed = True
        choices = said.get("choices")
        first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        if isinstance(first.get("text"), str) and "message" not in first:  # /v1/completions
            said = {**said, "choices": [{**first, "message": {"content": first["text"]}, "logprobs": None}]}
        finish = first.get("finish_reason")
        self._finish = finish if isinstance(finish, str) else None
        self._others = len(choices) - 1 if isinstance(choices, list) and choices else 0
        self._keep_calls(first.get("message"))
        return read_chat(said, secret=self._secret)

    def _keep_calls(self, message: object) -> None:
        listed = message.get("tool_calls") if isinstance(message, dict) else None
        for index, call in enumerate(listed[:MOST_CALLS] if isinstance(listed, list) else ()):
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict):
                known = self._calls[index] = _Called()
                found = [call.get("id"), function.get("name"), function.get("arguments")]
                known.id, known.name, arguments = (one if isinstance(one, str) else "" for one in found)
                known.arguments = [arguments]
