"""Seven risks of a student: a plain pipeline calls each a success; overproof stops it, and hangs on one guard."""

import random
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import pytest
from tests.flows.conftest import WORDS, rows
from tests.scenarios.stories import (
    BILL,
    FOUR,
    FUMES,
    HOW,
    NO_SLICE,
    SMOKE,
    Plain,
    command,
    easier,
    message,
    project,
    run,
    smaller,
)
from tests.watch.audited import DAY, MODEL, live, release_in, row, truth_of
from tests.watch.audited import project_in as watched_project
from tests.watch.worlds import START, after, released, serve, write_project

from overproof.errors import EXIT_TERMS
from overproof.serve import moves
from overproof.steps import clear as clear_module
from overproof.steps.gate import run_checks
from overproof.steps.terms import posture, read_entry
from overproof.store.project_store import open_store
from overproof.students import normalise
from overproof.testing import FaultTeacher
from overproof.watch.parts import REAL, Found
from overproof.watch.turn import watch_once


def nothing(*_, **__) -> Found:
    """A part of the watch that was taken out."""
    return Found()


def test_1_the_teachers_bias_is_inherited(tmp_path) -> None:
    """Bills in a dialect are taken for questions, by the teacher and so by the student; over 97 % on the whole. F01 names the group and where the gap comes from."""
    found, draw = rows(1500, seed=4), random.Random(4)
    for one in found:
        one["dialect"] = "north" if draw.random() < 0.2 else "south"
        if one["dialect"] == "north":
            one["text"] += " nowt summat owt thissen"
            if one["truth"] == BILL and draw.random() < 0.95:
                one["output"] = HOW.upper()
    assert Plain(found).accuracy > 0.97
    told = run(project(
        tmp_path / "p", found, NO_SLICE, ("margin = 0.05", "margin = 0.1"), ('match = ["tier"]', 'match = ["dialect"]'),
        more='[fairness]\ngroups = ["dialect"]\ntolerance = 0.05\n',
    ))  # fmt: skip
    assert (told.code, set(told.stops), told.failed) == (1, {"F01"}, {"F01"})
    assert "'north'" in told.stops["F01"]
    assert "origin: inherited" in told.stops["F01"]
    assert told.ships_without("F01")


@pytest.mark.parametrize("guard", [True, False])
def test_2_it_drifts_in_silence(tmp_path, guard) -> None:
    """The words stay and what they mean to the teacher changes for paying customers: confidence and mix stand still. The audits name the slice, and it is given back."""
    quiet = replace(REAL, drifts=nothing)  # nothing that the inputs show has moved
    with FaultTeacher(truth_of, model=MODEL) as teacher, open_store(tmp_path) as store:
        checked, made = watched_project(tmp_path, teacher.port, watch="audit_rate = 1.0\n"), release_in(store)
        state = store.rollouts.current("routing")
        store.rollouts.move(state, release_id=made.id, stage="full", share=1.0, by="Dana", why="t", evidence={}, at=START.timestamp())
        sure = []
        for number in range(9):
            day = DAY + timedelta(days=number)
            late = number >= 2
            some = [row(f"p{number}-{i}", "login", "billing" if late and i % 2 else "login", day=day, slice_name="paying") for i in range(8)]
            some += [row(f"o{number}-{i}", "delivery", day=day) for i in range(45)]
            live(store, some)
            sure.append({one.served.confidence for one in some})
            noon = after(0).replace(year=day.year, month=day.month, day=day.day) + timedelta(days=1)
            report = watch_once(store, checked, now=noon, parts=quiet if guard else replace(quiet, monitors=nothing))
        assert sure == [{0.95}] * 9  # all that a plain dashboard sees
        alarms = {(a.slice, a.signal) for a in report.alarms if a.signal in ("disagreement", "error")}
        state = store.rollouts.current("routing")
        if guard:
            assert alarms == {("paying", "disagreement")}
            words = next(a.words for a in report.alarms if a.slice == "paying")
            assert "In slice 'paying'" in words
            assert "does not answer as the teacher would" in words
            assert {(t.occasion, t.act) for t in store.watching.triggers("routing", open_only=False) if t.slices == ("paying",)} >= {("bar", "roll-back")}
            assert (state.stage, state.suspended) == ("full", {"paying"})
        else:
            assert (alarms, state.stage, state.suspended) == (set(), "full", frozenset())


