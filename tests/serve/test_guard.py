"""The guard by itself, in front of a server that checks nothing: what it promises holds without the parser's help."""

import asyncio
import json

import pytest

from overproof.errors import DataError
from overproof.serve.asgi import answer
from overproof.serve.guard import HEADERS, KNOWN_HOSTS, BodyTooSlow, Guard, limits_of, read_body

LIMITS = limits_of("127.0.0.1", hosts=["gw.example.org", "only.example.org:8443"], origins=["https://App.example.org/"], max_body_bytes=1000)
HOST = (b"host", b"localhost")
JSON = (b"content-type", b"application/json")


def call(*headers, method="POST", path=b"/v1/chat/completions", query=b"", chunks=(b"{}",), leaves=False, limits=LIMITS, guard=None):
    """Status, headers and body of the answer, and what reached the application (None where nothing did)."""
    sent, seen = [], []
    queue = [{"type": "http.request", "body": c, "more_body": leaves or i + 1 < len(chunks)} for i, c in enumerate(chunks)]

    async def receive():
        return queue.pop(0) if queue else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    async def inner(scope, receive, send):
        body = await read_body(receive)
        if body is not None:
            seen.append((body, scope[HEADERS]))
            await answer(send, b"{}", headers=[(b"access-control-allow-origin", b"*")])

    scope = {"type": "http", "method": method, "raw_path": path, "query_string": query, "headers": list(headers), "server": ("10.1.2.3", 4000)}
    asyncio.run((guard or Guard(inner, limits=limits))(scope, receive, send))
    start = sent[0] if sent else {"status": 0, "headers": []}
    return start["status"], dict(start["headers"]), b"".join(m.get("body", b"") for m in sent[1:]), seen[0] if seen else None


def sized(n, *more):
    return (HOST, JSON, (b"content-length", str(n).encode()), *more)


def test_what_is_fine_reaches_the_application_with_its_headers():
    """Body whole, headers as a mapping."""
    status, _, _, seen = call(*sized(2), chunks=(b"{", b"}"))
    assert (status, seen[0], seen[1][b"host"]) == (200, b"{}", b"localhost")


@pytest.mark.parametrize(("status", "headers", "given"), [
    (400, (*sized(2), (b"transfer-encoding", b"chunked")), {}),
    (421, (JSON, (b"content-length", b"2")), {}), (421, (HOST, HOST), {}), (421, ((b"host", b"evil"),), {}), (421, ((b"host", b"localhost\n"),), {}),
    (421, ((b"host", b"only.example.org"),), {}), (421, ((b"host", b"only.example.org:1"),), {}), (421, ((b"host", b"10.1.2.4"),), {}),
    (421, ((b"host", b"localhost:123456"),), {}), (421, ((b"host", b"0.0.0.0"),), {}), (421, ((b"host", b"xlocalhost"),), {}),
    (400, (HOST, (b"authorization", b"a"), (b"authorization", b"a")), {"method": "GET"}),
    (431, (HOST, *((b"x-%d" % i, b"") for i in range(100))), {}), (431, (HOST, (b"x", b"a" * 16_384)), {}),
    (400, (HOST,), {"path": b""}), (400, (HOST,), {"path": b"v1"}), (400, (HOST,), {"path": b"/v1/\n"}), (400, (HOST,), {"path": b"/v1\n"}),
    (400, (HOST,), {"path": b"/a%2Fb"}), (400, (HOST,), {"path": b"/v1/models/a%5Cb"}), (400, (HOST,), {"path": b"/v1/models/a%2f%2fb"}),
    (400, (HOST,), {"path": b"/%25%32%65".replace(b"%32%65", b"2e")}), (400, (HOST,), {"path": b"/a;b/.."}), (400, (HOST,), {"path": b"/a/."}),
    (400, (HOST,), {"query": b"a=\x00"}), (400, (HOST,), {"path": b"/v1/models/op_" + b"A" * 43}), (400, (HOST,), {"query": b"op_" + b"_" * 43}),
    (403, (HOST, (b"origin", b"http://evil")), {"method": "GET"}),
    (403, (HOST, (b"origin", b"http://localhost.evil")), {}), (403, (HOST, (b"origin", b"file://localhost")), {}),
    (403, (HOST, (b"sec-fetch-site", b"cross-site")), {"method": "DELETE"}),
    (413, sized(1001), {"chunks": (b"",)}), (413, sized(2), {"chunks": (b"x" * 600, b"x" * 600)}),
    (413, (HOST, JSON, (b"transfer-encoding", b"chunked")), {"chunks": (b"x" * 600, b"x" * 600, b"x" * 600)}),
    (415, (HOST, (b"content-length", b"2"), (b"content-type", b"application/jsonp")), {}),
])  # fmt: skip
def test_what_is_not_fine_reaches_nobody(status, headers, given):
    """A refusal in the API's form, and the application never hears of it."""
    found, head, body, seen = call(*headers, **given)
    assert (found, seen) == (status, None)
    assert head[b"connection"] == b"close"
    assert json.loads(body)["error"]["type"] in ("invalid_request_error", "permission_error")


