"""Champion against challenger: better by luck is not better, too few rows are no pass, and worse on a critical slice is refused."""

import random
from dataclasses import replace

import pytest
from tests.serve import packing
from tests.serve.packing import LABELS, gated, pack

from overproof.data import Completion, Example, Folder, NextSet, PromptRow, PromptSet, Request, TestSet
from overproof.errors import DataError
from overproof.steps.challenge import ChallengeRecipe, challenge, challenge_answer
from overproof.store.project_store import open_store
from overproof.task import Slice

LOGIN = Slice(name="login", where=(("label", ("login",)),), critical=True)
PAYING = Slice(name="paying", where=(("tier", ("plus",)),))
RECIPE = ChallengeRecipe(slices=(LOGIN, PAYING))
GOOD = packing.ROWS
SWAPPED = [("billing" if label == "login" else label, text) for label, text in GOOD[:-1]] + [GOOD[-1]]
"""Takes all but one login message for billing."""


@pytest.fixture(scope="module")
def fighters(tmp_path_factory):
    """A good student and one that is blind for logins, packed as releases."""
    root = tmp_path_factory.mktemp("fighters")
    with open_store(root) as store:
        made = {}
        for name, rows in (("good", GOOD), ("blind", SWAPPED)):
            packing.ROWS = rows
            try:
                pack(root / name)
            finally:
                packing.ROWS = GOOD
            made[name] = gated(store, root / name, {PAYING: 0.4}, name=name)
        yield made


def rows(n, *, gold=True, boost=()):
    draw = random.Random(3)
    found = []
    for i in range(n):
        label, said = GOOD[draw.randrange(len(GOOD))]
        request = Request(id=f"q{i}", fields={"text": said}, attributes={"tier": draw.choice(["plus", "free"])})
        found.append(Example(request=request, target=label, gold=label if gold else None, boost=boost))
    return TestSet(examples=tuple(found), labels=LABELS)


def following(test, fresh):
    """The last so many sealed rows are fresh."""
    ids = [e.request.id for e in test.examples]
    prompts = PromptSet(
        train=(), calibration=(), test=tuple(PromptRow(request=e.request, weight=1.0, group="g") for e in test.examples),
        funnel={}, match=(), distance=0.0, leaks={},
    )  # fmt: skip
    why = {i: "live mix" if at >= len(ids) - fresh else "reference" for at, i in enumerate(ids)}
    return NextSet(prompts=prompts, release_id="good", why=why, served={"x": Completion(text="", value=None, model="")}, counts={"train: audit": 3}, capped={}, live=9)


def met(champion, challenger, test, *, fresh=200, recipe=RECIPE):
    return challenge(champion, Folder(path=challenger.bundle.path), test, following(test, fresh), recipe)


def duel(found, kind, name):
    return next(d for d in found.duels if (d.rows, d.slice) == (kind, name))


def test_an_equal_student_passes_where_rows_are_enough(fighters):
    """The same bundle against itself, 600 rows: not worse on the whole, on fresh rows and on the critical slice."""
    found = met(fighters["good"], fighters["good"], rows(600))
    assert found.passed
    assert found.label_kind == "gold"
    assert [(d.rows, d.slice) for d in found.duels if d.asked != "nothing"] == [("sealed", "all"), ("sealed", "login"), ("fresh", "all")]
    assert (duel(found, "sealed", "all").n, duel(found, "fresh", "all").n) == (600, 200)
    assert duel(found, "sealed", "paying").asked == "nothing"
    assert challenge_answer(found).outcome == "pass"


def test_an_equal_student_of_few_rows_is_not_shown_to_hold_up(fighters):
    """Nothing is wrong with it, and that is no pass: the answer says how many rows it takes."""
    found = met(fighters["good"], fighters["good"], rows(60), fresh=30)
    assert not found.passed
    answer = challenge_answer(found)
    assert answer.outcome == "not-run"
    assert "not shown to hold up" in answer.reason
    assert "seal more rows" in answer.todo


def test_enough_rows_on_the_whole_don_t_stand_in_for_a_critical_slice(fighters):
    """500 rows, of which none is a login: the slice is undecided, and the challenger refused."""
    test = rows(800)
    test = replace(test, examples=tuple(e for e in test.examples if e.target != "login"))
    found = met(fighters["good"], fighters["good"], test)
    assert [(d.slice, d.n) for d in found.held] == [("login", 0)]


def test_a_challenger_that_is_worse_on_a_critical_slice_is_refused(fighters):
    """Blind for one label in three: shown to be worse, with the counts; the gate says fail."""
    found = met(fighters["good"], fighters["blind"], rows(600))
    assert duel(found, "sealed", "login").verdict == "fail"
    assert duel(found, "sealed", "login").low < -0.5
    answer = challenge_answer(found)
    assert answer.outcome == "fail"
    assert "login, sealed rows" in answer.reason
    assert answer.reason.startswith("worse than good")


def test_a_named_slice_has_to_be_better(fighters):
    """The good student mends what the blind one missed; against itself it is not better, however good it is."""
    recipe = replace(RECIPE, named=("login",))
    mended = met(fighters["blind"], fighters["good"], rows(600), recipe=recipe)
    assert mended.passed
    assert (duel(mended, "sealed", "login").asked, duel(mended, "sealed", "login").margin) == ("better", 0.0)
    assert duel(mended, "sealed", "login").challenger.value > duel(mended, "sealed", "login").champion.value
    assert not met(fighters["good"], fighters["good"], rows(600), recipe=recipe).passed


def test_a_loss_on_fresh_rows_refuses_whatever_the_older_ones_say(fighters):
    """The critical slice is asked on all sealed rows, and a shown loss on today's refuses by itself."""
    found = met(fighters["good"], fighters["blind"], rows(600))
    assert duel(found, "fresh", "login").asked == "nothing"
    assert duel(found, "fresh", "login") in found.held


def test_the_teacher_s_word_counts_where_gold_is_not_complete(fighters):
    """One row without gold, and all are judged by the teacher: two truths are not mixed."""
    test = rows(400)
    without = replace(test, examples=(replace(test.examples[0], gold=None), *test.examples[1:]))
    assert met(fighters["good"], fighters["good"], without).label_kind == "teacher"


def test_rows_that_were_drawn_for_a_slice_count_in_it_alone(fighters):
    """Boosted rows are no draw of the whole traffic."""
    fair, extra = rows(300), rows(200, boost=("login",))
    extra = tuple(replace(e, request=replace(e.request, id=f"b{e.request.id}")) for e in extra.examples)
    found = met(fighters["good"], fighters["good"], replace(fair, examples=(*fair.examples, *extra)), fresh=0)
    logins = sum(e.target == "login" for e in (*fair.examples, *extra))
    assert (duel(found, "sealed", "all").n, duel(found, "sealed", "login").n) == (300, logins)


def test_an_unknown_slice_and_a_changed_task_are_said(fighters):
    """With the nearest name; another input is another task."""
    with pytest.raises(DataError, match="logins"):
        met(fighters["good"], fighters["good"], rows(60), recipe=replace(RECIPE, named=("logins",)))


def test_nothing_compared_is_no_pass():
    """The gate's check that was asked for and never made."""
    assert challenge_answer(None).outcome == "not-run"
