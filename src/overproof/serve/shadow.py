"""Shadow looks: a student in a process of its own, which may hang, crash or eat memory without anybody's answer knowing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from overproof.serve.pool import Fault, Look, Pool
from overproof.students.bundle import Answer

LOAD = "overproof.students.bundle:load_bundle"
TOGETHER = 16  # requests in one line; after a hang or a crash they are asked one by one, so that only the culprit is at fault
START_S = 60.0
ALIVE_S = 1.0  # so often somebody looks whether a process that nobody asks is still there
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 60.0
SILENT_S = 30.0
MAX_LINE = 2**22
PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "SYSTEMROOT", "VIRTUAL_ENV")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1")

Then = Callable[[Answer | None, Fault], None]
State = Literal["starting", "running", "waiting", "closed"]


class _Row:
    __slots__ = ("alone", "asked", "request_id", "then")

    def __init__(self, request_id: str, asked: Sequence[Mapping[str, str]], then: Then) -> None:
        self.request_id, self.asked, self.then, self.alone = request_id, asked, then, False


class _Lost(Exception):
    """The child gave no answer; its text says how."""


class Shadow:
    """
    Looks at requests after they have been answered, in another process of low priority and with a limit of memory.

    Args:
        folder: the bundle.
        manifest_sha256: see `load_bundle`.
        memory_mb: what the process may allocate.
        timeout_s: longest wait for an answer; then the process is killed and started again.
        queue_rows: most requests that wait; further ones are dropped and counted.
        load: "module:function" that makes the bundle there.
    """

    def __init__(
        self, folder: Path | str, *, manifest_sha256: str | None = None, memory_mb: int = 1024, timeout_s: float = 5.0,
        queue_rows: int = 1000, load: str = LOAD,
    ) -> None:  # fmt: skip
        self.state: State = "starting"
        self.offered = self.answered = self.dropped = 0
        self.faults: Counter[str] = Counter()
        """How often the process was lost, by how: "hang", "crash", "start"."""
        self.why = ""
        """How it was lost last."""
        self.fired_at: float | None = None
        """`time.monotonic` of the last answer."""
        self._hello = {"load": load, "folder": str(folder), "manifest_sha256": manifest_sha256, "cpu_s": math.ceil(timeout_s) + 1}
        self._memory_mb, self._timeout_s, self._most = memory_mb, timeout_s, queue_rows
        self._since: float | None = None
        self._rows: deque[_Row] = deque()
        self._ready = threading.Condition()
        self._child: subprocess.Popen[bytes] | None = None
        self._out = -1
        self._left = b""
        self._wait_s = FIRST_WAIT_S
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="shadow", daemon=True)
        self._keeper.start()

    def offer(self, request_id: str, fields: Mapping[str, str], attributes: Mapping[str, str], then: Then) -> bool:
        """
        Have a request looked at, sometime; never waits.

        Args:
            request_id: names the request in what is said about it.
            fields: the task's input fields.
            attributes: what slices are cut by.
            then: called with the answer or the fault, in the shadow's thread; it has to be quick.

        Returns: False where it was dropped; then nothing is called.
        """
        with self._ready:
            self.offered += 1
            if self._closing.is_set() or len(self._rows) >= self._most:
                self.dropped += 1
                return False
            if self._since is None:
                self._since = time.monotonic()
            self._rows.append(_Row(request_id, (fields, attributes), then))
            self._ready.notify()
        return True

    def silent(self, now: float, *, after_s: float = SILENT_S) -> bool:
        """
        Whether it has stopped firing: requests came and nothing was answered for so long.

        Args:
            now: `time.monotonic`.
            after_s: how long is too long.

        Returns: False also where nothing was offered.
        """
        since = self._since
        return since is not None and now - since > after_s

    def close(self, *, wait_s: float = 2.0) -> None:
        """End the process; what waits is told "busy". Blocks for `wait_s` at most."""
        self._closing.set()
        with self._ready:
            self._ready.notify_all()
        child = self._child
        if child is not None:
            _kill(child)
        if threading.current_thread() is not self._keeper:
            self._keeper.join(wait_s)

    # -- in the keeper's thread --------------------------------------------------------------------------------

    def _keep(self) -> None:
        while not self._closing.is_set():
            rows: list[_Row] = []
            try:
                self._start()  # before anything is asked, so that the first request finds it running
                rows = self._take()
                answers = self._ask(rows) if rows else []
            except _Lost as lost:
                self._lose(rows, str(lost))
                continue
            if not rows:
                break
            self._wait_s = FIRST_WAIT_S
            with self._ready:
                self.answered += len(rows)
                self.fired_at = time.monotonic()
                self._since = self.fired_at if self._rows else None
            for row, answer in zip(rows, answers, strict=True):
                _tell(row, answer, "" if answer is not None else "student_error")
        self._end()
        self.state = "closed"
        while self._rows:
            _tell(self._rows.popleft(), None, "busy")

    def _take(self) -> list[_Row]:
        with self._ready:
            while not self._rows and not self._closing.is_set():
                self._ready.wait(ALIVE_S)
                self._still_there()
            if self._closing.is_set():
                return []
            self._still_there()  # who comes to a process that ended before is not to blame for it
            rows = [self._rows.popleft()]
            while self._rows and len(rows) < TOGETHER and not rows[0].alone and not self._rows[0].alone:
                rows.append(self._rows.popleft())
            return rows

    def _still_there(self) -> None:
        if self._child is not None and self._child.poll() is not None:
            raise _Lost(f"crash: {self._ended()}")

    def _lose(self, rows: Sequence[_Row], how: str) -> None:
        self._end()
        if self._closing.is_set():
            with self._ready:
                self._rows.extendleft(reversed(rows))
            return
        kind = how.partition(":")[0]
        self.faults[kind] += 1
        self.why, self.state = how, "waiting"
        if kind == "start" or (len(rows) > 1):
            for row in rows:
                row.alone = kind != "start"
            with self._ready:
                self._rows.extendleft(reversed(rows))
        elif rows:
            _tell(rows[0], None, "deadline" if kind == "hang" else "student_error")
        self._closing.wait(self._wait_s)
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)

    def _start(self) -> None:
        if self._child is not None:
            return
        self.state = "starting"
        ours, theirs = os.pipe()
        environment = {key: value for key, value in os.environ.items() if key in PASSED_ON} | ONE_THREAD
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        environment["TOKENIZERS_PARALLELISM"] = "false"
        command = [sys.executable, "-m", "overproof.serve.shadow_child", str(theirs), str(self._memory_mb)]
        try:
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                pass_fds=(theirs,), env=environment, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            os.close(ours)
            raise _Lost(f"start: {error}") from error
        finally:
            os.close(theirs)
        self._out, self._left = ours, b""
        if self._closing.is_set():  # `close` may have looked before there was a process to end
            _kill(self._child)
        assert self._child.stdin is not None
        os.set_blocking(self._child.stdin.fileno(), False)
        try:
            said = self._exchange(self._hello, START_S)
        except _Lost as lost:
            raise _Lost(f"start: {lost}") from lost
        if not isinstance(said, dict) or "ready" not in said:
            raise _Lost(f"start: {said.get('failed', said) if isinstance(said, dict) else said}"[:500])
        self.state = "running"

    def _ask(self, rows: Sequence[_Row]) -> list[Answer | None]:
        said = self._exchange([row.asked for row in rows], self._timeout_s)
        if not isinstance(said, list) or len(said) != len(rows):
            raise _Lost("crash: it said something else than answers")
        return [None if one is None else Answer(**one) for one in said]

    def _exchange(self, word: object, limit_s: float) -> Any:
        """Say one line, hear one line."""
        assert self._child is not None
        assert self._child.stdin is not None
        until = time.monotonic() + limit_s
        data, into = memoryview(json.dumps(word).encode() + b"\n"), self._child.stdin.fileno()
        while data:
            _await([], [into], until)
            try:
                data = data[os.write(into, data) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise _Lost(f"crash: {self._ended()}") from error
        while b"\n" not in self._left:
            _await([self._out], [], until)
            read = os.read(self._out, 65536)
            if not read or len(self._left) > MAX_LINE:
                raise _Lost(f"crash: {self._ended()}")
            self._left += read
        line, _, self._left = self._left.partition(b"\n")
        return json.loads(line)

    def _ended(self) -> str:
        assert self._child is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout=2)
        code = self._child.returncode
        return "it closed its pipe" if code is None else signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            _kill(child)
            child.wait()
            if child.stdin is not None:
                with contextlib.suppress(OSError):
                    child.stdin.close()
            os.close(self._out)


def _await(readable: Sequence[int], writable: Sequence[int], until: float) -> None:
    left = until - time.monotonic()
    poll = select.poll()  # select() takes no descriptor above 1023, and a gateway has many
    for one in readable:
        poll.register(one, select.POLLIN)
    for one in writable:
        poll.register(one, select.POLLOUT)
    if left <= 0 or not poll.poll(left * 1000):
        raise _Lost("hang: no answer in time")


def _kill(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)  # what it started goes with it


def _tell(row: _Row, answer: Answer | None, fault: Fault) -> None:
    with contextlib.suppress(Exception):  # what the gateway does with a result must not end the shadow
        row.then(answer, fault)


async def ask(shadow: Shadow | None, request_id: str, asked: Sequence[Mapping[str, str]], *, deadline_s: float) -> Look:
    """
    Ask the student in the shadow, and wait for its word.

    Args:
        shadow: its process; None where there is none.
        request_id: names the request.
        asked: its fields and its attributes.
        deadline_s: from now.

    Returns: the answer or the fault.
    """
    loop, at = asyncio.get_running_loop(), time.perf_counter()
    future: asyncio.Future[Look] = loop.create_future()

    def settle(look: Look) -> None:
        if not future.done():
            future.set_result(look)

    def then(said: Answer | None, fault: Fault) -> None:
        loop.call_soon_threadsafe(settle, Look(answer=said, fault=fault, latency_s=time.perf_counter() - at))

    fields, attributes = asked
    if shadow is None or not shadow.offer(request_id, fields, attributes, then):
        return Look(answer=None, fault="student_error", latency_s=0.0)
    try:
        async with asyncio.timeout(deadline_s):
            return await future
    except TimeoutError:
        return Look(answer=None, fault="deadline", latency_s=time.perf_counter() - at)


LOOKS: set[asyncio.Task[None]] = set()  # a task that nobody holds may be collected before it ends


def look_after(
    pool: Pool | None, shadow: Shadow | None, request_id: str, asked: Sequence[Mapping[str, str]], then: Then, *, deadline_s: float
) -> bool:
    """
    Have the student look at a request that the teacher has answered: by the pool where it is idle, else in the shadow.

    Args:
        pool: the serving pool; None in the stage shadow.
        shadow: the shadow process; None where there is none.
        request_id: names the request.
        asked: its fields and its attributes.
        then: called once with the answer or the fault, in whatever thread it comes from.
        deadline_s: for the pool.

    Returns: False where nobody looks; then nothing is called.
    """
    fields, attributes = asked
    if pool is not None and pool.idle:
        task = asyncio.get_running_loop().create_task(_look(pool, fields, attributes, then, deadline_s))
        LOOKS.add(task)
        task.add_done_callback(LOOKS.discard)
        return True
    return shadow is not None and shadow.offer(request_id, fields, attributes, then)


async def _look(pool: Pool, fields: Mapping[str, str], attributes: Mapping[str, str], then: Then, deadline_s: float) -> None:
    look = await pool.look(fields, attributes, deadline_s=deadline_s)
    with contextlib.suppress(Exception):
        then(look.answer, look.fault)
