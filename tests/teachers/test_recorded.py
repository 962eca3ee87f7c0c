"""Answers from a recording or from the log: replayed as they are, never invented, refused where incomplete."""

import asyncio
import gzip
import json
from pathlib import Path

import pytest

from overproof.data import BY_STUDENT, Completion, Outcome, Request
from overproof.errors import DataError
from overproof.task import Classes, Task
from overproof.teachers.recorded import RecordedOptions, RecordedTeacher

TASK = Task(name="t", input=("text",), output=Classes(labels=("billing", "bug")), prompt="p")


def recording(tmp_path: Path, *rows: dict | str, name: str = "answers.jsonl") -> str:
    path = tmp_path / name
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return str(path)


def replay(row_id: str, sample_index: int = 0, recorded: Completion | None = None, **options: object) -> Outcome:
    teacher = RecordedTeacher(task=TASK, options=RecordedOptions(**options))
    request = Request(id=row_id, fields={"text": "x"})
    return asyncio.run(teacher.attempt(request, sample_index=sample_index, recorded=recorded))


@pytest.mark.parametrize("name", ["answers.jsonl", "answers.jsonl.gz"])
def test_samples_are_replayed_in_their_order(tmp_path: Path, name: str) -> None:
    """Sample numbers count from the smallest in the file, in whatever order the lines stand."""
    path = recording(
        tmp_path, {"id": "a", "sample": 2, "output": "bug"}, {"id": "a", "sample": 1, "output": "Billing."},
        {"id": "b", "sample": 2, "output": "bug"}, name=name,
    )
    assert [replay("a", i, path=path).completion.value for i in (0, 1)] == ["billing", "bug"]
    assert replay("b", 1, path=path).completion.value == "bug"
    assert replay("b", 0, path=path).reason == "not in the recording"


def test_lines_without_a_sample_number_count_by_appearance(tmp_path: Path) -> None:
    """The n-th line of an id is its n-th sample."""
    path = recording(tmp_path, {"id": "a", "output": "bug"}, {"id": "a", "output": "billing"})
    assert [replay("a", i, path=path).completion.value for i in (0, 1)] == ["bug", "billing"]


def test_what_the_recording_knows_is_kept(tmp_path: Path) -> None:
    """Model, time, tokens and cost come through; milliseconds become seconds."""
    row = {"id": 7, "output": {"label": "bug"}, "model": "m-1", "latency_ms": 1500, "tokens_in": 9, "tokens_out": 2, "cost_usd": 0.01, "finish": "stop"}
    found = replay("7", path=recording(tmp_path, row)).completion
    assert (found.value, found.model, found.latency_s, found.tokens_in, found.tokens_out, found.cost_usd) == (
        "bug", "m-1", 1.5, 9, 2, 0.01,
    )


def test_a_missing_row_is_permanent_and_never_a_made_up_label(tmp_path: Path) -> None:
    """Asking again can't help, and nothing is guessed."""
    outcome = replay("zz", path=recording(tmp_path, {"id": "a", "output": "bug"}))
    assert (outcome.kind, outcome.completion, outcome.reason) == ("permanent", None, "not in the recording")


@pytest.mark.parametrize(
    "row",
    [
        {"output": "neither of them"}, {"output": "bug", "finish": "length"}, {"output": "bug", "finish": "error"},
        {"output": "bug", "finish": "content_filter"}, {"output": ""},
    ],
)
def test_an_unusable_answer_has_no_value(tmp_path: Path, row: dict) -> None:
    """Off-label, cut, filtered and empty answers come back with a reason and without a label."""
    outcome = replay("a", path=recording(tmp_path, {"id": "a", **row}))
    assert outcome.kind == "permanent"
    assert outcome.completion.value is None
    assert outcome.reason
    assert outcome.completion.reason == outcome.reason


def test_the_owner_decides_what_an_unknown_end_means(tmp_path: Path) -> None:
    """A recording that doesn't say how answers ended counts as complete, unless the owner says otherwise."""
    path = recording(tmp_path, {"id": "a", "output": "bug"})
    assert replay("a", path=path).kind == "ok"
    assert replay("a", path=path, unknown_is_complete=False).kind == "permanent"


