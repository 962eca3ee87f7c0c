"""
LangSmith: bulk exports (Parquet) and runs as the SDK and the API give them.

Source: LangSmith documentation, "Run (span) data format" and "Bulk export trace data", as of 2026.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from overproof.importers import ColumnMapping
from overproof.importers.bodies import Answer, answered, asked
from overproof.importers.calls import Call, CallImporter, Passed
from overproof.importers.objects import first_row
from overproof.importers.rows import BadRow, moment, scalar_text
from overproof.importers.turns import as_answer, opened, turns_in, turns_of


class LangSmith(CallImporter):
    """Runs of type llm; chains, tools and retrievers are passed over and counted."""

    name = "langsmith.v1"
    known_by = "runs of LangSmith (run_type, inputs, outputs)"
    under = ("runs", "data")
    understood = frozenset({
        "id", "name", "run_type", "inputs", "outputs", "start_time", "end_time", "extra", "error", "tags", "session_id", "thread_id",
        "prompt_tokens", "completion_tokens", "total_tokens", "total_cost", "prompt_cost", "completion_cost", "status", "trace_id",
        "dotted_order", "parent_run_id", "parent_run_ids", "child_run_ids", "reference_example_id", "first_token_time", "events",
        "serialized", "feedback_stats", "app_path", "is_root", "manifest_id", "prompt_token_details", "completion_token_details",
        "prompt_cost_details", "completion_cost_details", "execution_order", "inputs_preview", "outputs_preview", "tenant_id",
        "session_name", "trace_tier", "ttl_seconds", "in_dataset", "share_token", "price_model_id",
    })  # fmt: skip

    def sniff(self, head: bytes, name: str) -> float:
        """How sure: the columns of a run; see `Importer.sniff`."""
        row = first_row(head, name, self.under)
        return 0.97 if {"run_type", "inputs"} <= set(row) else 0.0

    def calls(self, row: Mapping[str, Any], mapping: ColumnMapping) -> Iterator[Call | Passed]:
        """The one call of an llm run; see `CallImporter.calls`."""
        del mapping
        kind = row.get("run_type")
        if kind != "llm":
            yield Passed(why=f"a run of type {kind}")
            return
        inputs, outputs, extra = (opened(row.get(key)) for key in ("inputs", "outputs", "extra"))
        if not isinstance(inputs, Mapping):
            raise BadRow("the run has no inputs")
        turns = asked(inputs)
        if turns is None and isinstance(inputs.get("prompts"), list):
            turns = turns_of(inputs["prompts"][0] if inputs["prompts"] else "")
        if turns is None:
            raise BadRow(f"inputs holds neither messages nor prompts; keys: {sorted(inputs)!r}"[:500])
        metadata = extra.get("metadata") if isinstance(extra, Mapping) else None
        metadata = metadata if isinstance(metadata, Mapping) else {}
        answer: Answer | None = None
        if row.get("error"):
            answer = Answer(said=None, failed=f"the call failed: {scalar_text(row['error'])}"[:200])
        elif outputs is not None:
            answer = _answer(outputs)
        start, end = moment(row.get("start_time")), moment(row.get("end_time"))
        thread = next((metadata[key] for key in ("session_id", "conversation_id", "thread_id") if metadata.get(key)), row.get("thread_id"))
        yield Call(
            messages=turns, answer=answer, id=row.get("id"), at=start, session=thread,  # session_id is the project here
            model=metadata.get("ls_model_name"), latency_s=_between(start, end),
            tokens_in=row.get("prompt_tokens"), tokens_out=row.get("completion_tokens"), cost_usd=row.get("total_cost"),
            attributes={key: value for key, value in metadata.items() if not str(key).startswith(("ls_", "LANGSMITH", "revision_id"))},
        )  # fmt: skip


def _between(start: str | None, end: str | None) -> float | None:
    from datetime import datetime

    if start is None or end is None:
        return None
    return max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())


def _answer(outputs: Any) -> Answer | None:
    """LangChain's generations, a provider's own response, or a bare message."""
    if not isinstance(outputs, Mapping):
        return answered(outputs)
    listed = outputs.get("generations")
    while isinstance(listed, list) and listed and isinstance(listed[0], list):
        listed = listed[0]
    if isinstance(listed, list) and listed and isinstance(listed[0], Mapping):
        first = listed[0]
        message = first.get("message")
        said = as_answer(turns_in(message, role="assistant")) if isinstance(message, Mapping) else None
        info = first.get("generation_info")
        info = info if isinstance(info, Mapping) else {}
        more = message.get("kwargs", message) if isinstance(message, Mapping) else {}
        about = more.get("response_metadata") if isinstance(more, Mapping) else None
        info = {**(about if isinstance(about, Mapping) else {}), **info}
        usage = more.get("usage_metadata") if isinstance(more, Mapping) else None
        usage = usage if isinstance(usage, Mapping) else {}
        if said is None:
            said = as_answer(turns_of(str(first.get("text") or ""), role="assistant"))
        return Answer(
            said=said, finish=info.get("finish_reason") or info.get("stop_reason"), model=info.get("model_name"),
            tokens_in=usage.get("input_tokens"), tokens_out=usage.get("output_tokens"),
        )  # fmt: skip
    for key in ("message", "messages"):
        inner = outputs.get(key)
        if isinstance(inner, list) and inner:
            inner = inner[-1]
        if isinstance(inner, Mapping):
            return answered(inner)
    if isinstance(outputs.get("output"), str):
        return answered(outputs["output"])
    return answered(outputs)
