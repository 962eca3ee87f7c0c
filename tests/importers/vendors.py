"""One healthy call in every vendor's documented shape: the same question, answer, figures and session in each."""

import json

SYSTEM = "Route the ticket."
QUESTION = "My card broke."
EARLIER = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
MESSAGES = [{"role": "system", "content": SYSTEM}, *EARLIER, {"role": "user", "content": QUESTION}]
MODEL = "big-2026-05-01"
AT = "2026-05-04T10:00:00.000000Z"
START_S = 1777888800
END_S = START_S + 0.4


def chat(content="bug", finish="stop", **message):
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": START_S, "model": MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 13},
    }  # fmt: skip


def claude(content=None, stop="end_turn"):
    return {
        "id": "msg_01", "type": "message", "role": "assistant", "model": MODEL, "stop_reason": stop, "stop_sequence": None,
        "content": [{"type": "text", "text": "bug"}] if content is None else content,
        "usage": {"input_tokens": 10, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 0, "output_tokens": 1},
    }  # fmt: skip


def claude_request():
    turns = [*EARLIER, {"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
    return {"model": MODEL, "max_tokens": 9, "system": [{"type": "text", "text": SYSTEM}], "messages": turns, "metadata": {"user_id": "s1"}}


def otlp(value):
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [otlp(one) for one in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": [{"key": k, "value": otlp(v)} for k, v in value.items()]}}
    return {"stringValue": value}


def span(attributes, *, events=(), **more):
    pairs = [{"key": key, "value": otlp(value)} for key, value in attributes.items()]
    return {
        "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "chat big", "kind": 3,
        "startTimeUnixNano": str(START_S * 10**9), "endTimeUnixNano": str(int(END_S * 10) * 10**8), "attributes": pairs,
        "events": [{"name": n, "attributes": [{"key": k, "value": otlp(v)} for k, v in a.items()]} for n, a in events], **more,
    }  # fmt: skip


def traces(*spans):
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "helpdesk"}}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "x"}, "spans": list(spans)}]}]}


COMMON = {
    "gen_ai.operation.name": "chat", "gen_ai.request.model": "big", "gen_ai.response.model": MODEL,
    "gen_ai.conversation.id": "s1", "gen_ai.response.finish_reasons": ["stop"],
}  # fmt: skip
USAGE = {"gen_ai.usage.input_tokens": 12, "gen_ai.usage.output_tokens": 1}


def parts(message):
    return {"role": message["role"], "parts": [{"type": "text", "content": message["content"]}]}


OTEL_NEW = COMMON | USAGE | {
    "gen_ai.provider.name": "openai",
    "gen_ai.system_instructions": json.dumps([{"type": "text", "content": SYSTEM}]),
    "gen_ai.input.messages": json.dumps([parts(one) for one in MESSAGES[1:]]),
    "gen_ai.output.messages": [
        {"role": "assistant", "parts": [{"type": "reasoning", "content": "hm"}, {"type": "text", "content": "bug"}], "finish_reason": "stop"}
    ],
}  # fmt: skip
OTEL_NUMBERED = {
    "llm.request.type": "chat", "gen_ai.system": "OpenAI", "gen_ai.request.model": "big", "gen_ai.response.model": MODEL,
    "gen_ai.usage.prompt_tokens": 12, "gen_ai.usage.completion_tokens": 1, "llm.usage.total_tokens": 13,
    "traceloop.association.properties.session_id": "s1", "gen_ai.completion.0.role": "assistant",
    "gen_ai.completion.0.content": "bug", "gen_ai.completion.0.finish_reason": "stop",
    **{f"gen_ai.prompt.{i}.{key}": one[key] for i, one in enumerate(MESSAGES) for key in ("role", "content")},
}  # fmt: skip
OTEL_EVENTS = [
    *((f"gen_ai.{one['role']}.message", {"content": one["content"]}) for one in MESSAGES),
    ("gen_ai.choice", {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "bug"}}),
]
OPENINFERENCE = {
    "openinference.span.kind": "LLM", "llm.model_name": MODEL, "session.id": "s1",
    "llm.token_count.prompt": 12, "llm.token_count.completion": 1, "llm.output_messages.0.message.role": "assistant",
    "llm.output_messages.0.message.content": "bug", "llm.finish_reason": "stop",
    **{f"llm.input_messages.{i}.message.{key}": one[key] for i, one in enumerate(MESSAGES) for key in ("role", "content")},
}  # fmt: skip

