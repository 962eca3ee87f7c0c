"""A real Postgres server of the tests' own, on a socket in a fresh folder."""

import os
import shutil
import subprocess
import tempfile
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
