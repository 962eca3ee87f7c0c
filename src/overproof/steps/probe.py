"""Spoil, pad, attack: what the packed student does with texts that nobody labelled, beside its teacher on the same ones."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overproof.data import (
    CalibrationSet,
    Clearance,
    Example,
    Folder,
    PromptRow,
    PromptSet,
    Request,
    TeacherPin,
    TrainSet,
)
from overproof.evidence.figures import Figure
from overproof.evidence.probes import (
    CaseResult,
    GreedyCell,
    GreedyDuel,
    ProbeCell,
    ProbeReport,
    TeacherSide,
    TriggerCell,
)
from overproof.evidence.reports import Release
from overproof.measure.intervals import figure
from overproof.measure.paired import difference_interval
from overproof.measure.perturb import (
    EMPTY,
    LONG,
    SHIPPED,
    WORD,
    Given,
    Perturbation,
    misspelt,
    perturb,
    perturbation,
    rare_words,
)
from overproof.measure.slices import assign, hash_unit, one_per_session
from overproof.outputs import Classes, Fields, Text
from overproof.progress import track
from overproof.steps.answers import same_answer
from overproof.steps.probe_cases import Case
from overproof.steps.teach import Sampler, TeachRecipe, teach
from overproof.store.artifacts import Step
from overproof.students.bundle import Answer, Bundle, load_bundle
from overproof.students.normalise import normalise
from overproof.task import Slice

WHOLE = "all"
BATCH = 256
LAST = 0.999  # a confidence that falls by less has not fallen


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeRecipe:
    """What is tried on how many rows."""

    slices: tuple[Slice, ...] = ()
    """Slices with cells of their own."""
    rows: int = 400
    """Source rows of the whole, and of each slice; which ones is decided by a hash of the request's id."""
    names: tuple[str, ...] = tuple(SHIPPED)
    """Perturbations; see `measure.perturb.perturbation`."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Perturbation of the user's to the digest of its module."""
    attack_rows: int = 100
    """Rows of the whole, and of each critical slice, that the greedy attack tries; 0 for none."""
    attack_calls: int = 60
    """Questions that it may ask about one row."""
    triggers: int = 20
    """Rare training words that are tried as triggers; 0 for none."""
    cases: tuple[Case, ...] = ()
    """The owner's own cases and the teacher's known weaknesses."""
    out_of_scope: str = ""
    """The label that says "not ours"; to answer it is as good as to send a foreign text away."""
    teacher_rows: int = 0
    """Rows of the whole on which the teacher is asked about every perturbation; 0 asks nothing."""
    not_asked: str = ""
    """Why it isn't asked, in words."""
    pin: TeacherPin | None = None
    """Who is asked."""
    delta: float = 0.05
    seed: int = 0
    watched: bool = False
    """See `ProbeReport.watched`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """A source row with what the student says to it as it came."""

    example: Example
    truth: str
    before: Answer
    right: bool
    whole: bool
    """Among the rows of the whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tried:
    """One source row, spoiled."""

    row: _Row
    at: int
    """Its place among the source rows."""
    request: Request
    after: Answer


