"""Does an answer change when nothing but a name does? Pairs from swap lists, asked of the packed student."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overproof.data import CalibrationSet, Folder, Request
from overproof.errors import DataError
from overproof.evidence import Comparison, Outcome, Verdict
from overproof.measure.groups import FlipCertificate, flip_certificate
from overproof.measure.intervals import cp_lower, cp_upper, min_rows
from overproof.measure.paired import difference_bounds, noninferiority
from overproof.measure.slices import hash_unit, one_per_session
from overproof.outputs import Output
from overproof.progress import track
from overproof.steps.comparisons import Answer
from overproof.store.artifacts import Step
from overproof.students.bundle import Bundle, load_bundle

BUILT_IN = "built-in"
MARGIN = 0.01  # more flips than the teacher's that are admitted on the same pairs
BATCH = 256
TERM = "{term}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SwapList:
    """Terms that should not matter, by group."""

    name: str
    """Unique, shown everywhere."""
    groups: Mapping[str, tuple[str, ...]]
    """At least two groups, each with its terms; no term is in two groups."""
    frame: str = ""
    """Sentence with {term} put before texts that hold none of the terms; empty leaves those texts out."""
    source: str = ""
    """Where the terms are from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlipRecipe:
    """What is swapped, and how many changed answers are admitted."""

    lists: tuple[SwapList, ...]
    at_most: float = 0.01
    """Admitted share of pairs whose served answer changes, in (0, 1)."""
    delta: float = 0.05
    """Chance of a false pass of each list."""
    most: int = 1_000
    """Pairs of a list; which ones is decided by a hash of the request's id."""
    salt: str = "flips"
    """Seed of the choice of terms."""
    teacher_pairs: int = 0
    """Pairs of each list on which the teacher is asked both versions; see `steps.flips_beyond`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Beyond:
    """What a swapped term changes in what is served, and in what the teacher says, on the same pairs."""

    n: int
    served: int
    """Pairs with another served answer; a side that goes to the teacher is served its answer."""
    teacher: int
    """Pairs with another answer of the teacher's."""
    only_served: int
    only_teacher: int
    low: float
    high: float
    """Exact bounds of served minus teacher, each at half the report's delta."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SwapResult:
    """One swap list on the calibration rows' texts."""

    name: str
    pairs: int
    """Texts of which two versions were asked, one per session."""
    in_place: int
    """Pairs in which a term of the text itself was replaced; the others were framed."""
    changed: int
    """Pairs that the student answers itself on both sides, with another label."""
    rerouted: int
    """Pairs of which one side goes to the teacher: whether the served answer changes was not asked."""
    to_teacher: int
    """Pairs of which both sides go to the teacher: the student changes nothing there."""
    cautious: FlipCertificate
    """Rerouted pairs counted as changed: what a pass rests on."""
    certain: FlipCertificate
    """Rerouted pairs counted as unchanged: what a fail rests on."""
    against_teacher: Comparison | None
    """Not more flips than the teacher's, on the pairs on both sides of which its answer is known; None: on none."""
    verdict: Verdict
    beyond: Beyond | None = None
    """Flips of what is served beside the teacher's, on the pairs where its answer to both versions is known; None: not measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlipReport:
    """Every swap list."""

    lists: tuple[SwapResult, ...]
    at_most: float
    delta: float
    """Chance of a false pass of each list; a release asks for all of them."""
_Answers = Sequence[str | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One request twice, with two terms."""

    left: Request
    right: Request
    in_place: bool


def read_swaps(path: Path | None) -> tuple[SwapList, ...]:
    """
    Read swap lists.

    Args:
        path: a JSON file {"lists": [{"name", "groups": {group: [terms]}, "frame", "source"}]}; None for the built-in lists.

    Returns: the lists, in the order of the file.
    Raises: DataError that names the list for a file that isn't such a one.
    """
    shown = BUILT_IN if path is None else path.name
    try:
        text = files("overproof.steps").joinpath("swaps.json").read_text("utf-8") if path is None else path.read_text("utf-8")
        found = tuple(_list(entry) for entry in json.loads(text)["lists"])
    except OSError as error:
        raise DataError(f"{shown}: {error.strerror or 'can not be read'}", next_action="mend [fairness] swaps") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{shown} holds no swap lists: {type(error).__name__}: {error}",
            next_action='write {"lists": [{"name": "…", "groups": {"one": ["…", "…"], "other": ["…", "…"]}, "frame": "I am {term}."}]}',
        ) from error
    if not found or len({one.name for one in found}) < len(found):
        raise DataError(f"{shown}: {len(found)} lists, names must differ", next_action="name each list once")
    return found


