"""The prompt search: finds what helps, on training rows alone, within its questions, and pays nothing twice."""

import asyncio
import json
import random
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overproof.data import Completion, Example, Request, TeacherPin, TrainSet
from overproof.errors import DataError, TeacherError
from overproof.steps.optimise import Optimised, OptimiseRecipe, _field_size, _rounds, candidates, optimise
from overproof.steps.prompting import (
    Nearest,
    Prompting,
    Shot,
    confusable,
    described,
    near,
    spread,
    with_examples,
)
from overproof.store.labels import LedgeredTeacher, Prices
from overproof.store.pacing import Manners
from overproof.store.project_store import Store, open_store
from overproof.task import Classes, Task
from overproof.teachers.openai import OpenAIOptions, OpenAITeacher
from overproof.testing_faults import MODEL, Faults, FaultTeacher, _answer_body, _head

LABELS = ("billing", "bug", "login")
WORDS = {"billing": ["invoice", "charged", "refund"], "bug": ["crash", "freezes", "broken"], "login": ["password", "locked", "signin"]}
PIN = TeacherPin(use="openai.v1", provider="p", model=MODEL, revision="", parameters={}, prompt_digest="")


def rows(n: int = 120, seed: int = 0) -> TrainSet:
    draw = random.Random(seed)
    made = []
    for i in range(n):
        label = LABELS[i % 3]
        text = f"{draw.choice(WORDS[label])} {draw.choice(WORDS[label])} case {draw.randrange(10**6)}"
        made.append(Example(request=Request(id=f"r{i:03d}", fields={"text": text}), target=label))
    return TrainSet(examples=tuple(made), labels=LABELS)


TRAIN = rows()
TRUTH = {e.request.text: e.target for e in TRAIN.examples}


class Small(FaultTeacher):
    """A small model on loopback whose answers depend on what its prompt says."""

    def __init__(self, skill, *, faults: Faults | None = None) -> None:
        super().__init__(lambda text: "", faults=faults)
        self.skill, self.heard, self.dies_after = skill, [], 10**9

    def _special(self, method, path, headers, body):
        said = json.loads(body)["messages"]
        prompt = said[0]["content"]
        text = said[-1]["content"].rsplit("\n\n", 1)[-1]
        if len(self.heard) >= self.dies_after:
            return b""  # hangs up, as a process that was killed in the middle of a run
        self.heard.append((prompt, text))
        raw = _answer_body("ok", self.skill(prompt, text), self.model, body)
        return _head(200, len(raw)) + raw


def luck(text: str, share: float) -> str:
    """The truth for a fixed share of texts, else another label."""
    draw = random.Random(text)
    return TRUTH[text] if draw.random() < share else draw.choice([x for x in LABELS if x != TRUTH[text]])


def planted(prompt: str, text: str) -> str:
    """Chatters unless it is told to answer with the label alone, and knows the labels only by their typical words."""
    if "typical words" in prompt:
        return luck(text, 0.97)
    return luck(text, 0.7) if "nothing else" in prompt else f"I think that it is {TRUTH[text]}."


def searched(store: Store, server: Small, *, calls: int = 90, train: TrainSet = TRAIN, seed: int = 0) -> Optimised:
    """The search through the real ledger."""
    recipe = OptimiseRecipe(name="small", prompt="Sort the message.", shots=3, calls=calls, seed=seed, pin=PIN)

    def asker(prompting: Prompting) -> LedgeredTeacher:
        task = Task(name="t", input=("text",), output=Classes(labels=LABELS), prompt=prompting.text)
        options = OpenAIOptions(model=MODEL, base_url=server.base_url, allow_private=True, price_in_usd_per_million=1.0, price_out_usd_per_million=2.0)
        return LedgeredTeacher(
            OpenAITeacher(task=task, options=options), store.ledger, pin=replace(PIN, prompt_digest=prompting.digest),
            prices=Prices(usd_per_million_in=1.0, usd_per_million_out=2.0), clearance_id="evaluation only", run_id="r",
            pace=Manners(baseline=True, sleep=lambda s: asyncio.sleep(0)),
        )  # fmt: skip

    return optimise(train, recipe, asker=asker)


