"""Who is asked and how it is paid: teachers and endpoint baselines, each behind the one ledger of the project."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from datetime import date
from typing import Any
from urllib.parse import urlsplit

from overproof import registry
from overproof.data import CanaryRound, Clearance, Completion, Request, TeacherPin, digest_of
from overproof.project import Project
from overproof.recordings import imported_answers
from overproof.settings import Part, TeacherTable
from overproof.steps.canaries import ask_canaries, read_canaries
from overproof.steps.teach import Sampler
from overproof.store.artifacts import Artifact
from overproof.store.batches import BatchedTeacher
from overproof.store.labels import LedgeredTeacher
from overproof.store.money import Prices
from overproof.store.pacing import Manners
from overproof.store.project_store import Store
from overproof.task import Task

CACHE_WRITE_FACTOR = 1.25  # the dearest way to send a prompt token at any provider that this package knows
NOT_OPTIONS = ("shots",)  # what [[baseline]] says to the step, not to the part


class Buyer:
    """
    Makes samplers that open a connection, a recording or the ledger only when a step really asks something.

    Args:
        store: holds the ledger.
        project: names teacher, prices and budget.
        today: for the run's name.
    """

    def __init__(self, *, store: Store, project: Project, today: date) -> None:
        self._store = store
        self._project = project
        self._run_id = f"{today.isoformat()}-{uuid.uuid4().hex[:8]}"
        self._opened = False

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
        The teacher of [teacher] or of one [[committee]] table.

        Args:
            table: which one.
            clearance: the permission that its answers are stored with.

        Returns: a sampler with cache, retries and ledger.
        """
        given = {f.name: getattr(table, f.name) for f in fields(table)} | dict(table.options)
        pin = self._project.pin_of(table)

        def build() -> LedgeredTeacher:
            return self._wrapped(table.use, given, self._project.task, pin, clearance.value.id)

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

    def baseline_pin(self, part: Part, prompt_digest: str) -> TeacherPin:
        """
        The exact model behind an endpoint baseline.

        Args:
            part: a [[baseline]] table that names a teacher part.
            prompt_digest: of the prompt that it gets.

        Returns: its pin.
        """
        address = str(part.options.get("base_url", ""))
        return TeacherPin(
            use=part.use,
            provider=str(part.options.get("provider") or urlsplit(address).hostname or "recording"),
            model=str(part.options.get("model", "")),
            revision=str(part.options.get("revision", "")),
            base_url=address,
            parameters={k: v for k, v in part.options.items() if isinstance(v, str | int | float) and k not in NOT_OPTIONS},
            prompt_digest=prompt_digest,
        )

    def baseline(self, part: Part, pin: TeacherPin, prompt: Artifact[str]) -> Sampler:
        """
        An off-the-shelf model, asked with a prompt of its own; nothing that it says is ever learned from.

        Args:
            part: a [[baseline]] table that names a teacher part.
            pin: from `baseline_pin`.
            prompt: instructions, with examples or without.

        Returns: a sampler with cache, retries and ledger.
        """

        def build() -> LedgeredTeacher:
            task = replace(self._project.task, prompt=prompt.value)
            return self._wrapped(part.use, part.options, task, pin, "evaluation only")

        return Lazy(build)

    def _wrapped(
        self, use: str, given: Mapping[str, Any], task: Task, pin: TeacherPin, clearance_id: str
    ) -> LedgeredTeacher:
        if not self._opened:
            self._store.ledger.open_run(self._run_id, cap_usd=self._project.teacher.budget_usd)
            self._opened = True
        part = registry.resolve("teachers", use)
        known = {f.name for f in fields(part.Options)}
        batch = given.get("mode") == "batch"
        factor = given["price_batch_factor"] if batch else 1.0
        money = {k: v * factor for k, v in given.items() if k.startswith("price_") and k in known and v is not None}
        options = {k: v for k, v in {**given, **money}.items() if k in known and v not in ("", None)}
        more: dict[str, Any] = {}
        if options.get("path"):
            options["path"] = str(self._project.root / options["path"])
            if use == "recorded.v1":
                columns = options.get("columns", {})
                imported = imported_answers(options["path"], task=task, use=options.get("format", ""), columns=columns)
                more = {"answers": imported} if imported is not None else {}
        teacher = part(task=task, options=part.Options(**options), **more)
        wrapped: dict[str, Any] = {
            "pin": pin,
            "prices": _prices(given, factor),
            "clearance_id": clearance_id,
            "run_id": self._run_id,
            "output_digest": digest_of(task.output.json_schema()),
            "pace": Manners(
                requests_per_minute=given.get("requests_per_minute"),
                tokens_per_minute=given.get("tokens_per_minute"),
                stop_on_fingerprint=given.get("on_fingerprint") == "stop",
            ),
        }
        if batch:
            return BatchedTeacher(teacher, self._store.ledger, **wrapped)
        return LedgeredTeacher(teacher, self._store.ledger, **wrapped)


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
