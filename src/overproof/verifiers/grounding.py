"""Is what an answer says in the input? Values that nobody can find there are counted as hallucinations."""

from __future__ import annotations

import itertools
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal

from overproof.data import Completion, Judgement, Request
from overproof.errors import DataError
from overproof.task import Classes, Fields, Output
from overproof.verifiers.rules import KEEP

How = Literal["absent", "text", "number", "date", "derived", "code", "unsupported"]
MONTHS = (
    ("january", "januar", "janvier", "enero", "jan", "janv", "ene"),
    ("february", "februar", "février", "febrero", "feb", "févr"),
    ("march", "märz", "mars", "marzo", "mar", "mär"),
    ("april", "avril", "abril", "apr", "avr", "abr"),
    ("may", "mai", "mayo"),
    ("june", "juni", "juin", "junio", "jun"),
    ("july", "juli", "juillet", "julio", "jul", "juil"),
    ("august", "août", "agosto", "aug", "ago"),
    ("september", "septembre", "septiembre", "sep", "sept"),
    ("october", "oktober", "octobre", "octubre", "oct", "okt"),
    ("november", "novembre", "noviembre", "nov"),
    ("december", "dezember", "décembre", "diciembre", "dec", "dez", "déc", "dic"),
)
MONTH_OF = {word: number for number, words in enumerate(MONTHS, 1) for word in words}
SYMBOLS = {"EUR": ("€", "euro"), "USD": ("$", "dollar"), "GBP": ("£", "pound", "sterling"), "CHF": ("fr.", "sfr", "franken", "franc"),
           "PLN": ("zł", "zl", "zloty"), "JPY": ("¥", "yen"), "INR": ("₹", "rupee"), "SEK": ("kr",), "NOK": ("kr",), "DKK": ("kr",)}  # fmt: skip