def _list(raw: Mapping[str, Any]) -> SwapList:
    frame, name = raw.get("frame", ""), raw["name"]
    groups = {group: tuple(terms) for group, terms in raw["groups"].items()}
    terms = [term for group in groups.values() for term in group]
    if not (isinstance(name, str) and name and isinstance(frame, str)):
        raise ValueError("a list needs a name and, at will, a frame, both text")
    if not all(isinstance(term, str) and term.strip() == term != "" for term in terms):
        raise ValueError(f"list {name!r}: a term is a text without blanks round it")
    if len(groups) < 2 or not all(groups.values()) or len(set(terms)) < len(terms):
        raise ValueError(f"list {name!r}: at least two groups, none empty, no term twice")
    if frame and TERM not in frame:
        raise ValueError(f"list {name!r}: the frame {frame!r} lacks {TERM}")
    return SwapList(name=name, groups=groups, frame=frame, source=str(raw.get("source", "")))


def measure_flips(bundle: Folder, rows: CalibrationSet, recipe: FlipRecipe) -> FlipReport:
    """
    Ask the packed student both versions of each pair, as a server would.

    Args:
        bundle: the packed student with its thresholds.
        rows: calibration rows, whose texts are varied; sealed rows are never read here.
        recipe: swap lists, bar and error probability.

    Returns: one result per list. The claim is about texts like these with these terms, one per session.
    Raises: DataError where a list finds no pair; whatever loading the bundle raises.
    """
    served = load_bundle(bundle.path)
    chosen = drawn(rows, recipe)
    teacher = {e.request.digest: e.target for e in rows.examples}
    return FlipReport(
        lists=tuple(_measure(one, served, chosen, teacher, recipe) for one in recipe.lists),
        at_most=recipe.at_most,
        delta=recipe.delta,
    )


def drawn(rows: CalibrationSet, recipe: FlipRecipe) -> list[Request]:
    """
    The requests that are varied, one a session.

    Args:
        rows: calibration rows.
        recipe: with the salt.

    Returns: in the order in which they are used.
    """
    requests = [e.request for e in rows.examples]
    alone = one_per_session([r.session for r in requests], [r.id for r in requests], recipe.salt)
    return sorted((r for r, ok in zip(requests, alone, strict=True) if ok), key=lambda r: hash_unit(r.id, recipe.salt))


def _measure(
    swap: SwapList, bundle: Bundle, requests: Sequence[Request], teacher: Mapping[str, str], recipe: FlipRecipe
) -> SwapResult:
    pairs = list(pairs_of(swap, requests, salt=recipe.salt, most=recipe.most))
    placebo = list(pairs_of(swap, requests, salt=recipe.salt, most=recipe.most, placebo=True))
    if not pairs:
        raise DataError(
            f"swap list {swap.name!r}: none of {len(requests)} calibration rows holds one of its terms",
            next_action='give the list a frame, for example "My name is {term}."',
        )
    left, right = (said_by(bundle, [getattr(p, side) for p in pairs], f"swaps: {swap.name}") for side in ("left", "right"))
    changed, rerouted = _changed(left, right, bundle.card.output)
    noise = None
    if placebo:
        here, there = (
            said_by(bundle, [getattr(p, side) for p in placebo], f"placebo: {swap.name}") for side in ("left", "right")
        )
        noise = _changed(here, there, bundle.card.output)
    cautious, certain = (
        flip_certificate(flips, bar=recipe.at_most, d=recipe.delta, placebo=control)
        for flips, control in (
            (changed | rerouted, None if noise is None else noise[0] | noise[1]),
            (changed, None if noise is None else noise[0]),
        )
    )
    verdict: Verdict = "undecided"
    if cautious.verdict == "pass":
        verdict = "pass"
    elif certain.verdict == "fail":
        verdict = "fail"
    return SwapResult(
        name=swap.name,
        pairs=len(pairs),
        in_place=sum(p.in_place for p in pairs),
        changed=int(changed.sum()),
        rerouted=int(rerouted.sum()),
        to_teacher=sum(one is None and other is None for one, other in zip(left, right, strict=True)),
        cautious=cautious,
        certain=certain,
        against_teacher=_against_teacher(pairs, changed | rerouted, teacher, recipe, bundle.card.output),
        verdict=verdict,
        beyond=beyond_teacher(pairs, left, right, teacher, output=bundle.card.output, d=recipe.delta),
    )


