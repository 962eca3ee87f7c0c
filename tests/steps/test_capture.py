"""Capture: the window of the log, with every row that stays out counted."""

import pytest

from overproof.data import Request, TrafficRecord
from overproof.errors import DataError
from overproof.steps.capture import CaptureRecipe, LogSnapshot, capture


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
