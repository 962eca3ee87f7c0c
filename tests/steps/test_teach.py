"""The teach step with the real ledger and a real server on loopback: samples, bounds, interrupts, nothing bought twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from overproof import progress
from overproof.data import Answers, Clearance, Completion, PromptRow, PromptSet, Request, TeacherPin
from overproof.errors import BudgetExceeded, DataError, NotCleared, PinMismatch
from overproof.steps.teach import TEACH, TeachRecipe, teach
from overproof.store.labels import LedgeredTeacher, Prices
from overproof.store.project_store import Store, open_store
from overproof.task import Classes, Slice, Task
from overproof.teachers.openai import OpenAIOptions, OpenAITeacher
from overproof.teachers.recorded import RecordedOptions, RecordedTeacher
from overproof.testing import MODEL, Faults, FaultTeacher, hashed_labels

LABELS = ("billing", "bug", "safety")
TASK = Task(name="routing", input=("text",), output=Classes(labels=LABELS), prompt="Answer with one label.")
PIN = TeacherPin(use="openai.v1", provider="test", model=MODEL, revision="1", prompt_digest=TASK.prompt_digest)
ANSWER = hashed_labels(LABELS)


def clearance(pin: TeacherPin = PIN) -> Clearance:
    return Clearance(
        id="c1", pin=pin, registry_id="own-answers", registry_digest="d", posture="open", cited=(), obligations=(),
        attested_by="Dana", attested_on="2026-01-01", expires=None, statement="s", student_kind="classifier",
        distribution="internal",
    )


def row(name: str, *, attributes: dict | None = None, recorded: Completion | None = None) -> PromptRow:
    request = Request(id=name, fields={"text": f"message {name}"}, attributes=attributes or {})
    return PromptRow(request=request, weight=1.0, group=name, recorded=recorded)


def prompts(*train: PromptRow, calibration: tuple[PromptRow, ...] = (), test: tuple[PromptRow, ...] = ()) -> PromptSet:
    return PromptSet(train=train, calibration=calibration, test=test, funnel={}, match=(), distance=0.0, leaks={})


@contextmanager
def ledgered(root: Path, server: FaultTeacher, *, cap_usd: float = 10.0) -> Iterator[tuple[Store, LedgeredTeacher]]:
    root.mkdir(exist_ok=True)
    with open_store(root) as store, store.role("run"):
        store.ledger.open_run("r1", cap_usd=cap_usd)
        inner = OpenAITeacher(
            task=TASK,
            options=OpenAIOptions(
                model=MODEL, base_url=server.base_url, api_key_env=None, allow_private=True, timeout_s=2.0
            ),
        )
        yield store, LedgeredTeacher(
            inner, store.ledger, pin=PIN, prices=Prices(usd_per_million_in=1.0, usd_per_million_out=4.0),
            clearance_id="c1", run_id="r1",
        )


def recorded(tmp_path: Path, answers: dict[str, list[str]]) -> RecordedTeacher:
    path = tmp_path / "answers.jsonl"
    lines = [{"id": i, "sample": n + 1, "output": o} for i, outs in answers.items() for n, o in enumerate(outs)]
    path.write_text("\n".join(map(json.dumps, lines)))
    return RecordedTeacher(task=TASK, options=RecordedOptions(path=str(path)))


def replay(tmp_path: Path, answers: dict[str, list[str]], rows: PromptSet, recipe: TeachRecipe) -> Answers:
    tmp_path.mkdir(exist_ok=True)
    with open_store(tmp_path) as store:
        teacher = LedgeredTeacher(
            recorded(tmp_path, answers), store.ledger, pin=PIN, prices=None, clearance_id="c1", run_id="r1"
        )
        return teach(rows, clearance(), recipe, teacher=teacher)


def values(answers: Answers) -> dict[str, list[str | None]]:
    every = (*answers.train, *answers.calibration, *answers.test)
    return {a.row.request.id: [c.value for c in a.completions] for a in every}


def test_rows_stay_in_their_split_and_order(tmp_path: Path) -> None:
    """Answers come back beside the rows that they belong to."""
    names = [f"{i:02}" for i in range(30)]
    given = {name: [LABELS[i % 3]] for i, name in enumerate(names)}
    rows = [row(name) for name in names]
    found = replay(
        tmp_path, given, prompts(*rows[:20], calibration=tuple(rows[20:24]), test=tuple(rows[24:])), TeachRecipe(pin=PIN)
    )
    assert [a.row for a in found.train] == rows[:20]
    assert [a.row for a in found.calibration] == rows[20:24]
    assert [a.row for a in found.test] == rows[24:]
    assert values(found) == given
    assert (found.pin, found.clearance_id, found.spent_usd) == (PIN, "c1", 0.0)


def test_rows_on_which_samples_differ_get_more_of_them(tmp_path: Path) -> None:
    """Two agreeing samples are enough; where they differ all are taken."""
    given = {"easy": ["bug", "bug", "billing"], "hard": ["bug", "billing", "bug"], "odd": ["bug", "???", "bug"]}
    found = replay(
        tmp_path, given, prompts(*map(row, given)), TeachRecipe(pin=PIN, samples=2, hard_samples=3)
    )
    assert values(found) == {"easy": ["bug", "bug"], "hard": ["bug", "billing", "bug"], "odd": ["bug", None, "bug"]}


def test_critical_labels_and_slices_always_get_more_samples(tmp_path: Path) -> None:
    """A first answer that names a critical label, or a request of a named slice, is looked at again."""
    given = {"a": ["safety", "bug", "bug"], "b": ["bug", "safety", "safety"], "c": ["bug", "bug", "bug"]}
    rows = prompts(row("a"), row("b"), row("c", attributes={"tier": "plus"}))
    extra = (Slice(name="safety", where=(("label", ("safety",)),)), Slice(name="plus", where=(("tier", ("plus",)),)))
    found = replay(tmp_path, given, rows, TeachRecipe(pin=PIN, samples=1, hard_samples=3, extra_on=extra))
    assert {name: len(v) for name, v in values(found).items()} == {"a": 3, "b": 1, "c": 3}


def test_a_row_without_any_answer_has_a_reason_and_no_label(tmp_path: Path) -> None:
    """Nothing is made up for a row that is not in the recording; an off-label answer is kept as it is, without value."""
    found = replay(tmp_path, {"a": ["bug"], "b": ["who knows"]}, prompts(row("a"), row("b"), row("gone")), TeachRecipe(pin=PIN))
    by_id = {a.row.request.id: a for a in found.train}
    assert (by_id["gone"].completions, by_id["gone"].reason) == ((), "not in the recording")
    assert by_id["b"].completions[0].value is None
    assert by_id["b"].completions[0].text == "who knows"


def test_the_log_itself_can_be_the_teacher(tmp_path: Path) -> None:
    """The served answer that travels with a row reaches a teacher that replays the log."""
    served = Completion(text="Billing", value=None, model=MODEL, finish="stop")
    with open_store(tmp_path) as store:
        inner = RecordedTeacher(task=TASK, options=RecordedOptions(model=MODEL))
        teacher = LedgeredTeacher(inner, store.ledger, pin=PIN, prices=None, clearance_id="c1", run_id="r")
        found = teach(prompts(row("a", recorded=served), row("b")), clearance(), TeachRecipe(pin=PIN, samples=2), teacher=teacher)
    assert values(found) == {"a": ["billing"], "b": []}


@pytest.mark.parametrize("change", [{"model": "other"}, {"revision": "2"}, {"parameters": {"temperature": 1}}, {"prompt_digest": "x"}])
def test_a_clearance_for_another_pin_clears_nothing(tmp_path: Path, change: dict) -> None:
    """The permission is for exactly this teacher, asked in exactly this way."""
    with pytest.raises(NotCleared):
        teach(prompts(row("a")), clearance(replace(PIN, **change)), TeachRecipe(pin=PIN), teacher=None)


def test_no_samples_is_a_mistake_and_not_an_empty_run(tmp_path: Path) -> None:
    """Zero samples or zero workers are refused."""
    with pytest.raises(DataError):
        teach(prompts(row("a")), clearance(), TeachRecipe(pin=PIN, samples=0), teacher=None)
    with pytest.raises(DataError):
        teach(prompts(row("a")), clearance(), TeachRecipe(pin=PIN), teacher=None, concurrency=0)


def test_calls_in_flight_stay_within_the_bound(tmp_path: Path) -> None:
    """The server never sees more at once than was asked for, and sees that many."""
    rows = prompts(*(row(str(i)) for i in range(60)))
    with FaultTeacher(ANSWER, faults=Faults(latency_s=0.02)) as server, ledgered(tmp_path, server) as (_, teacher):
        found = teach(rows, clearance(), TeachRecipe(pin=PIN), teacher=teacher, concurrency=5)
        assert server.stats.max_in_flight == 5
        assert server.stats.wire == 60
    assert all(a.completions[0].value == ANSWER(a.row.request.text) for a in found.train)
    assert found.spent_usd == pytest.approx(sum(c.cost_usd for a in found.train for c in a.completions))
    assert found.spent_usd > 0


def test_faults_cost_tries_but_never_a_wrong_label(tmp_path: Path) -> None:
    """With three answers in ten spoilt, every label is what the healthy model says; a re-run asks nothing."""
    spoilt = ("500", "cut", "cut_unframed", "bad_json", "duplicate_key", "length", "refusal", "empty", "error_200")
    rates = {**dict.fromkeys(spoilt, 0.03), "wrong_label": 0.03}
    rows = prompts(*(row(str(i)) for i in range(80)))
    with FaultTeacher(ANSWER, faults=Faults(rates=rates, seed=5)) as server:
        with ledgered(tmp_path, server) as (_, teacher):
            first = teach(rows, clearance(), TeachRecipe(pin=PIN), teacher=teacher)
        wire = server.stats.wire
        with ledgered(tmp_path, server) as (_, teacher):
            again = teach(rows, clearance(), TeachRecipe(pin=PIN), teacher=teacher)
        said = {name: found[0] for name, found in values(first).items() if found and found[0]}
        texts = {a.row.request.id: a.row.request.text for a in first.train}
        assert len(said) >= 70
        assert said == {name: ANSWER(texts[name]) for name in said}
        assert all(c.reason for a in first.train for c in a.completions if c.value is None)
        retried = server.stats.wire - wire  # only rows that never got an answer may be asked again
        assert retried <= 3 * (80 - len(said))
        assert said == {name: values(again)[name][0] for name in said}


def test_more_samples_buy_only_the_missing_ones(tmp_path: Path) -> None:
    """Going from one sample to three on a critical row costs three calls, not four."""
    extra = (Slice(name="all", where=(("label", LABELS),)),)
    with FaultTeacher(ANSWER) as server, ledgered(tmp_path, server) as (_, teacher):
        recipe = TeachRecipe(pin=PIN, samples=1, hard_samples=3, extra_on=extra)
        found = teach(prompts(row("a"), row("b")), clearance(), recipe, teacher=teacher)
        assert server.stats.wire == 6
    assert {len(a.completions) for a in found.train} == {3}


def test_a_foreign_model_halts_the_run_with_every_call_settled(tmp_path: Path) -> None:
    """The pin is enforced, calls in flight are finished and booked, and no row is asked after that."""
    rows = prompts(*(row(str(i)) for i in range(200)))
    faults = Faults(script=("ok",) * 20 + ("wrong_model",), latency_s=0.02)
    with FaultTeacher(ANSWER, faults=faults) as server, ledgered(tmp_path, server) as (store, teacher):
        with pytest.raises(PinMismatch):
            teach(rows, clearance(), TeachRecipe(pin=PIN), teacher=teacher, concurrency=8)
        assert server.stats.wire <= 21 + 2 * 8  # until it is settled each worker may have taken one more
        counts = store.ledger.counts()
    assert "reserved" not in counts.attempts
    assert sum(counts.attempts.values()) == server.stats.wire
    assert counts.held_usd == 0


def test_the_budget_stops_the_run_before_the_call(tmp_path: Path) -> None:
    """The cap holds, and what was bought is kept."""
    rows = prompts(*(row(str(i)) for i in range(50)))
    with FaultTeacher(ANSWER) as server, ledgered(tmp_path, server, cap_usd=0.001) as (store, teacher):
        with pytest.raises(BudgetExceeded):
            teach(rows, clearance(), TeachRecipe(pin=PIN), teacher=teacher, concurrency=4)
        assert 0 < store.ledger.spent_usd <= 0.001
        assert store.ledger.counts().labels == server.stats.billed > 0


def test_progress_counts_every_row_once(tmp_path: Path) -> None:
    """The bar starts with the total, reaches it and ends."""
    seen: list[int] = []

    class Bar:
        def start(self, what: str, total: int | None):
            assert (what, total) == ("teacher answers", 7)
            return seen.append

    token = progress.reporter.set(Bar())
    try:
        replay(tmp_path, {}, prompts(*(row(str(i)) for i in range(7))), TeachRecipe(pin=PIN))
    finally:
        progress.reporter.reset(token)
    assert seen == [1] * 7 + [-1]


def test_an_empty_prompt_set_has_no_answers(tmp_path: Path) -> None:
    """Nothing to ask is not an error here; the filter says so."""
    assert replay(tmp_path, {}, prompts(), TeachRecipe(pin=PIN)).train == ()


def test_the_step_is_named_and_versioned() -> None:
    """Its identity is its name and version."""
    assert (TEACH.name, TEACH.version, TEACH.fn) == ("teach", 2, teach)


WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_teach import TeachRecipe, PIN, clearance, ledgered, prompts, row, teach
class Server: base_url = sys.argv[1]
with ledgered(Path(sys.argv[3]), Server) as (store, teacher):
    print("READY", flush=True)
    found = teach(prompts(*(row(str(i)) for i in range(300))), clearance(), TeachRecipe(pin=PIN), teacher=teacher, concurrency=8)
    print(sum(bool(a.completions) for a in found.train), flush=True)
"""


def test_an_interrupt_settles_what_is_in_flight_and_a_second_run_buys_only_the_rest(tmp_path: Path) -> None:
    """Ctrl-C loses nothing that was paid for: over both runs the server bills each row exactly once."""
    command = [sys.executable, "-c", WORKER]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    with FaultTeacher(ANSWER, faults=Faults(latency_s=0.05)) as server:
        arguments = [server.base_url, str(Path(__file__).parent), str(tmp_path / "project")]
        first = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        limit = time.monotonic() + 30
        while server.stats.wire < 40 and time.monotonic() < limit:
            time.sleep(0.01)
        first.send_signal(signal.SIGINT)
        _, errors = first.communicate(timeout=30)
        assert "KeyboardInterrupt" in errors
        assert 40 <= server.stats.wire < 300
        with open_store(tmp_path / "project") as store:
            counts = store.ledger.counts()
        assert counts.labels == server.stats.billed
        assert dict(counts.attempts) == {"ok": server.stats.billed}
        second = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, check=True, env=environment)
        assert second.stdout.split() == ["READY", "300"]
        assert server.stats.billed == 300
