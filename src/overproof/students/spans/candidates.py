"""What a page offers as an answer: spans of words, numbers, dates and counts of days, with what can be seen of each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from overproof.outputs import Field, Fields
from overproof.students.normalise import normalise
from overproof.students.spans.pages import Page
from overproof.students.spans.values import Spelled, dates_in, later, numbers_in, plain

Kind = Literal["text", "number", "date", "days"]
KINDS: tuple[Kind, ...] = ("text", "number", "date", "days")
SEEN = 16
"""Numbers that are seen of a candidate."""
MOST_ADDED = 64  # numbers of a text whose sums are looked for
MOST_NAMED = 200
MOST_DAYS = 400  # a count of days between two dates of one document
_SEGMENT = re.compile(r"(?:[^ \n]| (?! ))+")
_WORD = re.compile(r"\S+")
_CODE = re.compile(r"[^\W\d_]{3}\b")
_HINTS = (("dmy", re.compile(r"\b(?:DD|dd|TT|JJ)[-/.](?:MM|mm)\b")), ("mdy", re.compile(r"\b(?:MM|mm)[-/.](?:DD|dd)\b")))


@dataclass(frozen=True, kw_only=True, slots=True)
class Role:
    """Something that a candidate can be."""

    field: str
    """The field that it answers."""
    kind: Kind
    after: str = ""
    """For "days": the date field that the days are counted from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """The candidates of one kind on one page."""

    start: NDArray[np.int64]
    """Shape (k,), first token."""
    end: NDArray[np.int64]
    """Shape (k,), last token."""
    seen: NDArray[np.float32]
    """Shape (k, SEEN)."""
    values: tuple[str, ...]
    """Answer in canonical form, for "days" the count."""


Tables = Mapping[Kind, Table]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Which roles there are, in the order of the head's columns."""

    output: Fields
    roles: tuple[Role, ...]
    """Direct ones in the order of the fields, then those that count days."""
    words: int
    """Most words in a text span."""
    named: tuple[tuple[str, str], ...] = ()
    """Text field and value: values that come up again and again where the text has them in other words, or not at all."""

    @property
    def closed(self) -> tuple[tuple[str, str], ...]:
        """Field and value of every column that is read from all tokens together: choices, then named values."""
        return tuple((field.name, value) for field in self.output.fields if field.type == "choice" for value in field.values) + self.named

    def values_of(self, name: str) -> dict[str, int]:
        """
        What a field can be without standing in the text.

        Args:
            name: of the field.

        Returns: value to column of the head.
        """
        first = 3 * len(self.roles) + len(self.output.fields)
        return {value: first + at for at, (field, value) in enumerate(self.closed) if field == name}

    @property
    def columns(self) -> int:
        """Columns of the head: start, end and mean of each role, "not given" of each field, and the choices."""
        return 3 * len(self.roles) + len(self.output.fields) + len(self.closed)

    def of(self, kind: Kind) -> list[int]:
        """
        Roles of one kind.

        Args:
            kind: any.

        Returns: their places in `roles`.
        """
        return [at for at, role in enumerate(self.roles) if role.kind == kind]


def direct_roles(output: Fields) -> tuple[Role, ...]:
    """
    The roles of fields whose values stand in the text.

    Args:
        output: the fields.

    Returns: one for each field that is no choice.
    """
    return tuple(Role(field=field.name, kind=field.type) for field in output.fields if field.type != "choice")


def tables_of(page: Page, *, words: int) -> dict[Kind, Table]:
    """
    All candidates of a page.

    Args:
        page: the page.
        words: most words in a text span.

    Returns: a table for each kind, possibly empty.
    """
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for at, (a, b) in enumerate(zip(page.starts.tolist(), page.ends.tolist(), strict=True)):
        for c in range(a, b):  # a candidate may begin or end inside a token: "30days"
            first[c] = last[c + 1] = at
    numbers, dates = list(numbers_in(page.text)), list(dates_in(page.text))
    in_date = {c for date in dates for c in range(date.start, date.end)}
    free = [one for one in numbers if one.start not in in_date]
    days = [one for one in free if one.value.isdigit() and len(one.value) < 4 and int(one.value) <= MOST_DAYS]
    lines = _Lines(page)
    return {
        "text": _spans(lines, first, last, words),
        "number": _typed(lines, numbers, first, last, "number"),
        "date": _typed(lines, dates, first, last, "date"),
        "days": _typed(lines, days, first, last, "number"),
    }


class _Lines:
    """Where a page's columns begin and end, and which lines are quoted."""

    def __init__(self, page: Page) -> None:
        self.text = page.text
        self.segments = [found.span() for found in _SEGMENT.finditer(page.text)]
        self.starts = {a for a, _ in self.segments}
        self.ends = {b for _, b in self.segments}
        self.quoted = np.zeros(len(page.text) + 1, dtype=bool)
        for found in re.finditer(r"^>.*$", page.text, re.MULTILINE):
            self.quoted[found.start() : found.end() + 1] = True

    def place(self, start: int, end: int) -> list[float]:
        """Where in the text, whether quoted, whether it opens or closes its column."""
        return [start / max(1, len(self.text)), float(self.quoted[start]), float(start in self.starts), float(end in self.ends)]