@pytest.mark.parametrize(("headers", "given"), [
    (((b"host", b"GW.example.org:1"),), {}), (((b"host", b"only.example.org:8443"),), {}), (((b"host", b"10.1.2.3:4000"),), {}), (((b"host", b"[::1]:4000"),), {}),
    ((HOST, (b"origin", b"http://localhost")), {}), (((b"host", b"localhost:4000"), (b"origin", b"http://localhost:4000")), {}),
    ((HOST, (b"sec-fetch-site", b"cross-site")), {"method": "GET"}), ((HOST, (b"sec-fetch-site", b"same-origin")), {}), ((HOST, (b"sec-fetch-site", b"none")), {}),
    ((HOST, (b"accept", b"a"), (b"accept", b"b")), {}), ((HOST, (b"content-length", b"0")), {"chunks": (b"",)}),
    ((HOST, (b"content-length", b"2"), (b"content-type", b"Application/JSON; charset=utf-8")), {}),
    ((HOST, (b"content-length", b"2"), (b"content-type", b"multipart/form-data; boundary=a")), {}),
    ((HOST,), {"path": b"/v1/models/org%2Fname:v1.2@x~y"}), ((HOST,), {"path": b"/v1/files/a%20b"}), ((HOST,), {"query": b"after=op_1&x=%2e%2e"}),
    (sized(1000), {"chunks": (b"x" * 1000,)}),
])  # fmt: skip
def test_what_clients_do_send_is_let_through(headers, given):
    """The other side of each rule."""
    assert call(*headers, **given)[0] == 200


def test_a_page_that_may_call_gets_its_own_origin_back_and_nobody_a_star():
    """On answers, on refusals and on the preflight; what the application says of access is dropped."""
    page = (b"origin", b"https://app.example.org")
    for found in (call(*sized(2, page)), call(*sized(2000, page)), call(HOST, page, method="GET", chunks=(b"",))):
        assert found[1][b"access-control-allow-origin"] == page[1]
        assert found[1][b"vary"] == b"Origin"
    asked = ((b"access-control-request-method", b"POST"), (b"access-control-request-headers", b"authorization, x-a"))
    status, head, _, seen = call(HOST, page, *asked, (b"access-control-request-private-network", b"true"), method="OPTIONS", chunks=(b"",))
    assert (status, seen, head[b"access-control-allow-headers"], head[b"access-control-allow-private-network"]) == (204, None, b"authorization, x-a", b"true")
    assert b"access-control-allow-headers" not in call(HOST, page, asked[0], (b"access-control-request-headers", b"x\r\ny"), method="OPTIONS")[1]
    assert call((b"host", b"evil"), page, *asked, method="OPTIONS")[0] == 421
    assert call(HOST, (b"origin", b"https://evil"), *asked, method="OPTIONS")[0] == 403


def test_a_caller_that_leaves_is_forwarded_nowhere():
    """Whether before anything or in the middle."""
    assert call(*sized(10), chunks=(b"{",), leaves=True) == (0, {}, b"", None)
    assert call(*sized(10), chunks=()) == (0, {}, b"", None)


def test_a_body_that_trickles_is_given_up():
    """The guard says 408; a body that came at once is not timed."""

    async def never():
        return {"type": "http.request", "body": b"x", "more_body": True} if not waits.append(1) and len(waits) < 3 else await asyncio.sleep(60)

    waits = []
    with pytest.raises(BodyTooSlow):
        asyncio.run(read_body(never, seconds=0.05))

    async def inner(scope, receive, send):
        raise BodyTooSlow

    assert call(*sized(2), guard=Guard(inner, limits=LIMITS))[0] == 408


def test_many_spellings_of_a_host_fill_no_memory():
    """Ports are free, so that their number must not count."""

    async def inner(scope, receive, send):
        await answer(send, b"{}")

    guard = Guard(inner, limits=LIMITS)
    for port in range(1, 500):
        assert call((b"host", b"localhost:%d" % port), guard=guard)[0] == 200
    assert len(guard._known) <= max(KNOWN_HOSTS, len(LIMITS.hosts))


@pytest.mark.parametrize("host", ["http://gw.example.org", "gw.example.org/v1", "münchen.example", "", "a b"])
def test_a_host_that_can_not_be_is_refused_at_the_start(host):
    """Instead of refusing all its callers later."""
    with pytest.raises(DataError, match="no request can name"):
        limits_of("127.0.0.1", hosts=[host])


def test_listening_everywhere_names_nobody():
    """0.0.0.0 is no name; the address that a connection came in on is."""
    assert b"0.0.0.0" not in limits_of("0.0.0.0").hosts
    assert b"[::]" not in limits_of("::").hosts
    assert b"[fd00::1]" in limits_of("fd00::1").hosts
