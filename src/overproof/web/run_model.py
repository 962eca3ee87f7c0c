"""What a run's page knows: the road from the log to the sets with all that fell beside it, and what the candidates came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from overproof.data import MOST_NAMED
from overproof.evidence import EvalReport, Finding, Refusal, Release, StandingReport
from overproof.pipeline import RunResult
from overproof.runs import RunRecord
from overproof.steps.account import ACCOUNT, Account, LeftOut, LeftRow
from overproof.steps.collect import DataEvidence, Evidence
from overproof.steps.filter import NoRecipe
from overproof.web.place import Place
from overproof.web.view import MOST_CHARS, NotHere

ROWS_A_PAGE: Final = 50
CHECKS: Final = ("G03", "G04", "G21")
Where = Literal["import", "capture", "prompts", "teach", "filter"]
STEPS: Final[tuple[Where, ...]] = ("import", "capture", "prompts", "teach", "filter")
SPLITS: Final[Mapping[str, str]] = {"train": "training", "calibration": "calibration", "test": "sealed"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """One step of the funnel: how many rows came through, and who did not."""

    step: Where
    name: str
    n: int
    """Rows that came through."""
    note: str
    left: tuple[LeftOut, ...]

    @property
    def lost(self) -> int:
        """Rows that did not."""
        return sum(one.n for one in self.left)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunView:
    """A run's page."""

    record: RunRecord
    runs: tuple[RunRecord, ...]
    """All, the newest first."""
    passages: tuple[Passage, ...]
    kept: Mapping[str, int]
    """Name of a set to its rows."""
    window: tuple[str | None, str | None]
    data: DataEvidence
    checks: tuple[Finding, ...]
    """What the gate said of the match, of leaks, and of sealed rows that training knows."""
    evidence: Evidence
    report: EvalReport
    standing: StandingReport | None

    @property
    def widest(self) -> int:
        """The most rows of any step, for the chart's axis."""
        return max(1, *(one.n for one in self.passages))


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftPage:
    """Rows that one step left out for one reason."""

    run: RunRecord
    left: LeftOut
    """Without its rows."""
    rows: tuple[LeftRow, ...]
    """Of this page."""
    listed: int
    """Rows that are named at all."""
    page: int
    """From 1."""

    @property
    def more(self) -> bool:
        """Whether another page follows."""
        return self.page * ROWS_A_PAGE < self.listed


def chosen_run(place: Place, run_id: str) -> tuple[RunRecord, RunResult, tuple[RunRecord, ...]] | None:
    """
    The run that a page is about.

    Args:
        place: the task.
        run_id: as the address says; the newest where empty.

    Returns: its record, its results, and all records with the newest first; None where there is no run yet.
    Raises: NotHere for a run that is not there.
    """
    known = tuple(reversed(place.runs()))
    if not known:
        return None
    record = next((one for one in known if one.id == run_id), None) if run_id else known[0]
    if record is None:
        raise NotHere(f"there is no run {run_id[:40]!r}", next_action="choose one of the list")
    run = place.run(record.id)
    assert run is not None
    return record, run, known


def read_run(place: Place, run_id: str = "") -> RunView | None:
    """
    Everything on a run's page.

    Args:
        place: the task.
        run_id: the newest where empty.

    Returns: the view; None where there is no run yet.
    Raises: NotHere for a run that is not there.
    """
    found = chosen_run(place, run_id)
    if found is None:
        return None
    record, run, known = found
    evidence: Evidence = run.artifacts["evidence"].value
    verdict: Release | Refusal = run.artifacts["verdict"].value
    assert evidence.data is not None
    assert evidence.report is not None
    account = account_of(run)
    return RunView(
        record=record, runs=known, passages=_passages(place, account), kept={SPLITS[name]: n for name, n in account.kept.items()},
        window=account.window, data=evidence.data, checks=tuple(one for one in verdict.findings if one.id in CHECKS), evidence=evidence, report=evidence.report, standing=evidence.standing,
    )  # fmt: skip