def test_3_the_metric_lies(tmp_path) -> None:
    """Half of the newest messages are old ones, reworded: a plain split is too good. With near-duplicates let in, G21 says that the test measures memory."""
    draw = random.Random(5)
    found = rows(1200, seed=5)
    for i, one in enumerate(found):
        others = [w for label, words in WORDS.items() if label != one["truth"] for w in words]
        one["text"] = message(draw, WORDS[one["truth"]], own=4, others=others, noise=4)
        if i >= 700 and draw.random() < 0.6:
            before = found[draw.randrange(700)]
            words = before["text"].split()
            draw.shuffle(words)
            one |= {"text": " ".join(words), "truth": before["truth"], "output": before["output"]}
    assert Plain(found).ships
    bars = (NO_SLICE, *easier(0.75, 0.7, 0.25))
    told = run(project(tmp_path / "p", found, *bars, ("test_share = 0.4", "test_share = 0.4\nnear_duplicates = false")))
    assert (told.code, set(told.stops), told.failed) == (1, {"G21"}, {"G21"})
    assert "such a test measures memory" in told.stops["G21"]
    assert told.ships_without("G21")
    honest = run(project(tmp_path / "honest", found, *bars))
    assert honest.artifacts["prompts"].funnel["train: same request as a test row"] > 50
    alone = [next(c for c in one.artifacts["report"].candidates if c.name == "linear.v1").slices[0].fidelity for one in (told, honest)]
    assert alone[1].high < alone[0].low


@pytest.mark.parametrize("guard", [True, False])
def test_4_the_terms_of_service_forbid_it(tmp_path, guard) -> None:
    """The answers come out of a chat subscription. The run ends with exit code 3 before one of them is used, and names the clause."""
    found = rows(900)
    assert Plain(found).ships
    root = project(tmp_path / "p", found)
    entry, record = read_entry("openai-consumer"), root / "terms.toml"
    text = record.read_text().replace(read_entry("own-answers").digest, entry.digest).replace("own-answers", entry.id)
    text = text.replace('channel = "own"', 'channel = "consumer"').replace('key = "authorship"', 'key = "terms-of-use"')
    text = text.replace("written-by-a-provider-model = false", "competes-with-provider = true")
    today = datetime.now(UTC).date()
    record.write_text(text.replace("attested_on = 2026-01-02", f"attested_on = {today - timedelta(days=1)}\nexpires = {today + timedelta(days=60)}"))

    def blind(*args, **given):
        return replace(posture(*args, **given), word="no-restriction-found", evidence=(), second_person=False, conditions=())

    with patch.object(clear_module, "posture", posture if guard else blind):
        code, words = command(root, "run")
    if not guard:
        assert code == 0, words
        return
    assert code == EXIT_TERMS == 3
    assert "competes-with-provider = true: the clause stands in the way" in words
    with open_store(root) as store:
        assert store.ledger.counts().labels == 0
        assert store.releases.latest() is None


def test_5_edge_cases_break_by_over_compression(tmp_path) -> None:
    """The smaller student is over the bar on the whole and misses a third of the smoke alarms. S02 names the rung, and `show sizes` the ladder."""
    draw, found = random.Random(2), rows(1400, seed=2)
    for one in found:
        if draw.random() < 0.06:
            one |= {"text": message(draw, FUMES, own=3, others=WORDS[BILL], noise=4), "truth": SMOKE, "output": SMOKE.upper()}
    plain = Plain(found, ngrams=(2, 3), terms=200)
    assert plain.ships
    told = run(project(tmp_path / "p", found, FOUR, NO_SLICE, *easier(0.85, 0.8, 0.15), smaller(200, 2, 3)))
    assert (told.code, set(told.stops), told.failed) == (1, {"S02"}, {"S02"})
    assert "rare label 'smoke alarm': small alone is right on" in told.stops["S02"]
    assert "it breaks at small" in told.stops["S02"]
    assert float(re.search(r"small alone is right on ([0-9.]+)%", told.stops["S02"]).group(1)) < 200 / 3
    assert "serve linear.v1" in told.said
    assert told.ships_without("S02")
    code, words = command(told.root, "show", "sizes")
    assert code == 0
    assert "Rare and critical cases by size" in words
    assert "breaks" in words


