"""Whether the teacher is still the one that the labels are from: canary prompts, its names, and the day on which it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Any, cast

from overproof import registry
from overproof.asking import Buyer, Lazy, clear_recipe, terms_of, watch_purse
from overproof.data import (
    ALL,
    Alarm,
    Answered,
    Answers,
    Clearance,
    Reading,
    Request,
    Signal,
    digest_of,
    seconds_of,
)
from overproof.errors import DataError, OverproofError, TermsError
from overproof.evidence import Release
from overproof.measure.intervals import CLOPPER_PEARSON, cp_upper, figure
from overproof.measure.rounds import NOISE_DELTA, RoundRead, least_alarm, read_rounds
from overproof.project import Project
from overproof.runs import clock_of
from overproof.settings import TeacherTable
from overproof.steps.canaries import Numbered, read_canaries
from overproof.steps.clear import CLEAR
from overproof.store.artifacts import Artifact
from overproof.store.canaries import AskedRound
from overproof.store.logs import AnsweredBy
from overproof.store.project_store import Store
from overproof.watch.reference import reference_of

FIRST_INDEX = 2_000_000  # of samples that are rounds of the watch; those of labelling runs begin a million earlier
REFERENCE_ROUNDS = 10
FALSE_EVERY_DAYS = 90.0  # least mean time between two false alarms of the canary prompts
DRAWN, DISPUTED = 25, 25
FEWEST = 10
SEEN_DAYS = 35
AT_ONCE = 8
SLACK_S = 60.0  # a pass that comes this early counts as on time
OF_THE_TEACHER: tuple[Signal, ...] = ("canaries", "teacher_agreement", "teacher_identity")


@dataclass(frozen=True, kw_only=True, slots=True)
class Ends:
    """A model's end of life, as the terms record says it."""

    model: str
    on: str
    """ISO date."""
    source: str
    """Where the date was read."""
    days_left: int
    """Below 0 once it is past."""
    warn: bool
    """Whether the countdown has begun."""

    @property
    def words(self) -> str:
        """One sentence."""
        when = f"ended on {self.on}" if self.days_left < 0 else f"ends on {self.on}, in {self.days_left} days"
        return f"the teacher {self.model!r} {when} ({self.source})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Canaries:
    """The prompts that are asked again and again."""

    prompts: tuple[Request, ...]
    labels: tuple[str | None, ...]
    """What the ledger holds as the answer of the label to each; None where it holds none."""
    drawn: int
    """The first so many were drawn by chance; on the others the teacher's samples disagreed."""
    repeated: int = 0
    """Rows that the teacher was asked twice when it labelled."""
    wavered: int = 0
    """Of these, how often the two answers differ."""

    @property
    def digest(self) -> str:
        """Names the set: other prompts have other rounds."""
        return digest_of([one.digest for one in self.prompts])


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherState:
    """What is known of the teacher now."""

    readings: tuple[Reading, ...] = ()
    alarms: tuple[Alarm, ...] = ()
    """Those that hold and that nobody has closed."""
    ends: tuple[Ends, ...] = ()
    notes: tuple[str, ...] = ()
    rounds: int = 0
    """Canary rounds asked so far."""
    asked: int = 0
    """Canary prompts that this pass asked."""
    spent_usd: float = 0.0
    """What canary prompts cost this month."""


@dataclass(kw_only=True, slots=True)
class _Look:
    """One look: what is looked at, and what it has found so far."""

    store: Store
    project: Project
    release: Release | None
    now: datetime
    readings: list[Reading] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rounds: int = 0
    asked: int = 0


def watch_teacher(store: Store, project: Project, *, release: Release | None, now: datetime, buyer: Buyer | None = None) -> TeacherState:
    """
    One look at the teacher; asks the canary prompts where a round is due.

    Args:
        store: the project's store.
        project: the loaded project.
        release: the one that serves, whose prompt set gives canary prompts where the project has none; None where none does.
        now: in UTC.
        buyer: who asks, from a caller that holds the role "run"; None to take the role for as long as it lasts.

    Returns: readings, alarms that hold (kept in the store as well), and what there is to say.
    """
    found, task = _Look(store=store, project=project, release=release, now=now), project.task.name
    clearance = _cleared(store, project, now)
    if isinstance(clearance, str):
        found.notes.append(f"no canary prompt is asked: {clearance}")
    else:
        _canaries(found, clearance, buyer)
    found.alarms += identity(store, project, release, None if isinstance(clearance, str) else clearance.value, now=now)
    for alarm in found.alarms:
        store.watching.raise_alarm(alarm, at=now.timestamp())
    open_ones = {one.id for one in store.watching.alarms(task)}
    ends = ends_of(store, project, now=now)
    return TeacherState(
        readings=tuple(found.readings), alarms=tuple(one for one in found.alarms if one.id in open_ones), ends=ends,
        notes=(*found.notes, *(one.words for one in ends if one.warn)), rounds=found.rounds, asked=found.asked,
        spent_usd=store.canaries.spent_usd(now.strftime("%Y-%m")),
    )  # fmt: skip


