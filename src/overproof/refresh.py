"""The smallest re-run: what failed and a part of today's traffic is labelled, students are fitted anew, and the best challenges the serving one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

from overproof import registry
from overproof.data import (
    Answers,
    Clearance,
    Failed,
    Folder,
    NextSet,
    PromptRow,
    PromptSet,
    Request,
    Traffic,
    TrafficRecord,
    Trigger,
    call_digest,
    digest_of,
)
from overproof.errors import DataError
from overproof.evidence import Challenge, EvalReport, Release
from overproof.pipeline import Road, RunResult
from overproof.project import Project
from overproof.recipes import functions_of, rare_slices, slices_of
from overproof.runs import runs_of
from overproof.steps.answers import same_answer
from overproof.steps.capture import CaptureRecipe, LogSnapshot, capture, instant
from overproof.steps.challenge import CHALLENGE, ChallengeRecipe
from overproof.steps.filter import TAKE_TEST, NoRecipe
from overproof.steps.refresh import REFRESH, RefreshRecipe
from overproof.steps.refresh import refresh as next_set
from overproof.steps.served import ADD_SERVED, TAKE_ASKED, TAKE_PROMPTS, TakeRecipe, teachers_answer
from overproof.steps.survey import Survey, row_hash
from overproof.store.adopted import Adopted
from overproof.store.artifacts import Artifact, Memo, StepEvent
from overproof.store.labels import label_key
from overproof.store.project_store import Store
from overproof.teachers import messages_for

MOST_USES = 3
"""So often the gate admits the same sealed rows; after that the fresh ones stand alone."""
OPENAI = "openai.v1"
HALF = 0.5  # a rating below it says that the answer was wrong


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a refresh would do, or has done."""

    champion: str
    """Id of the serving release."""
    why: str
    """What the trigger says, or somebody said."""
    trigger: str
    """Its id; empty where there is none."""
    following: NextSet
    """The next prompt set."""
    asked: int
    """Rows that the teacher is asked about."""
    reused: int
    """Rows whose answer was there."""
    adopted: int
    """Rows among `reused` whose answer a caller got to the very question that the project asks."""
    served: int
    """Training rows with an answer that a caller got in other words or under other parameters."""
    cost_usd: float | None
    """Of the rows that are asked, by what the release's own answers cost; None where nobody wrote that down."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refreshed:
    """What a refresh came to."""

    plan: Plan
    run: RunResult
    """The run; its verdict is a candidate for `overproof promote`, or a refusal with its reasons."""
    challenge: Challenge | None
    """Champion against challenger; None where the run stopped before."""
    spent_usd: float
    """By this run, on its teacher and all others."""

    @property
    def release(self) -> Release | None:
        """The new candidate; None where the champion stays."""
        return self.run.verdict if isinstance(self.run.verdict, Release) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Grounds:
    """All that a refresh stands on."""

    champion: Release
    reference: Artifact[PromptSet]
    answers: Artifact[Answers]
    failed: Failed
    recipe: RefreshRecipe
    adopted: Mapping[str, Adopted]
    """Request id to an answer that the ledger may take."""
    why: str
    trigger: Trigger | None


def refresh(
    store: Store, project: Project, *, now: datetime, why: str = "", on_event: Callable[[StepEvent], None] | None = None
) -> Refreshed:
    """
    Distil again with as few new labels as will do, and let the new student challenge the serving one.

    Args:
        store: the project's store.
        project: the checked project file.
        now: requests up to this moment count.
        why: id of an open trigger, whose slices have to become better; or words for the record.
        on_event: called at the start and the end of each step.

    Returns: the run, the comparison, and what was labelled. A release is left as a candidate; a challenger that is not shown to
        hold up on every critical slice is refused by the gate, and the champion stays.
    Raises: DataError where nothing serves, or too little traffic came since; whatever a step raises.
    """
    with store.role("run"):
        memo = store.memo(on_event=on_event)
        grounds = _grounds(store, project, memo, now=now, why=why)
        road = Rematch(store, project, memo, grounds)
        before = store.ledger.spent_usd
        try:
            for _ in road.walk():
                pass
            result = road.result()
        finally:
            road.engine.close()
        assert road.plan is not None
        found: Challenge | None = result.artifacts["challenge"].value if "challenge" in result.artifacts else None
        done = Refreshed(plan=road.plan, run=result, challenge=found, spent_usd=store.ledger.spent_usd - before)
        _on_record(store, project, grounds, done, at=now)
    return done


def preview(store: Store, project: Project, *, now: datetime, why: str = "") -> Plan:
    """
    What a refresh would label, and about what that costs; asks and writes nothing.

    Args:
        store: the project's store.
        project: the checked project file.
        now: see `refresh`.
        why: see `refresh`.

    Returns: the plan.
    Raises: DataError as `refresh`.
    """
    memo = store.memo()
    grounds = _grounds(store, project, memo, now=now, why=why)
    log = LogSnapshot(records=tuple(store.traffic.read()))
    window = CaptureRecipe(fields=project.task.input, window_days=project.traffic.window_days, task=project.task.name)
    following = next_set(capture(log, window), log, grounds.reference.value, grounds.failed, grounds.recipe)
    return _plan(store, project, grounds, following)


class Rematch(Road):
    """
    The road with the next prompt set in place of a first one, and a champion at its end.

    Args:
        store: where logs, ledgers and releases are.
        project: what the user's file says.
        memo: runs or reuses each step.
        grounds: the champion, its prompt set, and what failed.
    """

    def __init__(self, store: Store, project: Project, memo: Memo, grounds: _Grounds) -> None:
        super().__init__(store, project, memo)
        self._grounds = grounds
        self.plan: Plan | None = None

    def _prompts(self, traffic: Artifact[Traffic]) -> Artifact[PromptSet]:
        g, run = self._grounds, self.memo.run
        failed = self.memo.source("failed", g.failed)
        self._next: Artifact[NextSet] = run(REFRESH, traffic, self._log(), g.reference, failed, recipe=g.recipe)
        self.artifacts["next"] = self._next
        self.plan = _plan(self.store, self.project, g, self._next.value)
        return run(TAKE_PROMPTS, self._next, recipe=TakeRecipe())

    def _asked(
        self, prompts: Artifact[PromptSet], clearance: Artifact[Clearance], members: Sequence[Artifact[Clearance]]
    ) -> Artifact[Answers]:
        del prompts
        wanted = set(self._next.value.why)
        taken = [one for identity, one in sorted(self._grounds.adopted.items()) if identity in wanted]
        if taken:
            self.buyer.on_record(clearance.value)
            self.store.adopted.put(taken, run_id=f"refresh of {self._grounds.champion.id}", clearance_id=clearance.value.id)
        asked = super()._asked(self.memo.run(TAKE_ASKED, self._next, recipe=TakeRecipe()), clearance, members)
        return self.memo.run(ADD_SERVED, asked, self._next, recipe=TakeRecipe())

    def _challenge(self, bundle: Artifact[Folder], report: EvalReport, survey: Survey) -> None:
        p, g = self.project, self._grounds
        slices = slices_of(p, survey)
        recipe = ChallengeRecipe(
            slices=slices, named=g.trigger.slices if g.trigger else (), margin=p.watch.challenger_margin, slice_margin=p.watch.challenger_slice_margin,
            delta=p.proof.delta, delta_k=report.certificate.delta_spent,
        )  # fmt: skip
        rows = self.memo.run(TAKE_TEST, self.artifacts["labels"], recipe=NoRecipe())
        champion = self.memo.source("champion", g.champion)
        self.artifacts["challenge"] = self.memo.run(
            CHALLENGE, champion, bundle, rows, self._next, recipe=recipe, functions=functions_of(slices)
        )


def champion_of(store: Store, task: str) -> Release:
    """
    The release whose place a new one would take.

    Args:
        store: the project's store.
        task: its name.

    Returns: the serving one; where the teacher answers alone, the one that served last, else the newest.
    Raises: DataError where there never was one.
    """
    state = store.rollouts.current(task)
    name = state.release_id or state.last_release
    found = store.releases.get(name) if name else store.releases.current() or store.releases.latest()
    if found is None:
        raise DataError("there is no release to refresh", next_action="make one with `overproof run`")
    return found


def reference_of(store: Store, memo: Memo, champion: Release) -> Mapping[str, Artifact[Any]]:
    """
    The results of the run that made a release.

    Args:
        store: the project's store.
        memo: of the store.
        champion: the release.

    Returns: name to result; values load when they are asked for.
    Raises: DataError where the store has no such run.
    """
    for run in reversed(runs_of(store)):
        if run.outcome == "release" and memo.stored("verdict", run.digests["verdict"]).value.id == champion.id:
            return {name: memo.stored(name, digest) for name, digest in run.digests.items()}
    raise DataError(f"no run of this store made release {champion.id}", next_action="make one here with `overproof run`")


def _grounds(store: Store, project: Project, memo: Memo, *, now: datetime, why: str) -> _Grounds:
    p = project
    champion = champion_of(store, p.task.name)
    made = reference_of(store, memo, champion)
    since = champion.certificate.window[1]
    recipe = RefreshRecipe(
        task=p.task.name, release_id=champion.id, model=p.pin.model, output=p.task.output, since=since,
        until=now.astimezone(UTC).isoformat(), rows=p.watch.refresh_rows, share=p.watch.refresh_share, per_principal=p.watch.per_principal,
        per_group=p.watch.per_group, match=p.promptset.match, critical=rare_slices(p), clusters=p.promptset.clusters,
        seed=p.promptset.seed, learn_served=not p.committee,
    )  # fmt: skip
    captured = [r for r in store.traffic.read() if r.served is not None and (since is None or instant(r.request.at) > instant(since))]
    wrong = _marked_wrong(store, p, captured)
    adopted = {} if p.committee else _adoptable(p, [r for r in captured if r.request.id not in wrong])
    bought = {r.request.id for r in captured if r.request.id in adopted or _in_ledger(store, p, _trimmed(p, r.request))}
    trigger = next((one for one in store.watching.triggers(p.task.name, open_only=False) if one.id == why), None)
    failed = Failed(
        named=dict.fromkeys((a.request_id for a in store.watching.audits(champion.id, state="labelled") if a.wrong), "audit"),
        wrong=tuple(sorted(wrong)), bought=tuple(sorted(bought)), worn=_worn(store, made["prompts"].value),
    )  # fmt: skip
    return _Grounds(
        champion=champion, reference=made["prompts"], answers=made["answers"], failed=failed, recipe=recipe, adopted=adopted,
        why=trigger.why if trigger else why, trigger=trigger,
    )  # fmt: skip


def _worn(store: Store, reference: PromptSet) -> tuple[str, ...]:
    """Nothing while the release's sealed rows may be opened once more; else all rows that ever were, so that none comes back."""
    sealed = [row_hash(row.request.id) for row in reference.test]
    return tuple(store.releases.opened_rows()) if store.releases.times_opened(sealed) >= MOST_USES else ()


