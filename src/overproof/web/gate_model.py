"""What the gate page reads: a run's findings, what was taken upon oneself, its papers, and what changed since the release before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from overproof.errors import OverproofError
from overproof.evidence import Finding, Release
from overproof.evidence.waivers import Waiver
from overproof.pipeline import RunResult
from overproof.runs import RunRecord, today_of
from overproof.steps.gate import ASKED, CHECKS
from overproof.steps.papers import BOM, CHANGES, DATA_CARD, MODEL_CARD, PROVENANCE, SUMMARY
from overproof.steps.since import NAMES
from overproof.store.waivers import waivers_of
from overproof.verify import SIGNATURE
from overproof.web.place import Place

PAPERS: Final[Mapping[str, str]] = {
    "index.html": "The dossier: everything, for people, in one file",
    "dossier.json": "The same figures for programs",
    SUMMARY: "One page for a manager",
    MODEL_CARD: "Model card",
    DATA_CARD: "Data card",
    BOM: "Bill of materials (CycloneDX)",
    PROVENANCE: "Provenance (in-toto)",
    CHANGES: "What changed since the release before",
    SIGNATURE: "Signature over the release",
}
"""What may be taken along, by file."""
STOPS: Final = ("fail", "not-run")


@dataclass(frozen=True, kw_only=True, slots=True)
class Paper:
    """A file to take along."""

    name: str
    says: str
    size: int
    """Bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckSet:
    """Checks that had to report, and why they had to."""

    why: str
    names: tuple[str, ...]
    """Ids and titles."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WaiverState:
    """A waiver of this run's plan."""

    waiver: Waiver
    live: bool
    """Whether it is in force today."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Changed:
    """One figure beside that of the release before; both stand on sealed rows of their own."""

    slice: str
    figure: str
    before: Mapping[str, Any] | None
    """Value, low, high, n; None where the figure is new."""
    after: Mapping[str, Any] | None
    word: str
    """"higher" or "lower" only where the intervals don't touch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """What is other than in the release before."""

    since: str
    before: str
    """The candidate then."""
    after: str
    """The candidate now."""
    clear: tuple[Changed, ...]
    """Higher, lower, new or gone."""
    same: tuple[Changed, ...]
    """Intervals overlap: nothing is known to have changed."""
    checks: tuple[Mapping[str, Any], ...]
    """Checks with another outcome."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GateView:
    """One run at the gate."""

    run: RunRecord
    runs: tuple[RunRecord, ...]
    """All of them, newest first."""
    release: str
    """Its id; empty for a refusal."""
    stopping: tuple[Finding, ...]
    waived: tuple[Finding, ...]
    passing: tuple[Finding, ...]
    sets: tuple[CheckSet, ...]
    waivers: tuple[WaiverState, ...]
    papers: tuple[Paper, ...]
    signature: str
    """Who signed it, or that nobody did."""
    signed: bool | None
    """None where nobody asks for a signature."""
    changes: Changes | None


def read_gate(place: Place, run_id: str = "") -> GateView | None:
    """
    A run at the gate.

    Args:
        place: the task.
        run_id: the newest run where empty.

    Returns: its verdict with all that belongs to it; None before the first run.
    Raises: DataError for a run that there is none of.
    """
    result = place.run(run_id)
    if result is None or result.verdict is None:
        return None
    runs = place.runs()
    verdict, found = result.verdict, result.verdict.findings
    words, signed = _sealed(place, result)
    return GateView(
        run=next(one for one in runs if one.id == result.run_id), runs=tuple(reversed(runs)), release=verdict.id if isinstance(verdict, Release) else "",
        stopping=tuple(f for f in found if f.outcome in STOPS), waived=tuple(f for f in found if f.outcome == "waived"),
        passing=tuple(f for f in found if f.outcome == "pass"), sets=_sets(found), waivers=_waivers(place, result), papers=_papers(place, result),
        signature=words, signed=signed, changes=_changes(result),
    )  # fmt: skip


def paper(place: Place, run_id: str, name: str) -> bytes | None:
    """
    One of a run's papers.

    Args:
        place: the task.
        run_id: whose.
        name: one of `PAPERS`.

    Returns: the file; None where the run has none of this name.
    Raises: DataError for a run that there is none of.
    """
    result = place.run(run_id)
    if result is None or name not in PAPERS:
        return None
    if name == SIGNATURE:
        return place.store.signatures.get(result.verdict.id) if isinstance(result.verdict, Release) else None
    folder = _folder(result)
    return (folder / name).read_bytes() if folder is not None and (folder / name).is_file() else None


def _folder(result: RunResult) -> Path | None:
    return result.dossier_path.parent if result.dossier_path is not None else None


def _papers(place: Place, result: RunResult) -> tuple[Paper, ...]:
    folder = _folder(result)
    sizes = {one.name: one.stat().st_size for one in folder.iterdir()} if folder is not None and folder.is_dir() else {}
    if isinstance(result.verdict, Release) and (raw := place.store.signatures.get(result.verdict.id)) is not None:
        sizes[SIGNATURE] = len(raw)
    return tuple(Paper(name=name, says=says, size=sizes[name]) for name, says in PAPERS.items() if name in sizes)


def _sets(findings: tuple[Finding, ...]) -> tuple[CheckSet, ...]:
    """Which checks had to report: the table, what the project file adds, and the owner's own."""
    always, asked = {row.id for row in CHECKS}, {row.id for row in ASKED}
    titles = dict(sorted({f.id: f.title for f in findings}.items()))
    parts = {
        "required of every release": [i for i in titles if i in always],
        "added by what the project file says": [i for i in titles if i in asked and i not in always],
        "the owner's own": [i for i in titles if i not in always | asked],
    }
    return tuple(CheckSet(why=why, names=tuple(f"{i} {titles[i]}" for i in ids)) for why, ids in parts.items() if ids)


def _waivers(place: Place, result: RunResult) -> tuple[WaiverState, ...]:
    report = result.artifacts.get("report")
    if report is None or report.value is None:
        return ()
    known = waivers_of(place.store.decisions, report.value.certificate.plan_hash, today=today_of(place.store).isoformat())
    return (*(WaiverState(waiver=one, live=True) for one in known.live), *(WaiverState(waiver=one, live=False) for one in known.ran_out))


def _sealed(place: Place, result: RunResult) -> tuple[str, bool | None]:
    if not isinstance(result.verdict, Release):
        return "a refusal is not signed", None
    try:
        seal = place.store.signatures.check(result.verdict.id, result.verdict.bundle.path)
    except OverproofError as problem:
        return f"{problem.what}; {problem.next_action}", False
    return seal.words, True if seal.manifest else None


def _changes(result: RunResult) -> Changes | None:
    folder = _folder(result)
    try:
        found = json.loads((folder / CHANGES).read_text(encoding="utf-8")) if folder is not None else None
    except FileNotFoundError:  # the first release of a task
        return None
    if found is None:
        return None
    rows = [
        Changed(slice=one["slice"], figure=NAMES.get(one["figure"], one["figure"]), before=one["before"], after=one["after"], word=one["word"])
        for one in found["figures"]
    ]  # fmt: skip
    same = "no clear difference"
    return Changes(
        since=found["since"], before=str(found["candidate"]["before"] or "none"), after=str(found["candidate"]["after"] or "none"),
        clear=tuple(r for r in rows if r.word != same), same=tuple(r for r in rows if r.word == same), checks=tuple(found["checks"]),
    )  # fmt: skip