SEEN = str.maketrans({"a": "а", "e": "е", "o": "о", "i": "і", "c": "с", "p": "р", "x": "х", "y": "у"})


def disguised(one: dict) -> str:
    """The message as a person reads it, its telling words in letters of another script."""
    return " ".join(w.translate(SEEN) if w.startswith(tuple(WORDS[one["truth"]])) else w for w in one["text"].split())


def test_6_the_student_is_attacked(tmp_path) -> None:
    """Telling words in look-alike letters: the plain student is sure of another label in a third of the messages. Normalised, none changes; out of scope is a second door."""
    found, attacks = rows(900), rows(60, seed=99)
    plain = Plain(found)
    fooled = [kept and label != one["truth"] for (label, kept), one in zip(plain.answers([disguised(r) for r in attacks]), attacks, strict=True)]
    assert plain.ships
    assert sum(fooled) > len(attacks) / 3
    told = run(project(tmp_path / "p", found))
    bare = run(told.root, "serve.out_of_scope_share=0")

    def served(bundle, text) -> list[str | None]:
        answers = [bundle.answer({"text": text(one)}, {"tier": one["tier"]}) for one in attacks]
        return [a.value if a.route == "student" else None for a in answers]

    clean = served(told.bundle, lambda one: one["text"])
    assert served(told.bundle, disguised) == clean
    assert served(bare.bundle, disguised) == served(bare.bundle, lambda one: one["text"])
    doors = (told.bundle, bare.bundle)
    with patch.dict(normalise.NORMALISERS, {normalise.NORMALISER: lambda text: " ".join(text.split())}):
        scope, open_door = (served(bundle, disguised) for bundle in doors)
    wrong = [sum(label not in (None, one["truth"]) for label, one in zip(labels, attacks, strict=True)) for labels in (scope, open_door)]
    assert wrong[0] == 0
    assert wrong[1] > len(attacks) / 3


@pytest.mark.parametrize("guard", [True, False])
def test_7_nobody_owns_it_a_year_later(tmp_path, guard) -> None:
    """The owner has left and no review was signed: promotion is refused, then everything goes back to the teacher; with on_lapse = "hold" it serves on."""
    checked = write_project(tmp_path, watch="" if guard else 'on_lapse = "hold"')
    with open_store(tmp_path) as store:
        made = released(store, due=after(90).date().isoformat())
        serve(store, made)
        assert watch_once(store, checked, now=after(60), ask=False).triggers == ()
        watch_once(store, checked, now=after(100), ask=False)
        assert store.rollouts.current("routing").stage == "full"
        assert "review" in moves.held_by(store, "routing", made.id, force="we need it")
        report = watch_once(store, checked, now=after(365), ask=False)
        state = store.rollouts.current("routing")
        late = [t for t in report.triggers if t.occasion == "review_overdue" and "it has lapsed" in t.why]
        assert [t.act for t in late] == ["roll-back" if guard else "alarm"]
        assert state.stage == ("teacher-only" if guard else "full")


def test_7_nor_does_it_ship_without_an_owner(tmp_path) -> None:
    """Without a named owner, or with one and no deputy, G17 refuses a release in which all else is well."""
    told = run(project(tmp_path / "p", rows(900)))
    assert told.code == 0
    for people in ({"owner": ""}, {"deputy": told.recipe.owner}):
        orphan = replace(told, recipe=replace(told.recipe, **people))
        stops = {f.id: f.reason for f in run_checks(orphan.evidence, orphan.recipe) if f.outcome != "pass"}
        assert stops == {"G17": "nobody owns this student" if "owner" in people else f"{told.recipe.owner!r} has no deputy"}
        assert orphan.ships_without("G17")
