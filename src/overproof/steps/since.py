"""What is other than in the release before: figures, answers on rows that both sealed, labels, candidates, thresholds, checks, waivers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overproof.data import Folder, TestSet
from overproof.evidence import Challenge, Release
from overproof.measure.paired import difference_interval
from overproof.measure.slices import assign
from overproof.steps.answers import same_answer
from overproof.store.artifacts import Step
from overproof.students.bundle import load_bundle
from overproof.task import Slice

NAMES = {
    "accuracy": "right, alone", "fidelity": "as the teacher, alone", "served_accuracy": "right, as served",
    "served_fidelity": "as the teacher, as served", "kept": "answered by the student",
}  # fmt: skip
AT_ONCE = 256  # requests in one pass


@dataclass(frozen=True, kw_only=True, slots=True)
class OnShared:
    """Both students on the same sealed rows of one slice, each answering every row by itself."""

    slice: str
    """"all" for all of them."""
    n: int
    before: int
    """Rows that the former student gets right."""
    after: int
    """Rows that the present one gets right."""
    low: float
    high: float
    """95% interval of after minus before, as a share of the rows; Tango's score test."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shared:
    """A comparison on shared rows."""

    rows: tuple[OnShared, ...] = ()
    """The whole first; none where no row is shared."""
    label_kind: str = ""
    """What is held to be right: "gold" where each shared row has a true label, else "teacher"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedRecipe:
    """How shared rows are cut."""

    slices: tuple[Slice, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Former:
    """The release before this one, as far as the two are compared."""

    id: str
    candidate: str
    expires: str
    """ISO date, the last day of its certificate."""
    figures: tuple[tuple[str, str, float | None, float, float, int], ...]
    """Slice, figure, value, both ends of its interval, n."""
    outcomes: Mapping[str, str]
    """Check to outcome."""
    labels: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    """All that were trained, baselines included."""
    thresholds: Mapping[str, float | None] = field(default_factory=dict)
    """Slice to threshold; None where it stayed with the teacher."""
    waivers: Mapping[str, str] = field(default_factory=dict)
    """Check to who took it upon them, and until when."""
    shared: Shared = field(default_factory=Shared)


def compare_shared(
    champion: Release, before: TestSet, bundle: Folder, rows: TestSet, recipe: SharedRecipe, *, functions: Mapping[str, Any] | None = None
) -> Shared:
    """
    Put the rows that two releases both sealed to both students, thresholds aside: rows that chose one can't judge it.

    Args:
        champion: the release before.
        before: its sealed rows.
        bundle: the present student.
        rows: its sealed rows, opened for this plan.
        recipe: how they are cut.
        functions: of slices that are cut by one.

    Returns: counts with paired intervals; nothing where no row is shared, or the students read other fields.
    """
    known = {(one.request.id, tuple(sorted(one.request.fields.items()))) for one in before.examples}
    both = [one for one in rows.examples if (one.request.id, tuple(sorted(one.request.fields.items()))) in known]
    if not both:
        return Shared()
    old, new = load_bundle(champion.bundle.path), load_bundle(bundle.path)
    if old.card.input != new.card.input:
        return Shared()
    gold = all(one.gold is not None for one in both)
    truth = [one.gold if gold and one.gold is not None else one.target for one in both]
    requests = [one.request for one in both]

    def right(one: Any) -> NDArray[np.bool_]:
        day = date.fromisoformat(one.card.expires)  # which of them would answer today is no question here
        said = [a for at in range(0, len(requests), AT_ONCE) for a in one.answers(requests[at : at + AT_ONCE], today=day)]
        return np.array([a.guess is not None and same_answer(rows.output, a.guess, true) for a, true in zip(said, truth, strict=True)], dtype=bool)

    first, then = right(old), right(new)
    member = assign(recipe.slices, requests, truth if rows.output is None else [""] * len(truth), functions=functions or {})
    parts = {"all": np.ones(len(both), dtype=bool), **{one.name: member[:, at] for at, one in enumerate(recipe.slices)}}
    found = (_on(name, first[part], then[part]) for name, part in parts.items() if part.any())
    return Shared(rows=tuple(found), label_kind="gold" if gold else "teacher")


def _on(name: str, first: NDArray[np.bool_], then: NDArray[np.bool_]) -> OnShared:
    off = difference_interval(int((first & ~then).sum()), int((then & ~first).sum()), first.size)  # of errors: the first's minus the second's
    return OnShared(slice=name, n=first.size, before=int(first.sum()), after=int(then.sum()), low=-off.high, high=-off.low)


def of_challenge(found: Challenge) -> Shared:
    """
    The same out of a refresh's comparison, which has asked both students already.

    Args:
        found: champion against challenger.

    Returns: its sealed rows.
    """
    rows = tuple(
        OnShared(slice=d.slice, n=d.n, before=round((d.champion.value or 0.0) * d.n), after=round((d.challenger.value or 0.0) * d.n), low=d.low, high=d.high)
        for d in found.duels if d.rows == "sealed" and d.n
    )  # fmt: skip
    return Shared(rows=tuple(sorted(rows, key=lambda one: one.slice != "all")), label_kind=found.label_kind)


def chosen_of(facts: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The chosen candidate's report out of the dossier's facts."""
    report = facts["evidence"].get("report")
    return next((one for one in report["candidates"] if one["name"] == report["chosen"]), None) if report else None


def figures_of(chosen: Mapping[str, Any] | None) -> Iterator[tuple[Mapping[str, Any], str, Mapping[str, Any]]]:
    """Slice, name and value of each figure of a candidate's report."""
    for one in chosen["slices"] if chosen else ():
        for name in NAMES:
            if one.get(name):
                yield one, name, one[name]


