"""A check that is a program: SQL that has to parse, code that has to compile, a rule in another language."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from overproof.data import Completion, Judgement, Request
from overproof.errors import DataError
from overproof.task import Output
from overproof.verifiers.confined import FAILED, KEEP, PASSED_ON, REASON_CHARS, limits_of

OBJECTION = 1
"""Exit code of a program that says no; 0 says yes, any other is a failure of the program."""


class Command:
    """
    Keeps rows on which a program exits with 0; 1 drops the row, and the first line that it prints is the reason.

    It gets one JSON object on standard input: `request`, `target`, `completions`. Every row is a process of its own
    with the limits of `Limits`, without our environment.

    Args:
        output: what an answer is.
        command: program and arguments.
        limits: see `confined.Limits`.

    Raises: DataError for a program that isn't there.
    """

    def __init__(self, *, output: Output, command: Sequence[str], limits: Mapping[str, Any] | None = None) -> None:
        del output
        listed = [str(part) for part in command] if not isinstance(command, str) else []
        if not listed or shutil.which(listed[0]) is None:
            raise DataError(
                f"command.v1: command = {command!r} names no program that can be run",
                next_action='write a list such as command = ["./checks/compiles.sh"], and make it executable',
            )
        self._command = listed
        self._limits = limits_of(limits or {}, "command.v1")
        self._environment = {k: v for k, v in os.environ.items() if k in PASSED_ON}

    def judge(self, request: Request, completions: Sequence[Completion], target: str) -> Judgement:
        """Run the program; see `Verifier`."""
        row = {"request": asdict(request), "target": target, "completions": [asdict(c) for c in completions]}
        child = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=self._environment, start_new_session=True, preexec_fn=self._confine,  # noqa: PLW1509 - one thread
        )  # fmt: skip
        try:
            said, _ = child.communicate(json.dumps(row).encode(), timeout=self._limits.timeout_s)
        except subprocess.TimeoutExpired:
            return self._failed(f"took longer than {self._limits.timeout_s:g} s", request)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
        if child.returncode == 0:
            return KEEP
        if child.returncode != OBJECTION:
            return self._failed(f"ended with {child.returncode}", request)
        words = said.decode("utf-8", "replace").strip().partition("\n")[0]
        return Judgement(keep=False, reason=words[:REASON_CHARS] or "the program said no")

    def _failed(self, how: str, request: Request) -> Judgement:
        if self._limits.on_failure == "stop":
            raise DataError(
                f"{self._command[0]!r} {how} on request {request.id!r}",
                next_action='mend the program; or let the run go on with limits = { on_failure = "drop" } in its table',
            )
        return Judgement(keep=self._limits.on_failure == "keep", reason=f"{FAILED}: {how}")

    def _confine(self) -> None:
        most, cpu_s = self._limits.memory_mb * 2**20, int(self._limits.timeout_s) + 1
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
