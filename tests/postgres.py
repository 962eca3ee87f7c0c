"""A real Postgres server of the tests' own, on a socket in a fresh folder."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest


def server_folder():
    for folder in [Path(p).parent for p in (shutil.which("postgres"),) if p] + sorted(Path("/usr/lib/postgresql").glob("*/bin")):
        if (folder / "initdb").exists() or shutil.which("initdb"):
            return folder
    return None


class Server:
    """The server; `dsn` is how to connect."""

    def __init__(self, base, run, bins):
        self.base, self._run, self._bins = base, run, bins
        self.dsn = f"postgresql://tester@/postgres?host={base}"

    def start(self):
        options = f"\"-c listen_addresses='' -c unix_socket_directories={self.base} -c fsync=off\""
        begun = self._run(f"{self._bins}/pg_ctl", "-D", f"{self.base}/data", "-o", options, "-l", f"{self.base}/log", "-w", "start")
        assert begun.returncode == 0, begun.stdout + begun.stderr

    def stop(self, how="immediate"):
        self._run(f"{self._bins}/pg_ctl", "-D", f"{self.base}/data", "-m", how, "stop")


@contextmanager
def running():
    """A server for as long as the block runs; skips where there is none."""
    pytest.importorskip("psycopg", reason="needs the extra postgres")
    folder = server_folder()
    if folder is None:
        pytest.skip("no Postgres server on this machine")
    root = os.geteuid() == 0  # the server refuses to run as root
    if root and subprocess.run(["id", "postgres"], capture_output=True, check=False).returncode:
        pytest.skip("Postgres refuses to run as root and there is no user for it")
    base = Path(tempfile.mkdtemp(prefix="pg"))
    if root:
        shutil.chown(base, "postgres")

    def run(*command):
        prefix = ["su", "postgres", "-s", "/bin/sh", "-c", " ".join(command)] if root else list(command)
        return subprocess.run(prefix, cwd="/", capture_output=True, text=True, check=False, timeout=120)

    bins = next((one for one in sorted(Path("/usr/lib/postgresql").glob("*/bin"))), folder)
    made = run(f"{bins}/initdb", "-D", f"{base}/data", "-U", "tester", "-A", "trust", "--no-sync")
    assert made.returncode == 0, made.stderr
    server = Server(base, run, bins)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(base, ignore_errors=True)


class Wire:
    """A line to the server that can be cut, or go silent, for those alone who connect by its `dsn`."""

    def __init__(self, server):
        self._to, self.mode, self.lose_commit, self.then = f"{server.base}/.s.PGSQL.5432", "open", False, "open"
        self._pairs, self._lock, self._flowing = [], threading.Lock(), threading.Event()
        self._flowing.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.dsn = f"postgresql://tester@127.0.0.1:{self._listener.getsockname()[1]}/postgres"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        """All connections end, and there are no new ones."""
        self.mode = "cut"
        self._flowing.set()
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for one in (end for pair in pairs for end in pair):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def hang(self):
        """Nothing comes through any more, and nobody is told."""
        self.mode = "hang"
        self._flowing.clear()

    def mend(self):
        self.mode = "open"
        self._flowing.set()

    def close(self):
        self.cut()
        self._listener.close()

    def _accept(self):
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            if self.mode == "cut":
                caller.close()
                continue
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._to)
            with self._lock:
                self._pairs.append((caller, server))
            for source, sink, forth in ((caller, server, True), (server, caller, False)):
                threading.Thread(target=self._pass_on, args=(source, sink, forth), daemon=True).start()

    def _pass_on(self, source, sink, forth):
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                self._flowing.wait()
                lost = forth and self.lose_commit and b"COMMIT" in piece
                on_the_way = lost and self.lose_commit == "on the way"
                if lost:  # it is made, or lost on the way, and nobody hears of it
                    self.lose_commit, self.mode = False, self.then
                    source.shutdown(socket.SHUT_RDWR)
                if not on_the_way:
                    sink.sendall(piece)
                if lost:
                    sink.shutdown(socket.SHUT_WR)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
                one.close()
