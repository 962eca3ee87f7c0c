"""Webhooks: signed, whole, within a deadline, and never into the own network."""

import json
import os
import socket
import time

import pytest
from tests.channels.servers import saying, serving

from overproof.channels import webhook
from overproof.channels.webhook import post, signature
from overproof.errors import NoticeError

BODY = json.dumps({"text": "à 3 %"}).encode()
FINE = b"HTTP/1.1 204 No Content\r\n\r\n"


def tell(url: str, *, private: bool = True, timeout_s: float = 20, headers=None, **rest) -> None:
    post(url, BODY, headers=headers or {}, allow_private=private, timeout_s=timeout_s, **rest)


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """A name server that gives one answer after the other; says what was asked."""
    asked: list[str] = []
    left = list(answers)
    real = socket.getaddrinfo

    def found(host, port, *args, **kw):
        if host.replace(".", "").isdigit():
            return real(host, port, *args, **kw)
        asked.append(host)
        now = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in now]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    return asked


def test_a_body_arrives_whole_with_its_signature_and_its_query() -> None:
    """What the server reads is the body byte for byte, under the URL's own path and query; 1xx before the answer is passed over."""
    with serving(saying(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"content-length: 2\r\n\r\nok")) as server:
        signed = signature(BODY, secret="s", at=7)
        tell(f"http://127.0.0.1:{server.port}/hook?sig=1", headers={"X-Overproof-Signature": signed})
    head, _, body = server.heard[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /hook?sig=1 HTTP/1.1\r\n")
    assert f"X-Overproof-Signature: {signed}".encode() in head
    assert body == BODY
    assert signed == signature(BODY, secret="s", at=7)
    assert signed.partition(",")[2] not in (signature(BODY + b" ", secret="s", at=7).partition(",")[2], signature(BODY, secret="s", at=8).partition(",")[2])


def test_https_is_checked_against_the_name_and_not_the_address(served, trusted) -> None:
    """TLS goes to the resolved address with the URL's name; a certificate that nobody vouches for is refused."""
    with serving(saying(FINE), served) as server:
        tell(f"https://localhost:{server.port}/", tls=trusted)
        assert len(server.heard) == 1
        with pytest.raises(NoticeError, match="webhook at localhost"):
            tell(f"https://localhost:{server.port}/")
        assert len(server.heard) == 1


@pytest.mark.parametrize("host", [
    "127.0.0.1", "[::1]", "169.254.169.254", "10.0.0.1", "192.168.0.1", "172.16.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1",
    "017700000001", "127.1", "0", "localhost", "LOCALHOST.", "metadata.google.internal", "[::ffff:127.0.0.1]", "[fd00:ec2::254]", "[64:ff9b::7f00:1]",
])  # fmt: skip
def test_no_spelling_of_an_inward_address_is_connected_to(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before anything is resolved, let alone connected."""
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: pytest.fail("connected"))
    asked = resolving(monkeypatch, ["1.1.1.1"])
    with pytest.raises(NoticeError, match="private address"):
        tell(f"https://{host}/hook", private=False)
    assert asked == []


@pytest.mark.parametrize("url", [
    "http://hooks.example.com/", "https://u@hooks.example.com/", "https://u:secret@hooks.example.com/", "https://hooks.example.com:22/",
    "https://hooks.example.com:6379/", "ftp://hooks.example.com/", "https://hooks.example.com/\r\nX: y", "https://hooks.example.com/#x",
    "https://127.0.0.1\\@hooks.example.com/", "file:///etc/passwd", "",
])  # fmt: skip
def test_plain_http_user_names_and_odd_ports_are_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is resolved, and no secret is repeated."""
    asked = resolving(monkeypatch, ["1.1.1.1"])
    with pytest.raises(NoticeError) as caught:
        tell(url, private=False)
    assert asked == []
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["1.1.1.1", "10.0.0.7"], ["::1"], ["::ffff:169.254.169.254"], []])
def test_a_name_that_leads_inwards_is_refused(addresses: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One private address among several refuses the name."""
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: pytest.fail("connected"))
    resolving(monkeypatch, addresses)
    with pytest.raises(NoticeError, match="leads to a private address"):
        tell("https://hooks.example.com/", private=False)


def test_a_name_that_changes_between_check_and_connection_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is resolved once; the connection goes to the address that was checked."""
    asked = resolving(monkeypatch, ["1.1.1.1"], ["127.0.0.1"])
    went: list[str] = []

    def refused(address, *args, **kw):
        went.append(address[0])
        raise ConnectionRefusedError(111, "refused")

    monkeypatch.setattr(webhook.socket, "create_connection", refused)
    with pytest.raises(NoticeError, match="refused"):
        tell("https://hooks.example.com/", private=False)
    assert (asked, went) == (["hooks.example.com"], ["1.1.1.1"])


def test_a_redirect_is_not_followed() -> None:
    """Neither inwards nor anywhere else: the server is asked once, the target never."""
    with serving(saying(FINE)) as inner, serving(saying(f"HTTP/1.1 307 T\r\nLocation: http://127.0.0.1:{inner.port}/\r\n\r\n".encode())) as outer:
        with pytest.raises(NoticeError, match="HTTP 307; redirects are not followed"):
            tell(f"http://127.0.0.1:{outer.port}/path-that-is-secret")
        assert (outer.connections, inner.connections) == (1, 0)


@pytest.mark.parametrize("said", [b"HTTP/1.1 500 no\r\n\r\n", b"HTTP/1.1 404 no\r\n\r\n", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200", b"", b"HTTP/1.1 9 x\r\n\r\n"])
def test_anything_but_2xx_is_a_fault_that_names_the_host_alone(said: bytes) -> None:
    """The path, which is often a secret, is in no message."""
    with serving(saying(said)) as server, pytest.raises(NoticeError) as caught:
        tell(f"http://127.0.0.1:{server.port}/services/T0KEN")
    assert "127.0.0.1" in str(caught.value)
    assert "T0KEN" not in str(caught.value)


def test_an_endless_answer_is_read_up_to_64_kb() -> None:
    """A head that never ends is cut off."""
    sent = 0

    def endless(server, wire) -> None:
        nonlocal sent
        saying(b"HTTP/1.1 200 OK\r\n")(server, wire)
        for _ in range(100_000):
            wire.sendall(b"x" * 1000 + b"\r\n")
            sent += 1002

    with serving(endless) as server, pytest.raises(NoticeError, match="no answer that HTTP knows"):
        tell(f"http://127.0.0.1:{server.port}/")
    assert sent < 50_000_000, "what the sockets hold, and no more than 64 kB of it read"


def test_a_server_that_drips_ends_with_the_deadline() -> None:
    """The deadline is for all of it and not for each byte; the connection is shut, so that the server sees it."""
    seen: list[OSError] = []

    def drip(server, wire) -> None:
        try:
            saying(b"HTTP/1.1 200 OK\r\n")(server, wire)
            for _ in range(10_000):
                wire.sendall(b"x")
                time.sleep(0.02)
        except OSError as error:
            seen.append(error)

    with serving(drip) as server:
        with pytest.raises(NoticeError, match=r"no answer within 0\.5 s"):
            tell(f"http://127.0.0.1:{server.port}/", timeout_s=0.5)
        for _ in range(500):
            if seen:
                break
            time.sleep(0.02)
    assert seen


def test_a_name_server_that_hangs_ends_with_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it says later is not connected to any more."""
    went: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: time.sleep(0.6) or [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))])
    monkeypatch.setattr(webhook.Lifeline, "hold", lambda *a: went.append(a))
    with pytest.raises(NoticeError, match="no answer within"):
        tell("https://hooks.example.com/", timeout_s=0.2)
    assert went == []


def test_no_header_can_carry_a_line_break() -> None:
    """Refused before anything is sent."""
    with serving(saying(FINE)) as server:
        with pytest.raises(NoticeError, match="no header may hold"):
            tell(f"http://127.0.0.1:{server.port}/", headers={"X-A": "b\r\nX-C: d"})
        assert server.connections == 0


def test_the_systems_proxy_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would resolve the name again."""
    monkeypatch.setitem(os.environ, "http_proxy", "http://127.0.0.1:9")
    with serving(saying(FINE)) as server:
        tell(f"http://127.0.0.1:{server.port}/")
        assert server.connections == 1
