"""What a project may ask for where answers are records or texts: the mistakes in words, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from overproof.outputs import Classes, Fields, Output, Text

PARTS: Mapping[str, tuple[str, ...]] = {
    "linear.v1": ("classes",), "encoder.v1": ("classes",), "static.v1": ("classes",), "ngram.v1": ("classes",),
    "span.v1": ("fields",), "causal.v1": ("fields", "text"),
}  # fmt: skip
"""What built-in students answer; one that is not named says so itself when it is fitted."""
COPY = ("majority.v1", "nearest.v1")
"""Do-nothing baselines that answer whatever there is."""


def kind_name(output: Output) -> str:
    """The word of [task] output: "classes", "fields" or "text"."""
    return "classes" if isinstance(output, Classes) else "text" if isinstance(output, Text) else "fields"


def misfits(output: Output, tables: Mapping[str, Any], parts: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """
    What the file asks for and this kind of answers hasn't.

    Args:
        output: the task's.
        tables: table name to its checked record, None where it could not be read.
        parts: "student", "baseline", "verify" to their tables, "slice" to the slices.

    Returns: one line for each mistake.
    """
    kind = kind_name(output)
    for table in ("student", "baseline"):
        for part in parts[table]:
            if kind not in PARTS.get(part.use, (kind,)):
                known = [name for name, kinds in PARTS.items() if kind in kinds]
                yield f"[[{table}]] {part.name}: {part.use} gives no {kind}; for {kind} there are {', '.join((*known, *COPY))}"
    yield from _bars(output, tables.get("bars"))
    if not isinstance(output, Classes):
        yield from _labels_only(kind, tables, parts)


def _bars(output: Output, bars: Any) -> Iterator[str]:
    if bars is None:
        return
    names = [one.name for one in output.fields] if isinstance(output, Fields) else []
    if (bars.field_f1 is not None or bars.fields) and not names:
        yield "[bars]: field_f1 and [bars.fields] are for tasks whose output is { fields = … }"
    elif strange := sorted(set(bars.fields) - set(names)):
        yield f"[bars.fields]: no field {strange[0]!r}; there are {', '.join(names)}"
    for name in ("similarity", "judged"):
        if getattr(bars, name) is not None and not isinstance(output, Text):
            yield f"[bars]: {name} is for tasks whose output is {{ text = … }}"


def _labels_only(kind: str, tables: Mapping[str, Any], parts: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    task, teacher, judge, fairness, bars = (tables.get(name) for name in ("task", "teacher", "judge", "fairness", "bars"))
    uses = [part.use for part in parts["verify"]]
    by_label = [one.name for one in parts["slice"] if isinstance(one.where, Mapping) and "label" in one.where]
    asked = {
        f"[task]: out_of_scope names a label, and a task of {kind} has none; take it out": task and task.out_of_scope,
        "[[verify]] label_set.v1: answers are no labels; they are checked against [task] output as they are read": "label_set.v1" in uses,
        "[[verify]] suspicion.v1: it compares labels with what other rows say of them; use grounding.v1 or agreement.v1": "suspicion.v1" in uses,
        '[teacher]: agreement = "dawid-skene" weighs labels; use "majority"': teacher and teacher.agreement == "dawid-skene",
        f"[judge]: it judges labels and texts, not {kind}; take it out": judge and judge.use and kind == "fields",
        "[bars]: judged needs a [judge], and there is none": bars and bars.judged is not None and not (judge and judge.use),
        "[fairness]: selected names labels; take it out": fairness and fairness.selected,
        "[fairness]: swaps compares labels before and after; for written answers nothing is measured yet, take it out": fairness and fairness.swaps,
        f"[[slice]] {', '.join(by_label)}: where = {{ label = … }}, and a task of {kind} has no labels": by_label,
    }
    yield from (line for line, wrong in asked.items() if wrong)
