"""The clients that people have work by changing the base URL alone: against a real gateway, teacher and student answering."""

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from dataclasses import dataclass
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.browsers import chromium
from tests.serve.openai_stub import GATED, KEY, SAID, Stub
from tests.serve.started import PROMPTS, Started, put_release, write_project

from overproof.project import load_project
from overproof.serve import moves
from overproof.store.project_store import open_store

TEXT = "I was charged twice for my order"


@dataclass(frozen=True)
class Who:
    """Who answers: the task with a release at full, or the one without."""

    name: str
    system: str
    says: str
    reason: str

    @property
    def messages(self):
        return [{"role": "system", "content": self.system}, {"role": "user", "content": TEXT}]


TEACHER = Who("teacher", PROMPTS["triage"], SAID, "no_release")
STUDENT = Who("student", PROMPTS["routing"], "billing", "confident")
both = pytest.mark.parametrize("who", [TEACHER, STUDENT], ids=lambda who: who.name)


@pytest.fixture(scope="module")
def stub():
    running = Stub()
    yield running
    running.close()


@pytest.fixture
def gate(stub):
    stub.gate.clear()
    yield stub.gate
    stub.gate.set()


class _Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.path == "/open":
            self.server.opened.set()
        raw = b"<!doctype html><title>a page</title>"
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


@pytest.fixture(scope="module")
def pages(stub):
    """A site of another origin; its path /open opens the upstream's gate."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    server.daemon_threads, server.opened = True, stub.gate
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def gateway(stub, pages, tmp_path_factory):
    root = tmp_path_factory.mktemp("clients")
    origins = f'allowed_origins = ["http://127.0.0.1:{pages.server_port}"]'
    folders = [write_project(root / name, name, upstream=stub.url, more=origins) for name in PROMPTS]
    with open_store(folders[0]) as store:
        put_release(store, root)
        moves.promote(store, load_project(folders[0]), by="Dana", to="full", force="a test of clients")
    running = Started(*folders)
    yield running
    code, said = running.stop()
    assert code == 0, said


@pytest.fixture(scope="module", autouse=True)
def litellm(gateway):
    """Started first and read last: its import takes as long as all other tests."""
    asked = json.dumps({who.name: who.messages for who in (TEACHER, STUDENT)})
    command = [sys.executable, str(Path(__file__).with_name("litellm_calls.py")), gateway.url, KEY, asked]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def client(gateway):
    import openai

    with openai.OpenAI(base_url=gateway.url, api_key=KEY, max_retries=0) as made:
        yield made


# -- openai ------------------------------------------------------------------------------------------------------------


@both
def test_openai_reads_a_whole_answer_and_how_it_came(client, who):
    """Text, end and usage as the API gives them, and our headers beside."""
    raw = client.chat.completions.with_raw_response.create(model="big", messages=who.messages)
    said = raw.parse()
    assert (said.choices[0].message.content, said.choices[0].finish_reason, said.object) == (who.says, "stop", "chat.completion")
    assert said.usage.total_tokens == (11 if who is TEACHER else 0)
    assert (raw.headers["x-overproof-route"], raw.headers["x-overproof-reason"]) == (who.name, who.reason)
    assert raw.headers["x-overproof-request-id"].startswith("req_")
    assert raw.headers.get("x-request-id") == ("req-upstream" if who is TEACHER else None)
    assert raw.headers.get("x-overproof-release") == (None if who is TEACHER else "r1")


@both
def test_openai_reads_a_stream_with_usage(client, who):
    """Pieces, one end, and the usage at last where it was asked for."""
    pieces = list(client.chat.completions.create(model="big", messages=who.messages, stream=True, stream_options={"include_usage": True}))
    assert "".join(p.choices[0].delta.content or "" for p in pieces if p.choices) == who.says
    assert [p.choices[0].finish_reason for p in pieces if p.choices and p.choices[0].finish_reason] == ["stop"]
    assert [p.usage.total_tokens for p in pieces if p.usage] == [11 if who is TEACHER else 0]
    with client.chat.completions.stream(model="big", messages=who.messages) as stream:
        assert stream.get_final_completion().choices[0].message.content == who.says


def test_openai_gets_the_first_piece_before_the_upstream_has_the_last(client, gate):
    """Nothing between holds a piece back: the upstream waits until the client has read the first one."""
    messages = [{"role": "user", "content": f"{GATED} by openai"}]
    pieces = iter(client.chat.completions.create(model="big", messages=messages, stream=True))
    read = ""
    while not read:
        read = next(pieces).choices[0].delta.content or ""
    assert (read, gate.is_set()) == (SAID[:3], False)
    gate.set()
    assert read + "".join(p.choices[0].delta.content or "" for p in pieces) == SAID


@both
def test_openai_async_reads_whole_and_streamed(gateway, who):
    """The asynchronous client, several at once."""
    import openai

    async def streamed(client):
        pieces = await client.chat.completions.create(model="big", messages=who.messages, stream=True)
        return "".join([p.choices[0].delta.content or "" async for p in pieces])

    async def work():
        async with openai.AsyncOpenAI(base_url=gateway.url, api_key=KEY, max_retries=0) as client:
            wholes = (client.chat.completions.create(model="big", messages=who.messages) for _ in range(8))
            found = await asyncio.gather(*wholes, *(streamed(client) for _ in range(8)))
            return [one if isinstance(one, str) else one.choices[0].message.content for one in found]

    assert asyncio.run(work()) == [who.says] * 16


Label = StrEnum("Label", ["billing", "delivery", "login"])


@both
def test_openai_parses_a_schema(client, who):
    """`response_format` with a schema, made by the client from a class; the student's label stands in its one place."""
    import pydantic

    class Answer(pydantic.BaseModel):
        label: Label

    raw = client.chat.completions.with_raw_response.parse(model="big", messages=who.messages, response_format=Answer)
    assert raw.parse().choices[0].message.parsed == Answer(label=Label(who.says))
    assert raw.headers["x-overproof-route"] == who.name


