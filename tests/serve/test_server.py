"""The end of a process, with real signals: nothing that was begun is lost, and nothing half is passed off as whole."""

import asyncio
import contextlib
import http.client
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvicorn
import uvloop

from overproof.errors import StoreError
from overproof.serve.asgi import answer
from overproof.serve.server import GatewayProtocol, _refuse_new, _Server, listen

STREAM = b"POST /v1/completions?%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def begun(gateway, seconds):
    """A stream whose first half is here."""
    line = gateway.connect()
    line.sendall(STREAM % str(seconds).encode())
    got = b""
    while b"first" not in got:
        got += line.recv(65536)
    return line


def rest(line):
    got = b""
    with contextlib.closing(line), contextlib.suppress(ConnectionResetError):
        while data := line.recv(65536):
            got += data
    return got


def whole(got):
    return got.endswith(b"0\r\n\r\n") and b"[DONE]" in got


def test_sigterm_answers_what_was_begun_then_closes_the_application(start, tmp_path):
    """Streams end whole, the application is closed once nothing is in flight, the process ends with 0."""
    closed = tmp_path / "closed"
    gateway = start(tmp_path, closed=str(closed))
    idle = gateway.connect()
    lines = [begun(gateway, 1.0) for _ in range(8)]
    gateway.process.send_signal(signal.SIGTERM)
    assert all([whole(rest(line)) for line in lines])  # noqa: C419 - each is read to its end
    assert rest(idle) == b""
    assert gateway.process.wait(timeout=60) == 0
    assert closed.read_text() == "0 in flight"
    with pytest.raises(OSError):
        gateway.connect()


@pytest.mark.parametrize("options", [{}, {"drain_s": 0.6}], ids=["second signal", "limit of draining"])
def test_an_answer_that_takes_too_long_is_cut_where_all_can_see(start, tmp_path, options):
    """A second signal, or the limit, ends the wait; what was begun has no end, and the process ends with 0."""
    closed = tmp_path / "closed"
    gateway = start(tmp_path, closed=str(closed), **options)
    line = begun(gateway, 60)
    gateway.process.send_signal(signal.SIGTERM)
    if not options:
        time.sleep(0.5)
        gateway.process.send_signal(signal.SIGTERM)
    assert not whole(rest(line))
    assert gateway.process.wait(timeout=30) == 0
    assert closed.exists()


class Caller(threading.Thread):
    """Calls again and again, as a pool does: it keeps its connection until it is told to close, and counts what fails."""

    def __init__(self, port, *, keep):
        super().__init__()
        self.port, self.keep, self.stop, self.failed, self.fine = port, keep, threading.Event(), [], 0

    def run(self):
        line = None
        while not self.stop.is_set():
            try:
                line = line or http.client.HTTPConnection("localhost", self.port, timeout=20)
                line.request("POST", "/v1/chat/completions", body=b"{}", headers={"Content-Type": "application/json"})
                answer = line.getresponse()
                assert answer.status == 200
                answer.read()
                self.fine += 1
                if answer.will_close or not self.keep:
                    line.close()
                    line = None
            except Exception as error:
                self.failed.append(repr(error))
                line = None
            self.stop.wait(0.002)
        if line:
            line.close()


def test_restarts_at_one_port_fail_no_request(start, tmp_path):
    """The next process listens before the last one is told to go; callers with and without kept connections notice nothing."""
    gateway = start(tmp_path, port=0)
    callers = [Caller(gateway.port, keep=keep) for keep in (True, True, False, False)]
    for caller in callers:
        caller.start()
    for _ in range(2):
        before = sum(caller.fine for caller in callers)
        after = start(tmp_path, port=gateway.port)
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(timeout=60) == 0
        gateway = after
        while sum(caller.fine for caller in callers) < before + 50 and not any(caller.failed for caller in callers):
            time.sleep(0.01)
    for caller in callers:
        caller.stop.set()
    for caller in callers:
        caller.join()
    assert [caller.failed for caller in callers] == [[], [], [], []]
    assert sum(caller.fine for caller in callers) >= 100


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_listener_that_is_about_to_close_lets_nobody_in_who_would_be_reset(host):
    """Who comes between the last look at its queue and its end is heard by the next listener."""
    old = listen(host, 0, reuse_port=True)
    address = old.getsockname()[:2]
    _refuse_new(old)
    with ThreadPoolExecutor() as pool:
        late = pool.submit(socket.create_connection, address, timeout=10)
        time.sleep(0.2)
        with pytest.raises(BlockingIOError):
            old.accept()
        old.close()
        with contextlib.closing(listen(host, address[1], reuse_port=True)) as new, late.result() as line:
            line.sendall(b"late")
            served, _ = new.accept()
            assert served.recv(4) == b"late"
            served.close()


class Quick:
    async def __call__(self, scope, receive, send):
        await answer(send, b"{}")

    async def close(self):
        pass


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
def test_a_connection_that_waited_to_be_accepted_is_served(run):
    """
    Callers that connected and sent while the loop was busy are in the kernel's queue when the end begins; each is answered.

    asyncio's own loop accepts all of a queue at once and announces it in later turns: a server closed in between loses them.
    """

    async def ended():
        listener = listen("127.0.0.1", 0)
        address = listener.getsockname()
        config = uvicorn.Config(Quick(), http=GatewayProtocol, ws="none", lifespan="off", log_config=None, log_level="critical")
        config.load()
        server = _Server(config, Quick(), 10.0, None)
        server.lifespan = config.lifespan_class(config)
        await server.startup([listener])
        lines = [socket.create_connection(address, timeout=10) for _ in range(20)]  # the loop does not run meanwhile
        for line in lines:
            line.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await server.shutdown([listener])
        return lines

    assert all([rest(line).endswith(b"{}") for line in run(ended())])  # noqa: C419 - each is closed


def test_an_address_that_is_taken_is_told_in_words(tmp_path):
    """Taken, foreign, or no address at all."""
    taken = listen("127.0.0.1", 0)
    port = taken.getsockname()[1]
    for host, number in (("127.0.0.1", port), ("192.0.2.1", 0), ("no such host.invalid", 0)):
        with pytest.raises(StoreError, match="can't listen") as error:
            listen(host, number)
        assert "another host or port" in error.value.next_action
    taken.close()
    shared = [listen("127.0.0.1", 0, reuse_port=True)]
    shared.append(listen("127.0.0.1", shared[0].getsockname()[1], reuse_port=True))
    for sock in shared:
        sock.close()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_ipv6_addresses_are_taken_with_and_without_brackets():
    """As people write them."""
    try:
        for host in ("::1", "[::1]"):
            listen(host, 0).close()
    except StoreError:
        pytest.skip("this machine has no ::1")
