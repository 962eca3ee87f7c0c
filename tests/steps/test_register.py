"""The teacher's known mistakes are asked of the packed student itself; what it was trained on is counted apart."""

import itertools
from dataclasses import replace

import pytest

from overproof.data import CalibrationSet, Labelled, Request, TestSet, TrainSet
from overproof.steps.pack import PackRecipe, pack
from overproof.steps.register import RegisterRecipe, ask_register, register_answer
from overproof.steps.train import StudentRecipe, train
from overproof.store.reviews import Review, Reviews
from overproof.task import Slice

WORDS = {"billing": "invoice charged", "bug": "crash error", "how-to": "how do I", "refund": "money back",
         "safety": "smoke burning", "other": "hello there"}  # fmt: skip
BUSINESS = Slice(name="business", where=(("tier", ("business",)),), critical=True)


def test_known_mistakes_are_counted_by_what_the_student_says(tmp_path, make_world) -> None:
    """A student of the truth is right where reviews contradict the teacher; agreed rows, quarrels and sealed rows don't count."""
    world = make_world(tmp_path)
    base = world.examples(1, seed=9)[0]
    rows = [
        replace(base, request=Request(id=f"t{i}-{label}", fields={"body": f"{WORDS[label]} number {i}"}), target=label)
        for i, label in itertools.product(range(6), WORDS)
    ]
    for folder in ("train", "pack"):
        (tmp_path / folder).mkdir()
    recipe = StudentRecipe(name="large", use="linear.v1")
    student = train(TrainSet(examples=tuple(rows), labels=tuple(WORDS)), recipe, workdir=tmp_path / "train")
    bundle = pack(student, world.report(), PackRecipe(task="ticket-routing", input=("body",), slices=(BUSINESS,)), workdir=tmp_path / "pack")

    def wrong(row, name, text):
        return replace(row, request=Request(id=name, fields={"body": text}), target="other")

    taught = [wrong(r, r.request.id, r.request.fields["body"]) if r.target == "refund" else r for r in rows]  # what the teacher said
    held = [wrong(base, f"c{i}", f"money back please {i}") for i in range(4)] + [wrong(base, "c-bug", "smoke burning")]
    sealed = wrong(base, "s0", "money back now")
    labelled = Labelled(
        train=TrainSet(examples=tuple(taught), labels=tuple(WORDS)), calibration=CalibrationSet(examples=tuple(held), labels=tuple(WORDS)),
        test=TestSet(examples=(sealed,), labels=tuple(WORDS)), dropped=(), counts={},
    )  # fmt: skip
    truth = {**{r.request.digest: "refund" for r in taught if r.target == "other" and r.request.fields["body"].startswith("money")},
             **{r.request.digest: "refund" for r in held[:4]}, held[4].request.digest: "bug", sealed.request.digest: "refund",
             taught[0].request.digest: taught[0].target}  # fmt: skip
    said = [Review(digest=d, request_id="x", label=label, reviewer="Ana", queue="fix") for d, label in truth.items()]
    said.append(Review(digest=held[0].request.digest, request_id="x", label="bug", reviewer="Bo", queue="fix"))
    found = ask_register(bundle, labelled, Reviews(rows=tuple(said)), RegisterRecipe())
    assert (found.every.right, found.every.n) == (9, 10)
    assert (found.unseen.right, found.unseen.n) == (3, 4)
    assert found.mistakes[0].n == 9
    assert {"s0", "c0", taught[0].request.id} & set(found.rows) == set()
    answer = register_answer(found, at_least=0.5)
    assert answer.outcome == "pass"
    assert "6 of them it was trained on" in answer.reason
    assert "'other' for 'bug' 1 of 1" in answer.reason
    assert register_answer(found, at_least=0.9).outcome == "not-run"
    assert found.every.low == pytest.approx(0.606, abs=1e-3)
