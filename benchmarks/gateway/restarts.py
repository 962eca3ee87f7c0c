"""
Requests that fail while gateways are restarted and releases are swapped under load: none.

python benchmarks/gateway/restarts.py [--requests 10000] [--rate 250]

Two releases of a small student, an open loop of calls that the student answers, calls that pass through to the stub, and
streams. All the while a second process of `overproof serve --reuse-port` starts on the same port, the first one gets
SIGTERM and has to end with 0, and so on in turn; and every second or so the store moves to the other release, or back to
the teacher alone. A refused or reset connection, a cut answer and any status but 200 are failures; nothing is asked twice.

Ends with 1 where one request failed, where a process ended in another way, where fewer than 3 restarts or 10 swaps fell
into the run, or where a request is missing in the log.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import released
import rig
from rig import Claims, NotMeasured, Running

RESTARTS, SWAPS, EVERY_S = 3, 10, 1.0
# The student answers whatever it is asked, however busy the machine: this is about answers that get lost, not about late ones.
SETTINGS = {"serve": "compare = 1e-9", "gateway": "deadline_s = 20.0\nmax_concurrent = 1024\nqueue_records = 100000"}


def calls(path: Path) -> Path:
    """Of four calls two are the task's, one is streamed, and one is of no task."""
    lines = []
    for i, text in enumerate(rig.messages(1000)):
        system = "You translate into French." if i % 4 == 3 else rig.PROMPT
        body: dict[str, Any] = {"model": rig.MODEL, "messages": [{"role": "system", "content": system}, {"role": "user", "content": text}]}
        lines.append(json.dumps({**body, **({"stream": True} if i % 4 == 2 else {})}))
    path.write_text("\n".join(lines) + "\n")
    return path


class Turmoil:
    """Restarts and swaps until the load has ended."""

    def __init__(self, project: Path, port: int) -> None:
        self.project, self.port = project, port
        self.restarts, self.swaps, self.codes = 0, 0, []
        self.trouble = ""
        self.running: Running | None = None

    def serve(self) -> Running:
        return rig.gateway(self.project, "--port", str(self.port), "--reuse-port")

    def swap(self, load: subprocess.Popen[str]) -> None:
        """Until the load has ended; in a thread, since a restart waits for processes."""
        try:
            while not ended(load, EVERY_S):
                if self.swaps % 5 == 4:
                    released.move(self.project, "a", "teacher-only", 0.0)
                else:
                    released.move(self.project, "ab"[self.swaps % 2], "full")
                self.swaps += 1
        except Exception as error:
            self.trouble = f"{type(error).__name__}: {error}"

    def until_ended(self, load: subprocess.Popen[str]) -> None:
        swapping = threading.Thread(target=self.swap, args=(load,))
        swapping.start()
        try:
            while load.poll() is None:
                fresh = self.serve()
                old, self.running = self.running, fresh
                assert old is not None
                ended(load, 1.0)  # both take connections
                self.codes.append(old.stop())
                self.restarts += load.poll() is None
                ended(load, 1.0)
        finally:
            if load.poll() is None and sys.exc_info()[0] is not None:
                load.kill()
            swapping.join()


def ended(load: subprocess.Popen[str], within_s: float) -> bool:
    end = time.monotonic() + within_s
    while load.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    return load.poll() is not None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=250.0, help="requests a second")
    given = parser.parse_args()
    rig.two_cores()
    claims = Claims()
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        folder = Path(scratch)
        upstream = stack.enter_context(rig.held(rig.stub(folder)))
        project = rig.project(folder / "project", upstream.url, more=SETTINGS)
        for shift, name in enumerate("ab"):
            released.release(project, released.linear(folder / name, rig.messages(60), shift=shift), name)
        released.move(project, "a", "full")
        key, path, port = rig.add_key(project), calls(folder / "bodies"), rig.free_port()
        turmoil = Turmoil(project, port)
        turmoil.running = turmoil.serve()
        try:
            argv = rig.load_argv(
                f"http://127.0.0.1:{port}", path, "--header", key, "--rate", str(given.rate), "--connections", "64", "--most", str(given.requests),
                "--seconds", str(4 * given.requests / given.rate + 30), "--warm", "0", "--count", "x-overproof-release",
            )  # fmt: skip
            load = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
            try:
                turmoil.until_ended(load)
            finally:
                if load.poll() is None:
                    load.kill()
            run = json.loads(load.communicate()[0])
        except NotMeasured as why:
            claims.absent("restarts under load", " ".join(str(why).split()))
            return claims.code
        finally:
            if turmoil.running is not None:
                turmoil.codes.append(turmoil.running.stop())
        kept = rig.settled(project, run["sent"], within_s=5)
        print(f"{rig.machine()}.\n")
        print("| requests | restarts | swaps | by release | in the log | p50 ms | p99 ms | failed |\n|---|---|---|---|---|---|---|---|")
        print(f"| {run['sent']:,} at {given.rate:g}/s | {turmoil.restarts} | {turmoil.swaps} | {run['values']} | {kept.captured:,} | {run['p50_ms']} | {run['p99_ms']} | {run['failures'] or 0} |\n")
        claims.judge("requests that failed", run["failed"] + run["unsent"], most=0)
        claims.judge("requests", run["sent"], least=given.requests)
        claims.judge("restarts", turmoil.restarts, least=RESTARTS)
        claims.judge("swaps", turmoil.swaps, least=SWAPS)
        if turmoil.trouble:
            claims.say("DOES NOT HOLD", f"a swap failed: {turmoil.trouble}", good=False)
        claims.judge("releases that answered", len(run["values"]), least=2)
        claims.judge("processes that did not end with 0", sum(code != 0 for code in turmoil.codes), most=0)
        claims.judge("requests that are not in the log", run["sent"] - kept.captured, most=0)
    return claims.code


if __name__ == "__main__":
    sys.exit(main())
