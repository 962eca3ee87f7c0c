"""The few words of a database that the store needs: SQLite's and Postgres' connections both have them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

Row = tuple[Any, ...]
Values = Sequence[Any] | Mapping[str, Any]


class Found(Protocol):
    """What a statement found."""

    @property
    def get(self) -> Any:
        """The first row's value, or that row where it has several; None where there is none."""

    def __iter__(self) -> Iterator[Row]:
        """The rows."""

    def fetchall(self) -> list[Row]:
        """The rows that are left."""


class Connection(Protocol):
    """A connection inside a write transaction; as a context manager it is a savepoint."""

    def execute(self, sql: str, values: Values = ()) -> Found:
        """Run one statement, in SQLite's words."""

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> Any:
        """Run one statement for each row."""

    def changes(self) -> int:
        """Rows that the last statement changed."""

    def __enter__(self) -> Self:
        """Begin a savepoint."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> bool | None:
        """Keep what was done since, or undo it."""
