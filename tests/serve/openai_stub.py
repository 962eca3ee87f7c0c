"""An upstream that answers as OpenAI's API does, on loopback: plain, JSON, tools, streams, embeddings, errors."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-of-the-upstream"
SAID = "login"
"""The teacher's answer to everything."""
ERRORS = {
    "wrong": (400, "invalid_request_error", "wrong_value"),
    "busy": (429, "rate_limit_error", "rate_limit_exceeded"),
    "down": (500, "server_error", None),
}
GATED = "gated"
"""A stream whose request holds this word stops after its first piece until `gate` is set."""


class Stub(ThreadingHTTPServer):
    """Serves in a thread of its own."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.gate = threading.Event()
        self.seen = []
        """Method, path and body of each request."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def close(self):
        self.gate.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.answer_all(b"")

    def do_POST(self):
        self.answer_all(self.rfile.read(int(self.headers.get("content-length", 0))))

    def answer_all(self, raw):
        self.server.seen.append((self.command, self.path, raw))
        body = json.loads(raw) if raw else {}
        model = body.get("model", "")
        with contextlib.suppress(ConnectionError):
            if self.headers.get("authorization") != f"Bearer {KEY}":
                self.fail(401, "invalid_request_error", "invalid_api_key")
            elif model in ERRORS:
                self.fail(*ERRORS[model])
            elif self.path == "/v1/models":
                self.send({"object": "list", "data": [_model("big")]})
            elif self.path.startswith("/v1/models/"):
                name = self.path.rpartition("/")[2]
                self.send(_model(name)) if name == "big" else self.fail(404, "invalid_request_error", "model_not_found")
            elif self.path == "/v1/embeddings":
                self.embed(body)
            elif self.path == "/v1/chat/completions":
                self.stream(body, chat=True) if body.get("stream") else self.send(_chat(body))
            elif self.path == "/v1/completions":
                self.stream(body, chat=False) if body.get("stream") else self.send(_completion(body))
            else:
                self.fail(404, "invalid_request_error", "unknown_url")

    def send(self, value, status=200, more=()):
        raw = json.dumps(value).encode()
        self.send_response(status)
        for name, text in [("content-type", "application/json"), ("content-length", str(len(raw))), ("x-request-id", "req-upstream"), *more]:
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(raw)

    def fail(self, status, kind, code):
        error = {"message": f"the upstream says {status}", "type": kind, "param": None, "code": code}
        self.send({"error": error}, status, [("retry-after", "7")] if status == 429 else [])

    def embed(self, body):
        import base64
        import struct

        asked = body["input"] if isinstance(body["input"], list) and not isinstance(body["input"][0], int) else [body["input"]]
        values = [float(len(one)) for one in asked]
        packed = body.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": i, "embedding": base64.b64encode(struct.pack("<2f", v, 0.5)).decode() if packed else [v, 0.5]}
            for i, v in enumerate(values)
        ]
        self.send({"object": "list", "model": body["model"], "data": data, "usage": {"prompt_tokens": 3, "total_tokens": 3}})

    def stream(self, body, *, chat):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        head = {"id": "c1", "object": "chat.completion.chunk" if chat else "text_completion", "created": 1, "model": body["model"]}

        def put(choices, **more):
            self.chunk(b"data: " + json.dumps(head | {"choices": choices} | more).encode() + b"\n\n")

        parts = [SAID[:3], SAID[3:]]
        if chat:
            put([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
        for at, part in enumerate(parts):
            put([{"index": 0, "delta": {"content": part}, "finish_reason": None} if chat else {"index": 0, "text": part, "finish_reason": None}])
            if at == 0 and GATED in json.dumps(body) and not self.server.gate.wait(15):
                self.close_connection = True  # cut: whoever held the first piece back sees an error
                return
        put([{"index": 0, "finish_reason": "stop", **({"delta": {}} if chat else {"text": ""})}])
        if (body.get("stream_options") or {}).get("include_usage"):
            put([], usage={"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11})
        self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


def _model(name):
    return {"id": name, "object": "model", "created": 1, "owned_by": "upstream"}


def _text(body):
    form = (body.get("response_format") or {}).get("type")
    return json.dumps({"label": SAID}) if form in ("json_object", "json_schema") else SAID


def _chat(body):
    message = {"role": "assistant", "content": _text(body), "refusal": None}
    if body.get("tools"):
        call = {"id": "call_1", "type": "function", "function": {"name": body["tools"][0]["function"]["name"], "arguments": json.dumps({"label": SAID})}}
        message |= {"content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls" if body.get("tools") else "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    return {"id": "c1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice], "usage": usage}


def _completion(body):
    choice = {"index": 0, "text": SAID, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    return {"id": "c1", "object": "text_completion", "created": 1, "model": body["model"], "choices": [choice], "usage": usage}
