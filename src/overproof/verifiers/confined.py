"""The user's own checks, each in a process of its own with limits: what hangs, eats memory or crashes costs one row."""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import selectors
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any, Literal

from overproof import registry
from overproof.data import Completion, Judgement, Request
from overproof.errors import DataError
from overproof.task import Output, kind_of, output_of

KEEP = Judgement(keep=True)
REASON_CHARS = 200
FAILED = "the check failed"
LEAST_MB = 256
START_S = 60.0
"""The child imports the user's module, with whatever that imports."""
PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "SYSTEMROOT", "VIRTUAL_ENV")
"""Environment variables that a check may see: no key, no token."""
OnFailure = Literal["stop", "drop", "keep"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a check may use for one row, and what becomes of a row that it fails on."""

    timeout_s: float = 5.0
    """Wall time for one row; the process is killed after it. CPU time has the same limit, rounded up."""
    memory_mb: int = 2048
    """Address space of the process, MiB."""
    on_failure: OnFailure = "stop"
    """A check that raises, hangs or dies has checked nothing: stop the run, or drop or keep the row and count it."""


def limits_of(raw: Mapping[str, Any], where: str) -> Limits:
    """
    The `limits` table of one [[verify]].

    Args:
        raw: as the file says it.
        where: the check's name, for messages.

    Returns: the limits.
    Raises: DataError for an unknown key or a value out of range.
    """
    try:
        found = Limits(**raw)
    except TypeError as error:
        raise DataError(
            f"{where}: limits = {dict(raw)!r}: {error}", next_action="write timeout_s, memory_mb or on_failure"
        ) from error
    numbers = all(type(n) in (int, float) for n in (found.timeout_s, found.memory_mb))
    if not numbers or not 0 < found.timeout_s < math.inf or found.memory_mb != int(found.memory_mb) or found.memory_mb < LEAST_MB or found.on_failure not in ("stop", "drop", "keep"):
        raise DataError(
            f"{where}: limits = {dict(raw)!r} is out of range",
            next_action='timeout_s above 0, memory_mb a whole number from 256, on_failure "stop", "drop" or "keep"',
        )
    return found


class Confined:
    """
    A verifier of the user's, run in a child process.

    The function takes (request, target) and returns True to keep, or False, or a text that says why not; a class is a
    verifier as in docs/parts.md. It must be pure. The child gets no environment but a few harmless variables, no open
    file of ours, no standard input, and can't write files; the network is not closed to it.

    Args:
        output: what an answer is.
        function: "module:function" or "module:Class".
        limits: see `Limits`.
        options: keyword arguments of a class.

    Raises: DataError where it can't be loaded in the child, or takes other options.
    """

    def __init__(
        self,
        *,
        output: Output,
        function: str,
        limits: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self._limits = limits_of(limits or {}, function)
        self._name, self._options, self._output = function, options, kind_of(output)
        self._child: subprocess.Popen[bytes] | None = None
        self._answers: IO[bytes] | None = None
        self._started()

    def judge(self, request: Request, completions: Sequence[Completion], target: str) -> Judgement:
        """Ask the child; see `Verifier`."""
        row = {"request": asdict(request), "completions": [asdict(c) for c in completions], "target": target}
        said = self._ask(row)
        if "keep" in said:
            return Judgement(keep=said["keep"], reason=said["reason"][:REASON_CHARS], score=said["score"])
        if self._limits.on_failure == "stop" or said.get("misused"):
            raise DataError(
                f"{self._name!r} {said['failed']} on request {request.id!r}"[:500],
                next_action='mend the check; or let the run go on with limits = { on_failure = "drop" } in its table',
            )
        if self._limits.on_failure == "keep":
            return Judgement(keep=True, reason=f"{FAILED}: {said['failed']}"[:REASON_CHARS])
        return Judgement(keep=False, reason=f"{FAILED}: {said['failed']}"[:REASON_CHARS])

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # what it started goes with it
            child.wait()
            for pipe in (child.stdin, self._answers):
                if pipe is not None:
                    pipe.close()

    def _ask(self, row: Mapping[str, Any]) -> dict[str, Any]:
        child = self._started()
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps(row).encode() + b"\n")
            child.stdin.flush()
        except BrokenPipeError:
            return self._died()
        line = self._line(self._limits.timeout_s)
        if line is None:
            self.close()
            return {"failed": f"took longer than {self._limits.timeout_s:g} s"}
        return json.loads(line) if line.endswith(b"\n") else self._died()

    def _died(self) -> dict[str, Any]:
        child = self._child
        assert child is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=5)
        code = child.returncode
        self.close()
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return {"failed": f"ended its process ({how})"}

    def _line(self, limit_s: float) -> bytes | None:
        """One line of the child's; cut short where it died, None where the time is up."""
        assert self._answers is not None
        with selectors.DefaultSelector() as ready:
            ready.register(self._answers, selectors.EVENT_READ)
            return self._answers.readline() if ready.select(limit_s) else None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is not None:
            return self._child
        ours, theirs = os.pipe()
        environment = {k: v for k, v in os.environ.items() if k in PASSED_ON}
        environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        command = [sys.executable, "-m", "overproof.verifiers.confined", str(theirs), str(self._limits.memory_mb)]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=(theirs,), env=environment, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self._answers = os.fdopen(ours, "rb")
        cpu_s = math.ceil(self._limits.timeout_s)
        hello = {"use": self._name, "options": self._options, "output": self._output, "cpu_s": cpu_s}
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.write(json.dumps(hello).encode() + b"\n")
            self._child.stdin.flush()
        line = self._line(START_S)
        said = json.loads(line) if line and line.endswith(b"\n") else {"failed": "could not be started"}
        if "failed" in said:
            self.close()
            raise DataError(
                f"{self._name!r}: {said['failed']}",
                next_action="mend the name, the options or the module; it must load in a process of its own",
            )
        return self._child


def _judged(said: object) -> dict[str, Any]:
    """The user's word as the parent reads it."""
    if isinstance(said, Judgement):
        return {"keep": said.keep, "reason": said.reason, "score": said.score}
    if said is True or said is False:
        return {"keep": said, "reason": "" if said else "the function said no", "score": None}
    if isinstance(said, str) and said.strip():
        return {"keep": False, "reason": said.strip(), "score": None}
    return {"failed": f"returned {said!r}, expected True, False or a reason"[:REASON_CHARS], "misused": True}


def _loaded(hello: Mapping[str, Any]) -> Any:
    found = registry.resolve("verifiers", hello["use"])
    if isinstance(found, type):
        return found(output=output_of(hello["output"]), **hello["options"]).judge
    if not callable(found) or hello["options"]:
        raise TypeError(f"is no function without options; got {hello['options']!r}")
    return lambda request, _completions, target: found(request, target)


def _serve(answers: IO[bytes], memory_mb: int) -> None:
    """The child: one answer for each line, until there are no more."""

    def say(word: Mapping[str, Any]) -> None:
        answers.write(json.dumps(word).encode() + b"\n")
        answers.flush()

    most = memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    lines = sys.stdin.buffer
    hello = json.loads(lines.readline())
    try:
        judge = _loaded(hello)
    except Exception as error:  # noqa: BLE001 - the user's module may raise anything; the parent tells it
        say({"failed": f"{type(error).__name__}: {error}"})
        return
    say({"ready": True})
    for line in lines:
        used = resource.getrusage(resource.RUSAGE_SELF)
        soft = math.ceil(used.ru_utime + used.ru_stime) + hello["cpu_s"]
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))
        row = json.loads(line)
        completions = [Completion(**c) for c in row["completions"]]
        try:
            say(_judged(judge(Request(**row["request"]), completions, row["target"])))
        except Exception as error:  # noqa: BLE001 - a check may raise anything; it becomes the row's reason
            say({"failed": f"raised {type(error).__name__}: {error}"[:REASON_CHARS]})


if __name__ == "__main__":
    _serve(os.fdopen(int(sys.argv[1]), "wb"), int(sys.argv[2]))