def ends_of(store: Store, project: Project, *, now: datetime) -> tuple[Ends, ...]:
    """
    The days on which the teachers of this project end.

    Args:
        store: for the clock, see `runs.clock_of`.
        project: the loaded project.
        now: in UTC.

    Returns: one for each terms record that names such a day.
    """
    today, warning = clock_of(store, now).date(), int(project.watch.ends_warning[:-1])
    found: dict[str, Ends] = {}
    for table in (project.teacher, *project.committee):
        try:
            record = terms_of(project, table).attestation
        except TermsError:  # `duties` says so
            continue
        if record.ends:
            left = (date.fromisoformat(record.ends) - today).days
            name = table.model or record.model
            found[name] = Ends(model=name, on=record.ends, source=record.ends_source, days_left=left, warn=left <= warning)
    return tuple(found.values())


def canaries_of(store: Store, project: Project, release: Release | None) -> Canaries | None:
    """
    The prompts to ask: the project's own file, or rows of the prompt set that the release was trained on.

    Args:
        store: the project's store.
        project: the loaded project.
        release: the one that serves.

    Returns: the prompts; None where there are none or fewer than 10, which could never tell a change from noise.
    Raises: DataError for a file that can't be read.
    """
    if project.teacher.canaries:
        prompts = read_canaries(project.root / project.teacher.canaries, fields=project.task.input)
        return Canaries(prompts=prompts, labels=(None,) * len(prompts), drawn=len(prompts))
    if release is None:
        return None
    try:
        answers = cast("Answers", reference_of(store, release).artifact("answers").value)
    except OverproofError:  # made elsewhere: its prompt set is not here
        return None
    return chosen(answers, salt=release.id)


def chosen(answers: Answers, *, salt: str) -> Canaries | None:
    """
    Canary prompts out of training rows: 25 drawn, and up to 25 on which the teacher's samples disagreed.

    Args:
        answers: all that the teacher said.
        salt: for the draw; the same one gives the same prompts.

    Returns: the prompts, or None where there are fewer than 10.
    """
    rows = {one.row.request.digest: one for one in answers.train if one.completions and one.completions[0].value is not None}
    mixed = sorted(rows, key=lambda digest: sha256(f"{salt} {digest}".encode()).digest())
    twice = {one.request_id: one.first != one.second for one in answers.asking.repeats}
    drawn = mixed[:DRAWN]
    disputed = [d for d in mixed[DRAWN:] if _disputed(rows[d]) or twice.get(rows[d].row.request.id)][:DISPUTED]
    both = [rows[digest] for digest in (*drawn, *disputed)]
    if len(both) < FEWEST:
        return None
    return Canaries(
        prompts=tuple(one.row.request for one in both), labels=tuple(one.completions[0].value for one in both), drawn=len(drawn),
        repeated=len(twice), wavered=sum(twice.values()),
    )  # fmt: skip


def _disputed(one: Answered) -> bool:
    return len({c.value for c in one.completions if c.value is not None}) > 1


def _cleared(store: Store, project: Project, now: datetime) -> Artifact[Clearance] | str:
    """The permission to ask; why there is none."""
    try:
        terms, memo = terms_of(project), store.memo()
        recipe = clear_recipe(project, terms, clock_of(store, now).date().isoformat())
        return memo.run(CLEAR, memo.source("terms", terms), recipe=recipe)
    except TermsError as error:
        return error.what


def _canaries(look: _Look, clearance: Artifact[Clearance], buyer: Buyer | None) -> None:
    store, project = look.store, look.project
    if project.watch.canaries == "off":
        return
    if getattr(registry.resolve("teachers", project.teacher.use), "free", False):
        look.notes.append("the teacher is a recording, which can't change: no canary prompt is asked")
        return
    try:
        canaries = canaries_of(store, project, look.release)
    except DataError as error:
        look.notes.append(error.what)
        return
    if canaries is None:
        look.notes.append(f"no canary prompt is asked: there are fewer than {FEWEST}; name a file in [teacher] canaries")
        return
    pin = digest_of({**asdict(project.pin), "parameters": dict(project.pin.parameters)})
    before = store.canaries.asked_rounds(pin, canaries.digest)
    if due := _due(project, before, look.now):
        try:
            if buyer is not None:
                asyncio.run(_ask(look, buyer.member(_live(project), clearance), canaries, pin, due))
            else:
                with store.role("run"):
                    today = look.now.date()
                    own = Buyer(store=store, project=project, today=today, purse=watch_purse(project, today))
                    asyncio.run(_ask(look, own.member(_live(project), clearance), canaries, pin, due))
        except OverproofError as error:  # an outage, an empty budget, a run that holds the ledger: the next pass goes on
            look.notes.append(f"the canary round waits: {error.what}")
    rounds = store.canaries.asked_rounds(pin, canaries.digest)
    look.rounds, look.asked = len(rounds), (len(rounds) - len(before)) * len(canaries.prompts)
    _read(look, canaries, rounds)


