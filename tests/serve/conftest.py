"""A real gateway process: real sockets, uvicorn and httptools."""

import contextlib
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ENTRANCE = Path(__file__).with_name("entrance.py")


class Running:
    """A started process and the port that it listens at."""

    def __init__(self, folder, **options):
        command = [sys.executable, str(ENTRANCE), str(folder), json.dumps(options)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        line = self.process.stdout.readline()
        if not line.strip():
            raise RuntimeError(self.process.stderr.read().decode())
        self.port = int(line)

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def raw(self, *parts, shut=False):
        """Send bytes as they are; whatever comes back until the server closes or falls silent."""
        with self.connect() as line:
            for part in parts:
                with contextlib.suppress(OSError):
                    line.sendall(part)
            if shut:
                line.shutdown(socket.SHUT_WR)
            return drain(line)

    def stop(self):
        if self.process.stdout.closed:
            return ""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        said = self.process.stderr.read()
        self.process.stderr.close()
        return said.decode()


def drain(line, *, quiet_s=0.4):
    """Read until the end; after something came, silence is an end as well."""
    got = b""
    line.settimeout(5)
    while True:
        try:
            data = line.recv(65536)
        except (TimeoutError, ConnectionResetError):
            return got
        if not data:
            return got
        got += data
        line.settimeout(quiet_s)


@pytest.fixture
def start():
    """Start gateways; they are ended with the test."""
    with contextlib.ExitStack() as stack:

        def started(folder, **options):
            running = Running(folder, **options)
            stack.callback(running.stop)
            return running

        yield started


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """One without keys, for a whole file of tests."""
    running = Running(tmp_path_factory.mktemp("project"))
    yield running
    running.stop()
