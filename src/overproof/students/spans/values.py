"""Numbers and dates as people write them: every reading of every spelling in a text, left for a model to choose from."""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

Order = Literal["", "dmy", "mdy"]

# Three letters tell the months of these languages apart once accents are off; longer forms stand where they don't.
_MONTHS = (
    "jan ene gen sty", "feb fev fév lut", "mar mär mrz maa mrt mars", "apr abr avr kwi", "may mai mei mag maj",
    "jun jui giu cze juin", "jul juil lug lip", "aug ago aoû aou sie", "sep set wrz", "oct okt ott paź paz", "nov lis",
    "dec dez dic déc gru",
)
_MONTH = {name: at for at, names in enumerate(_MONTHS, 1) for name in names.split()}
_WORD = rf"\b(?:{'|'.join(sorted(_MONTH))})[^\W\d_]{{0,9}}\.?"
_DATES = (
    re.compile(r"(?<![\d.])(?P<y>(?:19|20)\d\d)(?P<s>[-/.])(?P<m>\d\d?)(?P=s)(?P<d>\d\d?)(?!\d)"),
    re.compile(r"(?<![\d./-])(?P<a>\d\d?)(?P<s>[-/.]) ?(?P<b>\d\d?)(?P=s) ?(?P<y>(?:19|20)?\d\d)(?![\d-])"),
    re.compile(rf"(?<!\d)(?P<d>\d\d?)(?:st|nd|rd|th|er|º|\.)?[ -](?:de |of )?(?P<w>{_WORD})(?:,? (?:de )?|-)(?P<y>(?:19|20)?\d\d)(?!\d)", re.IGNORECASE),
    re.compile(rf"(?P<w>{_WORD})[ -](?P<d>\d\d?)(?:st|nd|rd|th)?(?:, ?| |-)(?P<y>(?:19|20)\d\d)(?!\d)", re.IGNORECASE),
)
_NUMBER = re.compile(
    r"(?<![\d])(?<![\d.,][.,])(?P<whole>\d{1,3}(?:(?P<g>[ .,'’])\d{3})(?:(?P=g)\d{3})*(?!\d)|\d+)(?:(?P<p>[.,])(?P<part>\d+))?(?!\d|[.,]\d)"
)
_ALONE = re.compile(r"\d+(?:[.,]\d+)?(?!\d)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Spelled:
    """One reading of a number or date in a text."""

    start: int
    end: int
    """Where its characters are."""
    value: str
    """As `Field.read` would write it: a plain decimal, or YYYY-MM-DD."""
    mark: str = ""
    """The decimal mark that this reading takes for granted, or the order of day and month ("dmy", "mdy"); empty where nothing is open."""
    sure: bool = True
    """False where the same characters have another reading too."""


def _day(year: str, month: int, day: str) -> str | None:
    full = int(year) + (2000 if len(year) == 2 else 0)  # two digits are this century: documents are rarely older
    try:
        return dt.date(full, month, int(day)).isoformat()
    except ValueError:
        return None


def _plain_word(word: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", word.casefold().rstrip(".")) if not unicodedata.combining(c))


def month_of(word: str) -> int | None:
    """
    The month that a word names.

    Args:
        word: in one of the languages known here, short or long, with or without a full stop.

    Returns: 1 to 12, or None.
    """
    plain = _plain_word(word)
    return next((_MONTH[plain[:size]] for size in (4, 3) if plain[:size] in _MONTH), None)


def dates_in(text: str) -> Iterator[Spelled]:
    """
    Every date that is written out with its year.

    Args:
        text: any text.

    Returns: one for each reading: 03/04/2026 has two, neither sure.
    """
    for at, pattern in enumerate(_DATES):
        for found in pattern.finditer(text):
            if at == 1:
                a, b, year = found["a"], found["b"], found["y"]
                readings: list[tuple[Order, str | None]] = [("dmy", _day(year, int(b), a)), ("mdy", _day(year, int(a), b))]
                possible = [(order, value) for order, value in readings if value is not None]
                alike = len({value for _, value in possible}) == 1
                for order, value in possible[:1] if len(possible) == 2 and alike else possible:
                    yield Spelled(start=found.start(), end=found.end(), value=value, mark="" if len(possible) == 2 and alike else order, sure=alike)
                continue
            month = int(found["m"]) if at == 0 else month_of(found["w"])
            day = _day(found["y"], month, found["d"]) if month else None
            if day is not None:
                yield Spelled(start=found.start(), end=found.end(), value=day)


def numbers_in(text: str) -> Iterator[Spelled]:
    """
    Every number in digits, with any grouping and decimal mark.

    Args:
        text: any text.

    Returns: one for each reading: 1.234 has two, and so has "2 350,00", which may be two columns.
    """
    for found in _NUMBER.finditer(text):
        whole, group, mark, part = found["whole"], found["g"], found["p"], found["part"]
        sign = "-" if re.search(r"(?:^|[\s(])[-\u2212]$", text[: found.start()][-2:]) else ""
        if group is not None and group == mark:
            continue  # 1.234.5 is no number
        if group in (".", ",") and mark is None and whole.count(group) == 1:
            grouped, split = whole.replace(group, ""), whole.replace(group, ".")
            zero = whole.startswith("0")  # nobody groups 0.125
            if not zero:
                yield _spelled(found.start(), found.end(), sign + grouped, mark="," if group == "." else ".", sure=False)
            yield _spelled(found.start(), found.end(), sign + split, mark=group, sure=zero)
            continue
        digits = re.sub(r"\D", "", whole)
        if mark is not None and part is not None:
            three = len(part) == 3 and group is None and len(digits) <= 3 and digits != "0"
            yield _spelled(found.start(), found.end(), f"{sign}{digits}.{part}", mark=mark, sure=group != " " and not three)
            if three:
                yield _spelled(found.start(), found.end(), sign + digits + part, mark="," if mark == "." else ".", sure=False)
        else:
            yield _spelled(found.start(), found.end(), sign + digits, mark="", sure=group != " ")
        if group == " ":  # "2 350,00" may be a column of its own
            for alone in _ALONE.finditer(text, found.start() + 1, found.end()):
                if text[alone.start() - 1] == " ":
                    yield _spelled(alone.start(), alone.end(), alone[0].replace(",", "."), mark="", sure=False)


def _spelled(start: int, end: int, digits: str, *, mark: str, sure: bool) -> Spelled:
    return Spelled(start=start, end=end, value=plain(Decimal(digits)), mark=mark, sure=sure)


def plain(number: Decimal) -> str:
    """
    A number without exponent and without trailing zeros.

    Args:
        number: finite.

    Returns: as canonical records write it.
    """
    text = format(number, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def later(day: str, days: int) -> str | None:
    """
    A date some days on.

    Args:
        day: YYYY-MM-DD.
        days: may be negative.

    Returns: YYYY-MM-DD, or None outside the calendar.
    """
    try:
        return (dt.date.fromisoformat(day) + dt.timedelta(days=days)).isoformat()
    except (ValueError, OverflowError):
        return None
