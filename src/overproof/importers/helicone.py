"""
Helicone: files of its export tool (JSONL, JSON, CSV) and rows of its request query.

Source: Helicone documentation, "Export Data" (@helicone/export --include-body) and "Get Requests", as of 2026.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from overproof.importers import ColumnMapping
from overproof.importers.bodies import Answer, answered, asked
from overproof.importers.calls import Call, CallImporter
from overproof.importers.objects import first_row
from overproof.importers.rows import BadRow
from overproof.importers.turns import opened


class Helicone(CallImporter):
    """Requests with their bodies; an export without bodies is named row by row."""

    name = "helicone.v1"
    known_by = "requests of Helicone (request_body, response_body, request_created_at)"
    under = ("data",)
    understood = frozenset({
        "request_id", "response_id", "request_created_at", "response_created_at", "request_body", "response_body", "response_status",
        "request_properties", "request_user_id", "request_model", "response_model", "model", "model_override", "prompt_tokens",
        "completion_tokens", "total_tokens", "latency", "delay_ms", "time_to_first_token", "cost", "costUSD", "cost_usd", "provider",
        "signed_body_url", "request_path", "target_url", "country_code", "properties", "helicone_user", "llmSchema", "asset_ids",
        "asset_urls", "scores", "feedback_created_at", "feedback_id", "feedback_rating", "cache_reference_id", "cache_enabled",
        "prompt_id", "prompt_version", "request_referrer", "threat", "updated_at", "ai_gateway_body_mapping", "storage_location",
        "size_bytes", "gateway_router_id", "gateway_deployment_target",
    })  # fmt: skip

    def sniff(self, head: bytes, name: str) -> float:
        """How sure: the columns of the export; see `Importer.sniff`."""
        row = set(first_row(head, name, self.under))
        return 0.97 if "request_created_at" in row and row & {"request_body", "response_status", "signed_body_url"} else 0.0

    def calls(self, row: Mapping[str, Any], mapping: ColumnMapping) -> Iterator[Call]:
        """The one call of a row; see `CallImporter.calls`."""
        del mapping
        body, reply = opened(row.get("request_body")), opened(row.get("response_body"))
        if not isinstance(body, Mapping) or not body:
            where = " (it is behind signed_body_url, which expires)" if row.get("signed_body_url") else ""
            raise BadRow(f"the row has no request body{where}; export with --include-body")
        turns = asked(body)
        if turns is None:
            raise BadRow(f"the request body is no chat call; keys: {sorted(body)!r}"[:500])
        status = str(row.get("response_status") or "")
        answer = answered(reply) if reply not in (None, {}, "") else None
        if status and status != "200":
            answer = Answer(said=None, failed=f"the call failed with status {status}"[:200])
        properties = opened(row.get("request_properties") or row.get("properties"))
        properties = properties if isinstance(properties, Mapping) else {}
        milliseconds = row.get("delay_ms", row.get("latency"))
        try:
            seconds = None if milliseconds in (None, "") else float(str(milliseconds)) / 1_000
        except ValueError:
            raise BadRow(f"latency is {milliseconds!r}, expected milliseconds"[:200]) from None
        cost = next((row[key] for key in ("cost", "costUSD", "cost_usd") if row.get(key) is not None), None)
        session = properties.get("Helicone-Session-Id") or row.get("request_user_id") or row.get("helicone_user")
        yield Call(
            messages=turns, answer=answer, id=row.get("request_id"), at=row.get("request_created_at"), session=session,
            model=row.get("response_model") or row.get("model") or row.get("request_model"), latency_s=seconds, cost_usd=cost,
            tokens_in=row.get("prompt_tokens"), tokens_out=row.get("completion_tokens"),
            attributes={k: v for k, v in properties.items() if not str(k).startswith("Helicone-")},
        )  # fmt: skip
