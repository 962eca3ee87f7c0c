"""The owner's own cases: templates of what must work, and what the teacher is known to get wrong."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from overproof.data import Request
from overproof.errors import DataError, OverproofError
from overproof.outputs import Output

MOST = 200  # texts that one template may stand for
PLACE = re.compile(r"\{([^{}]*\|[^{}]*)\}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One request with the only right answer."""

    name: str
    """Cases of one name are counted together."""
    kind: str
    """"case", or "weakness": the teacher is known to get it wrong."""
    fields: Mapping[str, str]
    answer: str
    """As the task's output writes it."""
    teacher: str = ""
    """The teacher's wrong answer, where it is named."""


def spelled_out(template: str) -> list[str]:
    """
    All texts of a template.

    Args:
        template: with places such as "{cancel|stop}".

    Returns: every combination, in order; the text itself where it has no place.
    Raises: DataError for more than 200.
    """
    parts = PLACE.split(template)
    choices = [part.split("|") if i % 2 else [part] for i, part in enumerate(parts)]
    count = 1
    for one in choices:
        count *= len(one)
    if count > MOST:
        raise DataError(f"the template {template[:60]!r} stands for {count:,} texts, the most is {MOST}", next_action="split it, or leave words out")
    return ["".join(pick) for pick in itertools.product(*choices)]


def read_cases(path: Path, *, fields: Sequence[str], output: Output) -> tuple[Case, ...]:
    """
    Read the owner's cases.

    Args:
        path: JSON lines: the input fields, where "{a|b}" stands for one or the other, "answer", and at will "name".
        fields: the task's input fields.
        output: what answers are.

    Returns: one case for each text.
    Raises: DataError with file and line for a line that is no case.
    """
    found: list[Case] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cases {path.name!r} can't be read", next_action="mend [probe] cases") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path.name}:{number}"
        try:
            said = json.loads(line)
            texts = [str(said[name]) for name in fields]
            answer = output.parse(said["answer"] if isinstance(said["answer"], str) else json.dumps(said["answer"]))
        except (ValueError, KeyError, TypeError, OverproofError) as error:
            raise DataError(
                f"{where}: no case: {type(error).__name__}: {error}",
                next_action=f'write one JSON object with {", ".join(fields)} and "answer", one of the task\'s answers',
            ) from error
        name = str(said.get("name", answer))
        combined = itertools.product(*map(spelled_out, texts))
        found += [Case(name=name, kind="case", fields=dict(zip(fields, pick, strict=True)), answer=answer) for pick in combined]
    if not found:
        raise DataError(f"{path.name} holds no case", next_action="write one JSON object a line, or drop [probe] cases")
    return tuple(found)


def weakness_cases(name: str, texts: Sequence[str], *, right: str, wrong: str, fields: Sequence[str], output: Output) -> tuple[Case, ...]:
    """
    A known weakness of the teacher as cases.

    Args:
        name: what it is called.
        texts: of the first input field; templates as in a file of cases.
        right: the right answer.
        wrong: the teacher's; empty where it differs from text to text.
        fields: the task's input fields.
        output: what answers are.

    Returns: one case for each text.
    Raises: DataError for an answer that is none of the task's.
    """
    parsed, teacher = output.parse(right), output.parse(wrong) if wrong else ""
    whole = [text for template in texts for text in spelled_out(template)]
    requests = [Request(id="", fields={f: text if at == 0 else "" for at, f in enumerate(fields)}) for text in whole]
    return tuple(Case(name=name, kind="weakness", fields=r.fields, answer=parsed, teacher=teacher) for r in requests)
