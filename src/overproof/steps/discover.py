"""Mixed traffic to candidate tasks: what is asked over and over, what it costs, and whether it is worth distilling."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from overproof.data import BY_STUDENT, TrafficRecord
from overproof.evidence import Figure
from overproof.measure.contents import split_by_content
from overproof.measure.intervals import figure, rows_needed
from overproof.measure.leakage import clusters, jaccard, normalised
from overproof.steps.capture import instant
from overproof.steps.propose import propose, read_json
from overproof.task import normal_label

Kind = Literal["classes", "fields", "text"]
Worth = Literal["yes", "no", "unclear"]

SYSTEM = "system_prompt"
"""Attribute under which chat importers put the digest of the system prompt."""
OPENING_WORDS = 5
OPENING_SHARE = 0.02
SHORT_CHARS, SHORT_WORDS = 60, 6
STRAY_SHARE = 0.1
"""An answer shape of fewer rows than this is a stray of the same task, not a task."""
LEAST_ROWS = 30
CLOSED = 0.9
"""Share of later answers that must have been seen before, at the lower end of its interval."""
MOST_LABELS = 300
DAYS_PER_MONTH = 30.44
LEAST_DAYS = 1.0
NEAR_ROWS = 20_000
SHOWN = 5
LEAST_FRAME = 12
"""Characters that requests share before or after what varies, for them to be the task's frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DiscoverRecipe:
    """What is assumed about money and proof; all of it is shown beside the verdicts."""

    usd_per_million_in: float | None = None
    """Price of prompt tokens, for rows without a cost of their own."""
    usd_per_million_out: float | None = None
    """Price of answer tokens."""
    review_usd: float = 0.25
    """What it costs to have a person check one answer."""
    training_usd: float = 5.0
    """Compute and storage of the first student."""
    kept_share: float = 0.7
    """Share of requests that a student keeps; the others still go to the teacher."""
    months: float = 12.0
    """What pays back later than this isn't worth it."""
    alpha: float = 0.05
    """Bar on the error that has to be proven."""
    delta: float = 0.05
    """Chance that the proof is wrong."""
    judged_share: float = 0.1
    """Share of the rows that judge the bar: half of a test share of a fifth."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Payback:
    """What a student costs once, against what it saves each month."""

    labels: int
    """Answers that are missing and have to be bought: different requests needed less those answered already."""
    label_usd: float
    """Mean cost of one answer in the log."""
    reviews: int
    """Answers that a person checks: the rows that judge the bar."""
    review_usd: float
    """Of one."""
    training_usd: float
    """Once."""
    once_usd: float
    """labels x label_usd + reviews x review_usd + training_usd."""
    monthly_usd: float
    """What the task costs a month now."""
    kept_share: float
    """Part of it that a student saves."""
    months: float
    """once_usd / (monthly_usd x kept_share)."""

    def __str__(self) -> str:
        """The sum, for a person to check."""
        return (
            f"{self.labels} labels x {self.label_usd:.4f} + {self.reviews} reviews x {self.review_usd:.2f} + training {self.training_usd:.2f} "
            f"= {self.once_usd:.2f} USD, against {self.monthly_usd:.2f} USD a month x {self.kept_share:.0%} kept"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One job that the large model does, as the log shows it. Each share carries its n and interval."""

    name: str
    """task-1 has the most rows."""
    prompt: str
    """How its requests are told from others: "system prompt 3fa…", "opening …" or "no common prompt"."""
    system_prompt: str | None
    """Digest of the system prompt that its requests share."""
    frame: str | None
    """What its requests share about "{text}", the part that varies; None where that is nothing."""
    division: str
    """What a look at the content of the group found; empty where none was needed."""
    kind: Kind
    """What an answer is."""
    rows: int
    """Rows of the log."""
    share: float
    """Of all rows, in [0, 1]."""
    per_month: float | None
    """Requests; None where the rows span less than a day or carry no times."""
    usd_per_month: float | None
    """None where neither costs nor tokens and prices are known."""
    priced_rows: int
    """Rows that the money is measured on."""
    answered: int
    """Rows with a usable answer; the figures below are about them."""
    distinct: int
    """Different answers, case and punctuation folded."""
    closed: Figure
    """Share of the later half's answers that the earlier half had given: near 1 for a closed set."""
    entropy_bits: float
    """Of the answers, with Miller and Madow's correction; log2 of the number of equally frequent answers."""
    labels: tuple[tuple[str, int], ...]
    """The most frequent answers with their rows; all of them for kind "classes"; keys for "fields"."""
    repeated: Figure
    """Share of the later half's requests that are near-duplicates of earlier ones."""
    agreement: Figure
    """Share of exactly repeated requests that were answered as the first time: the teacher's agreement with itself."""
    rows_needed: int
    """Different requests with which the bar can be proven, if the student errs half as often as the bar admits."""
    payback: Payback | None
    """When labelling, review and training are paid, with the sum; None where the cost per month isn't known."""
    worth: Worth
    """Worth distilling, as far as the log can tell."""
    reasons: tuple[str, ...]
    """Why, one sentence each, those that decided first."""
    examples: tuple[str, ...]
    """A few requests."""
    row_ids: tuple[str, ...]
    """Its requests."""
    output: Mapping[str, Any] = field(default_factory=dict)
    """What `[task] output` may say; empty where it can't say these answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Discovery:
    """Every row of the log is in one candidate or in `left_over`."""

    candidates: tuple[Candidate, ...]
    """Most rows first."""
    rows: int
    """Rows read."""
    left_over: int
    """Rows of groups that are too small to say anything about."""


def discover(records: Sequence[TrafficRecord], recipe: DiscoverRecipe) -> Discovery:
    """
    Group a mixed log into candidate tasks and weigh each.

    Rows are told apart by system prompt, else by an opening that many requests share; then by the shape of the answer:
    short, long, JSON with the same keys; then by content, where short answers confirm it. A group that content doesn't
    divide clearly stays one candidate, which says so.

    Args:
        records: the log.
        recipe: prices and assumptions.

    Returns: candidates, and how many rows are in none.
    """
    rows = sorted(records, key=lambda r: instant(r.request.at))
    groups = [
        group
        for prompt, members in _by_prompt(rows).items()
        for shape, some in _by_shape(members).items()
        for group in _by_content(_Group(prompt=prompt, shape=shape, rows=some))
    ]
    large = sorted((g for g in groups if len(g.rows) >= LEAST_ROWS), key=lambda g: (-len(g.rows), g.prompt, g.shape))
    found = tuple(_candidate(f"task-{i}", group, total=len(rows), recipe=recipe) for i, group in enumerate(large, 1))
    return Discovery(candidates=found, rows=len(rows), left_over=len(rows) - sum(c.rows for c in found))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Group:
    """Rows of one job."""

    prompt: str
    """How they are told from others."""
    shape: str
    """Of their answers."""
    rows: Sequence[TrafficRecord]
    """Oldest first."""
    division: str = ""
    """What a look at the content found."""


def _by_content(group: _Group) -> Sequence[_Group]:
    several = group.shape.startswith("{") and ", " in group.shape  # keys tell tasks apart already
    if several or len(group.rows) < 2 * LEAST_ROWS:
        return [group]
    if group.shape in ("long", ""):
        return [replace(group, division="not divided by content: answers are free text, which confirms no division")]
    found = split_by_content([r.request.text for r in group.rows], [_folded(_answer(r)) if _answer(r) else "" for r in group.rows])
    if found.count == 1:
        return [replace(group, division=f"stays one: {found.why}")]
    return [
        _Group(
            prompt=f"{group.prompt}, content {part + 1} of {found.count}", shape=group.shape, division=found.why,
            rows=[r for r, p in zip(group.rows, found.index.tolist(), strict=True) if p == part],
        )
        for part in range(found.count)
    ]  # fmt: skip


def _by_prompt(rows: Sequence[TrafficRecord]) -> Mapping[str, list[TrafficRecord]]:
    bare = [r for r in rows if SYSTEM not in r.request.attributes]
    openings = Counter(_opening(r) for r in bare)
    least = max(LEAST_ROWS, OPENING_SHARE * len(bare))
    found: dict[str, list[TrafficRecord]] = {}
    for row in rows:
        system, opening = row.request.attributes.get(SYSTEM), _opening(row)
        name = f"opening {opening!r}" if openings[opening] >= least and opening else "no common prompt"
        found.setdefault(f"system prompt {system}" if system else name, []).append(row)
    return found


def _opening(row: TrafficRecord) -> str:
    words = row.request.text[:200].split()
    return " ".join(words[:OPENING_WORDS]) if len(words) > OPENING_WORDS else ""


def _by_shape(rows: Sequence[TrafficRecord]) -> Mapping[str, list[TrafficRecord]]:
    shapes = [_shape(_answer(r)) for r in rows]
    alike = _alike(Counter(s for s in shapes if s))
    shapes = [alike.get(s, "") for s in shapes]
    known = Counter(s for s in shapes if s)
    if not known:
        return {"": list(rows)}
    main = known.most_common(1)[0][0]
    found: dict[str, list[TrafficRecord]] = {}
    for row, shape in zip(rows, shapes, strict=True):
        stray = not shape or known[shape] < STRAY_SHARE * known.total()
        found.setdefault(main if stray else shape, []).append(row)
    return found


def _alike(counts: Counter[str]) -> Mapping[str, str]:
    """JSON answers that share half of their keys are of one task, some of whose keys may be absent."""
    main, found = list[str](), dict[str, str]()
    for shape, _ in sorted(counts.items(), key=lambda kv: (-kv[1], kv[0])):
        keys = frozenset(shape[1:-1].split(", ")) if shape.startswith("{") else frozenset({shape})
        found[shape] = next((m for m in main if jaccard(keys, frozenset(m[1:-1].split(", "))) >= 0.5 and m[0] == shape[0] == "{"), shape)
        if found[shape] == shape:
            main.append(shape)
    return found


def _answer(row: TrafficRecord) -> str:
    done = row.completion
    return done.text.strip() if done is not None and done.reason != BY_STUDENT and done.finish in ("stop", "unknown") else ""


def _shape(text: str) -> str:
    if not text:
        return ""
    if isinstance(value := _json(text), dict):
        return "{" + ", ".join(sorted(map(str, value))) + "}"
    return "short" if len(text) <= SHORT_CHARS and len(text.split()) <= SHORT_WORDS else "long"


def _json(text: str) -> object:
    return read_json(text) if text[:1] in ("{", "`") else None


def _folded(text: str) -> str:
    value = _json(text)
    if isinstance(value, dict):
        only = next(iter(value.values())) if len(value) == 1 else None
        return normal_label(only) if isinstance(only, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    return normal_label(text)


def _candidate(name: str, group: _Group, *, total: int, recipe: DiscoverRecipe) -> Candidate:
    rows = group.rows
    said = [(r, _folded(_answer(r))) for r in rows if _answer(r)]
    answers = [a for _, a in said]
    counts = Counter(answers)
    closed = _closed(answers)
    keys = _keys([_answer(r) for r, _ in said]) if group.shape.startswith("{") else []
    kind = _kind(group.shape, closed, len(counts), keys)
    shown = {a: _answer(r) for r, a in reversed(said)}
    labels = [(_spelling(shown[a]), n) for a, n in counts.most_common(MOST_LABELS if kind == "classes" else SHOWN)]
    per_month, (usd, priced) = _per_month(rows), _cost(rows, recipe)
    needed = math.ceil((rows_needed(recipe.alpha, recipe.alpha / 2, recipe.delta) or 0) / recipe.judged_share)
    monthly = None if per_month is None or usd is None else per_month * usd
    again = _agreement(said)
    there = len({normalised(r.request.text) for r, _ in said})  # a repeat proves nothing more
    payback = _payback(monthly, usd, there, needed, recipe)
    bounded = _bounded(kind, closed, [r for r, _ in said])
    worth, reasons = _worth(bounded, again, there=there, needed=needed, payback=payback, recipe=recipe)
    proposal = propose(kind, [_answer(r) for r, _ in said], [name for name, _ in labels])
    reasons = (*reasons, *([proposal.problem] if proposal.problem else []))
    return Candidate(
        name=name, prompt=group.prompt, system_prompt=rows[0].request.attributes.get(SYSTEM),
        frame=_frame([r.request.text for r in rows]), division=group.division, kind=kind, rows=len(rows), share=len(rows) / total,
        per_month=per_month, usd_per_month=monthly, priced_rows=priced, answered=len(said), distinct=len(counts), closed=closed,
        entropy_bits=_entropy(counts), labels=tuple(keys if kind == "fields" else labels),
        repeated=_repeated([r.request.text for r in rows]), agreement=again, rows_needed=needed,
        payback=payback, worth=worth, reasons=reasons,
        examples=tuple(r.request.text[:200] for r in rows[:: max(1, len(rows) // SHOWN)][:SHOWN]),
        row_ids=tuple(r.request.id for r in rows), output=proposal.output,
    )  # fmt: skip


def _closed(answers: Sequence[str]) -> Figure:
    half = len(answers) // 2
    before = set(answers[:half])
    return figure(sum(a in before for a in answers[half:]), len(answers) - half, metric="closed")


def _frame(texts: Sequence[str]) -> str | None:
    """What all requests begin and end with, cut at white space so that no shared letter of what varies is in it."""
    if len(set(texts)) < 2:
        return None
    start = re.match(r"(?s)(.*\s)?", _shared_start(texts))
    rest = [t[len(start[0]) if start else 0 :] for t in texts]
    end = re.search(r"(?s)(\s.*)?$", _shared_start([t[::-1] for t in rest])[::-1])
    before, after = start[0] if start else "", end[0] if end else ""
    if "{" in before + after or len(before) + len(after) < LEAST_FRAME:
        return None
    return f"{before}{{text}}{after}"


def _shared_start(texts: Sequence[str]) -> str:
    low, high = min(texts), max(texts)  # what the first and the last in order share, all share
    return low[: next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))]


def _spelling(text: str) -> str:
    value = _json(text)
    only = next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 else None
    return only if isinstance(only, str) else text[:SHORT_CHARS]


def _keys(answers: Sequence[str]) -> list[tuple[str, int]]:
    counts = Counter(str(k) for text in answers if isinstance(value := _json(text), dict) for k in value)
    return [(k, n) for k, n in counts.most_common() if n >= len(answers) / 2]


def _kind(shape: str, closed: Figure, distinct: int, keys: Sequence[object]) -> Kind:
    if 2 <= distinct <= MOST_LABELS and (closed.value or 0.0) >= CLOSED and (shape == "short" or len(keys) == 1):
        return "classes"
    return "fields" if keys else "text"


def _per_month(rows: Sequence[TrafficRecord]) -> float | None:
    times = [instant(r.request.at) for r in rows if r.request.at]
    days = (max(times) - min(times)).total_seconds() / 86_400 if times else 0.0
    return len(times) / days * DAYS_PER_MONTH if days >= LEAST_DAYS else None


def _cost(rows: Sequence[TrafficRecord], recipe: DiscoverRecipe) -> tuple[float | None, int]:
    """Mean US dollars of one answer, and the rows that it is measured on."""
    found = []
    low, high = recipe.usd_per_million_in, recipe.usd_per_million_out
    for done in (r.completion for r in rows if r.completion is not None and r.completion.reason != BY_STUDENT):
        if done.cost_usd is not None:
            found.append(done.cost_usd)
        elif None not in (low, high, done.tokens_in, done.tokens_out):
            assert low is not None and high is not None and done.tokens_in is not None and done.tokens_out is not None  # noqa: PT018
            found.append((done.tokens_in * low + done.tokens_out * high) / 1e6)
    return (sum(found) / len(found) if found else None), len(found)


def _entropy(counts: Counter[str]) -> float:
    n = counts.total()
    if not n:
        return 0.0
    plain = -sum(c / n * math.log2(c / n) for c in counts.values())
    return plain + (len(counts) - 1) / (2 * n * math.log(2))


def _repeated(texts: Sequence[str]) -> Figure:
    some = texts[:: max(1, math.ceil(len(texts) / NEAR_ROWS))]
    group = clusters(some).near.tolist()
    half = len(group) // 2
    before = set(group[:half])
    return figure(sum(g in before for g in group[half:]), len(group) - half, metric="repeated")


def _agreement(said: Sequence[tuple[TrafficRecord, str]]) -> Figure:
    first: dict[str, str] = {}
    same = n = 0
    for row, answer in said:
        text = normalised(row.request.text)
        if text in first:
            n += 1
            same += first[text] == answer
        else:
            first[text] = answer
    return figure(same, n, metric="agreement")


def _payback(monthly: float | None, usd: float | None, there: int, needed: int, recipe: DiscoverRecipe) -> Payback | None:
    """Answers of the log are labels already; what is missing is bought, and what judges the bar is reviewed."""
    if monthly is None or usd is None or monthly <= 0:
        return None
    labels, reviews = max(0, needed - there), math.ceil(needed * recipe.judged_share)
    once = labels * usd + reviews * recipe.review_usd + recipe.training_usd
    return Payback(
        labels=labels, label_usd=usd, reviews=reviews, review_usd=recipe.review_usd, training_usd=recipe.training_usd,
        once_usd=once, monthly_usd=monthly, kept_share=recipe.kept_share, months=once / (monthly * recipe.kept_share),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class _Finding:
    """One reason."""

    verdict: Worth
    """"yes" speaks for it, "no" against, "unclear" leaves it open."""
    text: str
    """A sentence."""


def _bounded(kind: Kind, closed: Figure, said: Sequence[TrafficRecord]) -> _Finding:
    if kind == "text":
        return _Finding(verdict="no", text=f"not bounded: {_words(closed)} of the later answers had been given before")
    if kind == "fields":
        known = _supported(said)
        what = f"in {_words(known)} of the later answers every value is in the request or had been given for its key before"
        return _Finding(verdict="yes", text=f"bounded by its keys: {what}") if known.low >= CLOSED else _Finding(
            verdict="unclear", text=f"the same keys, but whether values are bounded isn't shown: only {what}"
        )  # fmt: skip
    text = f"{_words(closed)} of the later answers had been given before"
    if closed.low >= CLOSED:
        return _Finding(verdict="yes", text=f"bounded: {text}")
    return _Finding(verdict="unclear", text=f"whether the set of answers is closed isn't shown: {text}")


def _supported(said: Sequence[TrafficRecord]) -> Figure:
    """Share of the later half's JSON answers of which each value is in the request, or was its key's value before."""
    half, before = len(said) // 2, set[tuple[str, str]]()
    fine = 0
    for i, row in enumerate(said):
        value = _json(_answer(row))
        pairs = {(k, normalised(str(v))) for k, v in value.items()} if isinstance(value, dict) else set()
        if i >= half:
            text = normalised(row.request.text)
            fine += bool(pairs) and all(pair in before or pair[1] in text for pair in pairs)
        else:
            before |= pairs
    return figure(fine, len(said) - half, metric="supported")


def _worth(
    bounded: _Finding, again: Figure, *, there: int, needed: int, payback: Payback | None, recipe: DiscoverRecipe
) -> tuple[Worth, tuple[str, ...]]:
    found = [bounded]
    if there < needed:
        text = f"{there} different answered requests; about {needed} are needed to prove an error of at most {recipe.alpha:.0%} at delta {recipe.delta:g}"
        found.append(_Finding(verdict="unclear", text=text))
    else:
        found.append(_Finding(verdict="yes", text=f"{there} different answered requests, about {needed} needed"))
    if again.n and again.high < 1 - recipe.alpha:
        text = f"the teacher disagrees with itself: only {_words(again)} of repeated requests got the first answer again"
        found.append(_Finding(verdict="no", text=text))
    elif again.n and again.low >= 1 - 2 * recipe.alpha:
        found.append(_Finding(verdict="yes", text=f"{_words(again)} of repeated requests got the first answer again"))
    else:
        seen = f"only {again.n} repeated requests" if again.n == 0 else f"{_words(again)} of repeated requests got the first answer again"
        text = f"how often the teacher agrees with itself isn't measured well enough: {seen}; ask it some requests twice"
        found.append(_Finding(verdict="unclear", text=text))
    if payback is None:
        found.append(_Finding(verdict="unclear", text="no cost per month: costs or prices, and times, are missing"))
    elif payback.months > recipe.months:
        text = f"pays back after {payback.months:.0f} months, {recipe.months:.0f} is the limit: {payback}"
        found.append(_Finding(verdict="no", text=text))
    else:
        found.append(_Finding(verdict="yes", text=f"pays back after {payback.months:.1f} months: {payback}"))
    order: tuple[Worth, ...] = ("no", "unclear", "yes")
    found.sort(key=lambda one: order.index(one.verdict))
    return found[0].verdict, tuple(one.text for one in found)


def _words(one: Figure) -> str:
    return f"{one.value or 0.0:.1%} (n = {one.n}, {one.level:.0%} {one.low:.1%} to {one.high:.1%})"


def redacted(found: Discovery, redact: Callable[[str], str]) -> Discovery:
    """
    The same with what may quote a row redacted: openings, answers, examples.

    Args:
        found: from `discover`.
        redact: replaces personal data.

    Returns: what may be shown.
    """
    return replace(
        found,
        candidates=tuple(
            replace(c, prompt=redact(c.prompt), frame=None if c.frame is None else redact(c.frame), labels=tuple((redact(k), n) for k, n in c.labels), examples=tuple(map(redact, c.examples)), output=_redacted(c.output, redact))
            for c in found.candidates
        ),
    )


def _redacted(value: Any, redact: Callable[[str], str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _redacted(one, redact) for key, one in value.items()}
    return [redact(one) for one in value] if isinstance(value, list) else value