_NUMBER = re.compile(r"(?<![\w.,])[-+]?\d(?:[\d.,'’\u00a0\u202f ]*\d)?(?!\d)")
_NUMERIC_DATE = re.compile(r"(?<!\d)(\d{1,4})[-./](\d{1,2})[-./](\d{2,4})(?!\d)")
_WORD_DATE = re.compile(r"(?<!\d)(\d{1,2})(?:st|nd|rd|th|er)?\.?(?: de| of)?[ /-]([^\W\d_]{3,10})\.?,?(?: de| of)?[ /-](\d{4})")
_DATE_WORD = re.compile(r"([^\W\d_]{3,10})\.? (\d{1,2})(?:st|nd|rd|th)?,? (\d{4})")
_DAYS = re.compile(r"(?<!\d)(\d{1,3})[ -]?(?:calendar |business |kalender)?(?:days?|tage|tagen|jours?|días?|dni)\b|\bnet[ -]?(\d{1,3})\b")
_CODE = re.compile(r"(?=[\w/-]*\d)[\w][\w/-]{3,}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Support:
    """One value of an answer, and where the input has it."""

    field: str
    """Path of the value, for example "lines.2.amount"; empty for a free text."""
    value: str
    how: How
    """"absent": nothing is claimed; "derived": a date of the input plus days that it names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Input:
    """An input, read once for all values."""

    words: str
    """NFKC, lower case, white space as one blank."""
    bare: str
    """`words` without anything but letters and digits."""
    numbers: frozenset[float]
    dates: frozenset[date]


def supports(answer: Any, text: str, *, fields: Sequence[str] = ()) -> tuple[Support, ...]:
    """
    Look for each value of an answer in the input.

    Args:
        answer: what JSON can say, or a free text: of that, its numbers, dates and codes are looked for.
        text: the input.
        fields: top-level fields to check; all where empty.

    Returns: one entry for each value. Truth values and nulls claim nothing that a text could hold, and are "absent".
    """
    read = _read(text)
    if isinstance(answer, str):
        return tuple(Support(field="", value=claim, how=_how(claim, read)) for claim in _claims(answer))
    if isinstance(answer, Mapping) and fields:
        answer = {k: v for k, v in answer.items() if k in fields}
    return tuple(Support(field=path, value=str(value), how=_how(value, read)) for path, value in _leaves(answer, ""))


class Grounding:
    """
    Keeps rows whose answer says nothing that the input doesn't: fields of a JSON answer, or figures and codes of a text.

    Args:
        output: what an answer is.
        fields: fields to check; all where not given, of a record all but the choices.
        derived: whether a date may be one of the input's plus a number of days that it names.

    Raises: DataError for field names that are no list of texts.
    """

    def __init__(self, *, output: Output, fields: Sequence[str] = (), derived: bool = True) -> None:
        if isinstance(fields, str) or not all(isinstance(f, str) for f in fields):
            raise DataError(f"grounding.v1: fields = {fields!r}", next_action='write a list such as ["total", "due_date"]')
        # a choice is a judgement as a label is: it need not stand in the text
        verbatim = [one.name for one in output.fields if one.type != "choice"] if isinstance(output, Fields) else []
        if isinstance(output, Fields) and not (fields or verbatim):
            raise DataError("grounding.v1: every field is a choice, which no text has to state", next_action="name the fields that must stand in the text, or take the rule out")
        self._fields = tuple(fields or verbatim)
        self._canonical = not isinstance(output, Classes)
        self._bad: tuple[How, ...] = ("unsupported",) if derived else ("unsupported", "derived")

    def judge(self, request: Request, completions: Sequence[Completion], target: str) -> Judgement:
        """Look every value of the answer up in the input; see `Verifier`."""
        said = target if self._canonical else next((c.text for c in completions if c.value == target), target)
        try:
            answer = json.loads(said)
        except ValueError:
            answer = said
        found = supports(answer, request.text, fields=self._fields)
        bad = [s for s in found if s.how in self._bad]
        if not bad:
            return KEEP
        share = 1.0 - len(bad) / len(found)
        names = ", ".join(dict.fromkeys(s.field or "a figure" for s in bad))
        return Judgement(keep=False, reason=f"not in the input: {names}"[:200], score=share)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _leaves(item, f"{path}.{place}" if path else str(place))
    else:
        yield path, value


def _claims(text: str) -> list[str]:
    """Dates, then figures, then codes: what a free text can get wrong to the digit."""
    rest = text
    found = []
    for pattern in (_WORD_DATE, _DATE_WORD, _NUMERIC_DATE):
        for match in pattern.finditer(rest.casefold()):
            if _days_of(match.group()):
                found.append(match.group())
                rest = rest.replace(text[match.start() : match.end()], " " * (match.end() - match.start()))
    codes = [m for m in _CODE.findall(rest) if not re.fullmatch(r"[\d.,-]+", m)]
    for code in codes:
        rest = rest.replace(code, " ")
    return [*found, *codes, *(m.group().strip() for m in _NUMBER.finditer(rest))]


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _bare(text: str) -> str:
    return "".join(c for c in text if c.isalnum())


def _read(text: str) -> _Input:
    words = _plain(text)
    return _Input(
        words=words,
        bare=_bare(words),
        numbers=frozenset(n for m in _NUMBER.finditer(words) for n in _readings(m.group())),
        dates=frozenset(_days_of(words)),
    )


def _readings(token: str) -> set[float]:
    """Every number that the token can mean: 1.234 is a thousand and more, or a little over one."""
    parts = re.split(r"[ \u00a0\u202f'’]+", token.strip())
    spaced = len(parts) > 1 and len(parts[0].lstrip("+-")) <= 3 and all(re.match(r"\d{3}", p) for p in parts[1:])
    tokens = ["".join(parts)] if spaced else []
    found = set()
    for one in [*tokens, *parts]:  # "1 234" may be one number or two
        if re.fullmatch(r"[-+]?\d+", one):
            found.add(float(one))
        for point, group in ((".", ","), (",", ".")):
            if re.fullmatch(rf"[-+]?(\d{{1,3}}(\{group}\d{{2,3}})+|\d+)(\{point}\d+)?", one):
                found.add(float(one.replace(group, "").replace(point, ".")))
    return found


def _days_of(text: str) -> set[date]:
    """Every day that the text can mean; 03/04/2025 is two."""
    found = set()
    for a, b, c in _NUMERIC_DATE.findall(text):
        year, rest = (a, (b, c)) if len(a) == 4 else (c, (a, b))
        if len(year) not in (2, 4):
            continue
        full = int(year) + (2000 if len(year) == 2 else 0)
        orders = [rest] if len(a) == 4 else itertools.permutations(rest)
        found |= {day for month, number in orders if (day := _day(full, int(month), int(number)))}
    named = [(y, m, d) for d, m, y in _WORD_DATE.findall(text)] + [(y, m, d) for m, d, y in _DATE_WORD.findall(text)]
    found |= {day for y, m, d in named if m in MONTH_OF and (day := _day(int(y), MONTH_OF[m], int(d)))}
    return found


def _day(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None


def _how(value: Any, read: _Input) -> How:
    if value is None or isinstance(value, bool) or value == "":
        return "absent"
    if isinstance(value, int | float):
        return "number" if any(abs(abs(value) - abs(n)) < 0.005 for n in read.numbers) else "unsupported"
    words = _plain(str(value))
    if words in read.words:
        return "text"
    days = _days_of(words)
    if days:
        return "date" if days & read.dates else "derived" if _derived(days, read) else "unsupported"
    if str(value) in SYMBOLS and any(sign in read.words for sign in SYMBOLS[str(value)]):
        return "code"
    if re.fullmatch(_NUMBER, words):
        return "number" if _readings(words) & read.numbers else "unsupported"
    bare = _bare(words)
    return "text" if len(bare) > 2 and bare in read.bare else "unsupported"  # "INV 12" is "INV-12"


def _derived(days: set[date], read: _Input) -> bool:
    counts = {int(a or b) for a, b in _DAYS.findall(read.words)}
    return any(day + timedelta(days=n) in days for day in read.dates for n in counts)