@both
def test_what_a_student_of_labels_can_not_give_is_the_teachers(client, who):
    """JSON mode without a schema, and tools: the teacher answers both, and the header says why."""
    reason = "no_release" if who is TEACHER else "unsupported"
    raw = client.chat.completions.with_raw_response.create(model="big", messages=who.messages, response_format={"type": "json_object"})
    assert json.loads(raw.parse().choices[0].message.content) == {"label": SAID}
    assert (raw.headers["x-overproof-route"], raw.headers["x-overproof-reason"]) == ("teacher", reason)
    tool = {"type": "function", "function": {"name": "route", "parameters": {"type": "object", "properties": {"label": {"type": "string"}}}}}
    raw = client.chat.completions.with_raw_response.create(model="big", messages=who.messages, tools=[tool])
    assert raw.parse().choices[0].message.tool_calls[0].function.name == "route"
    assert raw.headers["x-overproof-reason"] == reason


def test_openai_lists_and_retrieves_models(client):
    """Names of tasks stand before the upstream's models; either can be retrieved, and an unknown one is not found."""
    import openai

    assert [one.id for one in client.models.list()] == ["overproof/routing", "overproof/triage", "big"]
    assert client.models.retrieve("overproof/routing").owned_by == "overproof"
    assert client.models.retrieve("big").owned_by == "upstream"
    with pytest.raises(openai.NotFoundError) as found:
        client.models.retrieve("none")
    assert found.value.code == "model_not_found"


def test_a_task_is_called_by_its_name(client):
    """With the name as model no prompt is needed."""
    said = client.chat.completions.create(model="overproof/routing", messages=[{"role": "user", "content": TEXT}])
    assert (said.choices[0].message.content, said.model) == ("billing", "overproof/routing")


def test_openai_reads_embeddings(client):
    """Passed through, packed as the client asks for it by itself."""
    said = client.embeddings.create(model="small", input=["abc", "de"])
    assert [one.embedding for one in said.data] == [[3.0, 0.5], [2.0, 0.5]]


@pytest.mark.parametrize("model", ["big", "overproof/routing"])
def test_openai_reads_older_completions(client, model):
    """A prompt in place of messages, whole and streamed."""
    says = SAID if model == "big" else "billing"
    assert client.completions.create(model=model, prompt=TEXT).choices[0].text == says
    assert "".join(p.choices[0].text for p in client.completions.create(model=model, prompt=TEXT, stream=True)) == says


