"""The filter: one target per row, hard rows stay in the sealed set, every row in exactly one count."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overproof.data import Answered, Answers, Completion, PromptRow, Request, TeacherPin
from overproof.errors import DataError
from overproof.steps.filter import (
    FILTER,
    FilterRecipe,
    NoRecipe,
    VerifierSpec,
    filter_labels,
    take_calibration,
    take_test,
    take_train,
    verifier_spec,
)

LABELS = ("billing", "bug", "other")
PIN = TeacherPin(use="recorded.v1", provider="p", model="m", revision="r")
RECIPE = FilterRecipe(labels=LABELS)
TEXTS = ("my card was charged twice", "the app crashes on start", "hello there", "where do I find my invoice", "it burns")


def said(value: str | None, **changes: object) -> Completion:
    fields = {"text": value or "no idea", "value": value, "model": "m", "reason": None if value else "names no label"}
    return Completion(**{**fields, **changes})


def answered(name: str, *values: str | Completion | None, text: str | None = None, group: str | None = None, **row: object) -> Answered:
    completions = tuple(v if isinstance(v, Completion) else said(v) for v in values)
    request = Request(id=name, fields={"text": text or f"{name} {TEXTS[sum(map(ord, name)) % len(TEXTS)]}"})
    return Answered(
        row=PromptRow(request=request, weight=1.0, group=group or name, **row), completions=completions,
        reason="" if completions else "not in the recording",
    )


def answers(*train: Answered, calibration: tuple = (), test: tuple = ()) -> Answers:
    spare = (answered("spare", "bug"),)
    return Answers(
        train=train or spare, calibration=calibration or spare, test=test or spare, pin=PIN, clearance_id="c", spent_usd=0.0
    )


def targets(examples: tuple) -> dict[str, str]:
    return {e.request.id: e.target for e in examples}


@pytest.mark.parametrize(
    ("values", "target", "agreement"),
    [
        (("bug",), "bug", 1.0),
        (("bug", "billing", "billing"), "billing", 2 / 3),
        (("bug", "billing"), "bug", 0.5),
        (("other", "billing", "bug", "bug", "billing"), "billing", 0.4),
        ((None, "bug", "billing"), "bug", 1 / 3),
        ((None, None, "bug"), "bug", 1 / 3),
    ],
)
def test_the_target_is_the_majority_and_ties_go_to_the_earliest_sample(values: tuple, target: str, agreement: float) -> None:
    """Agreement counts all samples, those that were no label too."""
    (example,) = filter_labels(answers(answered("a", *values)), RECIPE).train.examples
    assert (example.target, example.agreement, example.samples) == (target, pytest.approx(agreement), len(values))


@pytest.mark.parametrize(
    "bad",
    [
        None,
        said("bug", finish="length"), said("bug", finish="filtered"), said("bug", finish="error"),
        said("bug", reason="refused"), said("crash", text="crash"),
    ],
)
@pytest.mark.parametrize("split", ["train", "calibration", "test"])
def test_an_answer_that_is_no_label_never_becomes_one(split: str, bad: Completion | None) -> None:
    """Cut, filtered, refused and off-label answers are dropped in every split, with the reason and the text."""
    rows = (answered("bad", bad), answered("good", "bug"))
    found = filter_labels(answers(*rows) if split == "train" else answers(**{split: rows}), RECIPE)
    assert targets(getattr(found, split).examples) == {"good": "bug"}
    (dropped,) = found.dropped
    assert (dropped.request.id, dropped.split, dropped.by) == ("bad", split, "filter")
    assert dropped.reason
    assert dropped.text
    assert found.counts[f"{split}: no answer is a label"] == 1


def test_a_row_without_answers_is_dropped_with_the_teachers_reason() -> None:
    """What the teach step could not get is accounted for."""
    found = filter_labels(answers(answered("a"), answered("b", "bug")), RECIPE)
    assert [(d.by, d.reason, d.text) for d in found.dropped] == [("teach", "not in the recording", "")]
    assert found.counts["train: no answer"] == 1


def test_an_unknown_end_counts_as_the_owner_says() -> None:
    """A log that doesn't say how answers ended is used, or isn't."""
    rows = answers(answered("a", said("bug", finish="unknown")), answered("b", "bug"))
    assert len(filter_labels(rows, RECIPE).train.examples) == 2
    strict = FilterRecipe(labels=LABELS, unknown_is_complete=False)
    assert targets(filter_labels(rows, strict).train.examples) == {"b": "bug"}


def test_verifiers_drop_training_rows_and_only_mark_the_others() -> None:
    """Taking hard rows out of calibration or test would flatter every figure, so they stay and are counted."""
    recipe = FilterRecipe(labels=LABELS, verifiers=(VerifierSpec(use="agreement.v1", options={"min": 0.6}),))
    rows = (answered("hard", "bug", "billing"), answered("easy", "bug", "bug"))
    found = filter_labels(answers(*rows, calibration=rows, test=rows), recipe)
    assert targets(found.train.examples) == {"easy": "bug"}
    assert targets(found.calibration.examples) == targets(found.test.examples) == {"hard": "bug", "easy": "bug"}
    assert [(d.split, d.by) for d in found.dropped] == [("train", "agreement.v1")]
    assert found.counts["test: kept, though agreement.v1: samples agree on less than 0.6"] == 1


def test_the_first_verifier_that_objects_gives_the_reason() -> None:
    """Order is the user's."""
    one = VerifierSpec(use="label_set.v1", options={"labels": ["bug"]})
    two = VerifierSpec(use="regex.v1", options={"pattern": "^bug$"})
    rows = answers(answered("a", "billing"), answered("b", "bug"))
    for order, by in (((one, two), "label_set.v1"), ((two, one), "regex.v1")):
        assert filter_labels(rows, FilterRecipe(labels=LABELS, verifiers=order)).dropped[0].by == by


