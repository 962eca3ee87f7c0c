"""What a release ships under: the waivers of its findings, and what these would have said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from overproof.evidence.waivers import Waiver


def waiver_words(waiver: Waiver | Mapping[str, Any]) -> str:
    """
    What a finding under a waiver says first.

    Args:
        waiver: the waiver, or its values.

    Returns: until when, by whom, why, and what is done instead.
    """
    w = waiver if isinstance(waiver, Mapping) else {name: getattr(waiver, name) for name in ("until", "by", "second", "reason", "control")}
    return f"waived until {w['until']} by {w['by']} and {w['second']}: {w['reason']} Instead: {w['control']} What was found "


def waived_rows(decision: Mapping[str, Any]) -> list[dict[str, str]]:
    """
    The findings under a waiver, each with what the gate would have said without it.

    Args:
        decision: a release or refusal as `dossier.json` has it.

    Returns: check, title, by, second, reason, control, until, said; in the order of the checks.
    """
    rows = []
    for one in sorted(decision["findings"], key=lambda one: str(one["id"])):
        if one["outcome"] == "waived" and one["waiver"]:
            w, where = one["waiver"], f": {one['slice']}" if one["slice"] else ""
            said = str(one["reason"]).removeprefix(waiver_words(w))
            rows.append({"check": one["id"], "title": f"{one['title']}{where}", **{k: w[k] for k in ("by", "second", "reason", "control", "until")}, "said": said})
    return rows


def opened(decision: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """
    What failed or was not run.

    Args:
        decision: see `waived_rows`.

    Returns: its findings.
    """
    return [one for one in decision["findings"] if one["outcome"] not in ("pass", "waived")]
