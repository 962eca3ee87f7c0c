"""The teacher-error report as lines of text."""

from __future__ import annotations

from collections.abc import Sequence

from overproof.evidence import Figure, SliceReport
from overproof.steps.teacher_errors import TeacherErrors

SOME = 15


def percent(figure: Figure) -> str:
    """A figure with its interval and its n, or that there is none."""
    if figure.value is None:
        return "not enough data (n=0)"
    return f"{100 * figure.value:.1f} % [{100 * figure.low:.1f}, {100 * figure.high:.1f}] n={figure.n}"


def teacher_lines(errors: TeacherErrors, *, inherited: Sequence[SliceReport] = (), short: bool = False) -> list[str]:
    """
    What is known of the teacher's mistakes.

    Args:
        errors: the report.
        inherited: label slices of the chosen student, for what it took over.
        short: the whole and what reviews buy, without labels and pairs.

    Returns: one line each.
    """
    lines = [f"teacher is wrong on {percent(errors.overall)} of rows with a true label, sealed rows apart"]
    if not short:
        lines += [
            f"  {one.label}: misses {percent(one.missed)}; wrong when said {percent(one.wrong_when_said)}"
            for one in [e for e in errors.labels if e.missed.good][:SOME]
        ]
        lines += [f"  {name}: {percent(figure)}" for name, figure in errors.segments.items()]
        for c in errors.confusions[:SOME]:
            word = "systematic" if c.systematic else "may be chance"
            lines.append(f"  says {c.said} where {c.true} is true: {c.rows} of {c.of_said}, surely over {100 * c.low:.1f} % ({word})")
            lines += [f"      {text}" for text in c.examples]
        for s in inherited:
            if (t := s.two_by_two) is not None and t.wrong_agree:
                lines.append(f"  {s.slice}: the student took over {t.wrong_agree} of the teacher's {t.wrong_agree + t.wrong_differ} mistakes")
    if errors.suspects:
        lines.append("labels on which the teacher seems to fail more often than not (a model's estimate, no proof):")
        lines += [f"  {s.label}: right on about {100 * s.share_right:.0f} % of {s.rows} rows" for s in errors.suspects]
    if errors.buys:
        many = ", ".join(f"{b.reviews} reviews about {b.corrected:.0f}" for b in errors.buys)
        lines.append(f"wrong training labels that more reviews would find: {many} (estimates)")
    return [*lines, *errors.notes]
