"""The inner loop of `run`: one pytest session, forked for each fault, so that no fault pays for imports and fixtures again."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state
from mutmut.utils.format_utils import mangled_name_from_mutant_name

CPU_S, CPU_TIMES = 10, 15  # of the time that the clean tests took
WALL_S, WALL_TIMES = 120.0, 60.0  # a machine may be busy, or stand still for a while; what ran into it is tried once more
SURVIVED, KILLED = 0, 1
SAID_EVERY = 100


class Forked:
    """Runs every test once on the code as it is, then the tests that reach a fault, for each fault in a process of its own."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.asked = asked
        self.took: dict[str, float] = defaultdict(float)
        self.reach: dict[str, list[pytest.Item]] = defaultdict(list)
        self.ended: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.took[report.nodeid] += report.duration if report.when == "call" else 0.0

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        set_mutant_under_test("stats")
        for item, following in zip(session.items, [*session.items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            reached = state()._stats  # noqa: SLF001 - where mutmut's trampolines note that they were called
            for function in reached:
                self.reach[function].append(item)
            reached.clear()
        if session.testsfailed:
            return True
        set_mutant_under_test("")
        for items in self.reach.values():
            items.sort(key=lambda item: self.took[item.nodeid])
        self._faults(session)
        return True

    def _faults(self, session: pytest.Session) -> None:
        waiting = [(name, 1) for name in reversed(self.asked["faults"])]
        running: dict[int, tuple[str, int, float]] = {}
        while waiting or running:
            while waiting and len(running) < self.asked["children"]:
                name, tries = waiting.pop()
                items = self.reach.get(mangled_name_from_mutant_name(name), [])
                if not items:
                    self.ended[name] = "survived"
                    continue
                needs = sum(self.took[item.nodeid] for item in items)
                running[self._started(session, name, items, needs)] = (name, tries, time.monotonic() + WALL_S + WALL_TIMES * needs)
            pid, status = os.waitpid(-1, os.WNOHANG) if running else (0, 0)
            if not pid:
                time.sleep(0.005)
                for late, (_, _, until) in running.items():
                    if time.monotonic() > until:
                        os.kill(late, signal.SIGKILL)
                continue
            name, tries, _ = running.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            if code == -signal.SIGKILL and tries == 1:
                waiting.append((name, 2))
                continue
            self.ended[name] = {SURVIVED: "survived", -signal.SIGKILL: "timeout", -signal.SIGXCPU: "timeout"}.get(code, "killed")
            if len(self.ended) % SAID_EVERY == 0:
                print(f"{len(self.ended)} of {len(self.asked['faults'])}", file=sys.stderr, flush=True)

    def _started(self, session: pytest.Session, name: str, items: list[pytest.Item], needs: float) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            limit = int(CPU_S + CPU_TIMES * needs)
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
            set_mutant_under_test(name)
            for item, following in zip(items, [*items[1:], None], strict=True):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if session.testsfailed:
                    os._exit(KILLED)
            os._exit(SURVIVED)
        except BaseException:
            os._exit(KILLED)


if __name__ == "__main__":
    asked_for = json.loads(Path("asked.json").read_text())
    forked = Forked(asked_for)
    leave_out = ["-k", f"not ({asked_for['leave_out']})"] if asked_for["leave_out"] else []
    # A failure is counted, not read: explaining it would take longer than the test.
    code_of_all = pytest.main(["-q", "-s", "--tb=no", "--assert=plain", "-p", "pytest_timeout", "-m", "not slow", *leave_out, *asked_for["tests"]], plugins=[forked])
    Path("ended.json").write_text(json.dumps(forked.ended))
    sys.exit(int(code_of_all))
