"""A judge of labels: whom it is asked about, how often it errs on rows whose truth is known, and what it may drop."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from overproof.data import Answers, Dropped, Example, Folder, Labelled, PromptRow, PromptSet
from overproof.errors import MeasureError
from overproof.evidence import Figure
from overproof.measure.intervals import cp_lower, cp_upper, expected_rate, figure, rows_needed
from overproof.measure.judges import judged_failure_interval
from overproof.measure.labels import suspicion_rank
from overproof.steps.filter import KEPT
from overproof.steps.mend import load_features
from overproof.store.artifacts import Step
from overproof.task import JUDGED_LABEL, WRONG

JUDGE_RULE = "judge.v1"
REASON = "the judge calls the label wrong"
MEASURABLE = ("log", "review-audit")
SUSPICIOUS, USUAL = "suspicious", "usual"
GROUPS = (SUSPICIOUS, USUAL)
CHANCE = 0.5  # part of the questions that goes to rows drawn by chance
HALF = 0.5
DELTA = 0.05  # chance that any group is trusted that shouldn't be
FOLDS = 5
RIDGE = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DocketRecipe:
    """How many rows a judge is asked about."""

    share: float
    """The most of the training rows."""
    most: int
    """The most training rows, whatever their share."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Docket:
    """The rows that a judge is asked about, and why each is among them; a row may be in several lists."""

    prompts: PromptSet
    """The rows as the judge gets them: the message and the label under judgement. Training rows only."""
    judged: tuple[str, ...]
    """The label under judgement of each row."""
    suspicious: tuple[str, ...]
    """Ids of all that are disputed or look wrong; chosen without a look at any true label."""
    known: tuple[str, ...]
    """Ids drawn by chance from the rows whose true label is known: they show how often the judge errs."""
    fresh: tuple[str, ...]
    """Ids drawn by chance from the other rows: they show how much it objects to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TakeDocket:
    """For the step that has nothing to decide."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeRecipe:
    """What a judge may do."""

    judge: str
    """Its model, for the report."""
    may: Literal["mark", "drop"] = "mark"


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedGroup:
    """The judge on one group of rows: the suspicious ones, or the others."""

    group: str
    """"suspicious" or "usual"."""
    asked: int
    answered: int
    objected: int
    precision: Figure | None
    """Of its objections to rows with a known true label: the share that was truly wrong; None where there is none."""
    bound: float
    """Lower bound of that share by Clopper-Pearson; all bounds of both groups together hold at 95 %."""
    trusted: bool
    """True iff the bound is above one half and `tells` holds: most of what it objects to is wrong, and by its own doing."""
    tells: bool
    """True iff it is shown to object to wrong labels more often than to right ones; one that objects to all never is."""
    more: int | None
    """Reviewed rows of the group that would likely show it; 0 where it is shown, None where no number will do."""
    dropped: int
    why: str
    """One sentence: why its objections here drop rows, or don't."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WrongShare:
    """
    Share of the training rows whose label is wrong, as the judge sees it, corrected for the judge's own error; counted
    where the truth of all rows is known.
    """

    seen: Figure
    """What the judge objects to, of rows drawn by chance."""
    value: float | None
    """The corrected share; None where the judge can't tell."""
    low: float
    high: float
    """Ends of the interval at `level`; 0 and 1 where nothing can be said."""
    n_known: int
    """Rows with a known true label that the judge's error was measured on."""
    why: str = ""
    """Why there is no value; empty where there is one."""
    level: float = 0.95
    method: str = "Rogan-Gladen, Clopper-Pearson bounds of three rates"


