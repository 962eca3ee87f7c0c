"""
Amazon Bedrock: model invocation logs, from S3 (gzip, JSON lines) or from CloudWatch (the object in "message").

Source: Amazon Bedrock user guide, "Monitor model invocation using CloudWatch Logs and Amazon S3"; API reference of
Converse and ConverseStream; as of 2026.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from overproof.importers import ColumnMapping
from overproof.importers.bodies import Answer, answered, asked, streamed
from overproof.importers.calls import Call, CallImporter, Passed
from overproof.importers.objects import first_row
from overproof.importers.rows import BadRow
from overproof.importers.turns import opened

OPERATIONS = ("InvokeModel", "InvokeModelWithResponseStream", "Converse", "ConverseStream")


class Bedrock(CallImporter):
    """Invocations of text models; bodies that the log keeps in S3 are named with their path."""

    name = "bedrock.v1"
    known_by = "schemaType ModelInvocationLog"
    under = ("Records", "events", "logEvents")
    understood = frozenset({
        "schemaType", "schemaVersion", "timestamp", "accountId", "identity", "region", "requestId", "operation", "modelId", "input",
        "output", "errorCode", "inferenceRegion", "requestMetadata", "status", "performanceConfig", "message", "@message",
        "ingestionTime", "id", "eventId", "logStreamName",
    })  # fmt: skip

    def sniff(self, head: bytes, name: str) -> float:
        """How sure: the log's own mark; see `Importer.sniff`."""
        row = _inside(first_row(head, name, self.under))
        return 0.99 if row.get("schemaType") == "ModelInvocationLog" else 0.0

    def calls(self, row: Mapping[str, Any], mapping: ColumnMapping) -> Iterator[Call | Passed]:
        """The one call of a record; see `CallImporter.calls`."""
        del mapping
        row = _inside(row)
        operation = str(row.get("operation"))
        if operation not in OPERATIONS:
            yield Passed(why=f"an operation {operation}")
            return
        sent, got = _object(row, "input"), _object(row, "output")
        body = opened(sent.get("inputBodyJson"))
        if not isinstance(body, Mapping):
            path = sent.get("inputBodyS3Path")
            raise BadRow(f"the request lies in {path}; fetch it and put it into input.inputBodyJson" if path else "the record has no inputBodyJson")
        turns = asked(body)
        if turns is None:
            raise BadRow(f"the request body is no text call; keys: {sorted(body)!r}"[:500])
        answer = _answer(row, got)
        metadata = row.get("requestMetadata")
        reply = opened(got.get("outputBodyJson"))
        metrics = reply.get("metrics") if isinstance(reply, Mapping) else None
        milliseconds = metrics.get("latencyMs") if isinstance(metrics, Mapping) else None
        yield Call(
            messages=turns, answer=answer, id=row.get("requestId"), at=row.get("timestamp"), model=row.get("modelId"),
            latency_s=milliseconds / 1_000 if isinstance(milliseconds, int | float) else None,
            tokens_in=sent.get("inputTokenCount"), tokens_out=got.get("outputTokenCount"),
            attributes={"region": row.get("region"), **(metadata if isinstance(metadata, Mapping) else {})},
        )  # fmt: skip


def _object(row: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = opened(row.get(key))
    return value if isinstance(value, Mapping) else {}


def _inside(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A CloudWatch event carries the record as text."""
    inner = opened(row.get("message", row.get("@message")))
    return inner if isinstance(inner, Mapping) and "schemaType" in inner else row


def _answer(row: Mapping[str, Any], got: Mapping[str, Any]) -> Answer | None:
    if row.get("errorCode"):
        return Answer(said=None, failed=f"the call failed: {row['errorCode']}"[:200])
    reply = opened(got.get("outputBodyJson"))
    if reply is None:
        path = got.get("outputBodyS3Path")
        return Answer(said=None, failed=f"the answer lies in {path}"[:200]) if path else None
    return answered(streamed(reply) if isinstance(reply, list) else reply)
