"""Mixed traffic to candidate tasks: what is asked over and over, what it costs, and whether it is worth distilling."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from overproof.data import TrafficRecord
from overproof.evidence import Figure
from overproof.measure.intervals import figure, rows_needed
from overproof.measure.leakage import clusters, normalised
from overproof.steps.capture import instant
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
class Candidate:
    """One job that the large model does, as the log shows it. Each share carries its n and interval."""

    name: str
    """task-1 has the most rows."""
    prompt: str
    """How its requests are told from others: "system prompt 3fa…", "opening …" or "no common prompt"."""
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
    pays_back_months: float | None
    """Months until labelling, review and training are paid; None where the cost per month isn't known."""
    worth: Worth
    """Worth distilling, as far as the log can tell."""
    reasons: tuple[str, ...]
    """Why, one sentence each, those that decided first."""
    examples: tuple[str, ...]
    """A few requests."""
    row_ids: tuple[str, ...]
    """Its requests."""


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

    Rows are told apart by system prompt, else by an opening that many requests share, then by the shape of the answer:
    JSON, short, long. Two tasks with neither prompt nor shape to tell them apart stay one candidate.

    Args:
        records: the log.
        recipe: prices and assumptions.

    Returns: candidates, and how many rows are in none.
    """
    rows = sorted(records, key=lambda r: instant(r.request.at))
    groups: dict[tuple[str, str], list[TrafficRecord]] = {}
    for prompt, members in _by_prompt(rows).items():
        for shape, some in _by_shape(members).items():
            groups.setdefault((prompt, shape), []).extend(some)
    large = sorted(((k, v) for k, v in groups.items() if len(v) >= LEAST_ROWS), key=lambda kv: (-len(kv[1]), kv[0]))
    found = tuple(
        _candidate(f"task-{i}", prompt, shape, rows=members, total=len(rows), recipe=recipe)
        for i, ((prompt, shape), members) in enumerate(large, 1)
    )
    return Discovery(candidates=found, rows=len(rows), left_over=len(rows) - sum(c.rows for c in found))


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
    known = Counter(s for s in shapes if s)
    if not known:
        return {"": list(rows)}
    main = known.most_common(1)[0][0]
    found: dict[str, list[TrafficRecord]] = {}
    for row, shape in zip(rows, shapes, strict=True):
        stray = not shape or known[shape] < STRAY_SHARE * known.total()
        found.setdefault(main if stray else shape, []).append(row)
    return found


def _answer(row: TrafficRecord) -> str:
    done = row.completion
    return done.text.strip() if done is not None and done.finish in ("stop", "unknown") else ""


def _shape(text: str) -> str:
    if not text:
        return ""
    if isinstance(_json(text), dict):
        return "json"
    return "short" if len(text) <= SHORT_CHARS and len(text.split()) <= SHORT_WORDS else "long"


def _json(text: str) -> object:
    bare = re.sub(r"^```(?:json)?\s*|\s*```$", "", text)
    try:
        return json.loads(bare) if bare[:1] == "{" else None
    except (ValueError, RecursionError):
        return None


def _folded(text: str) -> str:
    value = _json(text)
    if isinstance(value, dict):
        only = next(iter(value.values())) if len(value) == 1 else None
        return normal_label(only) if isinstance(only, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    return normal_label(text)


def _candidate(
    name: str, prompt: str, shape: str, *, rows: Sequence[TrafficRecord], total: int, recipe: DiscoverRecipe
) -> Candidate:
    said = [(r, _folded(_answer(r))) for r in rows if _answer(r)]
    answers = [a for _, a in said]
    counts, half = Counter(answers), len(answers) // 2
    before = set(answers[:half])
    closed = figure(sum(a in before for a in answers[half:]), len(answers) - half, metric="closed")
    keys = _keys([_answer(r) for r, _ in said]) if shape == "json" else []
    kind = _kind(shape, closed, len(counts), keys)
    shown = {a: _answer(r) for r, a in reversed(said)}
    labels = [(_spelling(shown[a]), n) for a, n in counts.most_common(MOST_LABELS if kind == "classes" else SHOWN)]
    per_month, (usd, priced) = _per_month(rows), _cost(rows, recipe)
    needed = math.ceil((rows_needed(recipe.alpha, recipe.alpha / 2, recipe.delta) or 0) / recipe.judged_share)
    monthly = None if per_month is None or usd is None else per_month * usd
    again = _agreement(said)
    there = len({normalised(r.request.text) for r, _ in said})  # a repeat proves nothing more
    months = _payback(monthly, usd, there, needed, recipe)
    worth, reasons = _worth(kind, closed, again, there=there, needed=needed, months=months, recipe=recipe)
    return Candidate(
        name=name, prompt=prompt, kind=kind, rows=len(rows), share=len(rows) / total, per_month=per_month,
        usd_per_month=monthly, priced_rows=priced, answered=len(said), distinct=len(counts), closed=closed,
        entropy_bits=_entropy(counts), labels=tuple(keys if kind == "fields" else labels),
        repeated=_repeated([r.request.text for r in rows]), agreement=again, rows_needed=needed,
        pays_back_months=months, worth=worth, reasons=reasons,
        examples=tuple(r.request.text[:200] for r in rows[:: max(1, len(rows) // SHOWN)][:SHOWN]),
        row_ids=tuple(r.request.id for r in rows),
    )  # fmt: skip


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
    return "fields" if shape == "json" and keys else "text"


def _per_month(rows: Sequence[TrafficRecord]) -> float | None:
    times = [instant(r.request.at) for r in rows if r.request.at]
    days = (max(times) - min(times)).total_seconds() / 86_400 if times else 0.0
    return len(times) / days * DAYS_PER_MONTH if days >= LEAST_DAYS else None


def _cost(rows: Sequence[TrafficRecord], recipe: DiscoverRecipe) -> tuple[float | None, int]:
    """Mean US dollars of one answer, and the rows that it is measured on."""
    found = []
    low, high = recipe.usd_per_million_in, recipe.usd_per_million_out
    for done in (r.completion for r in rows if r.completion is not None):
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


def _payback(monthly: float | None, usd: float | None, there: int, needed: int, recipe: DiscoverRecipe) -> float | None:
    """Answers of the log are labels already; what is missing is bought, and what judges the bar is reviewed."""
    if monthly is None or usd is None or monthly <= 0:
        return None
    judged = needed * recipe.judged_share
    once = max(0, needed - there) * usd + judged * recipe.review_usd + recipe.training_usd
    return once / (monthly * recipe.kept_share)


def _worth(
    kind: Kind, closed: Figure, again: Figure, *, there: int, needed: int, months: float | None, recipe: DiscoverRecipe
) -> tuple[Worth, tuple[str, ...]]:
    against, open_questions, good = list[str](), list[str](), list[str]()
    if kind == "text":
        against.append(f"not bounded: {_words(closed)} of the later answers had been given before")
    elif kind == "fields":
        open_questions.append("answers are fields, bounded by their keys and not by a set: whether a student copies them is for a pilot")
    elif closed.low >= CLOSED:
        good.append(f"bounded: {_words(closed)} of the later answers had been given before")
    else:
        open_questions.append(f"whether the set of answers is closed isn't shown: {_words(closed)} had been given before")
    if there < needed:
        text = f"{there} different answered requests; about {needed} are needed to prove an error of at most {recipe.alpha:.0%} at delta {recipe.delta:g}"
        open_questions.append(text)
    else:
        good.append(f"{there} different answered requests, about {needed} needed")
    if again.n and again.high < 1 - recipe.alpha:
        against.append(f"the teacher disagrees with itself: only {_words(again)} of repeated requests got the first answer again")
    elif again.n and again.low >= 1 - 2 * recipe.alpha:
        good.append(f"{_words(again)} of repeated requests got the first answer again")
    else:
        open_questions.append(f"too few repeated requests ({again.n}) to say how often the teacher agrees with itself")
    if months is None:
        open_questions.append("no cost per month: costs or prices, and times, are missing")
    elif months > recipe.months:
        against.append(f"pays back after {months:.0f} months; {recipe.months:.0f} is the limit")
    else:
        good.append(f"pays back after {months:.1f} months")
    silent = [q for q in open_questions if not q.startswith("too few repeated")]  # said, but decides nothing alone
    worth: Worth = "no" if against else "unclear" if silent else "yes"
    return worth, (*against, *open_questions, *good)


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
            replace(c, prompt=redact(c.prompt), labels=tuple((redact(k), n) for k, n in c.labels), examples=tuple(map(redact, c.examples)))
            for c in found.candidates
        ),
    )
