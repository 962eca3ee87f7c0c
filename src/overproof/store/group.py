"""Group commit: many small writes in one durable transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import apsw

from overproof.store.local import Db
from overproof.store.sql import Connection

Result = TypeVar("Result")

GROUP = 500  # changes in one commit at most


class GroupCommit:
    """
    Many small writes in one durable transaction each time: a commit costs milliseconds whatever it holds.

    Args:
        db: the database.
    """

    def __init__(self, db: Db) -> None:
        self._db = db
        self._waiting: list[tuple[Callable[[Connection], Any], asyncio.Future[Any]]] = []
        self._task: asyncio.Task[None] | None = None

    async def write(self, change: Callable[[Connection], Result]) -> Result:
        """
        Apply a change with the next commit.

        Args:
            change: executes its statements; when it raises, only its own are undone.

        Returns: what `change` returns, once it is durable.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((change, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:GROUP], self._waiting[GROUP:]
            try:
                results = await asyncio.to_thread(self._commit, [change for change, _ in batch])
            except BaseException as error:
                for _, future in batch:
                    if not future.done():
                        future.cancel() if isinstance(
                            error, asyncio.CancelledError
                        ) else future.set_exception(error)
                if not isinstance(error, Exception):
                    raise
                continue
            for (_, future), result in zip(batch, results, strict=True):
                if future.done():  # its caller has given up; the change is durable all the same
                    continue
                if isinstance(result, BaseException):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    def _commit(self, changes: Sequence[Callable[[Connection], Any]]) -> list[Any]:
        results: list[Any] = []
        with self._db.write() as connection:
            for change in changes:
                try:
                    with connection:  # a savepoint
                        results.append(change(connection))
                except (apsw.FullError, apsw.IOError, apsw.CorruptError):
                    raise
                except Exception as error:  # noqa: BLE001 - handed to the one who asked
                    results.append(error)
        return results