def test_answers_of_another_model_are_left_out(tmp_path: Path) -> None:
    """A log that spans two models gives labels of the pinned one only."""
    path = recording(tmp_path, {"id": "a", "output": "bug", "model": "old"}, {"id": "b", "output": "bug", "model": "new"})
    assert replay("a", path=path, model="new").completion is None
    assert replay("b", path=path, model="new").completion.value == "bug"


def test_an_answer_to_another_text_is_not_replayed(tmp_path: Path) -> None:
    """Where the recording holds the request's digest, it must be this request's."""
    path = recording(
        tmp_path, {"id": "a", "output": "bug", "digest": "0" * 64},
        {"id": "b", "output": "bug", "digest": Request(id="b", fields={"text": "x"}).digest},
    )
    assert replay("a", path=path).kind == "permanent"
    assert replay("b", path=path).kind == "ok"


def test_the_log_is_replayed_for_the_first_sample_only() -> None:
    """One served answer is one sample: asking for a second finds none rather than the same again."""
    served = Completion(text=" BUG ", value=None, model="m-1", finish="stop", cost_usd=0.002)
    first, second = replay("a", 0, served), replay("a", 1, served)
    assert (first.kind, first.completion.value, first.completion.cost_usd) == ("ok", "bug", 0.002)
    assert (second.kind, second.completion) == ("permanent", None)
    assert replay("a").kind == "permanent"


def test_a_cut_answer_in_the_log_is_no_label() -> None:
    """What the log says about the end of an answer is believed."""
    assert replay("a", 0, Completion(text="bug", value="bug", model="m", finish="length")).completion.value is None


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{", "answers.jsonl:2: not one JSON object"),
        ("[]", "expected a JSON object, got list"),
        ({"output": "bug"}, "`id` must be"),
        ({"id": True, "output": "bug"}, "`id` must be"),
        ({"id": "a"}, "`output` must be"),
        ({"id": "a", "output": 3}, "`output` must be"),
        ({"id": "a", "output": "bug", "sample": "1"}, "`sample` must be"),
        ({"id": "a", "output": "bug", "latency_s": -1}, "`latency_s` must be"),
        ({"id": "a", "output": "bug", "finish": "maybe"}, "`finish` must be"),
        ({"id": "ok", "output": "bug"}, "there twice"),
        ('{"id": "a", "output": "bug", "cost_usd": NaN}', "not one JSON object"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, row: dict | str, words: str) -> None:
    """File, line and what was expected, at once and not at the row's turn."""
    rows = ({"id": "ok", "output": "bug", "sample": 0}, {"id": "ok", "output": "bug", "sample": 0} if words == "there twice" else row)
    with pytest.raises(DataError, match=words.replace("[", "\\[")):
        replay("ok", path=recording(tmp_path, *rows))


def test_a_missing_recording_is_an_error_with_its_name(tmp_path: Path) -> None:
    """The message names the file."""
    with pytest.raises(DataError, match=r"gone\.jsonl"):
        replay("a", path=str(tmp_path / "gone.jsonl"))


def test_a_cut_gzip_recording_is_an_error(tmp_path: Path) -> None:
    """Half a recording is not silently a smaller one."""
    path = Path(recording(tmp_path, *({"id": str(i), "output": "bug"} for i in range(500)), name="a.jsonl.gz"))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="can't be read"):
        replay("1", path=str(path))


def test_the_pin_can_name_the_recording(tmp_path: Path) -> None:
    """The digest changes with any byte of the recording."""
    one = RecordedTeacher(task=TASK, options=RecordedOptions(path=recording(tmp_path, {"id": "a", "output": "bug"})))
    two = RecordedTeacher(task=TASK, options=RecordedOptions(path=recording(tmp_path, {"id": "a", "output": "bug "})))
    assert len(one.digest) == 64
    assert one.digest != two.digest


def test_the_student_s_own_answer_is_never_replayed_as_the_teacher_s() -> None:
    """Whatever it says and whoever hands it over."""
    said = Completion(text="bug", value="bug", model="m", reason=BY_STUDENT)
    outcome = replay("a", recorded=said)
    assert (outcome.kind, outcome.completion) == ("permanent", None)
    assert "student" in outcome.reason
