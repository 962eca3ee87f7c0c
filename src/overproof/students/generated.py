"""What a generator writes, checked before anybody stands on it; and the shape in which an answer leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overproof.data import Request
from overproof.errors import DataError
from overproof.outputs import Fields, Output, Text
from overproof.students import Generator

SEQUENCE = "sequence"
"""Name of the column that holds `Generated.score`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """A generator's answers to n requests."""

    values: tuple[str | None, ...]
    """Canonical answers; None where it has none."""
    columns: Mapping[str, NDArray[np.float64]]
    """Shape (n,) each: "sequence", and what else a reading may use."""
    fields: tuple[Mapping[str, float], ...]
    """For each request: field name to the generator's own log-odds of the field; read them with `measure.reading.field_chances`."""


def write_answers(generator: Generator, output: Fields | Text, requests: Sequence[Request]) -> Written:
    """
    Ask a generator and check all that it says.

    Args:
        generator: fitted.
        output: what its answers must be.
        requests: any number.

    Returns: its answers.
    Raises: DataError for another number of answers, one that is not canonical, columns that differ from request to
        request, numbers that are not finite, or a field that the task has not.
    """
    found = list(generator.generate(requests))
    names = {SEQUENCE, *(found[0].columns if found else ())}
    known = {one.name for one in output.fields} if isinstance(output, Fields) else set()
    if len(found) != len(requests):
        raise _unreadable(generator, f"{len(found)} answers to {len(requests)} requests")
    for one in found:
        if {SEQUENCE, *one.columns} != names or SEQUENCE in one.columns or not set(one.fields) <= known:
            raise _unreadable(generator, f"columns {sorted(one.columns)!r} and fields {sorted(one.fields)!r}")
        if not np.isfinite([one.score, *one.columns.values(), *one.fields.values()]).all():
            raise _unreadable(generator, "scores that are not finite")
        if one.value is not None and not canonical(output, one.value):
            raise _unreadable(generator, f"the answer {one.value!r:.80}, which is not canonical")
    columns = {
        name: np.array([one.score if name == SEQUENCE else one.columns[name] for one in found], dtype=np.float64)
        for name in sorted(names)
    }
    return Written(values=tuple(one.value for one in found), columns=columns, fields=tuple(dict(one.fields) for one in found))


def canonical(output: Output, value: str) -> bool:
    """
    Whether a value is an answer of this kind as the project writes it.

    Args:
        output: the task's.
        value: what somebody else's code or file gave.

    Returns: False for whatever `parse` refuses or would write otherwise.
    """
    try:
        return output.parse(value) == value
    except (DataError, AttributeError, TypeError):
        return False


def _unreadable(generator: Generator, what: str) -> DataError:
    return DataError(f"{generator.kind} gave {what}", next_action="mend the generator; nothing of this can be served")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """An answer as it leaves."""

    content: str
    """What stands where the teacher's answer stood."""
    media_type: str
    """"application/json" for records, "text/plain" for labels and texts."""


def rendered(output: Output, value: str) -> Rendered:
    """
    An answer in the shape that a client of the teacher expects.

    Args:
        output: the task's.
        value: the canonical answer.

    Returns: JSON for records, the text or the label as it is.
    Raises: DataError where the value is no answer of this task.
    """
    return Rendered(content=output.parse(value), media_type="application/json" if isinstance(output, Fields) else "text/plain")
