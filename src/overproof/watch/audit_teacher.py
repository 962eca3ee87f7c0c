"""Drawn answers put to the teacher: each paid for once, none beyond the month's cap; its faults leave audits due."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from overproof.asking import Buyer, Lazy, clear_recipe, terms_of, watch_purse
from overproof.data import Audit, Clearance, Completion, TrafficRecord
from overproof.errors import DataError, OverproofError
from overproof.progress import reporter
from overproof.project import Project
from overproof.runs import today_of
from overproof.steps.clear import CLEAR, recheck, student_kind
from overproof.store.artifacts import Artifact
from overproof.store.project_store import Store
from overproof.task import Output

CHUNK = 64  # audits between two writes
LONGEST_REASON = 300
OVER = 2  # days with far more traffic than was planned for: no more than so many times [watch] audits_per_day are asked about


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedAudits:
    """What became of audits that the teacher was asked about."""

    labelled: int = 0
    barred: int = 0
    left: int = 0
    """Still due."""
    spent_usd: float = 0.0
    fault: str = ""
    """Why some are still due, where the teacher, its terms or its budget are to blame."""


def ask(store: Store, project: Project, audits: Sequence[Audit], now: datetime, *, most: int | None = None) -> AskedAudits:
    """
    Ask the teacher about audits that are due, oldest first; what it said is kept in chunks, so that a kill loses little.

    Answers come through the label ledger: the same content is paid for once, and neither the teacher's budget nor
    [watch] usd_per_month is ever exceeded.

    Args:
        store: holds audits, log and ledger; the role "run" is taken meanwhile.
        project: [teacher], its terms, [watch].
        audits: of the source "teacher".
        now: in UTC.
        most: the most audits that are asked about; None for all.

    Returns: how many got a word. A fault of the teacher is no exception: it leaves audits due, and is named.
    """
    due = sorted((a for a in audits if a.source == "teacher" and a.state == "due"), key=lambda a: (a.day, a.request_id))
    todo = _within(store, project, due)[:most]
    found: list[Audit] = []
    fault = "" if len(todo) == len(due) or most is not None else "more than twice [watch] audits_per_day was drawn on one day; the rest is not asked about"
    if todo:
        try:
            with store.role("run"):
                fault = asyncio.run(_ask_all(store, project, todo, now, found)) or fault
        except OverproofError as error:
            fault = f"audits wait: {error.what}; {error.next_action}"
    states = Counter(audit.state for audit in found)
    return AskedAudits(
        labelled=states["labelled"], barred=states["barred"], left=len(due) - len(found), fault=fault,
        spent_usd=sum(audit.cost_usd for audit in found),
    )  # fmt: skip


def _within(store: Store, project: Project, due: Sequence[Audit]) -> list[Audit]:
    """Those that a day's limit leaves."""
    most = OVER * project.watch.audits_per_day
    asked: Counter[tuple[str, str]] = Counter()
    for release_id, day in {(a.release_id, a.day) for a in due}:
        known = store.watching.audits(release_id, day=day)
        asked[release_id, day] = sum(a.source == "teacher" and a.state != "due" for a in known)
    kept = []
    for audit in due:
        asked[audit.release_id, audit.day] += 1
        if asked[audit.release_id, audit.day] <= most:
            kept.append(audit)
    return kept


@dataclass(slots=True)
class _Asking:
    store: Store
    teacher: Lazy
    output: Output
    gate: asyncio.Semaphore
    paid: set[str] = field(default_factory=set)
    """Keys of answers that this pass has bought."""
    fault: str = ""


async def _ask_all(store: Store, project: Project, todo: Sequence[Audit], now: datetime, found: list[Audit]) -> str:
    """Appends to `found` what is settled; says the fault that ended it. Calls in flight are waited for: they are paid for."""
    table = replace(project.teacher, mode="live")  # a batch may take a day
    today = now.astimezone(UTC).date()
    buyer = Buyer(store=store, project=project, today=today, purse=watch_purse(project, today))
    asking = _Asking(
        store=store, teacher=buyer.member(table, _clearance(store, project, now)), output=project.task.output,
        gate=asyncio.Semaphore(table.concurrency),
    )  # fmt: skip
    advance = reporter.get().start("audits", len(todo))
    try:
        for start in range(0, len(todo), CHUNK):
            chunk = todo[start : start + CHUNK]
            rows = {row.request.id: row for row in store.traffic.find([a.request_id for a in chunk])}
            said = await asyncio.gather(*(_one(audit, rows.get(audit.request_id), asking) for audit in chunk))
            done = [one for one in said if one is not None]
            store.watching.settle(done)
            found += done
            advance(len(chunk))
            if asking.fault:
                break
    finally:
        advance(-1)
        await asking.teacher.close()
    return asking.fault


def _clearance(store: Store, project: Project, now: datetime) -> Artifact[Clearance]:
    """The permission as it stands: what the teacher says of live traffic is kept like any other label."""
    today = max(now.astimezone(UTC).date(), today_of(store)).isoformat()
    terms, memo = terms_of(project), store.memo()
    found = memo.run(CLEAR, memo.source("terms", terms), recipe=clear_recipe(project, terms, today))
    kind = student_kind([s.use for s in project.students], written=project.task.written is not None)
    recheck(found.value, scope="label", today=today, student_kind=kind, distribution=project.teacher.distribution)
    return found


async def _one(audit: Audit, row: TrafficRecord | None, asking: _Asking) -> Audit | None:
    """The audit with the teacher's word; None where it is still due."""
    if row is None:
        return replace(audit, state="barred", reason="the request is no longer in the log")
    if row.served is not None and row.served.truncated:
        return replace(audit, state="barred", reason="the request was too long to be stored whole")
    async with asking.gate:
        if asking.fault:
            return None
        try:
            teacher = asking.teacher.opened()
            key = teacher.key_of(row.request, 0)
            before = asking.store.ledger.get(key)
            (answer,) = await teacher.sample(row.request, n=1)
        except OverproofError as error:
            asking.fault = f"audits wait: {error.what}; {error.next_action}"
            return None
    paid = before is None and key not in asking.paid and asking.store.ledger.get(key) is not None
    asking.paid.add(key)
    return replace(judged(audit, answer, asking.output), cost_usd=(answer.cost_usd or 0.0) if paid else 0.0)


def judged(audit: Audit, answer: Completion, output: Output) -> Audit:
    """
    Hold what the student said against the teacher's answer.

    Args:
        audit: with what the student said.
        answer: the teacher's.
        output: the task's answers.

    Returns: the audit, labelled; or barred where the answer was refused, cut off or is not of the asked form.
    """
    if answer.value is None:
        why = answer.reason or f"the teacher's answer ended with {answer.finish!r}"
        return replace(audit, state="barred", reason=why[:LONGEST_REASON])
    try:
        truth = output.parse(answer.value)
    except DataError as error:
        return replace(audit, state="barred", reason=error.what[:LONGEST_REASON])
    return replace(audit, state="labelled", truth=truth, wrong=not output.equal(truth, audit.said))