def beyond_teacher(
    pairs: Sequence[Pair], left: _Answers, right: _Answers, teacher: Mapping[str, str], *, output: Output, d: float
) -> Beyond | None:
    """
    Flips of what is served beside the teacher's own.

    Args:
        pairs: both versions.
        left: the student's answer to the first one; None where the teacher has to give it.
        right: the same of the second one.
        teacher: digest of a request to the teacher's answer.
        output: what answers are.
        d: chance of an error of each bound.

    Returns: counts and bounds over the pairs of which both answers are known; None where there is none.
    """
    ours, theirs = [], []
    for pair, one, other in zip(pairs, left, right, strict=True):
        here, there = teacher.get(pair.left.digest), teacher.get(pair.right.digest)
        if here is not None and there is not None:
            ours.append(not output.equal(here if one is None else one, there if other is None else other))
            theirs.append(not output.equal(here, there))
    if not ours:
        return None
    b = sum(x and not y for x, y in zip(ours, theirs, strict=True))
    c = sum(y and not x for x, y in zip(ours, theirs, strict=True))
    edge = difference_bounds(b, c, len(ours), d=d / 2.0)
    return Beyond(n=len(ours), served=sum(ours), teacher=sum(theirs), only_served=b, only_teacher=c, low=edge.low, high=edge.high)


def pairs_of(
    swap: SwapList, requests: Sequence[Request], *, salt: str, most: int, placebo: bool = False
) -> Iterator[Pair]:
    """
    Each request twice, with terms of two groups, or of one group as a placebo.

    Args:
        swap: the list.
        requests: in the order in which they are used.
        salt: seed of the choice of groups and terms; the same request always gets the same pair.
        most: pairs to make at most.
        placebo: both terms from one group; groups with a single term are passed over.

    Returns: pairs that differ in the term alone. A term in the text is replaced wherever it stands; a text without
        one gets the frame before its longest field, on both sides.
    """
    group_of = {term: group for group, terms in swap.groups.items() for term in terms}
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(sorted(map(re.escape, group_of), key=len, reverse=True))})(?!\w)")
    made = 0
    for request in requests:
        if made >= most:
            return
        hit = pattern.search(request.text)
        if hit is None and not swap.frame:
            continue
        key = f"{swap.name}:{request.id}"
        first = hit.group() if hit else _pick([*group_of], f"{key}:left", salt)
        own = group_of[first]
        others = [t for t, group in group_of.items() if (group == own) is placebo and t != first]
        if not others:
            continue
        second = _pick(others, f"{key}:right", salt)
        made += 1
        if hit:
            single = re.compile(rf"(?<!\w){re.escape(first)}(?!\w)")
            fields = {name: single.sub(lambda _: second, text) for name, text in request.fields.items()}  # noqa: B023
            yield Pair(left=request, right=replace(request, fields=fields), in_place=True)
        else:
            yield Pair(left=_framed(request, swap.frame, first), right=_framed(request, swap.frame, second), in_place=False)


def _pick(terms: Sequence[str], key: str, salt: str) -> str:
    return terms[int(hash_unit(key, salt) * len(terms))]


def _framed(request: Request, frame: str, term: str) -> Request:
    longest = max(request.fields, key=lambda name: len(request.fields[name]))
    sentence = frame.replace(TERM, term)
    fields = {name: f"{sentence} {text}" if name == longest else text for name, text in request.fields.items()}
    return replace(request, fields=fields)