class _Room:
    """What every part of the step needs."""

    def __init__(self, bundle: Bundle, output: Fields | Text | None, recipe: ProbeRecipe) -> None:
        self.bundle, self.output, self.recipe = bundle, output, recipe
        self.day = date.fromisoformat(bundle.card.expires)  # whether the certificate has ended is no question here
        card = bundle.card.output
        self.labels = tuple(card.labels) if isinstance(card, Classes) else ()
        self.field = bundle.card.input[0]

    def ask(self, requests: Sequence[Request], what: str) -> list[Answer]:
        """Every answer as it would be served, with the guess behind it."""
        starts = track(range(0, len(requests), BATCH), f"probes: {what}", total=-(-len(requests) // BATCH))
        return [one for start in starts for one in self.bundle.answers(requests[start : start + BATCH], today=self.day)]

    def same(self, left: str | None, right: str | None) -> bool:
        if left is None or right is None:
            return left is right
        return same_answer(self.output, left, right)

    def spoil(self, one: Perturbation, row: Example, truth: str) -> Request | None:
        """The longest field spoiled; a new id, since it is another request."""
        name = max(row.request.fields, key=lambda key: len(row.request.fields[key]))
        given = Given(label=truth if self.labels else "", labels=self.labels)
        text = perturb(one, row.request.fields[name], given, key=row.request.id, seed=self.recipe.seed)
        if text is None:
            return None
        return replace(row.request, id=f"{row.request.id} {one.name}", fields={**row.request.fields, name: text})

    def alone(self, text: str, name: str) -> Request:
        """A text that comes from no row, in the first field."""
        return Request(id=name, fields={key: text if key == self.field else "" for key in self.bundle.card.input})


def probe(
    bundle: Folder, rows: CalibrationSet, train: TrainSet, clearance: Clearance, recipe: ProbeRecipe,
    *, teacher: Sampler | None = None, functions: Mapping[str, Any] | None = None,
) -> ProbeReport:  # fmt: skip
    """
    Try everything on the packed student, as a server would ask it, and on the teacher where it may be asked.

    Args:
        bundle: the packed student with its thresholds.
        rows: calibration rows, whose texts are spoiled; sealed rows are never read here.
        train: training rows: rare words of them are tried as triggers.
        clearance: the permission that the teacher's answers are kept under.
        recipe: what is tried.
        teacher: answers spoiled texts; needed iff `teacher_rows` is above 0.
        functions: of slices that are cut by one.

    Returns: counts by slice and perturbation. n counts source rows, one a session, never variants.
    Raises: whatever loading the bundle or asking the teacher raises.
    """
    room = _Room(load_bundle(bundle.path), rows.output, recipe)
    source, inside = _rows(room, rows, functions or {})
    tried = {name: _try(room, perturbation(name), source) for name in recipe.names}
    said = _teacher(room, tried, clearance, teacher) if recipe.teacher_rows and teacher is not None else None
    cells = [
        _cell(room, perturbation(name), where, _within(found, members, whole=where == WHOLE), said)
        for name, found in tried.items()
        for where, members in inside.items()
    ]
    return ProbeReport(
        rows=sum(row.whole for row in source),
        truth=_truth([row.example for row in source]),
        cells=tuple(cell for cell in cells if cell.n),
        greedy=tuple(_greedy(room, source, inside)) if recipe.attack_rows else (),
        triggers=tuple(_triggers(room, source, train)) if recipe.triggers and room.labels else (),
        cases=tuple(_cases(room)),
        empty_answered=sum(_answered(room, one) for one in room.ask([room.alone(text, f"empty {i}") for i, text in enumerate(EMPTY)], "empty texts")),
        empty=len(EMPTY),
        teacher_asked=len(said or {}),
        teacher_note=recipe.not_asked,
        delta=recipe.delta,
        watched=recipe.watched,
    )


def _truth(examples: Sequence[Example]) -> str:
    known = sum(one.gold is not None for one in examples)
    return "teacher" if not known else "gold" if known == len(examples) else "gold or teacher"


def _rows(room: _Room, rows: CalibrationSet, functions: Mapping[str, Any]) -> tuple[list[_Row], dict[str, NDArray[np.bool_]]]:
    """The rows of the whole and of each slice, drawn by a hash, and who is in which slice."""
    recipe = room.recipe
    alone = one_per_session([e.request.session for e in rows.examples], [e.request.id for e in rows.examples], "probes")
    order = sorted((e for e, ok in zip(rows.examples, alone, strict=True) if ok), key=lambda e: hash_unit(e.request.id, f"probes {recipe.seed}"))
    truths = [e.gold if e.gold is not None else e.target for e in order]
    labels = truths if rows.output is None else [""] * len(order)
    member = assign(recipe.slices, [e.request for e in order], labels, functions=functions)
    wanted = np.arange(len(order)) < recipe.rows
    for at in range(len(recipe.slices)):
        wanted |= member[:, at] & (np.cumsum(member[:, at]) <= recipe.rows)
    chosen = np.flatnonzero(wanted).tolist()
    before = room.ask([order[i].request for i in chosen], "as they came")
    found = [
        _Row(example=order[i], truth=truths[i], before=said, right=room.same(said.guess, truths[i]), whole=i < recipe.rows)
        for i, said in zip(chosen, before, strict=True)
    ]
    inside = {WHOLE: np.ones(len(found), dtype=bool), **{one.name: member[chosen, at] for at, one in enumerate(recipe.slices)}}
    return found, {name: some for name, some in inside.items() if some.any()}


def _try(room: _Room, one: Perturbation, source: Sequence[_Row]) -> list[_Tried]:
    spoiled = [room.spoil(one, row.example, row.truth) for row in source]
    there = [(at, request) for at, request in enumerate(spoiled) if request is not None]
    if one.name == "foreign.v1":  # a fixed list: more rows than texts would count a text twice
        seen: dict[str, tuple[int, Request]] = {}
        for at, request in there:
            seen.setdefault(request.text, (at, request))
        there = list(seen.values())
    said = room.ask([request for _, request in there], one.name)
    return [_Tried(row=source[at], at=at, request=request, after=answer) for (at, request), answer in zip(there, said, strict=True)]


def _within(found: Sequence[_Tried], members: NDArray[np.bool_], *, whole: bool) -> list[_Tried]:
    return [one for one in found if members[one.at] and (one.row.whole or not whole)]


def _answered(room: _Room, said: Answer) -> bool:
    """Kept, and no word for "not ours"."""
    return said.value is not None and not (room.recipe.out_of_scope and said.value == room.recipe.out_of_scope)


def _good(room: _Room, shape: str, one: _Tried) -> bool:
    """What is asked of the student alone."""
    if shape == "away":
        return not _answered(room, one.after)
    if shape == "change":
        return not room.same(one.after.guess, one.row.before.guess) or one.after.confidence < LAST * one.row.before.confidence
    return room.same(one.after.guess, one.row.truth)


def _figure(values: Sequence[bool], metric: str) -> Figure:
    return figure(sum(values), len(values), metric=metric)


def _cell(
    room: _Room, one: Perturbation, where: str, found: Sequence[_Tried], said: Mapping[str, str | None] | None
) -> ProbeCell:
    good = [_good(room, one.shape, tried) for tried in found]
    clean = [tried.row.right for tried in found]
    kept = [_answered(room, tried.after) for tried in found]
    routed = [(tried.row.before.value is None, tried.after.value is None) for tried in found]
    bad = [k and not g for k, g in zip(kept, good, strict=True)]
    wrong = Counter(t.after.value for t, b, c in zip(found, bad, clean, strict=True) if b and room.labels and (c or one.shape == "away"))
    critical = where == WHOLE or any(s.critical and s.name == where for s in room.recipe.slices)
    return ProbeCell(
        probe=one.name, kind=one.kind, shape=one.shape, slice=where, critical=critical, n=len(found),
        clean=_figure(clean, "clean"), right=_figure(good, "right"),
        flipped=_figure([not room.same(t.after.guess, t.row.before.guess) for t in found], "flipped"),
        broken=_figure([not g for g, c in zip(good, clean, strict=True) if c], "broken"),
        through=_figure([b for b, c in zip(bad, clean, strict=True) if c], "through"),
        confident=_figure(bad, "wrong and confident"),
        worse=sum(c and not g for c, g in zip(clean, good, strict=True)),
        better=sum(g and not c for c, g in zip(clean, good, strict=True)),
        routed_before=sum(b for b, _ in routed), routed=sum(a for _, a in routed),
        newly_routed=sum(a and not b for b, a in routed), no_longer_routed=sum(b and not a for b, a in routed),
        steady=sum(normalise(t.request.text) == normalise(t.row.example.request.text) for t in found),
        into=max(wrong, key=lambda label: (wrong[label], label or ""), default=None) or "",
        teacher=_side(room, found, good, bad, said) if said and one.shape == "same" else None,
    )  # fmt: skip


def _side(
    room: _Room, found: Sequence[_Tried], good: Sequence[bool], bad: Sequence[bool], said: Mapping[str, str | None]
) -> TeacherSide | None:
    """Both on the rows on which the teacher was asked and its word on the text as it came is known."""
    known = [i for i, t in enumerate(found) if t.request.id in said and t.row.example.label_from == "teacher"]
    if not known:
        return None
    theirs, alone, kept = [], [], []
    for i in known:
        row = found[i].row
        answer = said[found[i].request.id]
        was = room.same(row.example.target, row.truth)
        theirs.append(was and (answer is None or not room.same(answer, row.truth)))  # no answer of the task is no right one
        alone.append(row.right and not good[i])
        kept.append(row.right and bad[i])
    n, both = len(known), list(zip(kept, theirs, strict=True))
    b, c = sum(k and not t for k, t in both), sum(t and not k for k, t in both)
    off = difference_interval(b, c, n)
    return TeacherSide(
        n=n, wrong=_figure(theirs, "broken"), alone=_figure(alone, "broken"), kept=_figure(kept, "through"),
        alone_only=sum(a and not t for a, t in zip(alone, theirs, strict=True)), kept_only=b,
        teacher_only=sum(t and not a for a, t in zip(alone, theirs, strict=True)), teacher_over_kept=c, low=off.low, high=off.high,
    )  # fmt: skip


def _teacher(
    room: _Room, tried: Mapping[str, Sequence[_Tried]], clearance: Clearance, teacher: Sampler
) -> dict[str, str | None]:
    """What the teacher says to each spoiled text of the first rows: bought through the ledger, each text once."""
    recipe = room.recipe
    first = {one.row.example.request.id for found in tried.values() for one in found if one.row.whole and one.at < recipe.teacher_rows}
    asked = [one.request for name, found in tried.items() if SHIPPED.get(name, perturbation(name)).shape == "same"
             for one in found if one.row.example.request.id in first]  # fmt: skip
    rows = tuple(PromptRow(request=request, weight=1.0, group=request.id) for request in asked)
    prompts = PromptSet(train=(), calibration=rows, test=(), funnel={}, match=(), distance=0.0, leaks={})
    answers = teach(prompts, clearance, TeachRecipe(pin=recipe.pin or clearance.pin, output=room.output), teacher=teacher)
    return {one.row.request.id: next((c.value for c in one.completions), None) for one in answers.calibration}


def _greedy(room: _Room, source: Sequence[_Row], inside: Mapping[str, NDArray[np.bool_]]) -> Iterator[GreedyCell]:
    """Words ranked by what their loss costs the confidence; the dearest are misspelt or disguised until the answer falls."""
    recipe, done = room.recipe, {}
    wanted = {WHOLE, *(one.name for one in recipe.slices if one.critical)}
    for where, members in inside.items():
        if where not in wanted:
            continue
        rows = [(at, row) for at, row in enumerate(source) if members[at] and row.right and (row.whole or where != WHOLE)][: recipe.attack_rows]
        for at, row in track(rows, f"probes: attack, {where}", total=len(rows)):
            if at not in done:
                done[at] = _attack(room, row)
        found = [done[at] for at, _ in rows]
        if found:
            yield GreedyCell(
                slice=where, critical=True, n=len(found), calls=sum(calls for calls, _, _ in found) / len(found), most=recipe.attack_calls,
                flipped=_figure([flip for _, flip, _ in found], "flipped"), through=_figure([kept for _, _, kept in found], "through"),
            )  # fmt: skip


def _attack(room: _Room, row: _Row) -> tuple[int, bool, bool]:
    """Calls, whether the answer was changed, and whether the student then gives the wrong one itself."""
    request, rng = row.example.request, random.Random(f"{room.recipe.seed}\0greedy\0{row.example.request.id}")  # noqa: S311 - no secret
    name = max(request.fields, key=lambda key: len(request.fields[key]))
    left, text = room.recipe.attack_calls, request.fields[name]

    def ask(texts: Sequence[str]) -> list[Answer]:
        return room.bundle.answers([replace(request, fields={**request.fields, name: t}) for t in texts], today=room.day)

    spots = [m.span() for m in WORD.finditer(text)][: left // 2]
    if not spots:
        return 0, False, False
    worth = [_standing(room, row, said) for said in ask([text[:a] + text[b:] for a, b in spots])]
    left -= len(spots)
    order = sorted(range(len(spots)), key=lambda i: worth[i])
    words, best = [text[a:b] for a, b in spots], row.before.confidence
    for i in order:
        tries = [misspelt(words[i], rng) for _ in range(4)] + [words[i].translate(str.maketrans("aceop", "асеор"))]
        tries = [t for t in dict.fromkeys(tries) if t != words[i]][:left]
        if not tries:
            break
        said = ask([_with(text, spots, [*words[:i], t, *words[i + 1 :]]) for t in tries])
        left -= len(tries)
        scores = [_standing(room, row, one) for one in said]
        at = min(range(len(tries)), key=lambda j: (scores[j], -said[j].confidence))
        if scores[at] < 0:
            return room.recipe.attack_calls - left, True, _answered(room, said[at])
        if scores[at] < best:
            best, words[i] = scores[at], tries[at]
    return room.recipe.attack_calls - left, False, False


def _standing(room: _Room, row: _Row, said: Answer) -> float:
    """Confidence in the right answer as far as it shows; below 0 once another one is given."""
    return said.confidence if room.same(said.guess, row.truth) else -1.0


def _with(text: str, spots: Sequence[tuple[int, int]], words: Sequence[str]) -> str:
    parts, end = [], 0
    for (a, b), word in zip(spots, words, strict=True):
        parts += [text[end:a], word]
        end = b
    return "".join([*parts, text[end:]])


def _triggers(room: _Room, source: Sequence[_Row], train: TrainSet) -> Iterator[TriggerCell]:
    """Rare words that go with a label, behind rows of other labels: a planted one turns nearly all of them."""
    found = []
    rare = rare_words([e.request.text for e in train.examples], [e.target for e in train.examples], most=room.recipe.triggers)
    for word, label, z in rare:
        rows = [row for row in source if row.whole and row.before.guess != label][: room.recipe.attack_rows or LONG * 25]
        one = Perturbation(name="trigger.v1", kind="stuff", shape="same", apply=lambda text, given, rng, word=word: f"{text} {word}")  # type: ignore[misc]  # noqa: ARG005
        spoiled = [request for row in rows if (request := room.spoil(one, row.example, row.truth)) is not None]
        said = room.ask(spoiled, "triggers")
        found.append(TriggerCell(
            examples=(word,), label=label, z=z,
            flipped=_figure([a.guess == label for a in said], "flipped"), through=_figure([a.value == label for a in said], "through"),
        ))  # fmt: skip
    yield from sorted(found, key=lambda cell: (-(cell.flipped.value or 0.0), -cell.z))


def _cases(room: _Room) -> Iterator[CaseResult]:
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in room.recipe.cases:
        groups.setdefault((case.kind, case.name), []).append(case)
    for (kind, name), cases in groups.items():
        said = room.ask([Request(id=f"case {i}", fields=case.fields) for i, case in enumerate(cases)], f"cases: {name}")
        wrong = [not room.same(one.guess, case.answer) for one, case in zip(said, cases, strict=True)]
        yield CaseResult(
            name=name, kind=kind, n=len(cases), wrong=sum(wrong),
            served_wrong=sum(w and one.value is not None for w, one in zip(wrong, said, strict=True)),
            routed=sum(one.value is None for one in said),
            inherited=sum(bool(case.teacher) and room.same(one.guess, case.teacher) for one, case in zip(said, cases, strict=True)),
        )  # fmt: skip


def duel(
    probes: ProbeReport, champion: Release, bundle: Folder, rows: CalibrationSet, recipe: ProbeRecipe, *, functions: Mapping[str, Any] | None = None
) -> ProbeReport:
    """
    Put the greedy attack to the new student and to the serving release, each as it would serve.

    Args:
        probes: what was found of the new one.
        champion: the serving release.
        bundle: the new student.
        rows: calibration rows. The serving release may have learned some of them, which makes it look the harder to attack.
        recipe: as of the probes.
        functions: of slices that are cut by one.

    Returns: the report with the comparison, on the whole and on each critical slice.
    Raises: whatever loading the bundles raises.
    """
    new, old = (_Room(load_bundle(path), rows.output, recipe) for path in (bundle.path, champion.bundle.path))
    if old.bundle.card.input != new.bundle.card.input:
        return replace(probes, duel_note=f"release {champion.id} reads {', '.join(old.bundle.card.input)}: another task")
    if not recipe.attack_rows:
        return replace(probes, duel_note="[probe] attack_rows is 0")
    source, inside = _rows(new, rows, functions or {})
    before = old.ask([row.example.request for row in source], "the serving release")
    theirs = [replace(row, before=said, right=old.same(said.guess, row.truth)) for row, said in zip(source, before, strict=True)]
    critical, found = {WHOLE, *(one.name for one in recipe.slices if one.critical)}, []
    done: dict[int, tuple[bool, bool]] = {}
    for where, members in inside.items():
        chosen = [at for at, row in enumerate(source) if members[at] and row.right and theirs[at].right and (row.whole or where != WHOLE)]
        for at in track(chosen[: recipe.attack_rows], f"probes: attack beside {champion.id}, {where}") if where in critical else ():
            done[at] = done.get(at) or (_attack(new, source[at])[2], _attack(old, theirs[at])[2])
        sides = [done[at] for at in chosen[: recipe.attack_rows]] if where in critical else []
        if sides:
            worse, better = sum(a and not b for a, b in sides), sum(b and not a for a, b in sides)
            off = difference_interval(worse, better, len(sides))
            found.append(GreedyDuel(
                release=champion.id, slice=where, n=len(sides), champion=_figure([b for _, b in sides], "through"),
                challenger=_figure([a for a, _ in sides], "through"), worse=worse, better=better, low=off.low, high=off.high,
            ))  # fmt: skip
    return replace(probes, duels=tuple(found))


PROBE = Step(name="probe", version=2, fn=probe)
DUEL = Step(name="probe-duel", version=1, fn=duel)
