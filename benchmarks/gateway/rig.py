"""What the benchmarks of the gateway share: processes on a core each, a project folder, a released student, blocks in turn."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import platform
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from load import cpu_s

HERE = Path(__file__).parent
SERVER_CORE, LOAD_CORE = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))
"""The measured process has the first one to itself; the upstream and the load are on the last one."""
READY_S = 90.0
TASK, FIELD, MODEL, OURS = "bench", "text", "stub-model", "overproof/bench"
LABELS = ("activate_my_card", "card_arrival", "change_pin", "exchange_rate", "top_up_failed")
PROMPT = "You sort messages of a bank's customers. Answer with one label out of the list, and with nothing else."
QUIET = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


class NotMeasured(Exception):
    """Why a figure is not there: no claim rests on it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A server that listens."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def stop(self, *, within_s: float = 30.0) -> int:
        """SIGTERM, and its exit code; killed where it doesn't end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return -signal.SIGKILL

    def children(self) -> list[int]:
        """Processes that it started: of the gateway the writer of its log."""
        found = [(one / "children").read_text() for one in Path(f"/proc/{self.pid}/task").iterdir()]
        return [int(pid) for text in found for pid in text.split()]

    def writers_cpu_s(self) -> float:
        """Processor time of these."""
        return sum(cpu_s(pid) for pid in self.children())

    def rss_bytes(self) -> int:
        """Memory that it and its children hold now."""
        found = [Path(f"/proc/{pid}/status").read_text() for pid in (self.pid, *self.children())]
        return sum(int(line.split()[1]) * 1024 for status in found for line in status.splitlines() if line.startswith("VmRSS"))


def spawn(
    argv: Sequence[str | Path], log: Path, *, cores: Sequence[int], env: Mapping[str, str] | None = None, silent: bool = False
) -> subprocess.Popen[bytes]:
    """A process on these processors; stdout is a pipe, or goes to the file that has stderr."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(cores))  # of this thread, and handed down
    try:
        with log.open("ab") as errors:
            return subprocess.Popen(
                [str(one) for one in argv], stdout=errors if silent else subprocess.PIPE, stderr=errors, env={**os.environ, **QUIET, **(env or {})}
            )
    finally:
        os.sched_setaffinity(0, mine)


def start(argv: Sequence[str | Path], log: Path, *, cores: Sequence[int] = (SERVER_CORE,), env: Mapping[str, str] | None = None) -> Running:
    """Start a server that says `listening on URL`, and wait until it does."""
    process = spawn(argv, log, cores=cores, env=env)
    assert process.stdout is not None
    end, seen = time.monotonic() + READY_S, b""
    while time.monotonic() < end:
        if not select.select([process.stdout], [], [], 0.2)[0]:
            continue
        more = os.read(process.stdout.fileno(), 65536)
        seen += more
        _, _, rest = seen.partition(b"listening on ")
        if rest and b"\n" in rest:
            return Running(process=process, url=rest.split()[0].decode().rstrip("/.,"), log=log)
        if not more:
            break
    process.kill()
    process.wait()
    raise NotMeasured(f"{Path(str(argv[1])).name} did not start: {log.read_text(errors='replace').strip()[-400:] or seen.decode(errors='replace')[-400:]}")


def answering(process: subprocess.Popen[bytes], url: str, path: str, log: Path, *, within_s: float = READY_S) -> Running:
    """A server that says nothing, once it answers GET requests."""
    end = time.monotonic() + within_s
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url + path, timeout=2) as answer:
            if answer.status == 200:
                return Running(process=process, url=url, log=log)
        time.sleep(0.3)
    process.kill()
    process.wait()
    raise NotMeasured(f"{Path(str(process.args[0])).name} did not start: {log.read_text(errors='replace').strip()[-300:]}")  # type: ignore[index]


@contextlib.contextmanager
def held(server: Running) -> Iterator[Running]:
    """Stop it at the end."""
    try:
        yield server
    finally:
        server.stop()