def _live(project: Project) -> TeacherTable:
    """A batch comes hours later, and the same model answers."""
    return replace(project.teacher, mode="live")


def _due(project: Project, rounds: Sequence[AskedRound], now: datetime) -> Sequence[int]:
    """Numbers of the rounds to ask now: at first as many as the reference takes, then one each time."""
    if len(rounds) < REFERENCE_ROUNDS:
        return range(len(rounds), REFERENCE_ROUNDS)
    late = now.timestamp() - rounds[-1].at >= seconds_of(project.watch.canaries) - SLACK_S
    return [len(rounds)] if late else []


async def _ask(look: _Look, lazy: Lazy, canaries: Canaries, pin: str, due: Sequence[int]) -> None:
    """The rounds that are due, as far as the month's money goes; each is kept as soon as it is whole."""
    store, month, most = look.store, look.now.strftime("%Y-%m"), look.project.watch.usd_per_month
    dearest = max((one.cost_usd for one in store.canaries.asked_rounds(pin, canaries.digest)), default=0.0)
    try:
        teacher = lazy.opened()
        for number in due:
            spent = store.watching.spent_usd(month) + store.canaries.spent_usd(month)
            if spent + dearest > most:
                raise DataError(
                    f"${spent:.2f} of the ${most:.2f} a month are spent, and a round can cost ${dearest:.2f}",
                    next_action="raise [watch] usd_per_month",
                )
            one = await _round(teacher, canaries.prompts, number, look.now)
            store.canaries.note_round(pin, canaries.digest, one)
            dearest = max(dearest, one.cost_usd)
    finally:
        await lazy.close()


async def _round(teacher: Numbered, prompts: Sequence[Request], number: int, now: datetime) -> AskedRound:
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(prompt: Request) -> Any:
        async with gate:
            return await teacher.one(prompt, FIRST_INDEX + number)

    said = await asyncio.gather(*(ask(prompt) for prompt in prompts))
    answers = tuple(one.value if one.value is not None else f"no label: {one.finish}" for one in said)
    return AskedRound(number=number, at=now.timestamp(), answers=answers, cost_usd=sum(one.cost_usd or 0.0 for one in said))


def _read(look: _Look, canaries: Canaries, rounds: Sequence[AskedRound]) -> None:
    """What the rounds say: since a person closed the last alarm, and against the labels."""
    task, release = look.project.task.name, look.release
    accepted = look.store.canaries.accepted_at(task)
    since = [one for one in rounds if one.at >= accepted]
    _agreement(look, canaries, since, first=accepted == 0)
    reference, after = since[:REFERENCE_ROUNDS], since[REFERENCE_ROUNDS:]
    if len(reference) < REFERENCE_ROUNDS:
        look.notes.append(f"canary prompts: {len(reference)} of {REFERENCE_ROUNDS} reference rounds are there; a change can't be told yet")
        return
    if not after:
        return
    every = seconds_of(look.project.watch.canaries) / 86_400.0
    said = [one.answers for one in reference], [one.answers for one in after]
    read = read_rounds(*said, mean_rounds=FALSE_EVERY_DAYS / every)
    at = next((i for i, one in enumerate(read) if one.alarm), None)
    last = read[-1] if at is None else read[at]
    day = _day(after[-1 if at is None else at].at)
    share = figure(last.differ, last.n, metric="canaries")
    look.readings.append(
        Reading(
            release_id="" if release is None else release.id, slice=ALL, signal="canaries", day=day, value=share.value, low=share.low,
            high=share.high, reference=last.noise, n=last.n, method=f"{CLOPPER_PEARSON}; e-detector over {len(after)} rounds",
            log_e=last.log_e, level=last.level, state="quiet" if at is None else "alarm",
        )
    )  # fmt: skip
    if at is not None:
        look.alarms.append(_alarm_of(task, release, last, after, at, day=day))


def _alarm_of(task: str, release: Release | None, last: RoundRead, after: Sequence[AskedRound], at: int, *, day: str) -> Alarm:
    since = _day(after[at if last.differ >= last.alarm_at and last.log_e < last.level else last.since].at)
    share = figure(last.differ, last.n, metric="canaries")
    words = (
        f"{last.differ} of {last.n} canary prompts get another answer than before since {since}; noise explains at most"
        f" {100 * last.noise:.1f}% of them (at most one false alarm in {FALSE_EVERY_DAYS:.0f} days)"
    )
    return _alarm(
        task, release, "canaries", day=day, since=since, key=since, value=share.value or 0.0, low=share.low, high=share.high,
        reference=last.noise, n=last.n, words=words,
    )  # fmt: skip