def _marked_wrong(store: Store, project: Project, captured: Sequence[TrafficRecord]) -> set[str]:
    """Requests whose answer a caller contradicted or rated down."""
    said = {r.request.id: r.completion.text for r in captured if r.completion is not None}
    found = set()
    for word in store.captured.feedback():
        if word.request_id not in said or word.kind == "comment":
            continue
        if word.kind == "rating":
            bad = float(word.value) < HALF
        else:
            try:
                bad = not same_answer(project.task.written, project.task.output.parse(said[word.request_id]), word.value)
            except DataError:
                bad = True
        if bad:
            found.add(word.request_id)
    return found


def _trimmed(project: Project, request: Request) -> Request:
    return replace(request, fields={name: request.fields[name] for name in project.task.input if name in request.fields})


def _key(project: Project, request: Request) -> str:
    return label_key(project.pin, digest_of(project.task.output.json_schema()), request)


def _free(project: Project) -> bool:
    """Whether the teacher replays what is there: then the ledger holds nothing of it."""
    return bool(getattr(registry.resolve("teachers", project.teacher.use), "free", False))


def _in_ledger(store: Store, project: Project, request: Request) -> bool:
    return not _free(project) and set(request.fields) == set(project.task.input) and store.ledger.get(_key(project, request)) is not None