def account_of(run: RunResult) -> Account:
    """
    What became of a run's rows.

    Args:
        run: any.

    Returns: its account; for a run that was made before there were any, counted now, without the names of rows.
    """
    if "account" in run.artifacts:
        kept: Account = run.artifacts["account"].value
        return kept
    traffic, prompts, answers, labelled = (run.artifacts[name].value for name in ("traffic", "prompts", "answers", "labels"))
    return ACCOUNT.fn(traffic, prompts, answers, labelled, NoRecipe())


def _passages(place: Place, account: Account) -> tuple[Passage, ...]:
    left = {step: tuple(one for one in account.left if one.at == step) for step in STEPS}
    kept = sum(account.kept.values())
    written = f"{account.written:,} of them written for training, no traffic" if account.written else ""
    return (
        Passage(step="import", name="traffic log", n=account.read, note="rows of the log when the run began; what no importer could read is counted over all imports so far", left=_skipped(place)),
        Passage(step="capture", name="captured window", n=account.captured, note=_span(account.window), left=left["capture"]),
        Passage(step="prompts", name="prompt set", n=account.chosen, note=written, left=left["prompts"]),
        Passage(step="teach", name="answered by the teacher", n=account.answered, note="", left=left["teach"]),
        Passage(step="filter", name="kept with a label", n=kept, note=", ".join(f"{SPLITS[name]} {n:,}" for name, n in account.kept.items()), left=left["filter"]),
    )


def _span(window: tuple[str | None, str | None]) -> str:
    return f"{window[0][:10]} to {window[1][:10]}" if window[0] and window[1] else "without times"


def _skipped(place: Place) -> tuple[LeftOut, ...]:
    found = place.store.glance.skipped_reasons()
    return tuple(LeftOut(at="capture", split="", reason=reason, by="import", n=n, rows=()) for reason, n in found.items())


def read_left(place: Place, run_id: str, step: str, reason: str, *, split: str = "", by: str = "", page: int = 1) -> LeftPage:
    """
    The rows behind one entry of the funnel.

    Args:
        place: the task.
        run_id: the newest where empty.
        step: one of `STEPS`.
        reason: as the funnel says it.
        split: likewise.
        by: likewise; any where empty.
        page: from 1.

    Returns: one page of rows. What a run doesn't hold itself is looked up in the log as it is now.
    Raises: NotHere for an entry that the run doesn't have.
    """
    found = chosen_run(place, run_id)
    if found is None:
        raise NotHere("there is no run yet", next_action="do one with `overproof run`")
    record, run, _ = found
    first = (page - 1) * ROWS_A_PAGE
    if step == "import":
        return _unread(place, record, reason, page)
    for one in account_of(run).left:
        if one.at == step and one.reason[:MOST_CHARS].strip() == reason and one.split == split and (not by or one.by == by):
            rows = _with_texts(place, one.rows[first : first + ROWS_A_PAGE])
            return LeftPage(run=record, left=replace(one, rows=()), rows=rows, listed=len(one.rows), page=page)
    raise NotHere(f"run {record.id} left out no row for this reason", next_action="choose a reason on the run's page")


def _unread(place: Place, record: RunRecord, reason: str, page: int) -> LeftPage:
    counted = next(((one, n) for one, n in place.store.glance.skipped_reasons().items() if one[:MOST_CHARS].strip() == reason), None)
    if counted is None:
        raise NotHere("no row was skipped at an import for this reason", next_action="choose a reason on the run's page")
    rows = place.store.glance.skipped_for(counted[0], first=(page - 1) * ROWS_A_PAGE, most=ROWS_A_PAGE)
    return LeftPage(
        run=record, left=LeftOut(at="capture", split="", reason=counted[0], by="import", n=counted[1], rows=()),
        rows=tuple(LeftRow(id=one.where, text=one.raw) for one in rows), listed=min(counted[1], MOST_NAMED * ROWS_A_PAGE), page=page,
    )  # fmt: skip


def _with_texts(place: Place, rows: tuple[LeftRow, ...]) -> tuple[LeftRow, ...]:
    missing = [one.id for one in rows if not one.text]
    known = {one.request.id: one for one in place.store.traffic.find(missing)}
    return tuple(
        replace(one, text=known[one.id].request.text, label=one.label or (said.value or "" if (said := known[one.id].completion) else "")) if one.id in known else one
        for one in rows
    )