def _agreement(look: _Look, canaries: Canaries, since: Sequence[AskedRound], *, first: bool) -> None:
    """The newest round's answers to drawn prompts against their labels; the first round of all may raise an alarm."""
    task, release = look.project.task.name, look.release
    pairs = [i for i, label in enumerate(canaries.labels[: canaries.drawn]) if label is not None]
    if not pairs or not since:
        return
    newest = since[-1]
    same = sum(newest.answers[i] == canaries.labels[i] for i in pairs)
    own = figure(same, len(pairs), metric="agreement")
    usual_rate = 1.0 - canaries.wavered / canaries.repeated if canaries.repeated else None
    alarm = False
    if canaries.repeated and first:
        start = since[0]
        differ = sum(start.answers[i] != canaries.labels[i] for i in pairs)
        noise = cp_upper(canaries.wavered, canaries.repeated, NOISE_DELTA)
        alarm = differ >= least_alarm(len(pairs), noise, 1.0 / FALSE_EVERY_DAYS)
        if alarm:
            share = figure(differ, len(pairs), metric="changed")
            words = (
                f"{differ} of {len(pairs)} drawn rows get another answer on {_day(start.at)} than when they were labelled; asked twice"
                f" then, the teacher wavered on {canaries.wavered} of {canaries.repeated}"
            )
            look.alarms.append(_alarm(
                task, release, "teacher_agreement", day=_day(start.at), since=_day(start.at), key=canaries.digest, value=share.value or 0.0,
                low=share.low, high=share.high, reference=noise, n=len(pairs), words=words,
            ))  # fmt: skip
    look.readings.append(
        Reading(
            release_id="" if release is None else release.id, slice=ALL, signal="teacher_agreement", day=_day(newest.at), value=own.value,
            low=own.low, high=own.high, reference=usual_rate, n=own.n, method=CLOPPER_PEARSON, state="alarm" if alarm else "quiet",
        )
    )  # fmt: skip


def identity(store: Store, project: Project, release: Release | None, clearance: Clearance | None, *, now: datetime) -> list[Alarm]:
    """
    Changes of the name or the fingerprint that the teacher answers under: one alarm for each new one, at its first answer.

    Labels and the gateway's log are two sources, each compared with itself: callers may ask another model than the one
    that labelled.

    Args:
        store: the project's store.
        project: the loaded project.
        release: for the record.
        clearance: labels bought under its record are looked at; None for none.
        now: in UTC.

    Returns: the alarms, whether known before or not.
    """
    seen: dict[str, Sequence[AnsweredBy]] = {}
    if clearance is not None:
        minted = [d for d in store.decisions.read() if d.kind == "clearance" and d.body["record"] == clearance.record]
        seen["labels"] = store.canaries.answered_by({clearance.id, *(d.subject for d in minted)})
    window = (now - timedelta(days=SEEN_DAYS)).timestamp()
    seen["the gateway"] = store.traffic.answered_by(project.task.name, since=window)
    return [alarm for source, rows in seen.items() for alarm in renamed(project.task.name, release, rows, source=source)]


def renamed(task: str, release: Release | None, rows: Sequence[AnsweredBy], *, source: str) -> list[Alarm]:
    """
    The changes in one source.

    Args:
        task: name of the task.
        release: for the record.
        rows: models and fingerprints in the order in which they were first seen.
        source: for words.

    Returns: an alarm for each value that came after another one; a value that nobody named is none.
    """
    found = []
    for what in ("model", "fingerprint"):
        values: dict[str, str] = {}
        for row in rows:
            value = row.model if what == "model" else row.fingerprint
            if not value or value in values:
                continue
            if values:
                before = list(values)[-1]
                words = f"{source}: the teacher answers with {what} {value[:80]!r} since {row.since}; before with {before[:80]!r}"
                found.append(_alarm(
                    task, release, "teacher_identity", day=row.since[:10], since=row.since[:10], key=f"{source} {what} {value}", value=1.0,
                    low=None, high=None, reference=0.0, n=1, words=words,
                ))  # fmt: skip
            values[value] = row.since
    return found


def _alarm(
    task: str, release: Release | None, signal: Signal, *, day: str, since: str, key: str, words: str, **numbers: Any
) -> Alarm:
    """The id holds task, signal and what is peculiar to the cause, and no release: the teacher is the same for all."""
    made: Mapping[str, Any] = {"task": task, "signal": signal, "slice": ALL, "at": day, "since": since, "kind": "page", "words": words}
    return Alarm(id=f"{signal}-{digest_of([task, key])[:16]}", release_id="" if release is None else release.id, **made, **numbers)


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()
