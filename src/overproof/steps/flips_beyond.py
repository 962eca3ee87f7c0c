"""The teacher asked about swapped terms too: what the student adds to the teacher's own flips, and the gate's word on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from overproof.data import CalibrationSet, Clearance, Folder, PromptRow, PromptSet, Request, TeacherPin
from overproof.measure.intervals import cp_upper
from overproof.outputs import Fields, Text
from overproof.steps.comparisons import Answer
from overproof.steps.flips import FlipRecipe, FlipReport, SwapResult, beyond_teacher, drawn, pairs_of, said_by
from overproof.steps.teach import Sampler, TeachRecipe, teach
from overproof.store.artifacts import Step
from overproof.students.bundle import load_bundle


@dataclass(frozen=True, kw_only=True, slots=True)
class BeyondRecipe:
    """On how many pairs the teacher is asked."""

    flips: FlipRecipe
    pairs: int
    """Of each list."""
    pin: TeacherPin | None = None
    """Who is asked."""


def ask_teacher(
    flips: FlipReport, bundle: Folder, rows: CalibrationSet, clearance: Clearance, recipe: BeyondRecipe, *, teacher: Sampler | None = None
) -> FlipReport:
    """
    Ask the teacher both versions of the first pairs of each list, through the ledger, each text once.

    Args:
        flips: what was found without it.
        bundle: the packed student.
        rows: calibration rows, the same as before.
        clearance: the permission that its answers are kept under.
        recipe: which pairs.
        teacher: the live one; without it nothing is asked.

    Returns: the report with `beyond` of each list. An answer that is none of the task's leaves its pair out.
    """
    if teacher is None or not recipe.pairs:
        return flips
    served, requests = load_bundle(bundle.path), drawn(rows, recipe.flips)
    output = served.card.output
    by_list = [list(pairs_of(one, requests, salt=recipe.flips.salt, most=recipe.pairs)) for one in recipe.flips.lists]
    texts = {r.digest: replace(r, id=f"swap {r.digest}") for pairs in by_list for p in pairs for r in (p.left, p.right)}
    known = {e.request.digest: e.target for e in rows.examples if e.label_from == "teacher"}
    known |= _asked([r for digest, r in texts.items() if digest not in known], clearance, recipe, output if isinstance(output, Fields | Text) else None, teacher)
    found = []
    for one, pairs in zip(flips.lists, by_list, strict=True):
        left, right = (said_by(served, [getattr(p, side) for p in pairs], f"swaps beside the teacher: {one.name}") for side in ("left", "right"))
        found.append(replace(one, beyond=beyond_teacher(pairs, left, right, known, output=output, d=flips.delta)))
    return replace(flips, lists=tuple(found))


def _asked(
    requests: list[Request], clearance: Clearance, recipe: BeyondRecipe, output: Fields | Text | None, teacher: Sampler
) -> dict[str, str]:
    rows = tuple(PromptRow(request=request, weight=1.0, group=request.id) for request in requests)
    prompts = PromptSet(train=(), calibration=rows, test=(), funnel={}, match=(), distance=0.0, leaks={})
    answers = teach(prompts, clearance, TeachRecipe(pin=recipe.pin or clearance.pin, output=output), teacher=teacher)
    said = ((one.row.request.digest, next((c.value for c in one.completions), None)) for one in answers.calibration)
    return {digest: value for digest, value in said if value is not None}


def beyond_answers(report: FlipReport, bar: float) -> Iterator[Answer]:
    """
    The gate's word on flips beyond the teacher's.

    Args:
        report: from `measure_flips`, at best with the teacher's answers.
        bar: how many more pairs may change what is served, as a share of all.

    Returns: one answer for each list. A student whose answers hardly change can't exceed anybody's, whether the teacher was
        asked or not; else an unasked teacher leaves it open.
    """
    yield from (_answer(one, bar, report.delta) for one in report.lists)


def _answer(one: SwapResult, bar: float, delta: float) -> Answer:
    most, seen = cp_upper(one.changed + one.rerouted, one.pairs, delta / 2.0), one.beyond  # two ways to pass, half the error each
    asked = f"at most {100 * bar:.2g} points more than the teacher’s is asked"
    if seen is not None:
        words = (
            f"{one.name}: a swapped term changes {seen.served:,} of {seen.n:,} served answers, {seen.teacher:,} of the teacher’s: "
            f"{100 * (seen.served - seen.teacher) / seen.n:+.1f} points ({100 * seen.low:+.1f} to {100 * seen.high:+.1f}), {asked}"
        )
        if seen.high <= bar:
            return Answer(outcome="pass", reason=words)
        if seen.low > bar:
            return Answer(outcome="fail", reason=words, todo="teach rows in which these terms vary: the teacher tells them less apart")
    else:
        words = f"{one.name}: not measured, the teacher’s answer to the swapped texts is not known; {asked}"
    if most <= bar:
        return Answer(outcome="pass", reason=f"{words}; under {bar:.2%} of the student’s answers change for certain (up to {most:.2%} of {one.pairs:,} pairs)")
    todo = "set or raise [fairness] teacher_pairs, so that the teacher is asked the swapped texts; a recording can’t answer them"
    return Answer(outcome="not-run", reason=f"{words}: not enough data to tell", todo=todo)


TEACHER_FLIPS = Step(name="flips-teacher", version=1, fn=ask_teacher)
