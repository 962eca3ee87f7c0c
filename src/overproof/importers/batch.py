"""
Results of the providers' batch APIs, joined with the file of requests by custom_id.

Source: OpenAI API reference, "Batch" (request input and output objects); Claude API reference, "Retrieve Message Batch
results"; as of 2026.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from overproof.data import Skipped, TrafficRecord
from overproof.errors import DataError
from overproof.importers import ColumnMapping
from overproof.importers.bodies import Answer, answered, asked
from overproof.importers.calls import Call, CallImporter
from overproof.importers.files import PACKED
from overproof.importers.objects import Row, first_row
from overproof.importers.rows import BadRow, parse_object


class _Requests:
    """The requests of a batch by custom_id; keeps where each one stands, not its text, so that any batch fits."""

    def __init__(self, path: Path) -> None:
        if path.suffix in PACKED:
            raise DataError(f"the requests in {path.name!r} are looked up by place", next_action="unpack the file")
        self._handle = path.open("rb")
        self._places: dict[str, int] = {}
        at = 0
        for line in self._handle:
            try:
                row = json.loads(line) if line.strip() else None
            except ValueError:
                row = None
            if isinstance(row, dict) and "custom_id" in row:
                self._places[str(row["custom_id"])] = at
            at += len(line)

    def __len__(self) -> int:
        return len(self._places)

    def get(self, custom_id: str) -> Mapping[str, Any]:
        if custom_id not in self._places:
            raise BadRow(f"no request with custom_id {custom_id!r} in the file of requests"[:200])
        self._handle.seek(self._places[custom_id])
        row = parse_object(self._handle.readline().rstrip(b"\r\n"))
        body = row.get("body", row.get("params"))
        if not isinstance(body, dict):
            raise BadRow("the request has no body")
        return body

    def close(self) -> None:
        self._handle.close()


class _Batch(CallImporter):
    marks: frozenset[str] = frozenset()
    """Keys of which one stands beside custom_id."""
    understood = frozenset({"id", "custom_id", "response", "error", "result", "method", "url", "body", "params"})

    def __init__(self) -> None:
        super().__init__()
        self._requests: _Requests | None = None

    def sniff(self, head: bytes, name: str) -> float:
        """How sure: custom_id beside what the API writes; see `Importer.sniff`."""
        row = first_row(head, name)
        return 0.98 if "custom_id" in row and self.marks & set(row) else 0.0

    def take(
        self, rows: Iterable[Row | Skipped], mapping: ColumnMapping, path: Path
    ) -> Iterator[TrafficRecord | Skipped]:
        """The calls; see `CallImporter.take`."""
        if mapping.inputs is not None:
            try:
                self._requests = _Requests(mapping.inputs)
            except OSError as error:
                raise DataError(f"{str(mapping.inputs)!r} can't be read: {error.strerror}", next_action="look at --inputs") from error
        try:
            if self._requests is not None and not len(self._requests):
                raise DataError(f"{path.name!r}: no request with a custom_id in the file of --inputs", next_action="name the batch's input file")
            yield from super().take(rows, mapping, path)
        finally:
            if self._requests is not None:
                self._requests.close()

    def _call(self, row: Mapping[str, Any], answer: Answer | None) -> Call:
        body = row.get("body", row.get("params"))
        if body is None and self._requests is None:
            raise DataError("a batch's results hold answers only", next_action="name the file of its requests: --inputs FILE")
        if body is None and self._requests is not None:
            body = self._requests.get(str(row.get("custom_id")))
        turns = asked(body) if isinstance(body, Mapping) else None
        if turns is None or not isinstance(body, Mapping):
            raise BadRow("the request is no chat call (no messages, input or prompt)")
        return Call(messages=turns, answer=answer, id=row.get("custom_id"), model=body.get("model"))


class OpenAIBatch(_Batch):
    """Lines of a batch's output or error file; also its input file, as requests without answers."""

    name = "openai_batch.v1"
    marks = frozenset({"url", "response"})
    known_by = "custom_id with a response or a method and url, as in OpenAI's batch files"

    def calls(self, row: Mapping[str, Any], mapping: ColumnMapping) -> Iterator[Call]:
        """The one call of a row; see `CallImporter.calls`."""
        del mapping
        answer: Answer | None = None
        reply = row.get("response")
        if isinstance(reply, Mapping):
            status = reply.get("status_code")
            answer = answered(reply.get("body")) or Answer(said=None, failed="the response is empty")
            if isinstance(status, int) and status != 200:
                answer = replace(answer, failed=f"the call failed with status {status}")
        if row.get("error") is not None:
            answer = Answer(said=None, failed=f"the batch failed the call: {json.dumps(row['error'])}"[:200])
        yield self._call(row, answer)


class AnthropicBatch(_Batch):
    """Lines of a message batch's results, and of its requests."""

    name = "anthropic_batch.v1"
    marks = frozenset({"result", "params"})
    known_by = "custom_id with a result or params, as in Anthropic's message batches"

    def calls(self, row: Mapping[str, Any], mapping: ColumnMapping) -> Iterator[Call]:
        """The one call of a row; see `CallImporter.calls`."""
        del mapping
        result = row.get("result")
        answer: Answer | None = None
        if isinstance(result, Mapping):
            kind = result.get("type")
            answer = answered(result.get("message")) if kind == "succeeded" else Answer(said=None, failed=f"the batch says {kind!r}")
        yield self._call(row, answer)
