"""Shards on Ray: several processes here, or a cluster."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from overproof.data import Completion, Outcome, Request
from overproof.errors import MissingExtra, StoreError
from overproof.progress import track

TRIES = 3  # of a shard whose worker died: a lost machine takes one, a shard that kills its worker takes all
AHEAD = 2  # shards a worker that are under way or done and not yet taken: fewer leave workers idle, more fill the object store
STARTS = 3
SHARERS = 2  # calls whose shards a worker has at hand: two fits may embed at the same time
LOST = "the worker that made the call is lost"


class RayEngine:
    """
    See `Engine`.

    Args:
        workers: processes, and actors that make wire calls.
        address: of a running cluster; empty to start one on this machine, which is stopped again on `close`.
    """

    apart = True

    def __init__(self, *, workers: int, address: str) -> None:
        self.shards = 4 * workers  # so that a slow worker leaves others something to do
        self._workers, self._address = workers, address
        self._started = False

    def _ray(self) -> Any:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # leave devices as they are, without a warning
        try:
            import ray
        except ImportError as error:
            raise MissingExtra('[run] engine = "ray"', extra="ray") from error
        if not ray.is_initialized():
            # Ray gives each process one thread, and sums of other numbers of threads differ in the last digit.
            threads = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count() or 1))
            more: dict[str, Any] = {"address": "local", "num_cpus": self._workers, "include_dashboard": False}
            if self._address:
                more = {"address": self._address, "runtime_env": {"env_vars": {"OMP_NUM_THREADS": threads}}}
            with _said("OMP_NUM_THREADS", threads):  # what is started here has it from us, seconds sooner than by `runtime_env`
                _start(ray, log_to_driver=False, logging_level=logging.ERROR, **more)
            self._started = True
        return ray

    def each(self, fn: Callable[[Any, Any], Any], shards: Sequence[Any], *, shared: Any = None, what: str) -> Iterator[Any]:
        """See `Engine.each`."""
        if not shards:
            return
        ray = self._ray()
        task, common, rest = ray.remote(_work).options(max_retries=TRIES), ray.put(shared), iter(shards)
        send = partial(task.remote, fn, common.hex(), common)
        ahead = deque(send(shard) for shard in itertools.islice(rest, AHEAD * self._workers))
        try:
            for _ in track(shards, what, total=len(shards)):
                yield _got(ray, ahead.popleft(), what)  # in no name of ours: it goes with the one that takes it
                ahead.extend(send(shard) for shard in itertools.islice(rest, 1))
        finally:
            for one in ahead if ray.is_initialized() else ():
                ray.cancel(one)

    def __reduce__(self) -> tuple[Any, ...]:
        """In a worker it is the same cluster, which the worker neither starts nor stops."""
        return _engine, (self._workers, self._address)

    def caller(self, build: Callable[[Mapping[str, Any]], Any], given: Mapping[str, Any]) -> Any:
        """See `Engine.caller`."""
        ray = self._ray()
        actor = ray.remote(_Wire).options(max_restarts=-1, max_task_retries=0, max_concurrency=512)
        return _Spread(ray, [actor.remote(build, dict(given)) for _ in range(self._workers)], build(given))

    def close(self) -> None:
        """See `Engine.close`."""
        if self._started:
            self._started = False
            self._ray().shutdown()


@contextlib.contextmanager
def _said(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


def _start(ray: Any, **more: Any) -> None:
    """Ray gives its own helper processes 15 seconds (ray#65983), which a busy machine may not keep: then once more, and a third time."""
    tries = STARTS if more["address"] == "local" else 1
    for at in range(tries):
        try:
            ray.init(**more)
        except Exception as error:  # a bare one of the library, whose cause is in its own log
            ray.shutdown()
            if at == tries - 1 or "timed out during startup" not in str(error):
                where = str(more["address"])
                raise StoreError(
                    f"Ray can't be {'started on this machine' if where == 'local' else f'reached at {where}'}: {str(error)[:200]}",
                    next_action='look at /tmp/ray/session_latest/logs, or run with [run] engine = "local"',
                ) from error
        else:
            return


def _engine(workers: int, address: str) -> RayEngine:
    return RayEngine(workers=workers, address=address)


_SHARED: dict[str, Any] = {}
"""In a worker: the values that its last shards shared with others, with what functions left in them."""


def _work(fn: Callable[[Any, Any], Any], name: str, shared: Any, shard: Any) -> Any:
    """One shard, in a worker. Ray reads the value anew for each, arrays without a copy; the one that was there first is used."""
    if name not in _SHARED:
        if len(_SHARED) == SHARERS:
            del _SHARED[next(iter(_SHARED))]
        _SHARED[name] = shared
    return fn(_SHARED[name], shard)


def _got(ray: Any, one: Any, what: str) -> Any:
    try:
        return ray.get(one)
    except ray.exceptions.RayTaskError as error:
        raise error.as_instanceof_cause() from error
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError) as error:
        raise StoreError(
            f"{what}: a worker died {TRIES + 1} times on one shard: {type(error).__name__}",
            next_action='give it more memory or more shards, or run with [run] engine = "local"',
        ) from error


class _Wire:
    """Lives in a worker: a teacher of its own, asked for one call at a time."""

    def __init__(self, build: Callable[[Mapping[str, Any]], Any], given: Mapping[str, Any]) -> None:
        self._teacher = build(given)

    async def attempt(self, request: Request, sample_index: int, recorded: Completion | None) -> Outcome:
        found: Outcome = await self._teacher.attempt(request, sample_index=sample_index, recorded=recorded)
        return found


class _Spread:
    """
    A teacher whose calls are made by workers in turn.

    The ledger stays with the one that asks: it has written down what a call may cost before the call leaves here, so a worker
    that dies costs what was in flight and no more.
    """

    def __init__(self, ray: Any, actors: Sequence[Any], here: Any) -> None:
        self._ray, self._here = ray, here
        self._turn = itertools.cycle(actors)
        self._actors = list(actors)
        self.free: bool = here.free

    async def attempt(self, request: Request, *, sample_index: int, recorded: Completion | None = None) -> Outcome:
        """One wire request; see `teachers.Teacher`."""
        try:
            found: Outcome = await next(self._turn).attempt.remote(request, sample_index, recorded)
        except self._ray.exceptions.RayActorError:
            return Outcome(
                kind="transient", completion=None, reason=LOST, http_status=None, retry_after_s=None, fingerprint=None, request_id=None
            )
        return found

    def worst_case_tokens(self, request: Request) -> Any:
        """The most that `attempt` can use."""
        return self._here.worst_case_tokens(request)

    async def close(self) -> None:
        """Let the actors go."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []
        await self._here.close()
