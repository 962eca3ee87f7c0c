"""Audits of live answers: drawn by a plan, asked of the teacher or of people, counted by day."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from overproof.data import ALL, Audit, AuditPlan, AuditSource, Signal, seconds_of
from overproof.errors import StoreError
from overproof.evidence import Release
from overproof.measure.monitor import AuditDay, is_audited
from overproof.project import Project
from overproof.steps.reviewing import settle as settle_words
from overproof.store.project_store import Store
from overproof.store.reviews import LIVE
from overproof.watch.audit_plan import answered, chance, of_day, plan_day, slice_of, standing_for
from overproof.watch.audit_teacher import AskedAudits, ask

__all__ = ["AskedAudits", "AuditPass", "ask", "audit_pass", "count_day", "days_of", "draw", "plan_day", "settle"]

SIGNAL_OF: Mapping[AuditSource, Signal] = {"teacher": "disagreement", "person": "error"}
SOURCES: Mapping[str, tuple[AuditSource, ...]] = {"teacher": ("teacher",), "person": ("person",), "both": ("teacher", "person")}


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditPass:
    """What one pass did."""

    drawn: int
    """New audits."""
    labelled: int
    """Audits that got a word, from the teacher or from people."""
    barred: int
    overdue: int
    due: int
    """Audits that still wait."""
    notes: tuple[str, ...] = ()
    """Rates that were lowered, a budget that is used up, a teacher that did not answer."""


def draw(store: Store, project: Project, release: Release, day: date) -> list[Audit]:
    """
    Draw the requests of a day by its plan, and keep what was drawn.

    The draw depends on the request's id alone, so that drawing again, later in the day or in another process, draws the same.

    Args:
        store: holds the traffic log and the plan.
        project: for the task.
        release: that serves.
        day: in UTC; it may still go on.

    Returns: what this call has drawn anew; nothing for a day that was counted.
    Raises: StoreError where no plan for the day is written down.
    """
    del project
    plan = store.watching.plan(release.id, day.isoformat())
    if plan is None:
        raise StoreError(f"no plan of {day} is written down for release {release.id!r}", next_action="plan the day before its requests are drawn")
    if not plan.slices or _counted(store, release, day):
        return []
    salt = hmac.new(store.secret(), f"audit {release.id}".encode(), hashlib.sha256).hexdigest()
    known = {(one.request_id, one.source) for one in store.watching.audits(release.id, day=day.isoformat())}
    found: list[Audit] = []
    for row in answered(of_day(store, day), release):
        how = row.served
        if how is None or how.guess is None or how.confidence is None:
            continue
        stands, name = standing_for(row, plan.pi_min), slice_of(row)
        first = min(1.0, stands * chance(plan, name, how.confidence))
        if not is_audited(row.request.id, salt, first):
            continue
        shares = {"teacher": float(plan.ask != "person"), "person": plan.person_share}
        for source in SOURCES[plan.ask]:
            part = shares[source]
            if (row.request.id, source) in known or part <= 0.0 or not is_audited(row.request.id, f"{salt} {source}", part):
                continue
            found.append(
                Audit(
                    release_id=release.id, request_id=row.request.id, day=day.isoformat(), slice=name, source=source,
                    pi=first * part / stands, said=how.guess, confidence=how.confidence,
                )
            )  # fmt: skip
    store.watching.note_audits(found, at=datetime.now(UTC).timestamp())
    return found


def settle(store: Store, project: Project, release: Release, now: datetime) -> AuditPass:
    """
    Take people's words on live answers, and give up on audits past their deadline.

    Args:
        store: holds audits and reviews.
        project: says how answers are compared and how long a word is waited for.
        release: whose audits.
        now: in UTC.

    Returns: how many got a word, were barred, or are overdue now.
    """
    due = store.watching.audits(release.id, state="due")
    days, done = _days(project.watch.deadline), []
    by_people = {a.request_id: a for a in due if a.source == "person"}
    said = settle_words(store.reviews.live(audited=True)).settled if by_people else {}
    digests = {row.request.id: LIVE + row.request.digest for row in store.traffic.find(by_people)}
    for audit in due:
        word = said.get(digests.get(audit.request_id, "")) if audit.source == "person" else None
        if word is not None:
            right = project.task.output.equal(word.label, audit.said)
            done.append(replace(audit, state="labelled", truth=word.label, wrong=not right))
        elif (now.astimezone(UTC).date() - date.fromisoformat(audit.day)).days > days:
            done.append(replace(audit, state="overdue", reason=f"no word within {project.watch.deadline}"))
    store.watching.settle(done)
    counts = Counter(audit.state for audit in done)
    return AuditPass(
        drawn=0, labelled=counts["labelled"], barred=counts["barred"], overdue=counts["overdue"], due=len(due) - len(done)
    )


def days_of(
    audits: Iterable[Audit], requests: Mapping[tuple[str, str], int], plans: Mapping[str, AuditPlan]
) -> dict[tuple[str, Signal], list[AuditDay]]:
    """
    Audits as the integers that monitors read, by slice and for all traffic.

    A day on which the budget kept everything from being drawn counts as one whose audits all lack a word: a monitor that
    reads it is starved, never quiet.

    Args:
        audits: of one release.
        requests: the student's answers by slice and ISO day, audited or not.
        plans: by ISO day; a day without one is left out.

    Returns: the days in order, by slice and signal; `ALL` adds the slices up.
    """
    counts: dict[tuple[str, str, AuditSource], Counter[str | float]] = {}
    for audit in audits:
        for name in (audit.slice, ALL):
            count = counts.setdefault((name, audit.day, audit.source), Counter())
            count["audited"] += 1
            count["unlabelled"] += audit.state != "labelled"
            if audit.wrong:
                count[audit.pi] += 1
    totals: Counter[tuple[str, str]] = Counter()
    for (name, day), n in requests.items():
        totals[name, day] += n
        totals[ALL, day] += n
    found: dict[tuple[str, Signal], list[AuditDay]] = {}
    for (name, day), n in sorted(totals.items(), key=lambda item: item[0][1]):
        plan = plans.get(day)
        for source in SOURCES[plan.ask] if plan else ():
            count = counts.get((name, day, source), Counter())
            if plan and not plan.slices and n:
                missing = min(n, max(1, round(plan.rate * n)))
                count = Counter({"audited": missing, "unlabelled": missing})
            wrong = tuple(sorted((pi, k) for pi, k in count.items() if isinstance(pi, float)))
            found.setdefault((name, SIGNAL_OF[source]), []).append(
                AuditDay(
                    day=date.fromisoformat(day), requests=max(n, count["audited"]), audited=count["audited"],
                    unlabelled=count["unlabelled"], wrong_by_pi=wrong,
                )
            )  # fmt: skip
    return found


def count_day(store: Store, release: Release, day: date) -> None:
    """
    Write the counts of a closed day, again as often as its audits change; what the log gets later of the day is left out.

    Args:
        store: holds plan, audits and log.
        release: whose day.
        day: a closed one, in UTC.
    """
    plan = store.watching.plan(release.id, day.isoformat())
    if plan is None:
        return
    known = {
        (name, day.isoformat()): row.requests
        for (name, _), rows in store.watching.days(release.id).items()
        for row in rows
        if row.day == day and name != ALL
    }
    requests = known or _requests(store, release, day, plan)
    audits = store.watching.audits(release.id, day=day.isoformat())
    for (name, signal), rows in days_of(audits, requests, {plan.day: plan}).items():
        store.watching.note_days(release.id, name, signal, rows)


def audit_pass(
    store: Store, project: Project, release: Release, *, now: datetime, most: int | None = None, asking: bool = True
) -> AuditPass:
    """
    One pass over all days that are not settled: plan, draw, ask, take people's words, count.

    Args:
        store: the project's store, under the role "watch".
        project: [watch] and [teacher].
        release: that serves.
        now: in UTC.
        most: the most audits that the teacher is asked about; None for all that are due.
        asking: False asks nobody; what is drawn stays due.

    Returns: what was done; the teacher's faults are in its notes.
    """
    today = now.astimezone(UTC).date()
    notes, drawn = [], 0
    days = _open_days(store, project, release, today)
    for day in days:
        if not any(True for _ in answered(of_day(store, day), release)):
            continue
        if (today - day).days > _days(project.watch.deadline):
            plan = _missed(store, project, release, day)
        else:
            plan = plan_day(store, project, release, day)
        drawn += len(draw(store, project, release, day))
        notes += [plan.note] if plan.note else []
    by_teacher = [a for a in store.watching.audits(release.id, state="due") if a.source == "teacher"]
    asked = ask(store, project, by_teacher, now, most=most) if asking and by_teacher else AskedAudits()
    notes += [asked.fault] if asked.fault else []
    settled = settle(store, project, release, now)
    for day in {*(day for day in days if day < today), *_stale(store, release)}:
        count_day(store, release, day)
    return AuditPass(
        drawn=drawn, labelled=asked.labelled + settled.labelled, barred=asked.barred + settled.barred, overdue=settled.overdue,
        due=settled.due, notes=tuple(notes),
    )  # fmt: skip


def _missed(store: Store, project: Project, release: Release, day: date) -> AuditPlan:
    """Nobody watched the day while its audits could still be asked: it has to be seen as such."""
    table = project.watch
    note = f"{day}: the watch did not run; nothing is drawn, and quiet means nothing"
    return store.watching.note_plan(
        AuditPlan(
            release_id=release.id, day=day.isoformat(), slices={}, rate=table.audit_rate, pi_min=table.audit_rate / 2,
            floor_per_day=table.floor_per_day, low_below=0.0, low_share=0.1, ask=table.ask, note=note,
            person_share={"teacher": 0.0, "person": 1.0, "both": table.person_share}[table.ask],
        )
    )  # fmt: skip


def _open_days(store: Store, project: Project, release: Release, today: date) -> list[date]:
    """Days to draw from: those after the last counted one; at first, those whose audits could still get a word in time."""
    counted = [row.day for rows in store.watching.days(release.id).values() for row in rows]
    first = max(counted) + timedelta(days=1) if counted else today - timedelta(days=_days(project.watch.deadline))
    return [first + timedelta(days=n) for n in range((today - first).days + 1)]


def _stale(store: Store, release: Release) -> set[date]:
    """Counted days of which audits have changed since, in this pass or in one that was killed before it could count."""
    now = store.watching.without_word(release.id)
    counted = store.watching.days(release.id)
    return {
        row.day
        for source, signal in SIGNAL_OF.items()
        for row in counted.get((ALL, signal), ())
        if now.get((row.day.isoformat(), source), row.unlabelled) != row.unlabelled
    }


def _counted(store: Store, release: Release, day: date) -> bool:
    return any(row.day == day for rows in store.watching.days(release.id).values() for row in rows)


def _requests(store: Store, release: Release, day: date, plan: AuditPlan) -> dict[tuple[str, str], int]:
    totals: dict[tuple[str, str], float] = {}
    for row in answered(of_day(store, day), release):
        key = (slice_of(row), day.isoformat())
        totals[key] = totals.get(key, 0.0) + standing_for(row, plan.pi_min)
    return {key: math.ceil(n - 1e-9) for key, n in totals.items()}


def _days(text: str) -> int:
    return max(1, math.ceil(seconds_of(text) / 86_400.0))