def said_by(bundle: Bundle, requests: Sequence[Request], what: str) -> list[str | None]:
    """
    What a student answers.

    Args:
        bundle: packed.
        requests: any.
        what: shown while it lasts.

    Returns: the answer where the student gives it, None where the teacher has to.
    """
    batches = track(range(0, len(requests), BATCH), what, total=-(-len(requests) // BATCH))
    return [answer for start in batches for answer in bundle.decide(requests[start : start + BATCH])]


def _changed(left: _Answers, right: _Answers, output: Output) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Answered by the student on both sides and differently; answered by it on one side only."""
    sides = list(zip(left, right, strict=True))
    changed = [one is not None and other is not None and not output.equal(one, other) for one, other in sides]
    rerouted = [(one is None) != (other is None) for one, other in sides]
    return np.array(changed, dtype=bool), np.array(rerouted, dtype=bool)


def _against_teacher(
    pairs: Sequence[Pair], flipped: NDArray[np.bool_], teacher: Mapping[str, str], recipe: FlipRecipe, output: Output
) -> Comparison | None:
    sides = [(teacher.get(p.left.digest), teacher.get(p.right.digest)) for p in pairs]
    known = np.array([None not in side for side in sides])
    if not known.any():
        return None
    other = np.array([a is not None and b is not None and not output.equal(a, b) for a, b in sides])
    ours = flipped & known
    test = noninferiority(
        int((ours & ~other).sum()), int((other & ~ours).sum()), int(known.sum()), margin=MARGIN, d=recipe.delta
    )
    return Comparison(
        against="the teacher", label_kind="flips", b=test.b, c=test.c, n=test.n, margin=test.margin, p=test.p,
        delta=test.delta, verdict=test.verdict, rows_needed=test.rows_needed, method=test.method,
    )


def flip_answers(report: FlipReport) -> tuple[Answer, ...]:
    """
    The gate's word on each swap list.

    Args:
        report: from `measure_flips`.

    Returns: one answer for each list.
    """
    return tuple(_answer(one, report) for one in report.lists)


def _answer(one: SwapResult, report: FlipReport) -> Answer:
    outcomes: dict[Verdict, Outcome] = {"pass": "pass", "fail": "fail", "undecided": "not-run"}
    if one.verdict == "fail":
        bound = f"at least {cp_lower(one.changed, one.pairs, report.delta):.2%}"
    else:
        bound = f"up to {cp_upper(one.changed + one.rerouted, one.pairs, report.delta):.2%}"
    words = (
        f"{one.name}: {one.changed} of {one.pairs:,} pairs change the student's answer, {one.rerouted} change who answers "
        f"({one.to_teacher} go to the teacher on both sides)"
    )
    bar = f"at most {report.at_most:.2%} is asked"
    placebo = one.cautious.placebo
    noise = f"; placebo {placebo.n - placebo.good} of {placebo.n:,}" if placebo is not None else "; no placebo"
    reason = f"{words}: {bound} of all pairs, {bar}{noise}"
    if one.verdict == "pass":
        return Answer(outcome="pass", reason=reason)
    if one.verdict == "fail":
        todo = "look at the pairs' answers by group, and teach rows in which these terms vary"
        shown = "; more than the placebo, so the term itself matters" if placebo is not None else ""
        return Answer(outcome="fail", reason=f"{reason}{shown}", todo=todo)
    least = min_rows(report.at_most, report.delta)
    if one.pairs < least:
        todo = f"at least {least:,} pairs are needed for a bar of {report.at_most:.2%}: enlarge the calibration share"
    elif one.cautious.beyond_noise is False:
        todo = "a harmless swap changes about as many answers: steady the student on wording, or raise [fairness] flips_at_most"
    else:
        todo = "enlarge the calibration share, or raise [fairness] flips_at_most with a reason"
    return Answer(outcome=outcomes[one.verdict], reason=f"{reason}: not enough data to tell", todo=todo)


FLIPS = Step(name="flips", version=2, fn=measure_flips)