def test_errors_are_raised_as_with_openai_itself(client, gateway):
    """The class, status, code and message that the upstream means, and ours for what goes nowhere."""
    import openai

    def failing(kind, model="big", by=client, **more):
        with pytest.raises(kind) as found:
            by.chat.completions.create(model=model, messages=[{"role": "user", "content": "x"}], **more)
        return found.value

    wrong = failing(openai.BadRequestError, "wrong")
    assert (wrong.code, wrong.type, wrong.body["message"]) == ("wrong_value", "invalid_request_error", "the upstream says 400")
    busy = failing(openai.RateLimitError, "busy")
    assert (busy.response.headers["retry-after"], busy.code) == ("7", "rate_limit_exceeded")
    assert failing(openai.InternalServerError, "down").status_code == 500
    assert isinstance(failing(openai.APIStatusError, "down", stream=True).body, dict)
    with openai.OpenAI(base_url=gateway.url, api_key="sk-wrong", max_retries=0) as stranger:
        assert failing(openai.AuthenticationError, by=stranger).code == "invalid_api_key"
    ours = failing(openai.BadRequestError, extra_body={"a": json.loads("[" * 40 + "]" * 40)})
    assert "deeper" in ours.body["message"]
    assert failing(openai.BadRequestError, extra_headers={"x-overproof-route": "nobody"}).param == "x-overproof-route"


def test_errors_of_keys_are_raised_as_with_openai_itself(stub, tmp_path):
    """Where the gateway has keys of its own, a wrong one is an AuthenticationError, one that may not a PermissionDeniedError."""
    import openai

    folder = write_project(tmp_path / "keyed", "routing", upstream=stub.url, more='api_key_env = "UPSTREAM_KEY"')
    with open_store(folder) as store:
        may, not_this = store.keys.add("app", ["invoke"]), store.keys.add("board", ["read"])
    running = Started(folder, env={"UPSTREAM_KEY": KEY})
    try:
        for secret, kind in [(may.secret, None), (not_this.secret, openai.PermissionDeniedError), ("sk-other", openai.AuthenticationError)]:
            with openai.OpenAI(base_url=running.url, api_key=secret, max_retries=0) as one, pytest.raises(kind) if kind else contextlib.nullcontext():
                assert one.chat.completions.create(model="big", messages=TEACHER.messages).choices[0].message.content == SAID
    finally:
        running.stop()


# -- langchain-openai --------------------------------------------------------------------------------------------------


@both
def test_langchain_invokes_streams_and_parses(gateway, who):
    """A chat model of langchain-openai; structured output by schema comes from the student, by tool call from the teacher."""
    import httpx
    import pydantic
    from langchain_openai import ChatOpenAI

    class Answer(pydantic.BaseModel):
        """The desk."""

        label: Label

    at = {"model": "big", "base_url": gateway.url, "api_key": KEY, "max_retries": 0}
    model, turns = ChatOpenAI(**at), [("system", who.system), ("human", TEXT)]

    async def invoked():
        async with httpx.AsyncClient() as connections:  # its own are never closed
            return await ChatOpenAI(**at, http_async_client=connections).ainvoke(turns)

    said = model.invoke(turns)
    assert (said.content, said.response_metadata["finish_reason"]) == (who.says, "stop")
    assert "".join(piece.content for piece in model.stream(turns)) == who.says
    assert asyncio.run(invoked()).content == who.says
    assert model.with_structured_output(Answer).invoke(turns).label == who.says
    assert model.with_structured_output(Answer, method="function_calling").invoke(turns).label == SAID


def test_langchain_embeds(gateway):
    """Texts as they are: counting tokens first would load a vocabulary from the network."""
    from langchain_openai import OpenAIEmbeddings

    model = OpenAIEmbeddings(model="small", base_url=gateway.url, api_key=KEY, check_embedding_ctx_length=False)
    assert model.embed_documents(["abc", "de"]) == [[3.0, 0.5], [2.0, 0.5]]


# -- curl --------------------------------------------------------------------------------------------------------------


def curl(gateway, body, *options):
    return [
        "curl", "-sS", "-i", *options, f"{gateway.url}/chat/completions", "-H", f"Authorization: Bearer {KEY}",
        "-H", "Content-Type: application/json", "-d", json.dumps(body),
    ]  # fmt: skip