def _table(rows: Sequence[tuple[int, int, str, list[float]]]) -> Table:
    count = Counter(value.casefold() for _, _, value, _ in rows)
    seen = np.zeros((len(rows), SEEN), dtype=np.float32)
    for at, (_, _, value, features) in enumerate(rows):
        seen[at, 0] = np.log(count[value.casefold()])
        seen[at, 1 : 1 + len(features)] = features
    return Table(
        start=np.array([row[0] for row in rows], dtype=np.int64), end=np.array([row[1] for row in rows], dtype=np.int64),
        seen=seen, values=tuple(row[2] for row in rows),
    )  # fmt: skip


def _spans(lines: _Lines, first: Mapping[int, int], last: Mapping[int, int], words: int) -> Table:
    rows = []
    for a, b in lines.segments:
        bounds = [_bounds(lines.text, a + w.start(), a + w.end()) for w in _WORD.finditer(lines.text[a:b])]
        for at, (starts, _) in enumerate(bounds):
            for start in starts:
                for width in range(1, min(words, len(bounds) - at) + 1):
                    for end in bounds[at + width - 1][1]:
                        if end > start and start in first and end in last:
                            value = lines.text[start:end]
                            rows.append((first[start], last[end], value, [*lines.place(start, end), *_look(value, width)]))
    return _table(rows)


def _bounds(text: str, start: int, end: int) -> tuple[list[int], list[int]]:
    """Where a span may begin and end in a word: without punctuation around it, and at marks like ":" inside it."""
    while start < end and not text[start].isalnum():
        start += 1
    core = end
    while core > start and not text[core - 1].isalnum():
        core -= 1
    starts, ends = [start], [core]
    if core < end and text[core] == ".":
        ends.append(core + 1)  # "S.A." keeps its full stop, the end of a sentence doesn't
    for at in range(start + 1, core - 1):
        if text[at] in ":=#,;|(":
            starts.append(at + 1)
            ends.append(at)
    return starts, ends


def _look(value: str, width: int) -> list[float]:
    letters, digits = any(c.isalpha() for c in value), any(c.isdigit() for c in value)
    parts = value.split()
    return [
        np.log(width), float(letters and digits), float(digits and not letters), float(letters and value == value.upper()),
        float(value[0].isupper()), float(all(not part[0].islower() for part in parts)), float(value.endswith(".")),
        min(len(value), 40) / 40, float(parts[-1].isupper() and len(parts) > 1), float(any(c in "-/" for c in value)),
    ]  # fmt: skip


def _typed(lines: _Lines, found: Sequence[Spelled], first: Mapping[int, int], last: Mapping[int, int], kind: Kind) -> Table:
    found = [one for one in found if one.start in first and one.end in last]
    votes: Counter[str] = Counter({one.mark: 0 for one in found})
    for _, _, mark in {(one.start, one.end, one.mark) for one in found if one.sure and one.mark}:
        votes[mark] += 1
    for mark, hint in _HINTS if kind == "date" else ():
        votes[mark] += 100 * bool(hint.search(lines.text))
    order = sorted({one.value if kind == "date" else float(one.value) for one in found})
    rank = {value: at / max(1, len(order) - 1) for at, value in enumerate(order)}
    sums = _sums({one.value for one in found if lines.text[one.start : one.end][-3:-2] in (".", ",")})
    rows = []
    for one in found:
        other = sum(n for mark, n in votes.items() if mark not in (one.mark, ""))
        ours = votes[one.mark] if one.mark else 0
        near = (lines.text[max(0, one.start - 4) : one.start], lines.text[one.end : one.end + 4])
        # what goes for it and against it among the readings that leave no choice, and what stands beside it
        features = [
            *lines.place(one.start, one.end), float(ours > other), float(other > ours), float(not one.sure),
            float(one.mark in (",", "mdy")), rank[one.value if kind == "date" else float(one.value)],
        ]  # fmt: skip
        if kind == "date":
            slashed = lines.text[one.start : one.end].count("/") == 2 and one.mark == "mdy"
            features += [float(slashed), float(bool(re.match(r",? \d?\d:\d", near[1])))]
        else:
            features += [*_beside(one, near, lines.text), float(one.value in sums[0]), float(one.value in sums[1])]
        rows.append((first[one.start], last[one.end], one.value, features))
    return _table(rows)


def _sums(values: set[str]) -> tuple[set[str], set[str]]:
    """Which numbers are the sum of two others of the text, and which are added to one, of amounts with two decimals: totals show by it whatever they are called."""
    whole = {Decimal(value): value for value in values}
    amounts = sorted(whole.items())[-MOST_ADDED:]
    pairs = [(a, b, whole[x + y]) for at, (x, a) in enumerate(amounts) if x > 0 for y, b in amounts[at + 1 :] if x + y in whole]
    return {total for _, _, total in pairs}, {part for a, b, _ in pairs for part in (a, b)}


