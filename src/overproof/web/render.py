"""From a reply to bytes: templates, the figures' forms, and the headers that every answer of the pages carries."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any, Final
from urllib.parse import quote

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from overproof.serve.asgi import Headers
from overproof.steps.dossier import FILTERS

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
SAFE: Final[Headers] = [
    (b"content-security-policy", POLICY.encode()), (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"), (b"cross-origin-opener-policy", b"same-origin"), (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
]  # fmt: skip
_FILE: Final = re.compile(r"[^A-Za-z0-9._-]+")
KINDS: Final = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}


@cache
def environment() -> Environment:
    """The templates of the pages, with those of the dossier behind them: charts and figures look alike everywhere."""
    made = Environment(
        loader=ChoiceLoader([PackageLoader("overproof.web", "templates"), PackageLoader("overproof.steps", "templates")]),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters.update(FILTERS)
    made.filters.update(when=when, ago=ago, part=part, signed=signed)
    return made


def rendered(template: str, values: Mapping[str, Any]) -> bytes:
    """
    A page.

    Args:
        template: its file.
        values: for it.

    Returns: HTML, every value escaped.
    """
    return environment().get_template(template).render(values).encode("utf-8", "replace")


def as_json(value: Any) -> bytes:
    """A value as JSON; what is no number becomes an error, never NaN."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str).encode("utf-8", "replace")


def attached(name: str, kind: str) -> Headers:
    """Headers of a file to keep; its name is cut down to letters that can break no header."""
    return [*SAFE, (b"content-type", kind.encode()), (b"content-disposition", b'attachment; filename="' + _FILE.sub("-", name)[-100:].encode() + b'"'), (b"cache-control", b"no-store")]


@cache
def static(name: str) -> tuple[bytes, str] | None:
    """
    A file that belongs to the pages.

    Args:
        name: its bare name.

    Returns: its bytes and type; None where there is none.
    """
    kind = KINDS.get(name.rpartition(".")[2])
    if kind is None or not re.fullmatch(r"[a-z0-9_.-]+", name):
        return None
    home = files("overproof.steps") / "templates" if name == "style.css" else files("overproof.web") / "static"
    found = home / name
    return (found.read_bytes(), kind) if found.is_file() else None


def when(value: float | str | None) -> str:
    """
    A moment for people.

    Args:
        value: Unix time, or ISO 8601; None or 0 where it is not known.

    Returns: for example "2026-03-14 09:26 UTC"; a dash where not known.
    """
    if not value:
        return "–"
    at = datetime.fromtimestamp(value, UTC) if isinstance(value, int | float) else datetime.fromisoformat(value)
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC") if at.tzinfo else at.strftime("%Y-%m-%d %H:%M")


def ago(value: float, now: float) -> str:
    """
    How long something is past.

    Args:
        value: Unix time.
        now: Unix time.

    Returns: for example "3 days"; "less than a minute" at the least.
    """
    left = max(0.0, now - value)
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if left >= length:
            n = int(left // length)
            return f"{n:,} {unit}{'s' if n != 1 else ''}"
    return "less than a minute"


def part(value: object) -> str:
    """One part of a path of ours, quoted: names come from files and from traffic."""
    return quote(str(value), safe="")


def signed(value: float | None, digits: int = 1) -> str:
    """A difference of fractions in points, for example "+1.2"; a dash for None."""
    return "–" if value is None else f"{100 * value:+.{digits}f}"
