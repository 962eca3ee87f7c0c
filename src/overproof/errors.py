"""The exception tree: every message says what, where, got, expected, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

EXIT_PASS = 0
EXIT_REFUSED = 1
EXIT_USER_FILE = 2
EXIT_TERMS = 3
EXIT_OUTSIDE_WORLD = 4
EXIT_INTERRUPTED = 130


class OverproofError(Exception):
    """
    Base of every error that the package raises on purpose.

    Args:
        what: what went wrong and where, one sentence; names in `repr` form.
        next_action: the one thing that the reader should do now.
    """

    exit_code = EXIT_USER_FILE

    def __init__(self, what: str, *, next_action: str) -> None:
        super().__init__(what, next_action)
        self.what = what
        self.next_action = next_action

    def __reduce__(self) -> tuple[Any, ...]:
        """An error that another process raised comes back as itself."""
        return _again, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        return f"{self.what}\nNext: {self.next_action}"


def _again(kind: type[OverproofError], args: tuple[Any, ...], state: dict[str, Any]) -> OverproofError:
    made = kind.__new__(kind, *args)
    made.args = args
    made.__dict__.update(state)
    return made


class ProjectError(OverproofError):
    """
    The user's project file has mistakes; all of them are in `problems`.

    Args:
        problems: one line each, with table, key, what was got and what is expected.
        file: the project file's name as the user wrote it.
    """

    def __init__(self, problems: Sequence[str], *, file: str) -> None:
        count = f"{len(problems)} mistake{'s' if len(problems) != 1 else ''}"
        lines = "\n".join(f"  - {p}" for p in problems)
        super().__init__(f"{file}: {count}\n{lines}", next_action=f"mend {file}, then run `overproof check`")
        self.problems = tuple(problems)


class RegistryError(OverproofError):
    """A part's name is unknown, or its entry point can't be loaded."""


class MissingExtra(OverproofError):
    """
    A part needs a package that is not installed.

    Args:
        part: the part that was asked for, for example "encoder.v1".
        extra: the extra of this package that brings it, for example "encoder".
    """

    def __init__(self, part: str, *, extra: str) -> None:
        super().__init__(
            f"{part} needs packages that are not installed",
            next_action=f"pip install 'overproof[{extra}]'",
        )


class DataError(OverproofError):
    """Input rows, labels or files can't be used as asked."""


class MeasureError(OverproofError):
    """A number was asked for on input for which it is not defined."""


class NotYetError(OverproofError):
    """A seam that exists in the house but has no implementation yet; the message names what is supported."""


class StoreError(OverproofError):
    """The store can't be read or written, or another process holds it."""

    exit_code = EXIT_OUTSIDE_WORLD


class OutOfMemory(OverproofError):
    """The machine or process has too little memory for a piece of work; what was finished before it is kept."""

    exit_code = EXIT_OUTSIDE_WORLD


class RoleTaken(StoreError):
    """Another process has the role that this one needs; it is free when that one has ended."""


class CorruptArtifact(StoreError):
    """Bytes under the project don't have the digest that their manifest names; they are never used."""


class TermsError(OverproofError):
    """No valid terms record covers this use of the teacher's answers."""

    exit_code = EXIT_TERMS


class TeacherError(OverproofError):
    """The teacher can't be reached, or answers in a way that stops the run."""

    exit_code = EXIT_OUTSIDE_WORLD


class TeacherBusy(TeacherError):
    """
    The provider didn't do it this time; a later try may succeed.

    Args:
        what: what went wrong.
        next_action: what the reader should do where it lasts.
        retry_after_s: what the provider asked us to wait.
    """

    def __init__(self, what: str, *, next_action: str, retry_after_s: float | None = None) -> None:
        super().__init__(what, next_action=next_action)
        self.retry_after_s = retry_after_s


class PinMismatch(TeacherError):
    """The teacher that answered is not the one that the project pins."""


class NoticeError(OverproofError):
    """A notice did not reach whom it was for; never names more of a webhook than its host."""

    exit_code = EXIT_OUTSIDE_WORLD


class BudgetExceeded(TeacherError):
    """The next call could cost more than the cap leaves; no call was made."""


class NotCleared(TermsError):
    """A `Clearance` was asked for a use that its attestation doesn't cover."""