@dataclass(frozen=True, kw_only=True, slots=True)
class Marked:
    """A row that the judge objects to and that stays."""

    request_id: str
    text: str
    """At most 200 characters."""
    label: str
    group: str


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeReport:
    """What the judge said, how often it errs, and what came of it."""

    judge: str
    may: str
    asked: int
    answered: int
    objected: int
    sensitivity: Figure | None
    """Of truly wrong labels, drawn by chance: the share that it objects to; None where it saw none."""
    specificity: Figure | None
    """Of truly right labels, drawn by chance: the share that it lets be."""
    wrong: WrongShare
    groups: tuple[JudgedGroup, ...]
    dropped: int
    marked: tuple[Marked, ...]
    spent_usd: float

    @property
    def words(self) -> tuple[str, ...]:
        """What a reader should know, one sentence each."""
        did = f"{JUDGE_RULE} ({self.judge}) was asked about {self.asked:,} training rows, answered on {self.answered:,}"
        lines = [f"{did} and objects to {self.objected:,}; {self.dropped:,} are dropped, {len(self.marked):,} only marked"]
        caught = f"catches {_percent(self.sensitivity)} of the wrong labels"
        spared = f"lets {_percent(self.specificity)} of the right ones be"
        lines.append(f"its own error, on rows drawn by chance whose true label is known: it {caught} and {spared}")
        w = self.wrong
        if w.value is None:
            lines.append(f"how many labels are wrong can't be read from it: {w.why}")
        else:
            how = "corrected for its own error" if w.seen.n else "counted on known rows"
            n = f"n = {w.seen.n:,} judged and {w.n_known:,} known rows" if w.seen.n else f"n = {w.n_known:,}"
            lines.append(f"wrong labels, {how}: {w.value:.1%} ({w.low:.1%} to {w.high:.1%}, {n})")
        return (*lines, *(g.why for g in self.groups))


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """The rows after the judge, and the account of it."""

    labelled: Labelled
    report: JudgeReport


def docket(labelled: Labelled, reviewed: Labelled, features: Folder, recipe: DocketRecipe) -> Docket:
    """
    Choose the training rows that a judge is asked about; the label under judgement is the teacher's own.

    Half of the questions go to the rows most disputed or most suspicious, half to rows drawn by chance: some with a known
    true label, to measure the judge, and some without. Suspicion reads no true label.

    Args:
        labelled: the filter's result.
        reviewed: the same rows after reviews, for the true labels.
        features: of the training rows.
        recipe: how many.

    Returns: the docket.
    """
    train = labelled.train.examples
    n = min(recipe.most, math.ceil(recipe.share * len(train)))
    by_chance = math.ceil(CHANCE * n)
    truth = {e.request.id for e in reviewed.train.examples if _known(e)}
    drawn = sorted(range(len(train)), key=lambda i: _draw(train[i], recipe.seed))
    known = [i for i in drawn if train[i].request.id in truth]
    rest = [i for i in drawn if train[i].request.id not in truth]
    half = by_chance // 2
    n_rest = min(len(rest), max(half, by_chance - len(known)))
    known, fresh = known[: by_chance - n_rest], rest[:n_rest]
    suspicious = _suspicious(labelled, load_features(features))[: n - by_chance]
    places = sorted({*known, *fresh, *suspicious})
    rows = tuple(_row(train[i]) for i in places)
    return Docket(
        prompts=PromptSet(train=rows, calibration=(), test=(), funnel={}, match=(), distance=0.0, leaks={}),
        judged=tuple(train[i].target for i in places),
        suspicious=_ids(train, suspicious),
        known=_ids(train, known),
        fresh=_ids(train, fresh),
    )


def take_docket(found: Docket, recipe: TakeDocket) -> PromptSet:
    """The rows by themselves, so that the judge is asked nothing anew where only the reasons changed."""
    del recipe
    return found.prompts


def judge(reviewed: Labelled, found: Docket, answers: Answers, recipe: JudgeRecipe) -> Judged:
    """
    Measure the judge against known true labels, and drop what it objects to where that is shown to be mostly wrong.

    Suspicious rows and the others are measured apart: a judge that is good on plain rows may err on hard ones. Rows that a
    person decided, or that got another label since, are never dropped; calibration and sealed rows neither.

    Args:
        reviewed: the rows after reviews.
        found: what was asked.
        answers: the judge's.
        recipe: what it may do.

    Returns: the rows and the report.
    """
    said = {a.row.request.id: a.completions[0].value for a in answers.train if a.completions and a.completions[0].value}
    label = dict(zip((r.request.id for r in found.prompts.train), found.judged, strict=True))
    truth = {e.request.id: str(e.gold) for e in reviewed.train.examples if _known(e)}
    bad = {name for name, true in truth.items() if name in label and label[name] != true}
    objected = {name for name, word in said.items() if word == WRONG}
    chance = [name for name in found.known if name in truth and name in said]
    suspicious = set(found.suspicious)
    measured = {*found.known, *found.suspicious} & {*truth} & {*said}
    members = {SUSPICIOUS: suspicious & {*label}, USUAL: {*label} - suspicious}
    droppable = _droppable(reviewed, label, objected)
    groups = []
    for name in GROUPS:
        rows = members[name]
        groups.append(_group(name, rows, measured & rows, bad=bad, objected=objected, answered=len(rows & {*said})))
    trusted = {name for one in groups if one.trusted and recipe.may == "drop" for name in members[one.group]}
    dropped = _spared(reviewed, droppable & trusted)
    gone = {one.group: len(dropped & members[one.group]) for one in groups}
    groups = [replace(one, dropped=gone[one.group], why=_why(one, recipe.may, gone[one.group])) for one in groups]
    caught, blamed = [n for n in chance if n in bad], [n for n in chance if n not in bad]
    report = JudgeReport(
        judge=recipe.judge, may=recipe.may, asked=len(label), answered=len(said), objected=len(objected),
        sensitivity=_share([n in objected for n in caught], "sensitivity"),
        specificity=_share([n not in objected for n in blamed], "specificity"),
        wrong=_wrong_share([n in objected for n in found.fresh if n in said], [n in objected for n in caught], [n in objected for n in blamed]),
        groups=tuple(groups),
        dropped=len(dropped),
        marked=tuple(
            Marked(
                request_id=e.request.id, text=e.request.text[:200], label=label[e.request.id],
                group=SUSPICIOUS if e.request.id in suspicious else USUAL,
            )
            for e in reviewed.train.examples if e.request.id in objected - dropped
        ),
        spent_usd=answers.spent_usd,
    )  # fmt: skip
    return Judged(labelled=_without(reviewed, dropped), report=report)