LANGFUSE = {
    "id": "obs-1", "trace_id": "t1", "project_id": "p", "environment": "production", "parent_observation_id": None, "type": "GENERATION",
    "start_time": "2026-05-04 10:00:00.000000", "end_time": "2026-05-04 10:00:00.400000", "name": "route", "level": "DEFAULT",
    "metadata": json.dumps({"tier": "plus"}), "status_message": "", "input": json.dumps(MESSAGES),
    "output": json.dumps({"role": "assistant", "content": "bug"}), "provided_model_name": MODEL, "model_parameters": "{}",
    "usage_details": {"input": 12, "output": 1, "total": 13}, "cost_details": {"total": 0.5}, "total_cost": 0.5, "latency": 0.4,
    "user_id": "u7", "session_id": "s1", "trace_name": "x",
}  # fmt: skip
LANGCHAIN = [
    {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", kind], "kwargs": {"content": one["content"], "type": "x"}}
    for kind, one in zip(("SystemMessage", "HumanMessage", "AIMessage", "HumanMessage"), MESSAGES, strict=True)
]
LANGSMITH = {
    "id": "run-1", "name": "ChatOpenAI", "run_type": "llm", "start_time": "2026-05-04T10:00:00", "end_time": "2026-05-04T10:00:00.400000",
    "inputs": {"messages": [LANGCHAIN]}, "extra": {"metadata": {"ls_model_name": MODEL, "session_id": "s1", "tier": "plus"}},
    "outputs": {"generations": [[{
        "text": "bug", "generation_info": {"finish_reason": "stop"},
        "message": {"lc": 1, "id": ["langchain", "schema", "messages", "AIMessage"], "kwargs": {"content": "bug"}},
    }]]},
    "error": None, "session_id": "the-project", "prompt_tokens": 12, "completion_tokens": 1, "total_cost": 0.5, "trace_id": "t",
    "dotted_order": "d", "status": "success",
}  # fmt: skip
HELICONE = {
    "request_id": "req-1", "response_id": "res-1", "request_created_at": "2026-05-04T10:00:00Z",
    "response_created_at": "2026-05-04T10:00:00.4Z", "response_status": 200, "request_body": {"model": "big", "messages": MESSAGES},
    "response_body": chat(), "request_properties": {"Helicone-Session-Id": "s1", "tier": "plus"}, "request_user_id": "u7",
    "model": MODEL, "prompt_tokens": 12, "completion_tokens": 1, "delay_ms": 400, "cost": 0.5,
}  # fmt: skip
LITELLM = {
    "id": "call-1", "trace_id": "t", "call_type": "acompletion", "response_cost": 0.5, "status": "success", "total_tokens": 13,
    "prompt_tokens": 12, "completion_tokens": 1, "startTime": float(START_S), "endTime": END_S, "completionStartTime": END_S,
    "model": "big", "model_group": "route", "metadata": {"requester_metadata": {"tier": "plus"}}, "cache_hit": False,
    "request_tags": ["a"], "end_user": "s1", "messages": MESSAGES, "response": chat(), "error_str": None, "model_parameters": {},
}  # fmt: skip
SPEND = {
    "request_id": "call-1", "call_type": "acompletion", "spend": 0.5, "total_tokens": 13, "prompt_tokens": 12, "completion_tokens": 1,
    "startTime": "2026-05-04 10:00:00", "endTime": "2026-05-04 10:00:00.4", "model": "big", "metadata": "{}", "cache_hit": "False",
    "session_id": "s1", "messages": "{}", "response": json.dumps(chat()), "proxy_server_request": json.dumps({"messages": MESSAGES}),
}  # fmt: skip
BEDROCK = {
    "schemaType": "ModelInvocationLog", "schemaVersion": "1.0", "timestamp": "2026-05-04T10:00:00Z", "accountId": "1",
    "identity": {"arn": "arn:x"}, "region": "eu-central-1", "requestId": "req-1", "operation": "Converse", "modelId": MODEL,
    "input": {
        "inputContentType": "application/json", "inputTokenCount": 12,
        "inputBodyJson": {
            "system": [{"text": SYSTEM}],
            "messages": [{"role": one["role"], "content": [{"text": one["content"]}]} for one in MESSAGES[1:]],
        },
    },
    "output": {
        "outputContentType": "application/json", "outputTokenCount": 1,
        "outputBodyJson": {
            "output": {"message": {"role": "assistant", "content": [{"text": "bug"}]}}, "stopReason": "end_turn",
            "metrics": {"latencyMs": 400}, "usage": {"inputTokens": 12, "outputTokens": 1},
        },
    },
    "requestMetadata": {"tier": "plus"},
}  # fmt: skip
