"""
LiteLLM: StandardLoggingPayload objects (S3, GCS, callbacks) and rows of the proxy's LiteLLM_SpendLogs table.

Source: LiteLLM documentation, "StandardLoggingPayload Specification" and "Spend tracking" (store_prompts_in_spend_logs),
as of 2026.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from overproof.importers import ColumnMapping
from overproof.importers.bodies import Answer, answered, asked
from overproof.importers.calls import Call, CallImporter, Passed
from overproof.importers.objects import first_row
from overproof.importers.rows import BadRow, moment, scalar_text
from overproof.importers.turns import Said, opened, turns_of

CALLS = ("completion", "acompletion", "text_completion", "atext_completion", "anthropic_messages", "responses", "aresponses", "generate_content", "agenerate_content")


class LiteLLM(CallImporter):
    """Calls of the proxy; embeddings and other kinds are passed over and counted."""

    name = "litellm.v1"
    known_by = "logging payloads or spend logs of LiteLLM (call_type, startTime)"
    under = ("data",)
    understood = frozenset({
        "id", "trace_id", "call_type", "response_cost", "cost_breakdown", "response_cost_failure_debug_info", "status",
        "status_fields", "total_tokens", "prompt_tokens", "completion_tokens", "startTime", "endTime", "completionStartTime",
        "response_time", "model_map_information", "model", "model_id", "model_group", "api_base", "metadata", "cache_hit", "cache_key",
        "saved_cache_cost", "request_tags", "end_user", "requester_ip_address", "messages", "response", "error_str",
        "error_information", "model_parameters", "hidden_params", "guardrail_information", "stream", "custom_llm_provider",
        "standard_built_in_tools_params", "session_id", "request_id", "spend", "user", "api_key", "team_id", "organization_id",
        "proxy_server_request", "litellm_call_id", "request_duration_ms", "mcp_namespaced_tool_name", "agent_id", "user_agent",
    })  # fmt: skip

    def sniff(self, head: bytes, name: str) -> float:
        """How sure: the names that both forms share; see `Importer.sniff`."""
        row = set(first_row(head, name, self.under))
        return 0.97 if {"call_type", "startTime"} <= row else 0.0

    def calls(self, row: Mapping[str, Any], mapping: ColumnMapping) -> Iterator[Call | Passed]:
        """The one call of a row; see `CallImporter.calls`."""
        del mapping
        kind = scalar_text(row.get("call_type")) or ""
        if kind and kind not in CALLS:
            yield Passed(why=f"a call of type {kind}")
            return
        turns = _turns(row)
        failed = row.get("error_str") or (row.get("status") == "failure" and "no message")
        answer: Answer | None = None
        reply = opened(row.get("response"))
        if failed:
            answer = Answer(said=None, failed=f"the call failed: {failed}"[:200])
        elif reply not in (None, {}, ""):
            answer = answered(reply)
        metadata = opened(row.get("metadata"))
        metadata = metadata if isinstance(metadata, Mapping) else {}
        tags = opened(row.get("request_tags"))
        tags = {"tags": ",".join(map(str, tags))} if isinstance(tags, list) and tags else {}
        start, end = moment(row.get("startTime")), moment(row.get("endTime"))
        cost = next((row[key] for key in ("response_cost", "spend") if row.get(key) is not None), None)
        yield Call(
            messages=turns, answer=answer, id=row.get("id") or row.get("request_id"), at=start,
            session=row.get("session_id") or row.get("end_user") or row.get("user"), model=row.get("model"),
            latency_s=None if start is None or end is None else max(0.0, _seconds(end) - _seconds(start)),
            tokens_in=row.get("prompt_tokens"), tokens_out=row.get("completion_tokens"), cost_usd=cost,
            attributes={
                "model_group": row.get("model_group"), "cache_hit": scalar_text(row.get("cache_hit")) or None, **tags,
                **{k: v for k, v in metadata.items() if k in ("user_api_key_alias", "user_api_key_team_alias")},
                **(metadata.get("requester_metadata") or {}),
            },
        )  # fmt: skip


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def _turns(row: Mapping[str, Any]) -> list[Said]:
    """The prompts; the table keeps none unless told to, and some releases keep them in proxy_server_request only."""
    for value in (opened(row.get("messages")), opened(row.get("proxy_server_request"))):
        inner = value.get("body") if isinstance(value, Mapping) else None
        body = inner if isinstance(inner, Mapping) else value
        found = asked(body) if isinstance(body, Mapping) else turns_of(body) if body else None
        if found:
            return found
    raise BadRow("the row has no messages; set store_prompts_in_spend_logs, or log StandardLoggingPayload")