def former_of(facts: Mapping[str, Any]) -> Former:
    """
    What a later release is compared with.

    Args:
        facts: the dossier of a release.

    Returns: all but the shared rows.
    """
    decision = facts["decision"]
    return Former(
        id=decision["id"], candidate=decision["candidate"], expires=decision["certificate"]["expires"],
        figures=tuple((one["slice"], name, f["value"], f["low"], f["high"], f["n"]) for one, name, f in figures_of(chosen_of(facts))),
        outcomes={one["id"]: one["outcome"] for one in decision["findings"]}, **_lists(facts),
    )  # fmt: skip


def _lists(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Labels, candidates, thresholds and waivers; a refusal's thresholds are those that its report certified."""
    evidence, decision = facts["evidence"], facts["decision"]
    certificate = decision.get("certificate") or (evidence.get("report") or {}).get("certificate") or {}
    return {
        "labels": tuple((evidence.get("data") or {}).get("labels", ())),
        "candidates": tuple(f"{one['name']} ({one['use']})" if one["name"] != one["use"] else one["name"] for one in evidence.get("trained", ())),
        "thresholds": {one["slice"]: one["threshold"] for one in certificate.get("slices", ())},
        "waivers": {one["id"]: f"{w['by']} and {w['second']} until {w['until']}" for one in decision["findings"] if one["outcome"] == "waived" and (w := one["waiver"])},
    }


def changes_from(facts: Mapping[str, Any], former: Former | None) -> dict[str, Any] | None:
    """
    What is other than in the release before.

    Args:
        facts: of the present dossier.
        former: the release before.

    Returns: JSON values; None for a first release. A figure is called higher or lower only where the intervals don't touch, since
        each stands on sealed rows of its own; on shared rows, where the paired interval of the difference leaves out zero.
    """
    if former is None:
        return None
    before = {(where, name): (value, low, high, n) for where, name, value, low, high, n in former.figures}
    after = {(one["slice"], name): (f["value"], f["low"], f["high"], f["n"]) for one, name, f in figures_of(chosen_of(facts))}
    rows = []
    for key in _either(after, before):
        old, new = before.get(key), after.get(key)
        word = "gone" if new is None else "new" if old is None else _word(new[1] > old[2], new[2] < old[1])
        rows.append({"slice": key[0], "figure": key[1], "before": _ends(old), "after": _ends(new), "word": word})
    now, outcomes = _lists(facts), {one["id"]: one["outcome"] for one in facts["decision"]["findings"]}
    titles = {one["id"]: one["title"] for one in facts["decision"]["findings"] if one["id"] not in one["title"]}
    shared = [
        {"slice": one.slice, "n": one.n, "before": one.before / one.n, "after": one.after / one.n, "low": one.low, "high": one.high, "word": _word(one.low > 0, one.high < 0)}
        for one in former.shared.rows
    ]  # fmt: skip
    return {
        "since": former.id, "candidate": {"before": former.candidate, "after": (chosen_of(facts) or {}).get("name")},
        "figures": rows, "shared": {"right_is": former.shared.label_kind, "slices": shared},
        "labels": _moved(former.labels, now["labels"]), "candidates": _moved(former.candidates, now["candidates"]),
        "thresholds": [
            {"slice": name, "before": former.thresholds.get(name), "after": now["thresholds"].get(name)}
            for name in _either(now["thresholds"], former.thresholds) if former.thresholds.get(name) != now["thresholds"].get(name)
        ],
        "checks": [
            {"check": name, "title": titles.get(name, ""), "before": former.outcomes.get(name), "after": outcomes.get(name)}
            for name in sorted(_either(outcomes, former.outcomes)) if outcomes.get(name) != former.outcomes.get(name)
        ],
        "waivers": [
            {"check": name, "before": former.waivers.get(name), "after": now["waivers"].get(name)}
            for name in sorted(_either(now["waivers"], former.waivers)) if now["waivers"].get(name) != former.waivers.get(name)
        ],
    }  # fmt: skip


def change_lines(changes: Mapping[str, Any]) -> list[str]:
    """
    What is other, but for figures: one line for each kind of thing.

    Args:
        changes: see `changes_from`.

    Returns: plain sentences, none for what stayed as it was.
    """
    one = changes["candidate"]
    said = [f"student: {one['before']} before, {one['after']} now"] if one["before"] != one["after"] else []
    for what in ("labels", "candidates"):
        said += [f"{what} {how}: {', '.join(changes[what][how])}" for how in ("added", "lost") if changes[what][how]]
    said += [f"threshold of {t['slice']}: {_level(t['before'])} before, {_level(t['after'])} now" for t in changes["thresholds"]]
    said += [f"check {' '.join(filter(None, (c['check'], c['title'])))}: {c['before'] or 'not asked'} before, {c['after'] or 'not asked'} now" for c in changes["checks"]]
    return said + [f"waiver of {w['check']}: {w['before'] or 'none'} before, {w['after'] or 'none'} now" for w in changes["waivers"]]


def _level(value: float | None) -> str:
    return "with the teacher" if value is None else f"{value:.4f}"


def _word(up: bool, down: bool) -> str:  # noqa: FBT001 - two facts, told apart by their order
    return "higher" if up else "lower" if down else "no clear difference"


def _moved(before: Sequence[str], after: Sequence[str]) -> dict[str, list[str]]:
    return {"added": [one for one in after if one not in before], "lost": [one for one in before if one not in after]}


def _either(after: Iterable[Any], before: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys([*after, *before]))


def _ends(row: Sequence[Any] | None) -> dict[str, Any] | None:
    return None if row is None else dict(zip(("value", "low", "high", "n"), row, strict=True))


SHARED = Step(name="shared", version=1, fn=compare_shared)