def _beside(one: Spelled, near: tuple[str, str], text: str) -> list[float]:
    before, after = near[0].rstrip(), near[1].lstrip()
    money = any(c in "€$£¥₹" for c in before[-1:] + after[:1]) or bool(_CODE.search(before[-3:]) or _CODE.match(after))
    spelled = text[one.start : one.end]
    return [float(money), float(after[:1] == "%"), float(len(spelled) > 3 and spelled[-3] in ".,"), float(before[-1:] in "-/#" and bool(before))]


def target_of(field: Field, value: Any) -> str | None:
    """
    A canonical value as candidates are compared with it.

    Args:
        field: whose value.
        value: as `Fields.values` gives it.

    Returns: a text, None for a null.
    """
    if value is None:
        return None
    return plain(value) if field.type == "number" else str(value) if field.type == "date" else same_text(str(value))


def same_text(text: str) -> str:
    """
    A text as the output kind compares it: one case, one width, single spaces.

    Args:
        text: any.

    Returns: the folded text.
    """
    return " ".join(normalise(text).casefold().split())


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """What a page's answer looks like in its candidates."""

    right: Mapping[Kind, NDArray[np.bool_]]
    """For each kind shape (k, roles of the kind): the candidates that say the target."""
    none: NDArray[np.bool_]
    """Shape (fields,), True where "not given" is the target."""
    choice: NDArray[np.int64]
    """Shape (fields,), place of the target in `Plan.values_of`; -1 where it is null or not among them."""
    counts: NDArray[np.bool_]
    """Shape (fields,), False where the page doesn't offer the target: nothing can be learned there."""


def goal_of(tables: Tables, values: Mapping[str, Any], plan: Plan) -> Goal:
    """
    Find a record among a page's candidates.

    Args:
        tables: of the page.
        values: as `Fields.values` gives them.
        plan: the roles.

    Returns: every candidate that says the same as the record.
    """
    fields = {field.name: field for field in plan.output.fields}
    target = {name: target_of(field, values.get(name)) for name, field in fields.items()}
    right: dict[Kind, NDArray[np.bool_]] = {}
    offered = {name: goal is None for name, goal in target.items()}
    for kind in KINDS:
        offers = [same_text(value) for value in tables[kind].values] if kind == "text" else list(tables[kind].values)
        places = plan.of(kind)
        right[kind] = np.zeros((len(offers), len(places)), dtype=bool)
        for column, place in enumerate(places):
            role = plan.roles[place]
            goal, base = target[role.field], target.get(role.after)
            if goal is None or (kind == "days" and base is None):
                continue
            said = [later(str(base), int(one)) for one in offers] if kind == "days" else offers
            right[kind][:, column] = [one == goal for one in said]
            offered[role.field] |= bool(right[kind][:, column].any())
    choice = np.full(len(fields), -1, dtype=np.int64)
    for at, name in enumerate(fields):
        known = list(plan.values_of(name))
        if values.get(name) in known:
            choice[at] = known.index(values[name])
            offered[name] = True
    return Goal(
        right=right, none=np.array([goal is None for goal in target.values()]), choice=choice,
        counts=np.array([offered[name] for name in fields]),
    )  # fmt: skip


def plan_of(output: Fields, pages: Sequence[Page], records: Sequence[Mapping[str, Any]]) -> Plan:
    """
    Learn from training rows how long texts are, which are named otherwise than they are written, and which dates count from which.

    Args:
        output: the fields.
        pages: the rows' pages.
        records: their targets.

    Returns: the plan; a date is derived from another where at least five rows and one in two hundred say it in no
        other way, and a text is named where as many rows have it that don't write it.
    """
    texts = [str(record[f.name]) for record in records for f in output.fields if f.type == "text" and record.get(f.name) is not None]
    words = min(24, 1 + max((len(text.split()) for text in texts), default=1))
    dates = [field.name for field in output.fields if field.type == "date"]
    pairs = [(f, g) for f in dates for g in dates if f != g]
    support: Counter[tuple[str, str]] = Counter()
    for page, record in zip(pages, records, strict=True) if pairs else ():
        said = {one.value for one in dates_in(page.text)}
        days = {int(one.value) for one in numbers_in(page.text) if one.value.isdigit() and len(one.value) < 4}
        for f, g in pairs:
            if record.get(f) is not None and record.get(g) in said and record[f] not in said:
                support[f, g] += any(later(record[g], n) == record[f] for n in days if n <= MOST_DAYS)
    least = max(5, len(pages) // 200)
    absent: Counter[tuple[str, str]] = Counter()
    for page, record in zip(pages, records, strict=True):
        whole = same_text(page.text)
        absent.update((f.name, record[f.name]) for f in output.fields if f.type == "text" and record.get(f.name) is not None and same_text(record[f.name]) not in whole)
    named = tuple(sorted(pair for pair, n in absent.most_common(MOST_NAMED) if n >= least))
    derived = tuple(Role(field=f, kind="days", after=g) for (f, g) in pairs if support[f, g] >= least)
    return Plan(output=output, roles=(*direct_roles(output), *derived), words=words, named=named)
