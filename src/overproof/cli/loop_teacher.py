"""The teacher of `overproof demo --loop`: the recorded careful reader behind a real HTTP API on loopback."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from overproof.errors import StoreError

CHARACTERS_PER_TOKEN = 4  # about what tokenizers of large models make of European languages
FINGERPRINT = "fp_northlane_2025_11"
UNKNOWN = 404


class LoopTeacher(ThreadingHTTPServer):
    """
    Answers chat completions with what the recording says of the last message.

    Args:
        answers: text of a message to the recorded answer.
        model: name that answers come under.
        port: 0 takes a free one.

    Raises: StoreError where the port is taken.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, answers: Mapping[str, str], *, model: str, port: int = 0) -> None:
        self.answers, self.model = dict(answers), model
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise StoreError(
                f"the demo's teacher can't listen at port {port}: {error.strerror}",
                next_action="end what listens there, or give the demo another folder",
            ) from error

    @property
    def address(self) -> str:
        """Base URL, up to and including /v1."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    @contextlib.contextmanager
    def running(self) -> Iterator[LoopTeacher]:
        """Answer in a thread for as long as the block lasts."""
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, name="teacher", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()
            thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: LoopTeacher

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Not to the terminal."""

    def do_POST(self) -> None:
        """One chat completion."""
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        turns = json.loads(raw)["messages"]
        text = turns[-1]["content"]
        word = self.server.answers.get(text)
        if word is None:
            self._send(UNKNOWN, {"error": {"message": "not in the recording", "type": "invalid_request_error"}})
            return
        asked = sum(len(turn["content"]) for turn in turns) // CHARACTERS_PER_TOKEN
        said = max(1, len(word) // CHARACTERS_PER_TOKEN)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": word}}
        usage = {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}
        self._send(200, {
            "id": "chatcmpl-northlane", "object": "chat.completion", "created": 0, "model": self.server.model, "choices": [choice],
            "usage": usage, "system_fingerprint": FINGERPRINT,
        })  # fmt: skip

    def _send(self, status: int, value: Mapping[str, Any]) -> None:
        body = json.dumps(value).encode()
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
