"""What the labelling benchmarks share: a real teacher part behind the real ledger, and the machine in words."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

from overproof.data import Request, TeacherPin
from overproof.store.labels import LedgeredTeacher
from overproof.store.money import Prices
from overproof.task import Classes, Task
from overproof.teachers.openai import OpenAIOptions, OpenAITeacher
from overproof.testing import MODEL, hashed_labels

LABELS = ("billing", "bug", "how-to", "other")
TASK = Task(name="bench", input=("text",), output=Classes(labels=LABELS), prompt="Answer with one label.")
PIN = TeacherPin(use="openai.v1", provider="local", model=MODEL, revision="1", prompt_digest=TASK.prompt_digest)
ANSWER = hashed_labels(LABELS)


def requests(n: int) -> list[Request]:
    return [Request(id=f"r{i}", fields={"text": f"message {i} about thing {i * 7919 % 10007}"}) for i in range(n)]


def teacher(store: Any, base_url: str, *, timeout_s: float = 30.0) -> LedgeredTeacher:
    options = OpenAIOptions(model=MODEL, base_url=base_url, allow_private=True, timeout_s=timeout_s)
    return LedgeredTeacher(
        OpenAITeacher(task=TASK, options=options), store.ledger, pin=PIN,
        prices=Prices(usd_per_million_in=1.0, usd_per_million_out=1.0), clearance_id="c", run_id="bench",
    )  # fmt: skip


def machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def verdict(claims: dict[str, bool], root: Path | None = None) -> None:
    """Print each claim and leave with 1 where one doesn't hold."""
    del root
    for claim, holds in claims.items():
        print(f"{'holds' if holds else 'FAILS'}: {claim}")
    sys.exit(0 if all(claims.values()) else 1)