def _adoptable(project: Project, captured: Sequence[TrafficRecord]) -> dict[str, Adopted]:
    """
    Answers to the very question that the project asks: same model at the same address, same messages, same parameters. Anything
    else is not in the cache's name, and trains as what it is: an answer that a caller got.
    """
    p, table = project, project.teacher
    same_place = not p.gateway.upstream or p.gateway.upstream.rstrip("/") == table.base_url.rstrip("/")
    if table.use != OPENAI or not same_place or table.options.get("fingerprint"):
        return {}
    part = registry.resolve("teachers", table.use)
    known = {f.name for f in fields(part.Options)}
    given = {f.name: getattr(table, f.name) for f in fields(table)} | dict(table.options)
    parameters = part(task=p.task, options=part.Options(**{k: v for k, v in given.items() if k in known and v not in ("", None)})).parameters
    found = {}
    for record in captured:
        answer = teachers_answer(record, task=p.task.name, model=p.pin.model, output=p.task.output)
        if answer is None or record.served is None or not record.served.asked:
            continue
        request = _trimmed(p, record.request)
        ours = call_digest([(m.role, m.content) for m in messages_for(p.task, request)], parameters, request.fields)
        if record.served.asked == ours:
            found[request.id] = Adopted(key=_key(p, request), request_id=request.id, answer=answer)
    return found


