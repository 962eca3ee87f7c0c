"""Canary prompts through the real ledger and a real server: a changed teacher is seen, an unchanged one left alone."""

import asyncio
import json
from pathlib import Path

import pytest

from overproof.data import TeacherPin
from overproof.errors import DataError, PinMismatch
from overproof.steps.canaries import alarm_at, ask_canaries, read_canaries
from overproof.store.labels import LedgeredTeacher
from overproof.store.money import Prices
from overproof.store.project_store import open_store
from overproof.task import Classes, Task
from overproof.teachers.openai import OpenAIOptions, OpenAITeacher
from overproof.testing import MODEL, FaultTeacher, hashed_labels

LABELS = ("billing", "bug", "safety")
TASK = Task(name="routing", input=("text",), output=Classes(labels=LABELS), prompt="Answer with one label.")
PIN = TeacherPin(use="openai.v1", provider="test", model=MODEL, revision="1", prompt_digest=TASK.prompt_digest)


def canaries(root: Path, n: int = 25) -> Path:
    path = root / "canaries.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"canary {i}"}) for i in range(n)))
    return path


def ask(root: Path, answer, *, stop: bool = True):
    prompts = read_canaries(canaries(root), fields=("text",))
    with FaultTeacher(answer) as server, open_store(root) as store, store.role("run"):
        store.ledger.open_run("r1", cap_usd=10.0)
        teacher = LedgeredTeacher(
            OpenAITeacher(task=TASK, options=OpenAIOptions(model=MODEL, base_url=server.base_url, allow_private=True)),
            store.ledger, pin=PIN, prices=Prices(usd_per_million_in=1.0, usd_per_million_out=1.0), clearance_id="c", run_id="r1",
        )  # fmt: skip

        async def go():
            try:
                return await ask_canaries(teacher, store.canaries, prompts, pin="p", model=MODEL, stop=stop)
            finally:
                await teacher.close()

        return asyncio.run(go()), server.stats.wire


def test_a_teacher_that_changed_under_its_name_stops_the_run(tmp_path: Path) -> None:
    """Three reference rounds, a clean round, then another model behind the same name."""
    same, other = hashed_labels(LABELS), hashed_labels(LABELS[::-1])
    first, wire = ask(tmp_path, same)
    assert (first.n, first.alarm, wire) == (0, False, 75)
    clean, wire = ask(tmp_path, same)
    assert (clean.round, clean.n, clean.differ, clean.alarm, wire) == (3, 25, 0, False, 25)
    with pytest.raises(PinMismatch, match="canary prompts"):
        ask(tmp_path, other)
    told, _ = ask(tmp_path, other, stop=False)
    assert told.alarm
    assert told.p < 0.01


def test_a_few_different_answers_are_noise(tmp_path: Path) -> None:
    """One changed answer of 25 is no alarm: the reference rounds can't rule that out."""
    same = hashed_labels(LABELS)
    ask(tmp_path, same)
    found, _ = ask(tmp_path, lambda text: same(text + "!") if text.endswith("canary 7") else same(text))
    assert found.differ <= 1
    assert not found.alarm
    assert found.alarm_at == 5


def test_alarms_are_rare_when_nothing_changed() -> None:
    """The exact tail at the alarm is at most one in thirty, and one fewer would be more."""
    from overproof.steps.canaries import _tail

    for n in (10, 25, 50):
        for noise in (0.005, 0.02, 0.05, 0.2):
            c = alarm_at(n, noise)
            assert _tail(c, n, noise) <= 1 / 30 < _tail(c - 1, n, noise)


def test_too_few_prompts_are_refused(tmp_path: Path) -> None:
    """Two prompts could never be told from noise; a line without the field is named."""
    with pytest.raises(DataError, match="could be noise"):
        read_canaries(canaries(tmp_path, 2), fields=("text",))
    (tmp_path / "canaries.jsonl").write_text('{"body": "x"}')
    with pytest.raises(DataError, match=r"canaries\.jsonl:1"):
        read_canaries(tmp_path / "canaries.jsonl", fields=("text",))