@both
def test_curl_reads_whole_and_streamed(gateway, who):
    """Status, headers and body as they come."""
    head, _, body = subprocess.run(curl(gateway, {"model": "big", "messages": who.messages}), capture_output=True, text=True, check=True).stdout.partition("\n\n")
    assert head.startswith("HTTP/1.1 200 OK")
    assert f"x-overproof-route: {who.name}" in head.splitlines()
    assert sum(line.startswith("date: ") for line in head.splitlines()) == 1
    assert json.loads(body)["choices"][0]["message"]["content"] == who.says
    found = subprocess.run(curl(gateway, {"model": "big", "messages": who.messages, "stream": True}, "-N"), capture_output=True, text=True, check=True).stdout
    events = [line[6:] for line in found.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    assert "".join(json.loads(one)["choices"][0]["delta"].get("content") or "" for one in events[:-1]) == who.says


def test_curl_prints_events_as_they_come(gateway, gate):
    """`curl -N`: the first piece is printed while the upstream waits."""
    body = {"model": "big", "stream": True, "messages": [{"role": "user", "content": f"{GATED} by curl"}]}
    with subprocess.Popen(curl(gateway, body, "-N"), stdout=subprocess.PIPE, text=True) as process:
        while f'"{SAID[:3]}"' not in (line := process.stdout.readline()):
            assert line, "ended before the first piece"
        assert not gate.is_set()
        gate.set()
        assert "data: [DONE]" in process.stdout.read()


# -- a browser ---------------------------------------------------------------------------------------------------------

FETCH = """async ([url, key, body, open]) => {
  const found = {pieces: []};
  try {
    const reply = await fetch(url, {method: "POST", body: JSON.stringify(body), headers: {"content-type": "application/json", authorization: "Bearer " + key}});
    found.status = reply.status;
    found.route = reply.headers.get("x-overproof-route");
    const reader = reply.body.getReader(), words = new TextDecoder();
    for (let told = false; ; ) {
      const {done, value} = await reader.read();
      if (done) break;
      const piece = words.decode(value);
      found.pieces.push(piece);
      if (!told && piece.includes('"content": "log"')) { told = true; await fetch(open); }
    }
  } catch (error) { found.error = String(error); }
  return found;
}"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


def fetched(browser, site, gateway, messages):
    page = browser.new_page()
    page.goto(site)
    found = page.evaluate(FETCH, [f"{gateway.url}/chat/completions", KEY, {"model": "big", "stream": True, "messages": messages}, "/open"])
    page.close()
    return found


def test_a_page_of_an_allowed_origin_reads_a_stream_as_it_comes(browser, pages, gateway, gate):
    """Chromium's `fetch` from another origin: the page reads the first piece, and only then lets the upstream go on."""
    site = f"http://127.0.0.1:{pages.server_port}/"
    found = fetched(browser, site, gateway, [{"role": "user", "content": f"{GATED} by a page"}])
    assert (found.get("error"), found["status"], found["route"]) == (None, 200, "teacher")
    assert gate.is_set()
    assert len(found["pieces"]) > 1
    assert found["pieces"][-1].endswith("data: [DONE]\n\n")
    found = fetched(browser, site, gateway, STUDENT.messages)
    assert (found["route"], '"billing"' in "".join(found["pieces"])) == ("student", True)


def test_a_page_of_another_origin_is_refused(browser, pages, gateway, stub):
    """Another name of the same site is another origin: nothing is read, and nothing went upstream."""
    found = fetched(browser, f"http://localhost:{pages.server_port}/", gateway, [{"role": "user", "content": "from another origin"}])
    assert ("status" in found, found["pieces"]) == (False, [])
    assert "Failed to fetch" in found["error"]
    assert not any(b"from another origin" in body for _, _, body in stub.seen)  # litellm goes on asking meanwhile


# -- litellm, read last ------------------------------------------------------------------------------------------------


def test_litellm_completes_streams_embeds_and_raises(litellm):
    """By `api_base` alone, the student's and the teacher's answers; errors are its own classes."""
    out, err = litellm.communicate(timeout=120)
    assert litellm.returncode == 0, err
    found = json.loads(out.splitlines()[-1])
    for who in (TEACHER, STUDENT):
        assert found[f"{who.name} whole"] == [who.says, "stop"]
        assert found[f"{who.name} stream"] == [who.says, True]
        assert found[f"{who.name} schema"] == {"label": who.says}
    assert (found["alias"], found["embedding"]) == ("billing", [2.0, 0.5])
    assert [found[one] for one in ("wrong", "busy", "down")] == ["BadRequestError", "RateLimitError", "InternalServerError"]
