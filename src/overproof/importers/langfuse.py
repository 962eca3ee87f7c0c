"""
Langfuse: blob storage exports (observations_v2, legacy observations) and the JSON of its observations API and UI export.

Source: Langfuse documentation, "Blob storage export field reference" and "Observations API", as of 2026.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from overproof.importers import ColumnMapping
from overproof.importers.bodies import Answer, answered, asked
from overproof.importers.calls import Call, CallImporter, Passed
from overproof.importers.objects import first_row
from overproof.importers.rows import BadRow, moment
from overproof.importers.turns import opened, turns_of

OTHER = frozenset({
    "project_id", "environment", "parent_observation_id", "name", "version", "release", "created_at", "updated_at", "trace_name",
    "model_parameters", "tool_definitions", "tool_calls", "tool_call_names", "completion_start_time", "time_to_first_token",
    "usage_pricing_tier_name", "prompt_id", "prompt_name", "prompt_version", "tags", "bookmarked", "public", "unit", "usage",
    "model_id", "internal_model_id", "input_price", "output_price", "total_price", "trace_id", "level", "is_deleted", "prompt_tokens",
    "completion_tokens", "total_tokens", "trace",
})  # fmt: skip
"""Known names that are of no use here, or are read through `_get`."""
READ = frozenset({
    "id", "type", "start_time", "end_time", "metadata", "status_message", "input", "output", "provided_model_name", "model",
    "usage_details", "cost_details", "total_cost", "calculated_total_cost", "latency", "user_id", "session_id",
})  # fmt: skip


def _snake(name: str) -> str:
    return "".join(f"_{mark.lower()}" if mark.isupper() else mark for mark in name)


class Langfuse(CallImporter):
    """Observations of type GENERATION; spans, events and scores are passed over and counted."""

    name = "langfuse.v1"
    known_by = "observations of Langfuse (type, trace_id, start_time)"
    under = ("data", "observations")

    def sniff(self, head: bytes, name: str) -> float:
        """How sure: the columns of an observation; see `Importer.sniff`."""
        row = {_snake(key) for key in first_row(head, name, self.under)}
        return 0.97 if {"trace_id", "type", "start_time"} <= row and "run_type" not in row else 0.0

    def _note(self, row: Mapping[str, Any]) -> None:
        for key, value in row.items():
            if value not in (None, "") and _snake(key) not in READ | OTHER:
                self.notes.ignored[key] += 1

    def calls(self, row: Mapping[str, Any], mapping: ColumnMapping) -> Iterator[Call | Passed]:
        """The one call of a generation; see `CallImporter.calls`."""
        del mapping
        get = {_snake(key): value for key, value in row.items() if value != ""}.get  # "" stands for what isn't set
        kind = get("type")
        if str(kind).upper() != "GENERATION":
            yield Passed(why=f"an observation of type {kind}")
            return
        asking = opened(get("input"))
        if asking is None:
            raise BadRow("the generation has no input; was its field group left out of the export?")
        turns = (asked(asking) if isinstance(asking, Mapping) else turns_of(asking)) or None
        if turns is None and isinstance(asking, Mapping):
            turns = turns_of(asking if "content" in asking or "role" in asking else str(get("input")))
        output, failed = get("output"), str(get("level")).upper() == "ERROR"
        answer: Answer | None = None
        if failed:
            answer = Answer(said=None, failed=f"the call failed: {get('status_message') or 'no message'}"[:200])
        elif output is not None:
            answer = answered(output)
        usage, cost = opened(get("usage_details")), opened(get("cost_details"))
        usage = usage if isinstance(usage, Mapping) else opened(get("usage"))
        usage, cost = usage if isinstance(usage, Mapping) else {}, cost if isinstance(cost, Mapping) else {}
        metadata = opened(get("metadata"))
        extra = metadata if isinstance(metadata, Mapping) else {}
        total = next((one for one in (get("total_cost"), get("calculated_total_cost"), cost.get("total")) if one is not None), None)
        yield Call(
            messages=turns or [], answer=answer, id=get("id"), at=get("start_time"), session=get("session_id") or get("user_id"),
            model=get("provided_model_name") or get("model"), latency_s=_latency(get("latency"), get("start_time"), get("end_time")),
            tokens_in=_tokens(usage.get("input", get("prompt_tokens"))),
            tokens_out=_tokens(usage.get("output", get("completion_tokens"))), cost_usd=total,
            attributes={"environment": get("environment"), "prompt_name": get("prompt_name"), **extra},
        )  # fmt: skip


def _tokens(value: Any) -> Any:
    return None if value in ("", None) else value


def _latency(latency: Any, start: Any, end: Any) -> Any:
    """The latency column; where it's missing, from the two times."""
    if latency is not None or start is None or end is None:
        return latency
    from datetime import datetime

    times = [moment(start), moment(end)]
    if None in times:
        return None
    a, b = (datetime.fromisoformat(str(one)) for one in times)
    return max(0.0, (b - a).total_seconds())