def test_a_users_function_is_a_verifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reason is in the dropped row; the count goes by its name, since reasons may differ row by row."""
    monkeypatch.syspath_prepend(str(tmp_path))
    body = 'def check(request, target):\n    return target != "bug" or f"row {request.id} is odd"\n'
    (tmp_path / "op_filter_checks.py").write_text(body)
    recipe = FilterRecipe(labels=LABELS, verifiers=(VerifierSpec(use="op_filter_checks:check"),))
    found = filter_labels(answers(answered("a", "bug"), answered("b", "bug"), answered("c", "other")), recipe)
    assert [d.reason for d in found.dropped] == ["row a is odd", "row b is odd"]
    assert found.counts["train: op_filter_checks:check"] == 2


def test_an_edited_check_is_another_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's module is part of the recipe by its bytes, so that its edits are not missed by reuse."""
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "op_spec_checks.py"
    file.write_text("def check(request, target):\n    return True\n")
    one = verifier_spec("op_spec_checks:check", {})
    file.write_text("def check(request, target):\n    return target != 'bug'\n")
    two = verifier_spec("op_spec_checks:check", {})
    assert len(one.source_digest) == 64
    assert one.source_digest != two.source_digest
    assert verifier_spec("label_set.v1", {}).source_digest == ""


def test_unknown_options_of_a_verifier_are_named() -> None:
    """A misspelt option is an error that names the part."""
    recipe = FilterRecipe(labels=LABELS, verifiers=(VerifierSpec(use="agreement.v1", options={"minimum": 1}),))
    with pytest.raises(DataError, match=r"agreement\.v1.*minimum"):
        filter_labels(answers(), recipe)


NEAR = "I have been charged twice for my order of last week and I would like my money back please"


def near(name: str, *values: str, extra: str = "") -> Answered:
    return answered(name, *values, text=NEAR + extra, group="g")


def test_the_minority_of_a_near_duplicate_group_is_dropped_from_training() -> None:
    """Two against one: the one goes."""
    rows = (near("a", "billing"), near("b", "billing", extra="!"), near("c", "bug", extra=" ?"), answered("z", "other"))
    found = filter_labels(answers(*rows), RECIPE)
    assert targets(found.train.examples) == {"a": "billing", "b": "billing", "z": "other"}
    assert [(d.request.id, d.reason) for d in found.dropped] == [("c", "near-duplicates disagree")]


def test_a_tie_between_near_duplicates_drops_them_all() -> None:
    """Where nobody has more votes nobody is right."""
    found = filter_labels(answers(near("a", "billing"), near("b", "bug", extra="!"), answered("z", "other")), RECIPE)
    assert targets(found.train.examples) == {"z": "other"}
    assert found.counts["train: near-duplicates disagree"] == 2


