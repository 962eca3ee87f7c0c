"""A judge of texts from the draw to the share: it and people read the same rows, and silence is wrong for both."""

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overproof.cli.sheet import read_sheet, write_sheet
from overproof.data import Answered, Answers, Completion, Example, Request, TeacherPin, TestSet
from overproof.errors import DataError, MeasureError
from overproof.measure.text_judge import judged_share
from overproof.outputs import Text
from overproof.steps.text_judge import (
    TextDocketRecipe,
    TextJudgeRecipe,
    judge_texts,
    judged_answer,
    looks_of,
    people_asked,
    text_docket,
)
from overproof.store.project_store import open_store
from overproof.store.reviews import Reviews
from overproof.task import RIGHT, WRONG, Bar, Task, judge_task
from overproof.teachers import messages_for

TASK = Task(name="subjects", input=("text",), output=Text(), prompt="Write a subject line for {text} in {style}.")
PIN = TeacherPin(use="openai.v1", provider="p", model="j-1", revision="r")


def rows(n=300, **changes):
    return TestSet(
        examples=tuple(
            Example(request=Request(id=f"m{i}", fields={"text": f"message {i}"}), target=f"reference {i}", gold=f"gold {i}" if i % 2 else None, **changes)
            for i in range(n)
        ),
        labels=(),
    )


def answers(n=300):
    """Every fifth is bad, every tenth of them missing."""
    return [None if i % 50 == 0 else "bad" if i % 5 == 0 else f"fine {i}" for i in range(n)]


def judged(found, *, right=0.95, seed=0):
    """What a judge says that errs so often."""
    draw = random.Random(seed)
    said = []
    for row in found.prompts.train:
        truth = row.request.fields["judged_answer"] != "bad"
        word = RIGHT if truth == (draw.random() < right) else WRONG
        said.append(Answered(row=row, completions=(Completion(text=word, value=word, model="j-1"),)))
    return Answers(train=tuple(said), calibration=(), test=(), pin=PIN, clearance_id="c", spent_usd=0.0)


def test_the_judge_is_asked_with_message_reference_and_answer_in_their_places() -> None:
    """The true answer is the reference where it is known, and places inside an answer stay text."""
    found = text_docket(rows(2), ["{reference_answer} haha", "good"], TextDocketRecipe())
    task = judge_task(TASK)
    asked = {row.request.id: messages_for(task, row.request)[0].content for row in found.prompts.train}
    assert "<reference>\nreference 0\n</reference>" in asked["m0"]
    assert "<answer>\n{reference_answer} haha\n</answer>" in asked["m0"]
    assert "<reference>\ngold 1\n</reference>" in asked["m1"]
    assert "<message>\nmessage 1\n</message>" in asked["m1"]
    assert "in {style}." in asked["m1"]
    assert task.output.parse(" Right.") == RIGHT


def test_the_draw_is_chance_alone_and_silent_rows_are_in_it() -> None:
    """The same draw whatever the answers say; more rows only lengthen it; what can't prove is refused."""
    short, long = (text_docket(rows(), answers(), TextDocketRecipe(most=n)) for n in (50, 300))
    assert short.draw == long.draw[:50]
    assert long.draw != tuple(sorted(long.draw, key=lambda name: int(name[1:])))
    assert (len(long.draw), len(long.prompts.train)) == (300, 294)
    assert text_docket(rows(), ["other"] * 300, TextDocketRecipe(most=50)).draw == short.draw
    assert text_docket(rows(boost=("vip",)), answers(), TextDocketRecipe()).draw == ()
    with pytest.raises(MeasureError):
        text_docket(rows(label_from="review-fix"), answers(), TextDocketRecipe())
    with pytest.raises(DataError):
        text_docket(rows(), [None], TextDocketRecipe())


def test_people_fill_a_sheet_and_their_words_calibrate_the_judge(tmp_path) -> None:
    """A real sheet into a real store; the share is near the true one, and without the words there is none."""
    found = text_docket(rows(), answers(), TextDocketRecipe())
    said = judged(found)
    assert judge_texts(found, said, Reviews(rows=()), TextJudgeRecipe()).why.startswith("people spoke on 0")
    asked = people_asked(found)[:120]
    assert "[reference] " in asked[0].text
    path = tmp_path / "words.csv"
    write_sheet(path, asked, reviewer="Ana")
    head, *_ = path.read_text(encoding="utf-8-sig").splitlines()
    lines = [f'{row.request_id},"x",{WRONG if "[answer] bad" in row.text else RIGHT},Ana,,audit,{row.digest}' for row in asked]
    path.write_text("\n".join([head, *lines]), encoding="utf-8")
    task = judge_task(TASK)
    words = read_sheet(path, asked={row.digest: row for row in asked}, output=task.output, reviewer="", drawn=0)
    with open_store(tmp_path) as store:
        assert store.reviews.append(words) == 120
        assert store.reviews.live().rows == ()  # such words say nothing of a row's true answer
        live = store.reviews.live(judged=True)
    assert not any(word.blind for word in live.rows)
    share = judge_texts(found, said, live, TextJudgeRecipe())
    assert share.calibrated
    assert share.low <= 0.8 <= share.high
    assert (share.n, share.by_people.n) == (300, share.n_known)
    assert share.n_known == 100  # 120 and the silent rows among them: counted at 50, 100, 200 and all
    assert share.level == pytest.approx(1 - 2 * 0.05 / 4)
    some = Reviews(rows=tuple(word for word in live.rows if word.digest != asked[60].digest))
    assert judge_texts(found, said, some, TextJudgeRecipe()).n_known == 50  # words after a gap are not left to chance
    none = Reviews(rows=tuple(word for word in live.rows if word.digest != asked[0].digest))
    assert judge_texts(found, said, none, TextJudgeRecipe()).n_known == 0


@given(st.integers(0, 3000))
def test_words_count_at_doubling_numbers_of_answers(n) -> None:
    """Few looks, the last at all of the draw: each has its part of delta."""
    looks = looks_of(n)
    assert looks[-1] == n
    assert all(b <= 2 * a for a, b in itertools.pairwise(looks))
    assert len(looks) <= 1 + max(0, math.ceil(math.log2(max(n, 1) / 50)))


@pytest.mark.parametrize(("bar", "min_n", "outcome"), [(0.6, 0, "pass"), (0.95, 0, "fail"), (0.8, 0, "not-run"), (0.6, 500, "not-run")])
def test_a_bar_passes_only_where_the_whole_interval_does(bar, min_n, outcome) -> None:
    """One measured share against four bars; what is undecided says what to do."""
    share = judged_share([True] * 320 + [False] * 80, [True] * 160 + [None] * 160 + [False] * 40 + [None] * 40)
    said = judged_answer(share, Bar(metric="judged", at_least=bar, min_n=min_n))
    assert said.outcome == outcome
    assert bool(said.todo) == (outcome != "pass")


def test_a_row_without_an_answer_or_without_a_word_is_not_right() -> None:
    """A judge that gives no word is not taken as agreeing, and silence never raises the share."""
    found = text_docket(rows(), answers(), TextDocketRecipe())
    nobody = Answers(train=(), calibration=(), test=(), pin=PIN, clearance_id="c", spent_usd=0.0)
    assert judge_texts(found, nobody, Reviews(rows=()), TextJudgeRecipe()).seen.good == 0
    all_right = judge_texts(found, judged(found, right=1.0), Reviews(rows=()), TextJudgeRecipe())
    assert (all_right.seen.good, all_right.seen.n) == (240, 300)