def take_judged(judged: Judged, recipe: TakeDocket) -> Labelled:
    """The rows by themselves."""
    del recipe
    return judged.labelled


def _known(example: Example) -> bool:
    return example.gold is not None and example.gold_from in MEASURABLE


def _draw(example: Example, seed: int) -> str:
    return hashlib.sha256(f"judge {seed} {example.request.digest}".encode()).hexdigest()


def _ids(train: Sequence[Example], places: Sequence[int]) -> tuple[str, ...]:
    return tuple(train[i].request.id for i in sorted(places))


def _row(example: Example) -> PromptRow:
    fields = {**example.request.fields, JUDGED_LABEL: example.target}
    return PromptRow(request=replace(example.request, fields=fields), weight=1.0, group=example.request.id)


def _suspicious(labelled: Labelled, features: NDArray[np.float64]) -> list[int]:
    """Places of training rows: those on which the teacher's samples differ first, then by a model's doubt, out of fold."""
    train = labelled.train
    at = {label: i for i, label in enumerate(train.labels)}
    said = np.array([at[e.target] for e in train.examples], dtype=np.int64)
    x = np.hstack([features, np.ones((len(features), 1))])
    wanted = np.eye(len(at))[said]
    guess = np.zeros_like(wanted)
    fold = np.array([int(_draw(e, -1)[:8], 16) % FOLDS for e in train.examples])
    for one in range(FOLDS):
        inside = x[fold != one]
        square = inside.T @ inside + RIDGE * np.eye(x.shape[1])
        guess[fold == one] = x[fold == one] @ np.linalg.solve(square, inside.T @ wanted[fold != one])
    order = suspicion_rank(guess, said).tolist()
    return sorted(order, key=lambda i: train.examples[i].agreement >= 1.0)  # stable: suspicion decides within both


def _droppable(reviewed: Labelled, label: dict[str, str], objected: set[str]) -> set[str]:
    """Rows that still stand with the label that was judged, and that no person decided."""
    return {
        e.request.id
        for e in reviewed.train.examples
        if e.request.id in objected and e.target == label[e.request.id] and not e.label_from.startswith("review-")
    }


def _spared(reviewed: Labelled, gone: set[str]) -> set[str]:
    """Without the rows of labels that would have none left: nobody can learn a label that isn't there."""
    left = Counter(e.target for e in reviewed.train.examples if e.request.id not in gone)
    return {e.request.id for e in reviewed.train.examples if e.request.id in gone and left[e.target]}


def _share(hits: Sequence[bool], metric: str) -> Figure | None:
    return figure(sum(hits), len(hits), metric=metric) if hits else None


def _percent(one: Figure | None) -> str:
    if one is None or one.value is None:
        return "an unknown share (n = 0)"
    return f"{one.value:.0%} ({one.low:.0%} to {one.high:.0%}, n = {one.n:,})"