def stub(folder: Path, *more: str) -> Running:
    """The upstream."""
    return start([sys.executable, HERE / "stub.py", *more], folder / "stub.log", cores=(LOAD_CORE,))


def gateway(folder: Path, *more: str, cores: Sequence[int] = (SERVER_CORE,)) -> Running:
    """`overproof serve` on a project folder."""
    return start([sys.executable, "-m", "overproof.cli", "serve", "--project", folder, *(more or ("--port", "0"))], folder / "serve.log", cores=cores)


def writers_apart(server: Running) -> Running:
    """Move the writer of its log to the other core."""
    end = time.monotonic() + READY_S
    while not (found := server.children()) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in found:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {LOAD_CORE})
    return server


def bare(folder: Path, *more: str | Path, cores: Sequence[int] = (SERVER_CORE,)) -> Running:
    """The floor."""
    return start([sys.executable, HERE / "bare.py", *more], folder / "bare.log", cores=cores)


def free_port() -> int:
    """A port that nobody has right now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def project(folder: Path, upstream: str, *, labels: Sequence[str] = LABELS, more: Mapping[str, str] | None = None) -> Path:
    """
    A project folder with the stub as its upstream; everything else as it comes, capture included.

    Args:
        folder: made if it isn't there.
        upstream: URL of the stub.
        labels: of the task.
        more: further lines of the project file, by table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prompt.md").write_text(PROMPT + "\n")
    (folder / "terms.toml").write_text("")
    tables: dict[str, str] = {
        "task": f'name = "{TASK}"\ninput = ["{FIELD}"]\nprompt = "prompt.md"\noutput = {{ classes = {json.dumps(list(labels))} }}',
        "owner": 'name = "Robin Vale"\nemail = "robin.vale@example.com"\ndeputy = "Sam Oduya"',
        "teacher": f'use = "recorded.v1"\nmodel = "{MODEL}"\nrevision = "1"\nprovider = "stub"\nterms = "terms.toml"',
        "[student]": 'use = "linear.v1"',
        "bars": "fidelity = 0.9",
        "gateway": f'upstream = "{upstream}/v1"\nallow_private = true',
    }
    for name, lines in (more or {}).items():
        tables[name] = f"{tables[name]}\n{lines}" if name in tables else lines
    (folder / "overproof.toml").write_text("".join(f"[{name}]\n{lines}\n\n" for name, lines in tables.items()))
    return folder


def add_key(folder: Path) -> str:
    """Ask for keys in this project; returns the header of a caller who may ask and may not do more."""
    from overproof.store.project_store import open_store

    with open_store(folder) as store:
        return f"authorization: Bearer {store.keys.add('bench', ('invoke',)).secret}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What became of the requests that a gateway offered to its log."""

    served: int
    captured: int
    dropped: int


def kept(folder: Path) -> Kept:
    """As the project's log says it now."""
    from overproof.store.project_store import open_store

    with open_store(folder) as store:
        found = store.captured.health()
    return Kept(served=found.served, captured=found.captured, dropped=found.dropped)


def settled(folder: Path, served: int, *, within_s: float = 60.0) -> Kept:
    """Wait until the writer has seen so many: until then it still works, on the core of whoever is next."""
    end = time.monotonic() + within_s
    while (found := kept(folder)).served < served and time.monotonic() < end:
        time.sleep(0.1)
    return found


def bodies(path: Path, texts: Sequence[str], *, model: str = MODEL, stream: bool = False) -> Path:
    """Chat completions as a caller of the teacher sends them, one a line."""
    lines = []
    for text in texts:
        messages = [{"role": "system", "content": PROMPT}, {"role": "user", "content": text}]
        lines.append(json.dumps({"model": model, "messages": messages, "temperature": 0, **({"stream": True} if stream else {})}))
    path.write_text("\n".join(lines) + "\n")
    return path


