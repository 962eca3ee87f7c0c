"""
Names of span attributes, written down here since the package of OpenTelemetry marks all of them as moving.

Source: OpenTelemetry semantic conventions 1.41 (generative AI: client spans; HTTP: server spans; general: server, error).
"""

from __future__ import annotations

from typing import Final

REVISION: Final = "1.41.0"
SCHEMA_URL: Final = f"https://opentelemetry.io/schemas/{REVISION}"

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"

SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"
METHOD: Final = "http.request.method"
HTTP_ROUTE: Final = "http.route"
STATUS: Final = "http.response.status_code"

TASK: Final = "overproof.task"
ROUTE: Final = "overproof.route"
REASON: Final = "overproof.reason"
RELEASE: Final = "overproof.release"
STAGE: Final = "overproof.stage"
CONFIDENCE: Final = "overproof.confidence"
SLICE: Final = "overproof.slice"

OPERATIONS: Final = {"/v1/chat/completions": "chat", "/v1/completions": "text_completion", "/v1/embeddings": "embeddings"}
"""Path to operation; a call that is none of these has a span without one."""
