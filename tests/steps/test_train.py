import json
from pathlib import Path

import pytest

from overproof.data import Example, Request, TrainSet
from overproof.errors import DataError, RegistryError
from overproof.steps.train import TRAIN, StudentRecipe, train
from overproof.store.codec import decode, encode

MESSAGES = json.loads((Path(__file__).parents[1] / "students" / "messages.json").read_text(encoding="utf-8"))
LABELS = ("billing", "delivery", "login", "praise")


def rows_of(messages, labels=LABELS):
    return TrainSet(
        examples=tuple(
            Example(request=Request(id=str(i), fields={"text": text}), target=label)
            for i, (label, _, text) in enumerate(messages)
        ),
        labels=labels,
    )


def test_a_candidate_is_fitted_into_its_folder(tmp_path):
    """The result names the part, its size on disk, its parameters, its rows and options; the files lie in workdir."""
    recipe = StudentRecipe(name="small", use="linear.v1", options={"c": 10.0, "word_ngrams": (1, 1)}, seed=7)
    trained = train(rows_of(MESSAGES), recipe, workdir=tmp_path)
    assert (trained.name, trained.use, trained.kind, trained.rows, trained.seed) == ("small", "linear.v1", "student", 60, 7)
    assert trained.folder.path.is_relative_to(tmp_path)
    files = [p for p in trained.folder.path.rglob("*") if p.is_file()]
    assert trained.size_bytes == sum(p.stat().st_size for p in files) > 10_000
    assert trained.parameters > 1000
    assert trained.options == {"c": "10.0", "word_ngrams": "[1, 1]"}
    assert json.loads((trained.folder.path / "student.json").read_text())["options"]["seed"] == 7


def test_the_same_rows_and_recipe_give_the_same_bytes(tmp_path):
    """Training twice leaves equal files, which is what reuse of a step's result stands on."""
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        trained = train(rows_of(MESSAGES), StudentRecipe(name="s", use="linear.v1"), workdir=tmp_path / name)
        found.append({p.name: p.read_bytes() for p in trained.folder.path.iterdir()})
    assert found[0] == found[1]


def test_the_result_can_be_stored(tmp_path):
    """The result and the recipe survive the store's codec."""
    trained = train(rows_of(MESSAGES), StudentRecipe(name="m", use="majority.v1", kind="baseline"), workdir=tmp_path)
    data = encode(trained, keep=lambda _: "d" * 64).data
    assert decode(data, find=lambda _: trained.folder.path) .options == trained.options
    encode(StudentRecipe(name="m", use="linear.v1", options={"char_ngrams": [2, 5]}))
    assert TRAIN.workdir


@pytest.mark.parametrize("messages", [[], [m for m in MESSAGES if m[0] == "login"]])
def test_fewer_than_two_labels_are_refused(tmp_path, messages):
    """Rows of one label, or none, can't teach: the error counts rows and labels."""
    with pytest.raises(DataError, match=rf"{len(messages)} training rows with {len({m[0] for m in messages})} different"):
        train(rows_of(messages), StudentRecipe(name="s", use="linear.v1"), workdir=tmp_path)


def test_an_unknown_option_names_the_known_ones(tmp_path):
    """A misspelt option is refused with the list of options."""
    with pytest.raises(DataError, match=r"'cc'.*its options are c, char_ngrams, max_terms"):
        train(rows_of(MESSAGES), StudentRecipe(name="s", use="linear.v1", options={"cc": 1}), workdir=tmp_path)


def test_an_unknown_part_is_refused(tmp_path):
    """A part that doesn't exist is refused with the nearest name."""
    with pytest.raises(RegistryError, match=r"Did you mean 'linear\.v1'"):
        train(rows_of(MESSAGES), StudentRecipe(name="s", use="linear.v2"), workdir=tmp_path)