def _group(
    name: str, rows: set[str], measured: set[str], *, bad: set[str], objected: set[str], answered: int
) -> JudgedGroup:
    against, wrong = measured & objected, measured & bad
    good, n = len(against & bad), len(against)
    right = measured - bad
    d = DELTA / len(GROUPS) / 3  # three bounds a group
    bound = cp_lower(good, n, d)
    tells = cp_lower(good, len(wrong), d) > cp_upper(n - good, len(right), d)
    more: int | None = 0
    if bound <= HALF:
        more = _more(n - good, n, len(measured), d)
    elif not tells:  # as many again, where there is any difference to be shown
        more = len(measured) if not right or good * len(right) > (n - good) * len(wrong) else None
    return JudgedGroup(
        group=name, asked=len(rows), answered=answered, objected=len(rows & objected),
        precision=figure(good, n, metric="precision") if n else None,
        bound=bound, trusted=bound > HALF and tells, tells=tells, more=more, dropped=0, why="",
    )  # fmt: skip


def _more(false: int, n: int, measured: int, d: float) -> int | None:
    """Reviewed rows beyond those there are, if objections go on as they did; None where no number will do."""
    if measured and not n:
        return None  # it never objected to a row that was measured
    needed = rows_needed(HALF, expected_rate(false, n, HALF), d)
    if needed is None:
        return None
    rate = n / measured if measured else HALF  # nothing known yet: plan as if every other row were objected to
    return max(1, math.ceil((needed - n) / rate))


def _why(one: JudgedGroup, may: str, gone: int) -> str:
    where = f"{one.group} rows: {one.objected:,} objections of {one.asked:,} rows asked about"
    right = f"{_percent(one.precision)} of those with a known true label are right" if one.precision else "none has a known true label"
    said = f"{where}; {right}"
    if one.trusted:
        shown = f"most of what it objects to is truly wrong (at least {one.bound:.0%})"
        return f"{said}; {shown}: {gone:,} dropped" if may == "drop" else f'{said}; {shown}, and may = "mark" drops nothing'
    if one.bound > HALF and not one.tells:
        said = f"{said}; but it is not shown to object to wrong labels more often than to right ones"
    if one.more is None:
        return f"{said}; nothing is dropped, and no number of further reviews is likely to change that"
    return f"{said}; nothing is dropped: too few known rows to rely on it, about {one.more:,} more reviewed training rows of this kind would likely do"


def _wrong_share(fresh: Sequence[bool], caught: Sequence[bool], blamed: Sequence[bool]) -> WrongShare:
    seen = figure(sum(fresh), len(fresh), metric="objections")
    n_known = len(caught) + len(blamed)
    if not fresh and n_known:  # every row's truth is known: nothing has to be read through the judge
        plain = figure(len(caught), n_known, metric="wrong")
        return WrongShare(seen=seen, value=plain.value, low=plain.low, high=plain.high, n_known=n_known, method=f"counted, {plain.method}")
    if not (fresh and caught and blamed):
        why = "it takes rows without a known true label, and known rows of which some are right and some wrong"
        return WrongShare(seen=seen, value=None, low=0.0, high=1.0, n_known=n_known, why=why)
    counts = {"bad_caught": sum(caught), "bad": len(caught), "good_blamed": sum(blamed), "good": len(blamed)}
    try:
        ends = judged_failure_interval(sum(fresh), len(fresh), **counts)
    except MeasureError as error:
        return WrongShare(seen=seen, value=None, low=0.0, high=1.0, n_known=n_known, why=error.what)
    said, hit, miss = (sum(one) / len(one) for one in (fresh, caught, blamed))
    value = min(ends.high, max(ends.low, (said - miss) / (hit - miss)))
    return WrongShare(seen=seen, value=value, low=ends.low, high=ends.high, n_known=n_known)


def _without(reviewed: Labelled, gone: set[str]) -> Labelled:
    if not gone:
        return reviewed
    counts = Counter(reviewed.counts)
    counts[f"train: {KEPT}"] -= len(gone)
    counts[f"train: {JUDGE_RULE}: {REASON}"] += len(gone)
    out = [e for e in reviewed.train.examples if e.request.id in gone]
    dropped = tuple(
        Dropped(
            request=e.request, split="train", by=JUDGE_RULE, reason=REASON, text=e.target, target=e.target, gold=e.gold, weight=e.weight
        )
        for e in out
    )
    left = tuple(e for e in reviewed.train.examples if e.request.id not in gone)
    return replace(
        reviewed, train=replace(reviewed.train, examples=left), dropped=(*reviewed.dropped, *dropped),
        counts=dict(sorted(counts.items())),
    )  # fmt: skip


DOCKET = Step(name="docket", version=1, fn=docket)
TAKE_DOCKET = Step(name="take_docket", version=1, fn=take_docket)
JUDGE = Step(name="judge", version=1, fn=judge)
TAKE_JUDGED = Step(name="take_judged", version=1, fn=take_judged)
