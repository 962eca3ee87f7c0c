"""The process of a shadow student: one line of requests in, one line of answers out, until it is ended."""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from typing import IO, Any

from overproof.data import Request
from overproof.serve.pool import sound

NICE = 10
DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def _confine(memory_mb: int) -> None:
    """What allocates, and not what is merely mapped: libraries and weights map more than they use."""
    most = memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(NICE)
    with contextlib.suppress(OSError, AttributeError):  # Linux only; elsewhere the end of standard input has to do
        ctypes.CDLL(None).prctl(DIES_WITH_PARENT, signal.SIGKILL)


def _answers(bundle: Any, rows: Sequence[Sequence[Mapping[str, str]]]) -> list[dict[str, Any] | None]:
    requests = [Request(id="", fields=fields, attributes=attributes) for fields, attributes in rows]
    try:
        found = list(bundle.answers(requests))
    except MemoryError:
        raise  # what is left of this process can't be trusted to answer the next one
    except Exception:  # noqa: BLE001 - a student may raise anything; it becomes the request's fault
        return [None] if len(rows) == 1 else [_answers(bundle, [row])[0] for row in rows]
    if len(found) != len(rows):
        return [None] * len(rows)
    labels = frozenset(bundle.card.labels) or None
    return [asdict(one) if sound(one, labels) else None for one in found]


def main(out: IO[bytes], memory_mb: int) -> None:
    """Load what the first line names, then answer line by line."""

    def say(word: object) -> None:
        out.write(json.dumps(word).encode() + b"\n")
        out.flush()

    _confine(memory_mb)
    lines = sys.stdin.buffer
    hello = json.loads(lines.readline())
    module, _, name = hello["load"].partition(":")
    try:
        bundle = getattr(import_module(module), name)(hello["folder"], manifest_sha256=hello["manifest_sha256"])
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent says it
        say({"failed": f"{type(error).__name__}: {error}"[:500]})
        return
    say({"ready": True})
    for line in lines:
        used = resource.getrusage(resource.RUSAGE_SELF)
        soft = math.ceil(used.ru_utime + used.ru_stime) + hello["cpu_s"]
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))
        say(_answers(bundle, json.loads(line)))


if __name__ == "__main__":
    main(os.fdopen(int(sys.argv[1]), "wb"), int(sys.argv[2]))
