"""Who is asked and how it is paid: teachers and endpoint baselines, each behind the one ledger of the project."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import date
from typing import Any
from urllib.parse import urlsplit

from overproof import registry
from overproof.data import (
    BatchResult,
    BatchState,
    CanaryRound,
    Clearance,
    Completion,
    Outcome,
    Request,
    TeacherPin,
    digest_of,
)
from overproof.engines import Engine
from overproof.engines.local import LocalEngine
from overproof.errors import OverproofError, TermsError
from overproof.model_files import PACKAGE
from overproof.privacy.redact import Redactor, redactor_of
from overproof.project import ASKED, Project
from overproof.recordings import imported_answers
from overproof.settings import JudgeTable, Part, TeacherTable
from overproof.steps.canaries import ask_canaries, read_canaries
from overproof.steps.clear import ClearRecipe, decisive_day, student_kind
from overproof.steps.prompting import SHOWN, Nearest, Prompting, lines_of
from overproof.steps.teach import Sampler
from overproof.steps.terms import Terms, read_terms
from overproof.store.artifacts import Artifact
from overproof.store.batches import BatchCaller, BatchedTeacher
from overproof.store.labels import PURSE, Bound, Caller, LedgeredTeacher
from overproof.store.money import Prices
from overproof.store.pacing import Manners
from overproof.store.project_store import Store
from overproof.store.watch import watch_budget
from overproof.students.weights import pinned
from overproof.task import Task

HERE = LocalEngine()
NOT_LEARNED = "evaluation only"  # stands where a clearance would: nothing is learned from these answers
CACHE_WRITE_FACTOR = 1.25  # the dearest way to send a prompt token at any provider that this package knows
NOT_OPTIONS = (*ASKED, "path")  # what [[baseline]] says to the run and not to the part; a file counts by its digest


def terms_of(project: Project, table: TeacherTable | None = None) -> Terms:
    """
    A teacher's terms record with every entry that binds it and the students.

    Args:
        project: a loaded project.
        table: one of the committee; None: [teacher].

    Returns: input of the clear step.
    Raises: TermsError where the record is missing or malformed.
    """
    asked = table or project.teacher
    if not asked.terms:
        raise TermsError(
            f"{_named(project, asked)} names no terms record: nobody has vouched for the use of this teacher's answers",
            next_action='write terms = "terms/teacher.toml"; `overproof init` shows the form',
        )
    weights = {}
    for part in project.students:
        try:
            sha256 = str(pinned(part.options, root=project.root).get("sha256", ""))
        except OverproofError:
            sha256 = str(part.options.get("sha256", ""))  # weights that aren't here yet: training will say so
        if sha256:
            weights[part.name] = sha256
    return read_terms(project.root / asked.terms, base_url=asked.base_url, weights=weights)


def _named(project: Project, table: TeacherTable) -> str:
    if table is project.teacher:
        return "[teacher]"
    return "[judge]" if isinstance(table, JudgeTable) else f"[[committee]] {table.model!r}"


def clear_recipe(project: Project, terms: Terms, today: str, table: TeacherTable | None = None) -> ClearRecipe:
    """
    The use that the record has to cover.

    Args:
        project: a loaded project.
        terms: from `terms_of`.
        today: ISO date.
        table: one of the committee; None: [teacher].

    Returns: the same recipe until the next day on which the answer could change.
    """
    return ClearRecipe(
        pin=project.pin_of(table or project.teacher),
        student_kind=student_kind([s.use for s in project.students], written=project.task.written is not None),
        distribution=project.teacher.distribution,
        today=decisive_day(terms, today),
    )


def honoured(store: Store, clearance: Clearance) -> frozenset[str]:
    """
    Clearances whose labels the present one takes over: those of the same record, and of records that it supersedes.

    Args:
        store: holds every clearance that labels were bought under.
        clearance: the present one.

    Returns: clearance ids, the present one among them.
    """
    minted = [d for d in store.decisions.read() if d.kind == "clearance"]
    records = {clearance.record, *clearance.supersedes}
    while more := {r for d in minted if d.body["record"] in records for r in d.body["supersedes"]} - records:
        records |= more
    return frozenset({clearance.id, *records, *(d.subject for d in minted if d.body["record"] in records)})


def asks(part: Part) -> bool:
    """
    Whether a candidate is asked, as teachers are, instead of fitted.

    Args:
        part: its table in the project file.

    Returns: True for teacher parts, the user's own classes included.
    """
    named = part.use in registry.names("teachers")
    return named or (":" in part.use and hasattr(registry.resolve("students", part.use), "attempt"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Purse:
    """A budget beside that of the project."""

    name: str
    usd: float


def watch_purse(project: Project, today: date) -> Purse:
    """
    What audits and canary prompts of one calendar month share.

    Args:
        project: a loaded project.
        today: a day of the month, in UTC.

    Returns: the month's purse.
    """
    return Purse(name=watch_budget(today.isoformat()[:7]), usd=project.watch.usd_per_month)


class Buyer:
    """
    Makes samplers that open a connection, a recording or the ledger only when a step really asks something.

    Args:
        store: holds the ledger.
        project: names teacher, prices and budget.
        today: for the run's name.
        engine: where wire calls are made; the ledger is kept here.
        purse: a second budget that every call must fit in as well, under its name in the ledger; see `watch_purse`.
    """

    def __init__(self, *, store: Store, project: Project, today: date, engine: Engine = HERE, purse: Purse | None = None) -> None:
        self._store = store
        self._project = project
        self._purse = purse
        self._run_id = f"{today.isoformat()}-{uuid.uuid4().hex[:8]}{f'{PURSE}{purse.name}' if purse else ''}"
        self._opened = False
        self._engine = engine

    def teacher(self, clearance: Artifact[Clearance]) -> Lazy:
        """
        The project's teacher.

        Args:
            clearance: the permission that its answers are stored with.

        Returns: a sampler with cache, retries and ledger.
        """
        return self.member(self._project.teacher, clearance)

    def member(self, table: TeacherTable, clearance: Artifact[Clearance]) -> Lazy:
        """
        The teacher of [teacher] or of one [[committee]] table, or the judge, who has a task of its own.

        Args:
            table: which one.
            clearance: the permission that its answers are stored with.

        Returns: a sampler with cache, retries and ledger.
        """
        given = {f.name: getattr(table, f.name) for f in fields(table)} | dict(table.options)
        pin = self._project.pin_of(table)

        def build() -> LedgeredTeacher:
            self.on_record(clearance.value)
            task = self._project.judge_task if isinstance(table, JudgeTable) else self._project.task
            return self._wrapped(table.use, given, task, pin, clearance.value.id)

        return Lazy(build)

    def watch(self, teacher: Lazy) -> Callable[[], Awaitable[CanaryRound]] | None:
        """
        The canary round at the start of a labelling run.

        Args:
            teacher: the project's teacher.

        Returns: asks and compares; None where the project names no canary prompts.
        """
        table, project = self._project.teacher, self._project
        if not table.canaries:
            return None

        async def ask() -> CanaryRound:
            prompts = read_canaries(project.root / table.canaries, fields=project.task.input)
            return await ask_canaries(
                teacher.opened(), self._store.canaries, prompts, pin=_digest(project.pin), model=table.model,
                stop=table.on_canary == "stop", at_once=len(prompts) if table.mode == "batch" else 8,
            )  # fmt: skip

        return ask

    def on_record(self, clearance: Clearance) -> None:
        """A label says which clearance it was bought under; the log of decisions says whose that was."""
        log = self._store.decisions
        if not any(d.kind == "clearance" and d.subject == clearance.id for d in log.read()):
            body = {"record": clearance.record, "supersedes": list(clearance.supersedes), "expires": clearance.expires}
            log.append("clearance", actor=clearance.attested_by, subject=clearance.id, body=body)
        self._store.ledger.honour({*honoured(self._store, clearance), NOT_LEARNED})

    def baseline_pin(self, part: Part, prompt_digest: str) -> TeacherPin:
        """
        The exact model behind an endpoint baseline.

        Args:
            part: a [[baseline]] table that names a teacher part.
            prompt_digest: of the prompt that it gets.

        Returns: its pin.
        """
        address, revision = str(part.options.get("base_url", "")), str(part.options.get("revision", ""))
        made = registry.resolve("teachers", part.use)
        own = bool(getattr(made, "own_machine", False))
        if own:  # other bytes under the same name are another model
            revision = made.revision(part.options, root=self._project.root)
        return TeacherPin(
            use=part.use,
            provider=str(part.options.get("provider") or urlsplit(address).hostname or ("local" if own else "recording")),
            model=str(part.options.get("model", "")),
            revision=revision,
            base_url=address,
            parameters={k: v for k, v in part.options.items() if isinstance(v, str | int | float) and k not in NOT_OPTIONS},
            prompt_digest=prompt_digest,
        )

    def baseline(self, part: Part, pin: TeacherPin, prompting: Callable[[], Prompting]) -> Sampler:
        """
        An off-the-shelf model, asked with a prompt of its own; nothing that it says is ever learned from.

        Args:
            part: a [[baseline]] table that names a teacher part.
            pin: from `baseline_pin`.
            prompting: gives instructions and examples, when somebody asks.

        Returns: a sampler with cache, retries and ledger.
        """

        def build() -> LedgeredTeacher:
            made = prompting()
            task = replace(self._project.task, prompt=made.text)
            if not made.nearest:
                return self._wrapped(part.use, part.options, task, pin, NOT_LEARNED)
            task = replace(task, input=(*task.input, SHOWN))
            return self._wrapped(part.use, part.options, task, pin, NOT_LEARNED, around=lambda asked: Shown(asked, made))

        return Lazy(build)

    def _wrapped(
        self, use: str, given: Mapping[str, Any], task: Task, pin: TeacherPin, clearance_id: str,
        *, around: Callable[[Caller], Caller] = lambda asked: asked,
    ) -> LedgeredTeacher:  # fmt: skip
        if not self._opened:
            most = self._purse.usd if self._purse else 0.0
            self._store.ledger.open_run(self._run_id, cap_usd=self._project.teacher.budget_usd, purse_usd=most)
            self._opened = True
        part = registry.resolve("teachers", use)
        known = {f.name for f in fields(part.Options)}
        batch = given.get("mode") == "batch"
        factor = given["price_batch_factor"] if batch else 1.0
        money = {k: v * factor for k, v in given.items() if k.startswith("price_") and k in known and v is not None}
        options = {k: v for k, v in {**given, **money}.items() if k in known and v not in ("", None)}
        more: dict[str, Any] = {}
        privacy = self._project.privacy
        redactor = redactor_of(privacy, key=self._store.secret, keep=task.output.labels)
        own = bool(getattr(part, "own_machine", False))
        if own and "cpu_usd_per_hour" in known:
            options.setdefault("cpu_usd_per_hour", self._project.serve.cpu_usd_per_hour)
        if options.get("path") and not str(options["path"]).startswith(PACKAGE):
            options["path"] = str(self._project.root / options["path"])
            if use == "recorded.v1":
                columns = options.get("columns", {})
                imported = imported_answers(
                    options["path"], task=task, use=options.get("format", ""), columns=columns, redact=redactor.request
                )
                more = {"answers": imported} if imported is not None else {}
        given_plain = {"use": use, "task": task, "options": options, "more": more}
        # A batch is one call that the provider works on, and a recording is read where it lies.
        asked: Any = make_teacher(given_plain) if batch or more or use == "recorded.v1" else self._engine.caller(make_teacher, given_plain)
        if callable(rekey := getattr(asked, "rekey", None)):  # a recording names its rows as the log named them once
            rekey(redactor.text)
        wrapped: dict[str, Any] = {
            "pin": pin,
            "prices": Prices(usd_per_million_in=0.0, usd_per_million_out=0.0) if own else _prices(given, factor),
            "clearance_id": clearance_id,
            "run_id": self._run_id,
            "output_digest": digest_of(task.output.json_schema()),
            "pace": Manners(
                requests_per_minute=given.get("requests_per_minute"),
                tokens_per_minute=given.get("tokens_per_minute"),
                stop_on_fingerprint=given.get("on_fingerprint") == "stop",
                baseline=clearance_id == NOT_LEARNED,
                own_machine=own,
            ),
        }
        if batch:
            return BatchedTeacher(RedactedBatch(asked, redactor), self._store.ledger, **wrapped)
        return LedgeredTeacher(Redacted(around(asked), redactor), self._store.ledger, **wrapped)


def make_teacher(given: Mapping[str, Any]) -> Any:
    """
    A teacher from plain values, here or in a worker.

    Args:
        given: "use", "task", "options", and what else its class takes as "more".

    Returns: the teacher.
    """
    part = registry.resolve("teachers", given["use"])
    return part(task=given["task"], options=part.Options(**given["options"]), **given["more"])


def _prices(given: Mapping[str, Any], factor: float) -> Prices | None:
    low, high = given.get("price_in_usd_per_million"), given.get("price_out_usd_per_million")
    if low is None or high is None:
        return None
    write = given.get("price_cache_write_usd_per_million")
    dearest = write if write is not None else low * CACHE_WRITE_FACTOR
    return Prices(
        usd_per_million_in=low * factor, usd_per_million_out=high * factor, usd_per_million_dearest=dearest * factor
    )


def _digest(pin: TeacherPin) -> str:
    return digest_of({**asdict(pin), "parameters": dict(pin.parameters)})


class Redacted:
    """
    A teacher whose answers and reasons are redacted before the ledger, a step or a message sees them.

    Args:
        teacher: gets requests as the log holds them: redacted.
        redactor: the project's.
    """

    def __init__(self, teacher: Caller, redactor: Redactor) -> None:
        self._teacher = teacher
        self._redactor = redactor

    @property
    def free(self) -> bool:
        """True for one that replays what is there already."""
        return self._teacher.free

    async def attempt(self, request: Request, *, sample_index: int, recorded: Completion | None = None) -> Outcome:
        """One wire request; see `store.labels.Caller`."""
        return self._redactor.outcome(await self._teacher.attempt(request, sample_index=sample_index, recorded=recorded))

    def worst_case_tokens(self, request: Request) -> Bound:
        """The most that `attempt` can use."""
        return self._teacher.worst_case_tokens(request)

    async def close(self) -> None:
        """Let go of connections."""
        await self._teacher.close()


class Shown:
    """
    A model that is shown, with each request, the examples most like it.

    Args:
        asked: has `SHOWN` among its input fields.
        prompting: with a pool of examples.
    """

    def __init__(self, asked: Caller, prompting: Prompting) -> None:
        self._asked = asked
        self._count = prompting.nearest
        self._nearest = Nearest(prompting.pool)
        self.free, self.close = asked.free, asked.close

    async def attempt(self, request: Request, *, sample_index: int, recorded: Completion | None = None) -> Outcome:
        """One wire request; see `store.labels.Caller`."""
        return await self._asked.attempt(self._with(request), sample_index=sample_index, recorded=recorded)

    def worst_case_tokens(self, request: Request) -> Bound:
        """The most that `attempt` can use."""
        return self._asked.worst_case_tokens(self._with(request))

    def _with(self, request: Request) -> Request:
        shots = lines_of(self._nearest.of(request, self._count))
        return replace(request, fields={**request.fields, SHOWN: shots})


class RedactedBatch(Redacted):
    """
    The same for a teacher that is asked in batches.

    Args:
        teacher: gets requests as the log holds them: redacted.
        redactor: the project's.
    """

    def __init__(self, teacher: BatchCaller, redactor: Redactor) -> None:
        super().__init__(teacher, redactor)
        self._batches = teacher
        self.batch_line, self.submit, self.find, self.poll = teacher.batch_line, teacher.submit, teacher.find, teacher.poll

    async def fetch(self, state: BatchState) -> Sequence[BatchResult]:
        """What became of each row of an ended batch; see `store.batches.BatchCaller`."""
        found = await self._batches.fetch(state)
        return [replace(one, outcome=self._redactor.outcome(one.outcome)) for one in found]


class Lazy:
    """A sampler that is built at the first question and again after it was closed."""

    def __init__(self, build: Callable[[], LedgeredTeacher]) -> None:
        self._build = build
        self._inner: LedgeredTeacher | None = None

    async def sample(
        self, request: Request, *, n: int, recorded: Completion | None = None
    ) -> Sequence[Completion]:
        """See `Sampler`."""
        return await self.opened().sample(request, n=n, recorded=recorded)

    def opened(self) -> LedgeredTeacher:
        """The sampler itself, built where it isn't yet."""
        if self._inner is None:
            self._inner = self._build()
        return self._inner

    async def close(self) -> None:
        """Let go of connections; the next question opens new ones."""
        inner, self._inner = self._inner, None
        if inner is not None:
            await inner.close()