def messages(n: int = 256) -> list[str]:
    """Short messages that differ."""
    return [f"Hello, my card number {i} has not come yet and I would like to know when it will be here" for i in range(n)]


def load(server: Running, path: Path, *more: str, pid: bool = True, timeout_s: float = 900.0) -> dict[str, Any]:
    """One run of the load generator against a server, to its end."""
    done = subprocess.run(load_argv(server.url, path, *more, pid=server.pid if pid else 0), capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise NotMeasured(f"the load generator failed: {done.stderr.strip()[-300:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def quiet(server: Running, *, within_s: float = 20.0) -> None:
    """Wait until it has done with what nobody waits for any more, so that it takes nothing from whoever is next on its core."""
    end, before = time.monotonic() + within_s, cpu_s(server.pid)
    while time.monotonic() < end:
        time.sleep(0.2)
        now = cpu_s(server.pid)
        if now - before <= 0.02:
            return
        before = now


def load_argv(url: str, path: Path, *more: str, pid: int = 0) -> list[str]:
    """How it is called."""
    argv = [sys.executable, str(HERE / "load.py"), "--url", url, "--bodies", str(path), "--core", str(LOAD_CORE)]
    return [*argv, *(["--pid", str(pid)] if pid else []), *more]


def middle(runs: Sequence[Mapping[str, Any]], name: str) -> float:
    """Median over the blocks; an unmeasured block makes it no figure."""
    values = [run[name] for run in runs]
    if not values or not all(values):
        raise NotMeasured(f"{name}: a block has no answer")
    return float(median(values))


def failures(runs: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """What failed, over all blocks."""
    total: dict[str, int] = {}
    for run in runs:
        for why, n in run["failures"].items():
            total[why] = total.get(why, 0) + n
    return total


def machine(*packages: str) -> str:
    """Where this ran."""
    found = []
    for name in ("overproof", "uvicorn", "httptools", "uvloop", *packages):
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    cores = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    return f"Machine: {platform.machine()}, {cores}, Python {platform.python_version()}; {', '.join(found)}; server on core {SERVER_CORE}, upstream and load on core {LOAD_CORE}"


class Claims:
    """Goals, each printed as it came out; what could not be measured holds as little as what was missed."""

    def __init__(self) -> None:
        self.missed = 0

    def judge(self, words: str, value: float, *, least: float | None = None, most: float | None = None) -> None:
        """Print one."""
        good = (least is None or value >= least) and (most is None or value <= most)
        bound = f"at least {least:g}" if least is not None else f"at most {most:g}"
        self.say("holds" if good else "DOES NOT HOLD", f"{words}: {value:.3g} ({bound})", good=good)

    def absent(self, words: str, why: str) -> None:
        """No figure, no pass."""
        self.say("NOT MEASURED", f"{words}: {why}", good=False)

    def say(self, word: str, words: str, *, good: bool) -> None:
        self.missed += not good
        print(f"- {word}: {words}", flush=True)

    @property
    def code(self) -> int:
        """Exit code."""
        return int(self.missed > 0)


def two_cores() -> None:
    """Whoever asks and who answers must not share a processor."""
    if SERVER_CORE == LOAD_CORE:
        sys.exit("not measured: this needs two processors, one for the server and one for the load")


def apart(module: str, call: str, *given: object) -> None:
    """Call a function of a benchmark in a process of its own: what training leaves in memory and threads stays there."""
    code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import {module}; {module}.{call}(*sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", code, *(str(one) for one in given)], check=False)
    if done.returncode:
        raise NotMeasured(f"{module}.{call} failed")


def banking(data: Path) -> list[dict[str, Any]]:
    """Rows of the recording that have a teacher's label."""
    with gzip.open(data / "banking77.jsonl.gz", "rt", encoding="utf-8") as file:
        return [row for row in map(json.loads, file) if row["teacher_label"]]
