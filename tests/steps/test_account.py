"""What became of every row: counted in full, named up to a bound."""

from dataclasses import replace

import pytest
from tests.steps.made_traffic import record, traffic_of, world

from overproof.data import (
    MOST_NAMED,
    Answered,
    Answers,
    Completion,
    Dropped,
    Labelled,
    Request,
    TeacherPin,
    TestSet,
    TrainSet,
    named,
)
from overproof.data import CalibrationSet as Held
from overproof.steps.account import MOST_REASONS, RARER, account
from overproof.steps.capture import THIN, CaptureRecipe, LogSnapshot, capture
from overproof.steps.filter import NoRecipe
from overproof.steps.promptset import PromptSetRecipe, promptset


def test_the_first_rows_of_each_fate_are_named():
    """Up to the bound, in the order in which they came."""
    found = named([("late", f"r{i}") for i in range(MOST_NAMED + 5)] + [("empty", "x")])
    assert list(found) == ["empty", "late"]
    assert found["late"] == tuple(f"r{i}" for i in range(MOST_NAMED))


def test_capture_names_what_it_leaves_out():
    """Every row that is not in the window is named under its reason, and no other."""
    rows = [record(0, "old", minutes=0), record(1, " ", minutes=5000), record(2, "new", minutes=5000)]
    found = capture(LogSnapshot(records=tuple(rows)), CaptureRecipe(fields=("text",), window_days=1.0))
    assert found.left_rows == {"before the window": ("r0",), "no input text": ("r1",)}
    assert {reason: len(ids) for reason, ids in found.left_rows.items()} == found.left_out


@pytest.mark.parametrize("requests", [None, 120])
def test_the_prompt_set_names_what_it_leaves_out(requests):
    """For every entry of the funnel its rows, none of which is chosen."""
    traffic = world(400, 3)
    found = promptset(traffic, PromptSetRecipe(requests=requests, seed=1))
    ended = {fate: n for fate, n in found.funnel.items() if fate != "rows read" and not fate.startswith("in ")}
    assert {fate: len(ids) for fate, ids in found.left_rows.items()} == ended
    chosen = {row.request.id for split in (found.train, found.calibration, found.test) for row in split}
    out = {one for ids in found.left_rows.values() for one in ids}
    assert not out & chosen
    assert out | chosen == {one.request.id for one in traffic.records}


def _made(dropped, left_out=None):
    traffic = replace(traffic_of(world(120, 5).records), left_out=left_out or {})
    prompts = promptset(traffic, PromptSetRecipe(seed=1))
    said = {split: tuple(Answered(row=row, completions=(Completion(text="a", value="a", model="m"),)) for row in getattr(prompts, split)) for split in ("train", "calibration", "test")}
    answers = Answers(**said, pin=TeacherPin(use="t", provider="p", model="m", revision="1"), clearance_id="c", spent_usd=0.0)
    empty = {"examples": (), "labels": ("a",)}
    labelled = Labelled(train=TrainSet(**empty), calibration=Held(**empty), test=TestSet(**empty), dropped=tuple(dropped), counts={})
    return account(traffic, prompts, answers, labelled, NoRecipe())


def test_reasons_in_a_rows_own_words_become_one():
    """However many different reasons there are, an account stays small and counts every row."""
    rows = [Dropped(request=Request(id=f"d{i}", fields={"text": "t"}), split="train", by="own", reason=f"not {i}", text="said") for i in range(MOST_REASONS + 30)]
    found = [one for one in _made(rows).left if one.at == "filter"]
    assert sum(one.n for one in found) == len(rows)
    assert len(found) == MOST_REASONS + 1
    rest = next(one for one in found if one.reason == RARER)
    assert all(row.reason.startswith("not ") for row in rest.rows)


def test_what_the_gateway_never_wrote_is_no_row_of_the_log():
    """It is an entry of the funnel, and not counted among the rows that were read."""
    found = _made([], {THIN: 7, "no input text": 2})
    assert found.read == 122
    assert {one.reason: one.n for one in found.left if one.at == "capture"} == {THIN: 7, "no input text": 2}


def test_who_had_no_answer_stands_with_the_teacher():
    """And what a rule dropped with the filter."""
    rows = [Dropped(request=Request(id="a", fields={"text": "t"}), split="test", by="teach", reason="no answer", text=""), Dropped(request=Request(id="b", fields={"text": "t"}), split="train", by="regex.v1", reason="r", text="x", target="a")]
    found = {one.at: one for one in _made(rows).left if one.at in ("teach", "filter")}
    assert (found["teach"].by, found["filter"].by, found["filter"].rows[0].label) == ("teach", "regex.v1", "a")