@pytest.fixture
def store(tmp_path: Path):
    with open_store(tmp_path) as opened, opened.role("run"):
        opened.ledger.open_run("r", cap_usd=10.0)
        yield opened


def test_it_finds_the_planted_prompt_and_says_what_it_tried(store) -> None:
    """The model that needs label descriptions gets them; every trial has its n, interval and cost, and money adds up."""
    with Small(planted) as server:
        found = searched(store, server)
    best = found.search
    assert best.chosen.startswith("typical words")
    assert "typical words" in found.prompting.text
    by = {t.name: t for t in best.trials}
    assert by["plain"].agreement.good == 0
    assert by["plain"].agreement.n == by[best.chosen].agreement.n > 8
    assert by[best.chosen].agreement.low > 0.5
    assert best.p < 0.01
    assert best.cost_usd == pytest.approx(store.ledger.spent_usd)
    assert best.cost_usd == pytest.approx(sum(t.cost_usd for t in best.trials))
    assert "too rosy" in best.words


@pytest.mark.parametrize("calls", [8, 31, 90])
def test_the_cap_is_kept_to_the_question(store, calls: int) -> None:
    """The server hears no more than the cap, whole answers and chatter alike, and most of the cap is used."""
    with Small(planted) as server:
        found = searched(store, server, calls=calls)
        assert len(server.heard) == found.search.calls <= calls
    assert found.search.calls > 0.8 * calls


def test_no_scored_row_is_ever_shown_and_no_question_is_asked_twice(store) -> None:
    """Rows that score are in no prompt, the examples of nearest-neighbour prompts included."""
    with Small(planted) as server:
        searched(store, server)
        asked = {text for _, text in server.heard}
        prompts = {prompt for prompt, _ in server.heard}
        assert len(server.heard) == len(set(server.heard))
    assert any("Examples:" in p for p in prompts)
    assert not [text for text in asked for p in prompts if f"Message: {text}\n" in p]


def test_a_killed_search_goes_on_where_it_stopped_and_pays_nothing_twice(store, tmp_path) -> None:
    """The endpoint goes away in the middle; the next try asks only what has no answer yet, and ends the same."""
    with Small(planted) as server:
        whole = searched(store, server)
        heard = Counter(server.heard)
    (tmp_path / "other").mkdir()
    with open_store(tmp_path / "other") as again, again.role("run"), Small(planted) as server:
        again.ledger.open_run("r", cap_usd=10.0)
        server.dies_after = 37
        with pytest.raises(TeacherError):
            searched(again, server)
        assert len(server.heard) == 37
        server.dies_after = 10**9
        assert searched(again, server) == whole
        assert Counter(server.heard) == heard
        searched(again, server)
        assert len(server.heard) == whole.search.calls


def test_the_projects_own_prompt_wins_where_none_is_better(store) -> None:
    """A perfect model needs no other prompt: ties go to the plain one, and no p is claimed."""
    with Small(lambda prompt, text: TRUTH[text]) as server:
        found = searched(store, server, calls=40)
    assert (found.search.chosen, found.search.p) == ("plain", None)
    assert found.prompting == Prompting(text="Sort the message.")
    assert "none was better" in found.search.words


def test_too_few_rows_are_an_error_with_a_way_out(store) -> None:
    """A score from a handful of rows would be noise."""
    few = TrainSet(examples=TRAIN.examples[:19], labels=LABELS)
    with Small(planted) as server, pytest.raises(DataError, match="needs 20"):
        searched(store, server, train=few)


