"""The label ledger: every dollar is set aside before a call and settled after it; an answer is bought once."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

from overproof.data import Completion, Outcome, Request, TeacherPin, digest_of
from overproof.errors import BudgetExceeded, PinMismatch, StoreError, TeacherError
from overproof.store.group import GroupCommit
from overproof.store.local import Db
from overproof.store.money import Prices, to_micro
from overproof.store.pacing import Breaker, Manners, Pacer
from overproof.store.sql import Connection, Row

State = Literal["ok", "bad", "transient", "permanent", "fatal"]

BUDGET = "teacher"
TRANSIENT_TRIES = 6
BAD_TRIES = 3
KEPT_CHARACTERS = 2_000  # of an answer that is no label
LONGEST_PAUSE_S = 60.0
LONGEST_RETRY_AFTER_S = 600.0
HOPELESS = 5  # dropped rows among the first 100 that stop the run: it's the request that's wrong, not the rows
FIRST = 100

_HOLD = """
    UPDATE budget SET held_micro=held_micro+:m WHERE name=:n AND held_micro+spent_micro+:m<=cap_micro RETURNING 1"""
_RESERVE = "INSERT INTO attempt(run_id, key, state, max_micro) VALUES(?, ?, 'reserved', ?) RETURNING id"
_SETTLE = """
    UPDATE attempt SET state=?, cost_micro=?, http_status=?, reason=?, model=?, fingerprint=?, provider_request_id=?,
        answer=? WHERE id=? AND state='reserved' RETURNING key, max_micro, run_id"""
_RELEASE = "UPDATE budget SET held_micro=held_micro-?, spent_micro=spent_micro+? WHERE name=?"
PURSE = "@"  # in a run's id before the name of a second budget that its calls must fit in as well
_BUDGET = "SELECT cap_micro, held_micro, spent_micro FROM budget WHERE name=?"
SET_ASIDE = "quarantined: bought under a clearance that no present terms record takes over"
_LABEL = "INSERT INTO label VALUES(?, ?, ?, ?) ON CONFLICT DO NOTHING"


@dataclass(frozen=True, kw_only=True, slots=True)
class Settlement:
    """What became of one reserved call."""

    attempt: int
    """What `reserve` returned."""
    state: State
    cost_micro: int
    """Millionths of a US dollar."""
    clearance_id: str
    completion: Completion | None = None
    """The answer; becomes a label iff the state is "ok"."""
    reason: str = ""
    http_status: int | None = None
    fingerprint: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """An answer that was paid for and is no label."""

    reason: str
    completion: Completion | None
    """Its text is cut at `KEPT_CHARACTERS`; None where no answer could be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerCounts:
    """How the ledger stands."""

    labels: int
    """Answers that are kept."""
    attempts: Mapping[str, int]
    """State to calls; "lost" ones were in flight when a process died."""
    cap_usd: float
    held_usd: float
    """Set aside for calls in flight."""
    spent_usd: float
    """Charged so far over all runs, lost calls at their maximum."""


class Bound(Protocol):
    """The most that a call can use."""

    @property
    def tokens_in(self) -> int:
        """Prompt tokens."""

    @property
    def tokens_out(self) -> int:
        """Answer tokens."""


class Caller(Protocol):
    """A teacher as the ledger sees it: one wire request for one call."""

    @property
    def free(self) -> bool:
        """True for one that replays what is there already."""

    async def attempt(
        self, request: Request, *, sample_index: int, recorded: Completion | None = None
    ) -> Outcome:
        """One wire request; the provider's faults are outcomes, not exceptions."""

    def worst_case_tokens(self, request: Request) -> Bound:
        """The most that `attempt` can use."""

    async def close(self) -> None:
        """Let go of connections."""


def label_key(pin: TeacherPin, output_digest: str, request: Request, sample_index: int = 0) -> str:
    """The key under which an answer is bought once; see `LedgeredTeacher`."""
    of_pin = digest_of({**asdict(pin), "parameters": dict(pin.parameters)})
    words = {"pin": of_pin, "prompt": pin.prompt_digest, "output": output_digest, "request": request.digest, "sample": sample_index}
    return digest_of(words)


