"""Written rows: into training alone, marked, under the cap; anything else is refused with counts."""

import random

import pytest
from tests.steps.made_traffic import text, world

from overproof.data import Request, Skipped, TrafficRecord
from overproof.errors import DataError
from overproof.steps.promptset import PromptSetRecipe, promptset
from overproof.steps.supplement import SupplementRecipe, Written, supplement, written


@pytest.fixture(scope="module")
def prompts():
    return promptset(world(400, 0), PromptSetRecipe())


def rows(*texts):
    return Written(
        name="extra.jsonl",
        records=tuple(TrafficRecord(request=Request(id=f"x{i}", fields={"text": one}), gold="a") for i, one in enumerate(texts)),
    )


def test_written_rows_are_marked_and_in_training_alone(prompts):
    """They come after the traffic's rows, carry their origin, weigh 1, and change neither the funnel nor the other sets' rows."""
    rng = random.Random(99)
    found = supplement(prompts, rows(*(text(rng) for _ in range(5))), SupplementRecipe())
    assert [row.origin for row in found.train] == ["traffic"] * len(prompts.train) + ["supplement"] * 5
    assert {row.origin for row in (*found.calibration, *found.test)} == {"traffic"}
    assert [r.request for r in found.test] == [r.request for r in prompts.test]
    assert found.funnel == prompts.funnel
    assert sum(row.weight for row in found.train) == pytest.approx(len(found.train))
    assert not any(found.leaks.values())
    assert all(row.gold is None for row in found.train[-5:])
    assert "5 written rows from extra.jsonl" in found.notes[-1]


def test_a_written_row_makes_test_rows_familiar(prompts):
    """Similarity to training counts written rows: words of a test row in another order raise it."""
    target = prompts.test[0]
    words = target.request.text.split()
    half = " ".join([*words[::-1][:11], "and", "some", "more", "words", "of", "my", "own"])
    found = supplement(prompts, rows(half), SupplementRecipe())
    assert found.test[0].near_train > target.near_train


@pytest.mark.parametrize("split", ["calibration", "test"])
def test_rows_that_repeat_what_is_tested_are_refused_with_counts(prompts, split):
    """An equal or edited test or calibration row stops the run and is counted."""
    body = getattr(prompts, split)[0].request.text
    with pytest.raises(DataError, match=f"of 2 rows 1 repeat a {split} row"):
        supplement(prompts, rows(body.upper(), text(random.Random(5))), SupplementRecipe())


def test_more_than_the_cap_is_refused_with_counts(prompts):
    """The cap is a part of all training rows, written ones included."""
    rng, n = random.Random(7), len(prompts.train)
    most = int(0.1 * n / 0.9 + 1e-9)
    fits = supplement(prompts, rows(*(text(rng) for _ in range(most))), SupplementRecipe())
    assert most / len(fits.train) <= 0.1
    with pytest.raises(DataError, match=f"has {most + 1} rows; with {n} training rows .* at most {most}"):
        supplement(prompts, rows(*(text(rng) for _ in range(most + 1))), SupplementRecipe())


def test_a_file_with_bad_rows_is_refused_with_counts():
    """A bad row, no row, or one id twice: the file is somebody's to mend."""
    good = rows("a b c").records[0]
    with pytest.raises(DataError, match="1 of 2 rows can't be read; the first: f:2: broken"):
        written("f", [good, Skipped(where="f:2", reason="broken", raw="")])
    with pytest.raises(DataError, match="no rows"):
        written("f", [])


def test_an_id_that_occurs_twice_is_refused(prompts):
    """Each written row has its own id."""
    one = rows("a text of its own").records[0]
    with pytest.raises(DataError, match="'x0' occurs twice"):
        supplement(prompts, Written(name="f", records=(one, one)), SupplementRecipe())
