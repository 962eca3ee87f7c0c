"""An answer whose row comes first: nothing that looks like its end goes out before the row is on the disk."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.serve.test_relay import STREAM

from overproof.serve.acked import Acked
from overproof.serve.stream import Summary

WHOLE = b"".join(STREAM)
LONG = b'{"choices": [' + b" " * 300 + b"]}"


def passed(headers, chunks):
    """What went out, and how many bytes of it before the row was durable."""
    out, before = [], []
    summary = Summary(200, headers)

    async def send(message):
        out.append(message)

    async def durable():
        before.append(sum(len(one.get("body", b"")) for one in out))

    async def go():
        way = Acked(send, summary, durable)
        await way({"type": "http.response.start", "status": 200, "headers": headers})
        for chunk in chunks:
            summary.feed(chunk)
            await way({"type": "http.response.body", "body": chunk, "more_body": True})
        await way({"type": "http.response.body", "body": b""})

    asyncio.run(go())
    assert not out[-1].get("more_body")
    (early,) = before
    return b"".join(one.get("body", b"") for one in out), early


def cut(data, at):
    edges = [0, *sorted(at), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]


@pytest.mark.parametrize(
    ("data", "headers", "end"),
    [
        (WHOLE, [(b"content-type", b"text/event-stream")], WHOLE.index(b"[DONE]") + len(b"[DONE]")),
        (LONG, [(b"content-type", b"application/json"), (b"Content-Length", str(len(LONG)).encode())], len(LONG)),
    ],
    ids=["stream", "announced length"],
)
@given(at=st.lists(st.integers(1, 299), max_size=6))
def test_the_end_waits_for_the_row_however_the_answer_is_cut(data, headers, end, at):
    """[DONE] and the last announced byte go out behind the row; all bytes go out, in order, and what comes earlier does not wait for the whole."""
    sent, early = passed(headers, cut(data, at))
    assert sent == data
    lines = data[:early].split(b"\n\n")
    assert early < end or b"data: [DONE]" not in lines[:-1]
    assert early < len(data)
    assert early >= max([x for x in at if x < data.rfind(b"data: [DONE]")] if b"[DONE]" in data else [x for x in at if x < len(data)], default=0)


def test_an_answer_without_announced_length_waits_at_its_last_message():
    """Chunked bodies end with their framing."""
    sent, early = passed([(b"content-type", b"application/json")], [LONG[:50], LONG[50:]])
    assert (sent, early) == (LONG, len(LONG))