class Free:
    """A sampler without wires, for properties."""

    def __init__(self, skill: float, asked: list) -> None:
        self.skill, self.asked = skill, asked

    async def sample(self, request, *, n, recorded=None):
        self.asked.append(request.id)
        said = luck(request.text, self.skill)
        return [Completion(text=said, value=said, model="m", cost_usd=0.001)]

    async def close(self) -> None:
        return None


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 600), st.integers(0, 5), st.integers(20, 120))
def test_whatever_the_cap_and_the_rows_the_search_stays_inside_and_ends(calls: int, seed: int, n: int) -> None:
    """Questions never exceed the cap, survivors saw the same rows, and the same seed gives the same search."""
    train, recipe = TrainSet(examples=TRAIN.examples[:n], labels=LABELS), OptimiseRecipe(
        name="x", prompt="p", shots=2, calls=calls, seed=seed, pin=PIN
    )
    skills = [random.Random(seed * 100 + i).random() for i in range(40)]

    def run() -> tuple[Optimised, list]:
        asked, made = [], []

        def asker(prompting: Prompting) -> Free:
            made.append(prompting)
            return Free(skills[len(made)], asked)

        return optimise(train, recipe, asker=asker), asked

    (found, asked), (again, _) = run(), run()
    assert found == again
    assert len(asked) == found.search.calls <= calls
    last = [t for t in found.search.trials if t.out_after is None]
    assert len({t.agreement.n for t in last}) == 1
    assert found.search.trials[0] in last
    assert found.search.n_scored + found.search.n_shown <= n


@given(st.integers(8, 100_000), st.integers(2, 40))
def test_the_first_round_asks_each_prompt_a_few_questions(calls: int, most: int) -> None:
    """A small budget tries few prompts instead of asking each one once."""
    size = _field_size(calls, most)
    assert 2 <= size <= most
    assert calls // _rounds(size) // size >= 4


def test_candidates_begin_with_the_projects_own_prompt_and_differ() -> None:
    """No two are the same prompt, and with one label alone there is nothing to confuse."""
    recipe = OptimiseRecipe(name="x", prompt="own {text}", shots=0, calls=400, seed=0, pin=PIN)
    found = candidates(TRAIN.examples[:60], LABELS, recipe)
    assert found[0] == ("plain", Prompting(text="own {text}"))
    assert len({p.digest for _, p in found}) == len(found) > 12
    assert len({name for name, _ in found}) == len(found)
    assert candidates([], LABELS, recipe)
    assert confusable([e for e in TRAIN.examples if e.target == "bug"], 4) == ()


def test_examples_of_each_kind_are_what_they_say() -> None:
    """Spread ones take turns over labels, nearest ones are like the request with the likest last, braces are harmless."""
    assert {s.answer for s in spread(TRAIN.examples, 3, seed=0)} == set(LABELS)
    pool = (Shot(text="the invoice is wrong", answer="billing"), Shot(text="my password is lost", answer="login"))
    found = Nearest(pool).of(Request(id="q", fields={"text": "lost my password"}), 2)
    assert [s.answer for s in found] == ["billing", "login"]
    assert "{" not in with_examples("x", (Shot(text="{text}", answer="bug"),)).removeprefix("x")
    words = described("Sort.", LABELS, TRAIN.examples)
    lines = {line.split(" ")[1]: line for line in words.splitlines() if line.startswith("- ")}
    assert "invoice" in lines["billing"]
    assert "crash" not in lines["billing"]
    assert "case" not in words
    assert near(Prompting(text="x"), pool, 2).digest != near(Prompting(text="x"), pool[:1], 2).digest


def test_confusable_examples_lie_between_the_labels_that_are_most_alike() -> None:
    """Two labels share their words, the third doesn't: the first examples are of the two."""
    texts = [("card fee charged", "a"), ("card fee refund", "b"), ("dog walks far", "c")] * 4
    made = [Example(request=Request(id=str(i), fields={"text": f"{t} {i}"}), target=label) for i, (t, label) in enumerate(texts)]
    assert {s.answer for s in confusable(made, 2)} == {"a", "b"}


def test_an_endpoint_that_is_wrong_about_itself_stops_the_search(store) -> None:
    """Refused credentials are no bad prompt."""
    with Small(planted, faults=Faults(api_key="k")) as server:
        server._special = lambda *_: None
        with pytest.raises(TeacherError), suppress(KeyError):
            searched(store, server)