def test_near_duplicates_that_disagree_stay_in_calibration_and_test() -> None:
    """They are counted there, and nothing else."""
    rows = (near("a", "billing"), near("b", "bug", extra="!"))
    found = filter_labels(answers(calibration=rows, test=rows), RECIPE)
    assert len(found.calibration.examples) == len(found.test.examples) == 2
    assert found.counts["test: kept, though near-duplicates disagree"] == 2
    assert found.dropped == ()


def test_messages_of_one_session_may_differ() -> None:
    """A group joins sessions too; unlike messages in it contradict nobody."""
    rows = (
        answered("a", "billing", text="where is my invoice of May", group="s"),
        answered("b", "bug", text="the app crashes when I tap on settings", group="s"),
    )
    assert len(filter_labels(answers(*rows), RECIPE).train.examples) == 2


def test_a_rejected_row_has_no_vote_among_its_near_duplicates() -> None:
    """Two rows that a verifier throws out don't outvote the good one."""
    recipe = FilterRecipe(labels=LABELS, verifiers=(VerifierSpec(use="agreement.v1", options={"min": 0.9}),))
    rows = (near("a", "billing", "bug"), near("b", "billing", "other", extra="!"), near("c", "bug", "bug", extra=" ?"))
    assert targets(filter_labels(answers(*rows), recipe).train.examples) == {"c": "bug"}


def test_rows_carry_what_they_came_with() -> None:
    """Weight, gold in the task's spelling, familiarity, and the teacher's own latency and cost."""
    row = answered("a", said("bug", latency_s=1.5, cost_usd=0.01), said("bug", latency_s=9.0), gold="BUG.", near_train=0.25)
    (example,) = filter_labels(answers(row), RECIPE).train.examples
    assert (example.gold, example.near_train, example.latency_s, example.cost_usd) == ("bug", 0.25, 1.5, 0.01)


def test_gold_outside_the_labels_stays_and_can_not_be_matched() -> None:
    """A true answer that the task doesn't know makes every answer there wrong; losing it would flatter accuracy."""
    (example,) = filter_labels(answers(test=(answered("a", "bug", gold="fraud"),)), RECIPE).test.examples
    assert example.gold == "fraud"


def test_a_split_without_labels_is_an_error_with_its_reasons() -> None:
    """The message says which split, how many rows, and why they went."""
    with pytest.raises(DataError, match=r"none of the 2 rows of the calibration split.*2 no answer is a label"):
        filter_labels(answers(calibration=(answered("a", None), answered("b", None))), RECIPE)


@given(st.lists(st.tuples(st.sampled_from([*LABELS, None, "nonsense"]), st.integers(0, 4), st.integers(0, 2)), max_size=40))
def test_every_row_is_accounted_for_exactly_once(rows: list) -> None:
    """In any mix, examples plus dropped are the rows, and the counts sum to them; the sealed rows lose only the unlabelled."""
    given_rows = tuple(
        answered(f"r{i}", value, text=f"{NEAR} {'!' * shade}", group=f"g{group}")
        for i, (value, group, shade) in enumerate([*rows, ("bug", 9, 0)])
    )
    recipe = FilterRecipe(labels=LABELS, verifiers=(VerifierSpec(use="label_set.v1", options={"labels": ["bug", "other"]}),))
    found = filter_labels(answers(*given_rows, test=given_rows), recipe)
    for split, examples in (("train", found.train.examples), ("test", found.test.examples)):
        dropped = [d.request.id for d in found.dropped if d.split == split]
        assert sorted([e.request.id for e in examples] + dropped) == sorted(a.row.request.id for a in given_rows)
        assert sum(n for reason, n in found.counts.items() if reason.startswith(f"{split}: ")) == len(given_rows)
        assert {e.target for e in examples} <= set(LABELS)
    assert len(found.test.examples) == sum(a.completions[0].value in LABELS for a in given_rows)


def test_the_three_sets_are_taken_apart() -> None:
    """Each later step sees its own set and no other."""
    found = filter_labels(answers(answered("a", "bug")), RECIPE)
    assert take_train(found, NoRecipe()) is found.train
    assert take_calibration(found, NoRecipe()) is found.calibration
    assert take_test(found, NoRecipe()) is found.test
    assert found.train.labels == LABELS
    assert FILTER.name == "filter"
