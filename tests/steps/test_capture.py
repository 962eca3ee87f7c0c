"""Capture: the window of the log, with every row that stays out counted."""

from dataclasses import replace

import pytest

from overproof.data import BY_STUDENT, Completion, Request, Served, TrafficRecord
from overproof.errors import DataError
from overproof.steps.capture import THIN, TRUNCATED, CaptureRecipe, LogSnapshot, capture


def record(i, at=None, **fields):
    return TrafficRecord(request=Request(id=str(i), fields=fields or {"text": f"m{i}"}, at=at))


RECIPE = CaptureRecipe(fields=("text",))


def test_rows_are_ordered_by_time_then_by_the_log():
    """Oldest first, whatever the spelling of the time; rows of one time in the log's order; rows without a time first."""
    log = LogSnapshot(
        records=(
            record(1, "2025-03-02T10:00:00.500000Z"),
            record(2, "2025-03-02T10:00:00Z"),
            record(3, "2025-03-02T11:00:00+02:00"),
            record(4, "2025-03-02T10:00:00Z"),
            record(5),
        )
    )
    traffic = capture(log, RECIPE)
    assert [r.request.id for r in traffic.records] == ["5", "3", "2", "4", "1"]
    assert traffic.window == ("2025-03-02T11:00:00+02:00", "2025-03-02T10:00:00.500000Z")


def test_the_window_counts_back_from_the_newest_row():
    """Rows before the window and rows without a time stay out, each counted with its reason."""
    log = LogSnapshot(
        records=(record(1, "2025-03-01T00:00:00Z"), record(2, "2025-03-02T00:00:00Z"), record(3, "2025-03-08T00:00:00Z"), record(4))
    )
    traffic = capture(log, CaptureRecipe(fields=("text",), window_days=6))
    assert [r.request.id for r in traffic.records] == ["2", "3"]
    assert traffic.left_out == {"before the window": 1, "no time, so not known to be in the window": 1}


def test_rows_keep_exactly_the_tasks_fields_in_its_order():
    """Another order of columns is the same request, further columns are no input, a missing one is a counted reason."""
    log = LogSnapshot(
        records=(
            record(1, body="b", subject="s", internal="x"),
            record(2, subject="s", body="b"),
            record(3, subject="s"),
            record(4, subject=" ", body="\n"),
            record(5, subject="", body="only a body"),
        )
    )
    traffic = capture(log, CaptureRecipe(fields=("subject", "body")))
    assert [r.request.text for r in traffic.records] == ["s\n\nb", "s\n\nb", "\n\nonly a body"]
    assert traffic.left_out == {"input field 'body' is missing": 1, "no input text": 1}
    assert len(traffic.records) + sum(traffic.left_out.values()) == len(log.records)


@pytest.mark.parametrize(
    ("log", "recipe", "words"),
    [
        (LogSnapshot(records=()), RECIPE, "empty"),
        (LogSnapshot(records=(record(1),)), CaptureRecipe(fields=("text",), window_days=7), "no row of the log has a time"),
        (LogSnapshot(records=(record(1),)), CaptureRecipe(fields=("body",)), "input field 'body' is missing: 1"),
    ],
)
def test_what_can_not_work_says_why(log, recipe, words):
    """An empty log, a window without times and a wrong field name are errors with the reason, not an empty window."""
    with pytest.raises(DataError, match=words):
        capture(log, recipe)


def captured(number, **how):
    given = {"route": "teacher", "reason": "stage", "stage": "canary", "endpoint": "/v1", "status": 200, "latency_s": 0.1, "overhead_s": 0.0, "task": "t"}
    return replace(record(number), served=Served(**{**given, **how}))


def test_rows_that_the_gateway_captured_for_others_stay_out_with_a_reason():
    """Another task's, nobody's, and those that were cut; imported rows know no task and stay in."""
    rows = (record(1), captured(2), captured(3, task=""), captured(4, task="u"), captured(5, truncated=True))
    traffic = capture(LogSnapshot(records=rows), CaptureRecipe(fields=("text",), task="t"))
    assert [r.request.id for r in traffic.records] == [rows[0].request.id, rows[1].request.id]
    assert traffic.left_out == {"captured, but no task was recognised": 1, "captured for another task": 1, TRUNCATED: 1}
    assert all(r.served is None for r in traffic.records)


def test_what_the_student_said_is_no_answer_of_the_log():
    """The request stays, unanswered; a teacher's answer stays as it is."""
    said = Completion(text="bug", value="bug", model="m")
    rows = (replace(captured(1), completion=replace(said, reason=BY_STUDENT)), replace(captured(2), completion=said))
    traffic = capture(LogSnapshot(records=rows), CaptureRecipe(fields=("text",), task="t"))
    assert [r.completion for r in traffic.records] == [None, said]


def test_weighted_rows_count_once_and_that_is_said():
    """Two rows of weight 4 stand for six others that are not there."""
    rows = (captured(1, weight=4.0), captured(2, weight=4.0), captured(3))
    traffic = capture(LogSnapshot(records=rows), CaptureRecipe(fields=("text",), task="t"))
    assert len(traffic.records) == 3
    assert traffic.left_out == {THIN: 6}
