"""What the gateway captured is learned from as an imported log is; the student's own answers and callers' words prove nothing."""

import asyncio
import json
import math

import pytest

from overproof.data import BY_STUDENT, Served
from overproof.pipeline import distil
from overproof.privacy.redact import redactor_of
from overproof.project import load_project
from overproof.serve.capture import Capture, Row, read_feedback
from overproof.steps.capture import TRUNCATED
from overproof.steps.discover import DiscoverRecipe, discover
from overproof.store.project_store import open_store

N, ODD = 700, 12


def row(number, found, *, task="easy", student=False, text=None):
    label = "WRONG LABEL" if student else found["output"]
    request = {"model": "big", "messages": [{"role": "user", "content": text or found["text"]}]}
    response = {"model": "recorded-teacher-2026-01-01", "choices": [{"message": {"role": "assistant", "content": label}, "finish_reason": "stop"}]}
    how = Served(route="student" if student else "teacher", reason="confident" if student else "stage", stage="canary", status=200, task=task,
                 endpoint="/v1/chat/completions", latency_s=0.1, overhead_s=0.001)  # fmt: skip
    fields = {"text": text or found["text"]} if task == "easy" else None
    return Row(id=f"req-{number}", at=1.77e9 + 3_000 * number, served=how, request=json.dumps(request).encode(),
               response=json.dumps(response).encode(), fields=fields, attributes={"tier": found["tier"]})  # fmt: skip


@pytest.fixture(scope="module")
def run(maker, tmp_path_factory):
    root = maker.project(tmp_path_factory.mktemp("captured") / "easy", maker.rows(1, seed=9))  # one imported row beside them
    found = maker.rows(N)
    other = maker.labels

    async def fill(store):
        project = load_project(root)
        redactor = redactor_of(project.privacy, key=store.secret, keep=project.task.output.labels)
        capture = Capture(store, redactor=redactor)
        for number, one in enumerate(found):
            assert capture.put(row(number, one, student=number % 5 == 0))
            await asyncio.sleep(0)
        for number in range(N, N + ODD):
            assert capture.put(row(number, found[number - N], task="" if number % 2 else "another"))
        assert capture.put(row(N + ODD, found[0], text="word " * 10_000))
        for number in range(0, N, 3):
            label = next(x for x in other if x != found[number]["truth"])
            assert await capture.feedback(read_feedback(json.dumps({"request_id": f"req-{number}", "label": label}).encode(), key="k")) == "kept"
        assert await capture.close()

    with open_store(root) as store:
        asyncio.run(fill(store))
        result = distil(store, load_project(root), to="filter")
        values = {name: result.artifacts[name].value for name in ("traffic", "prompts", "labels", "heeded")}
        values["discovered"] = discover(list(store.traffic.read(context=True)), DiscoverRecipe())
    return values


def test_rows_of_other_tasks_stay_in_the_log_and_out_of_the_window(run):
    """Each with its reason; `discover` still sees them, since that is how the next task is found."""
    assert len(run["traffic"].records) == N + 1
    assert run["traffic"].left_out == {
        "captured for another task": ODD // 2, "captured, but no task was recognised": ODD // 2, TRUNCATED: 1,
    }  # fmt: skip
    assert run["discovered"].rows == N + ODD + 2


def test_the_student_s_own_answers_are_never_labels(run):
    """They are in the log, in none of the steps: those requests have no recorded answer, and so no example."""
    students = {f"req-{number}" for number in range(0, N, 5)}
    assert all(r.completion is None for r in run["traffic"].records if r.request.id in students)
    labelled = run["labels"]
    examples = [*labelled.train.examples, *labelled.calibration.examples, *labelled.test.examples]
    assert len(examples) > N / 3
    assert not {e.request.id for e in examples} & students
    assert BY_STUDENT not in repr(labelled)


def test_posted_labels_train_a_few_rows_and_reach_no_certificate(run):
    """At most one row in a hundred; calibration and sealed rows know nothing of them."""
    labelled = run["labels"]
    for sealed in (labelled.calibration, labelled.test):
        assert all(e.gold is None and e.gold_from == "log" and e.label_from == "teacher" for e in sealed.examples)
    heeded = run["heeded"].labelled.train.examples
    believed = [e for e in heeded if e.label_from == "feedback"]
    assert len(believed) == math.ceil(0.01 * len(heeded))
    assert all(e.target == e.gold and e.agreement == 1.0 for e in believed)
    assert run["heeded"].counts["feedback, corrected"] == len(believed)
    assert run["heeded"].counts["feedback over the share that is believed, ignored"] > 0