class LabelLedger:
    """
    The teacher's answers and their price, in millionths of a dollar since sums of floats drift.

    Args:
        db: the open `project.db`.
    """

    def __init__(self, db: Db) -> None:
        self._db = db
        self._honoured: frozenset[str] | None = None
        self.group = GroupCommit(db)

    def honour(self, clearances: Collection[str]) -> None:
        """From now on, labels that were bought under any other clearance are set aside; they stay, and cost nothing again."""
        self._honoured = frozenset(clearances)

    def under(self) -> Mapping[str, int]:
        """Clearance id to labels that were bought under it."""
        return dict(self._db.rows("SELECT clearance_id, count(*) FROM label GROUP BY clearance_id ORDER BY 1"))

    def open_run(self, run_id: str, *, cap_usd: float | None, purse_usd: float = 0.0) -> int:
        """
        Begin: set the cap, and charge calls that were in flight when a process died at their maximum.

        Args:
            run_id: for the record only.
            cap_usd: the most that this project may ever spend on its teacher; None admits no paid call.
            purse_usd: the most that runs with the same purse may spend, where the id names one.

        Returns: how many calls were lost.
        Raises: StoreError unless this process holds the role "run": only then is nobody else in flight.
        """
        if not self._db.holds("run"):
            raise StoreError(
                f"run {run_id!r} doesn't hold the role 'run'",
                next_action='open the ledger inside `store.role("run")`',
            )
        with self._db.write() as connection:
            for name in _budgets(run_id):
                connection.execute(
                    "INSERT INTO budget VALUES(?, ?, 0, 0) ON CONFLICT(name) DO UPDATE SET cap_micro=excluded.cap_micro",
                    (name, to_micro((cap_usd or 0.0) if name == BUDGET else purse_usd, up=False)),
                )
            # Rows of a batch are not lost: the batch is still there to be asked for, see `store.batches`.
            lost: list[Row] = connection.execute(
                "UPDATE attempt SET state='lost', cost_micro=max_micro WHERE state='reserved'"
                " AND id NOT IN (SELECT attempt FROM batch_row) RETURNING max_micro, run_id"
            ).fetchall()
            open_calls: list[Row] = connection.execute("SELECT max_micro, run_id FROM attempt WHERE state='reserved'").fetchall()
            names: list[Row] = connection.execute("SELECT name FROM budget").fetchall()
            for (name,) in names:
                held, gone = (sum(int(most) for most, run in calls if name in _budgets(run)) for calls in (open_calls, lost))
                connection.execute("UPDATE budget SET held_micro=?, spent_micro=spent_micro+? WHERE name=?", (held, gone, name))
        return len(lost)

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[Row]:
        """Read the ledger's tables; for its neighbours in this room."""
        return self._db.rows(query, tuple(values))

    def get(self, key: str) -> Completion | None:
        """The answer that was bought under this key, without a value where its clearance isn't honoured; None where there is none."""
        rows = self._db.rows("SELECT completion, clearance_id FROM label WHERE key=?", (key,))
        if not rows:
            return None
        answer = Completion(**json.loads(rows[0][0]))
        if self._honoured is None or rows[0][1] in self._honoured:
            return answer
        return replace(answer, text="", value=None, reason=SET_ASIDE)

    def rejected(self, key: str) -> list[Rejected]:
        """Earlier answers to this key that were not accepted, oldest first."""
        query = "SELECT reason, answer FROM attempt WHERE key=? AND state='bad' ORDER BY id"
        return [
            Rejected(reason=reason, completion=None if answer is None else Completion(**json.loads(answer)))
            for reason, answer in self._db.rows(query, (key,))
        ]

    def reserve(self, key: str, *, run_id: str, max_micro: int) -> int:
        """
        Set aside the most that a call can cost; durable on return.

        Args:
            key: see `LedgeredTeacher`.
            run_id: for the record.
            max_micro: upper bound in millionths of a US dollar.

        Returns: the attempt's number.
        Raises: BudgetExceeded where the cap doesn't leave so much; then no call may be made.
        """
        with self._db.write() as connection:
            return self.reserve_in(connection, key, run_id=run_id, max_micro=max_micro)

    def reserve_in(self, connection: Connection, key: str, *, run_id: str, max_micro: int) -> int:
        """`reserve` inside a transaction of the caller's."""
        for name in _budgets(run_id):
            if connection.execute(_HOLD, {"m": max_micro, "n": name}).get is not None:
                continue
            row: list[Row] = connection.execute(_BUDGET, (name,)).fetchall()
            cap, held, spent = row[0] if row else (0, 0, 0)
            raise BudgetExceeded(
                f"the next call can cost ${max_micro / 1e6:.6f}; of the cap of ${cap / 1e6:.2f}"
                f" ${spent / 1e6:.6f} is spent and ${held / 1e6:.6f} set aside",
                next_action=f"raise {'[teacher] budget_usd' if name == BUDGET else name}, then run again: answers that are paid for are kept",
            )
        return int(connection.execute(_RESERVE, (run_id, key, max_micro)).get)

    def settle(self, settlement: Settlement) -> None:
        """Record what became of a reserved call, with its label if it is one; durable on return."""
        with self._db.write() as connection:
            self.settle_in(connection, settlement)

    def settle_in(self, connection: Connection, settlement: Settlement) -> None:
        """`settle` inside a transaction of the caller's."""
        s, answer = settlement, settlement.completion
        rows: list[Row] = connection.execute(
            _SETTLE,
            (
                s.state,
                s.cost_micro,
                s.http_status,
                _clean(s.reason),
                _clean(answer.model) if answer else None,
                s.fingerprint,
                s.request_id,
                None if answer is None or s.state == "ok" else json.dumps(asdict(answer)),
                s.attempt,
            ),
        ).fetchall()
        if not rows:
            raise StoreError(f"call {s.attempt} is not open", next_action="run again")
        key, max_micro, run_id = rows[0]
        for name in _budgets(run_id):
            connection.execute(_RELEASE, (max_micro, s.cost_micro, name))
        if s.state == "ok":
            if answer is None or answer.value is None:
                raise StoreError(
                    f"call {s.attempt} is settled as ok without an answer", next_action="report this"
                )
            connection.execute(_LABEL, (key, json.dumps(asdict(answer)), s.attempt, s.clearance_id))

    def could_fit(self, max_micro: int) -> bool:
        """True iff the cap leaves so much once all calls in flight are settled at no cost."""
        rows = self._db.rows(
            "SELECT spent_micro+? <= cap_micro FROM budget WHERE name=?", (max_micro, BUDGET)
        )
        return bool(rows and rows[0][0])

    @property
    def spent_usd(self) -> float:
        """Charged so far over all runs, in US dollars."""
        rows = self._db.rows("SELECT spent_micro FROM budget WHERE name=?", (BUDGET,))
        return rows[0][0] / 1e6 if rows else 0.0

    def counts(self) -> LedgerCounts:
        """How the ledger stands now."""
        states = self._db.rows("SELECT state, count(*) FROM attempt GROUP BY state ORDER BY state")
        budget = self._db.rows(
            "SELECT cap_micro, held_micro, spent_micro FROM budget WHERE name=?", (BUDGET,)
        )
        cap, held, spent = budget[0] if budget else (0, 0, 0)
        return LedgerCounts(
            labels=self._db.rows("SELECT count(*) FROM label")[0][0],
            attempts={str(state): int(n) for state, n in states},
            cap_usd=cap / 1e6,
            held_usd=held / 1e6,
            spent_usd=spent / 1e6,
        )