def _plan(store: Store, project: Project, grounds: _Grounds, following: NextSet) -> Plan:
    prompts = following.prompts
    rows = [row for row in (*prompts.train, *prompts.calibration, *prompts.test) if row.request.id not in following.served]
    reference = grounds.reference.value
    before = {row.request.digest for row in (*reference.train, *reference.calibration, *reference.test)}
    free = _free(project)

    def there(row: PromptRow) -> bool:
        if free:
            return row.request.digest in before
        return row.request.id in grounds.adopted or store.ledger.get(_key(project, row.request)) is not None

    asked = sum(not there(row) for row in rows)
    said = grounds.answers.value
    costs = [sum(c.cost_usd or 0.0 for c in one.completions) for one in (*said.train, *said.calibration, *said.test) if one.completions]
    known = [one for one in costs if one > 0]
    cost = 0.0 if free or not asked else asked * sum(known) / len(known) if known else None
    return Plan(
        champion=grounds.champion.id, why=grounds.why, trigger=grounds.trigger.id if grounds.trigger else "", following=following,
        asked=asked, reused=len(rows) - asked, served=len(following.served), cost_usd=cost,
        adopted=sum(row.request.id in grounds.adopted for row in rows),
    )  # fmt: skip


def _on_record(store: Store, project: Project, grounds: _Grounds, done: Refreshed, *, at: datetime) -> None:
    """What was done, in the log of decisions; a trigger that led to a candidate is dealt with."""
    plan, release = done.plan, done.release
    body = {
        "why": plan.why, "trigger": plan.trigger, "asked": plan.asked, "reused": plan.reused, "adopted": plan.adopted,
        "served": plan.served, "run": done.run.run_id, "release": release.id if release else "",
    }  # fmt: skip
    actor = project.owner.name if project.owner else "nobody named"
    store.decisions.append("refresh", actor=actor, subject=plan.champion, body=body)
    if release is not None and grounds.trigger is not None:
        outcome = f"release {release.id} is a candidate: it holds up against {plan.champion}"
        store.watching.end_trigger(grounds.trigger.id, state="done", outcome=outcome, at=at.timestamp())