class LedgeredTeacher:
    """
    A teacher with cache, budget and the one layer of retries round it.

    The key of an answer is the SHA-256 of pin, prompt, output kind, request content and sample index. A free teacher
    replays what is there already, so it passes through: nothing is cached, nothing charged.

    Args:
        teacher: makes one wire request for one call.
        ledger: opened with `open_run`.
        pin: who answers, with all sampling parameters.
        prices: None where nobody wrote them down; then no paid call is made.
        clearance_id: the permission under which labels are made.
        run_id: for the record.
        output_digest: digest of what the task accepts as an answer; another one means other labels.
        pace: how fast to ask, and what to do where the system behind the model changes; see `Manners`.
    """

    def __init__(
        self,
        teacher: Caller,
        ledger: LabelLedger,
        *,
        pin: TeacherPin,
        prices: Prices | None,
        clearance_id: str,
        run_id: str,
        output_digest: str = "",
        pace: Manners | None = None,
    ) -> None:
        self._teacher = teacher
        self._ledger = ledger
        self._pin = pin
        self._pin_digest = digest_of({**asdict(pin), "parameters": dict(pin.parameters)})
        self._prices = prices
        self._clearance_id = clearance_id
        self._run_id = run_id
        self._output_digest = output_digest
        self._manners = pace or Manners()
        self._sleep = self._manners.sleep
        self._pacer = Pacer(
            requests_per_minute=self._manners.requests_per_minute,
            tokens_per_minute=self._manners.tokens_per_minute,
            clock=self._manners.clock,
        )
        self._breaker = Breaker(clock=self._manners.clock)
        self._fingerprint: str | None = None
        self._random = random.Random()  # noqa: S311 - jitter, no secret
        self._flying: dict[str, asyncio.Task[Completion]] = {}
        self._dropped: dict[str, Completion] = {}
        self._rows = 0
        self._oks = 0
        self._calls = 0
        self._settled = asyncio.Event()

    def key_of(self, request: Request, sample_index: int) -> str:
        """The key under which an answer is bought once."""
        return label_key(self._pin, self._output_digest, request, sample_index)

    async def sample(
        self, request: Request, *, n: int, recorded: Completion | None = None
    ) -> Sequence[Completion]:
        """
        The teacher's first n answers, bought where they are not there yet.

        Args:
            request: what to ask.
            n: how many.
            recorded: what the log holds as the served answer, for teachers that replay it.

        Returns: n completions in order; one that failed for good has no value, and the reason.
        Raises: TeacherError where the run must stop: PinMismatch, BudgetExceeded, no prices, refused credentials,
            a provider that doesn't come back.
        """
        # One after the other, so that calls in flight are never more than rows in flight.
        return [await self._one(request, index, recorded) for index in range(n)]

    async def one(self, request: Request, index: int) -> Completion:
        """The answer with this number, for prompts that are asked again and again."""
        return await self._one(request, index, None)

    async def close(self) -> None:
        """Let go of connections."""
        await self._teacher.close()

    async def _one(self, request: Request, index: int, recorded: Completion | None) -> Completion:
        if self._teacher.free:
            outcome = await self._teacher.attempt(request, sample_index=index, recorded=recorded)
            if outcome.kind == "fatal":
                raise self._fatal(outcome)
            if outcome.kind == "ok" and outcome.completion is not None:
                return outcome.completion
            return self._drop_of(outcome.reason, outcome.completion)
        key = self.key_of(request, index)
        flight = self._flying.get(key)
        if flight is None:
            flight = asyncio.create_task(self._buy(key, request, index))
            self._flying[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(flight)

    def _landed(self, key: str, flight: asyncio.Task[Completion]) -> None:
        self._flying.pop(key, None)
        if not flight.cancelled():
            flight.exception()  # seen, also where every waiter was cancelled

    async def _buy(self, key: str, request: Request, index: int) -> Completion:
        found = self._ledger.get(key) or self._dropped.get(key)
        if found is not None:
            self._rows += 1
            self._fingerprint = self._fingerprint or found.fingerprint
            return found
        rejected, tries = self._ledger.rejected(key), 1 if self._manners.baseline else BAD_TRIES
        if len(rejected) >= tries:  # by an earlier run, which has counted it
            return self._drop_of(rejected[-1].reason, rejected[-1].completion)
        bad = len(rejected)
        oks_before, transient = self._oks, 0
        while True:
            outcome = await self._attempt(key, request, index)
            if outcome.kind == "ok" and outcome.completion is not None:
                self._rows += 1
                self._oks += 1
                return self._ledger.get(key) or outcome.completion
            if outcome.kind == "fatal":
                raise self._fatal(outcome)
            if outcome.kind == "permanent":
                return self._drop(key, outcome.reason, outcome.completion)
            if outcome.kind == "bad":
                bad += 1
                if bad >= tries:
                    return self._drop(key, outcome.reason, outcome.completion)
                continue
            transient += 1
            if transient >= TRANSIENT_TRIES:
                # A row that others outlive is the row's fault; when nobody gets an answer it's an outage, and an
                # outage must never turn into rows that look dropped for good.
                if self._oks > oks_before:
                    return self._drop(key, f"{transient} tries failed, the last: {outcome.reason}", None)
                raise TeacherError(
                    f"the teacher {self._pin.model!r} doesn't answer: {outcome.reason}",
                    next_action="run again later: answers that are paid for are kept",
                )
            await self._pause(outcome, transient)

    async def _attempt(self, key: str, request: Request, index: int) -> Outcome:
        """One reserved, made and settled call."""
        max_micro = self._most(request)
        if (trouble := self._breaker.trouble):
            raise TeacherError(
                f"the teacher {self._pin.model!r} limps: {trouble}; {self._ledger.counts().labels:,} labels are kept and"
                f" ${self._ledger.spent_usd:.2f} is spent",
                next_action="run again later: it goes on where it stopped",
            )
        await self._pacer.turn(self._sleep)
        number = await self._reserve(key, max_micro)
        self._calls += 1
        try:
            outcome = await self._teacher.attempt(request, sample_index=index)
            self._pacer.learn(outcome)
            self._breaker.record(failed=outcome.kind == "transient" and outcome.http_status != 429)
            cost = self._cost(outcome, max_micro)
            settlement = self._settlement(number, outcome, cost)
            await self._ledger.group.write(lambda connection: self._ledger.settle_in(connection, settlement))
        finally:
            self._calls -= 1
            self._settled.set()
            self._settled = asyncio.Event()
        if cost > max_micro:
            raise TeacherError(
                f"a call cost ${cost / 1e6:.6f}, more than its upper bound ${max_micro / 1e6:.6f}: the cap can't be kept",
                next_action="correct the prices and max_tokens in [teacher]",
            )
        self._same_system(outcome)
        return replace(outcome, completion=settlement.completion)

    def _same_system(self, outcome: Outcome) -> None:
        """The first fingerprint seen is the reference; a label keeps its own, so a change shows in the report."""
        if outcome.kind != "ok" or outcome.fingerprint is None:
            return
        before, self._fingerprint = self._fingerprint, self._fingerprint or outcome.fingerprint
        if before is not None and before != outcome.fingerprint and self._manners.stop_on_fingerprint:
            raise PinMismatch(
                f"{self._pin.model!r} now answers with fingerprint {outcome.fingerprint[:80]!r}; earlier labels have"
                f" {before[:80]!r}",
                next_action='look at canary prompts, then label anew or set on_fingerprint = "report" in [teacher]',
            )

    def _settlement(self, number: int, outcome: Outcome, cost: int) -> Settlement:
        completion = outcome.completion
        if completion is not None and completion.cost_usd is None:
            completion = replace(completion, cost_usd=cost / 1e6)
        if completion is not None and outcome.kind != "ok":
            completion = replace(completion, text=completion.text[:KEPT_CHARACTERS])
        state: State = outcome.kind
        if state == "ok" and (completion is None or completion.value is None):
            raise TeacherError(
                "the teacher part says ok without an answer",
                next_action="mend the part; see testing.teacher_conformance",
            )
        return Settlement(
            attempt=number,
            state=state,
            cost_micro=cost,
            clearance_id=self._clearance_id,
            completion=completion,
            reason=outcome.reason,
            http_status=outcome.http_status,
            fingerprint=outcome.fingerprint,
            request_id=outcome.request_id,
        )

    async def _reserve(self, key: str, max_micro: int) -> int:
        while True:
            settled = self._settled
            try:
                return await self._ledger.group.write(
                    lambda c: self._ledger.reserve_in(c, key, run_id=self._run_id, max_micro=max_micro)
                )
            except BudgetExceeded:
                # What is set aside for calls in flight mostly comes back.
                if not self._calls or not self._ledger.could_fit(max_micro):
                    raise
            await settled.wait()

    async def _pause(self, outcome: Outcome, tries: int) -> None:
        asked = outcome.retry_after_s or 0.0
        if asked > LONGEST_RETRY_AFTER_S:
            raise TeacherError(
                f"the provider asks to wait {asked:.0f} s: {outcome.reason}",
                next_action="run again then: answers that are paid for are kept",
            )
        if asked:
            self._pacer.hold(asked)
        jitter = self._random.uniform(0.0, min(LONGEST_PAUSE_S, 0.5 * 2**tries))
        await self._sleep(max(asked, jitter))

    def _most(self, request: Request) -> int:
        if self._prices is None:
            raise TeacherError(
                f"the prices of {self._pin.model!r} are unknown, so no call can be kept under the cap",
                next_action="add prices to [teacher]",
            )
        bound, prices = self._teacher.worst_case_tokens(request), self._prices
        low = max(prices.usd_per_million_in, prices.usd_per_million_dearest)
        return to_micro((bound.tokens_in * low + bound.tokens_out * prices.usd_per_million_out) / 1e6)

    def _price(self, tokens_in: int, tokens_out: int) -> int:
        assert self._prices is not None
        usd = tokens_in * self._prices.usd_per_million_in + tokens_out * self._prices.usd_per_million_out
        return to_micro(usd / 1e6)

    def _cost(self, outcome: Outcome, max_micro: int) -> int:
        """What to charge; where nobody can know, the most that it can be."""
        answer = outcome.completion
        if not outcome.sent or self._manners.own_machine:
            return 0
        if answer is not None and answer.cost_usd is not None:
            return to_micro(answer.cost_usd)
        if answer is not None and answer.tokens_in is not None and answer.tokens_out is not None:
            return self._price(answer.tokens_in, answer.tokens_out)
        refused = answer is None and outcome.http_status is not None and outcome.http_status >= 300
        return 0 if refused else max_micro

    def _drop(self, key: str, reason: str, answer: Completion | None) -> Completion:
        self._rows += 1
        dropped = self._drop_of(reason, answer)
        self._dropped[key] = dropped
        if self._manners.baseline and answer is not None:
            return dropped
        if self._rows <= FIRST and len(self._dropped) > HOPELESS:
            raise TeacherError(
                f"{len(self._dropped)} of the first {self._rows} requests failed for good, the last: {reason}",
                next_action="look at the prompt, the model's name and max_tokens in [teacher]",
            )
        return dropped

    def _drop_of(self, reason: str, answer: Completion | None) -> Completion:
        if answer is not None:
            return replace(answer, value=None, reason=reason or answer.reason or "not accepted")
        return Completion(
            text="", value=None, model=self._pin.model, finish="error", reason=reason or "no answer"
        )

    def _fatal(self, outcome: Outcome) -> TeacherError:
        answered = outcome.completion.model if outcome.completion else self._pin.model
        if answered != self._pin.model or outcome.reason.startswith("fingerprint "):
            return PinMismatch(
                f"{answered!r} answered, the project pins {self._pin.model!r}: {outcome.reason}",
                next_action="pin the model that answers, or ask the provider; labels of two teachers are never mixed",
            )
        return TeacherError(
            f"the teacher {self._pin.model!r} stopped the run: {outcome.reason}",
            next_action="mend [teacher] or the account, then run again: answers that are paid for are kept",
        )


def _budgets(run_id: str) -> tuple[str, ...]:
    """The budgets that a run's calls must fit in."""
    purse = run_id.partition(PURSE)[2]
    return (BUDGET, purse) if purse else (BUDGET,)


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
