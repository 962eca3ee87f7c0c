"""Within written answers: field by field or by similarity, student alone, as served and teacher, and the bars on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from overproof.data import TestSet
from overproof.evidence import (
    CandidateReport,
    Confidence,
    Estimate,
    FieldConfidence,
    RecordScores,
    Scores,
    TextScores,
    Verdict,
    WrittenBar,
    WrittenReport,
    WrittenScores,
)
from overproof.measure.reading import field_chances
from overproof.measure.records import field_scores, text_scores
from overproof.outputs import Fields, Text
from overproof.steps.answers import STRANGE, answers_of
from overproof.steps.calibrate import CalibrateRecipe, reliability
from overproof.steps.field_confidence import field_odds, field_right
from overproof.steps.slice_reports import Mask, Sealed, overall
from overproof.task import Bar

Said = Sequence[str | None]


def written_report(
    chosen: Scores, rows: TestSet, sealed: Sealed, kept: Mask, bars: tuple[Bar, ...], *, how: Confidence | None = None
) -> WrittenReport | None:
    """
    The chosen candidate's written answers on the rows that judge the bars.

    Args:
        chosen: its scores of the sealed rows.
        rows: sealed rows.
        sealed: the same, opened.
        kept: shape (n,), rows that the student answers as served.
        bars: within answers, see `BarsTable.written`.
        how: its reading; without one nothing is said of the confidence in single fields.

    Returns: the report; None for labels.
    """
    if (kind := rows.output) is None:
        return None
    said, targets = answers_of(chosen, rows), [e.target for e in rows.examples]
    served = [own if keep else teacher for own, teacher, keep in zip(said, targets, kept.tolist(), strict=True)]
    fresh = sealed.judge & sealed.fair
    gold = _with_gold(sealed) & fresh
    found = [
        _scores(kind, who, against, _pairs(voice, rows, mask, against), sealed.level)
        for against, mask in (("gold", gold), ("teacher", fresh))
        if mask.any()
        for who, voice in (("student", said), ("served", served), ("teacher", targets))
        if (who, against) != ("teacher", "teacher")
    ]
    judged = judge_within(kind, _pairs(served, rows, gold, "gold"), bars, sealed.budget("accuracy"))
    strange = int((fresh & (sealed.sheet.gold == STRANGE)).sum())
    fields = _fields(chosen, rows, fresh, how, sealed.level) if how is not None else ()
    return WrittenReport(scores=tuple(found), judged=judged, strange=strange, fields=fields)


def _fields(chosen: Scores, rows: TestSet, fresh: Mask, how: Confidence, level: float) -> tuple[FieldConfidence, ...]:
    """By the teacher's answers, which the readings were fitted on."""
    fitted = {one.field: one.calibrator.n for one in how.fields}
    odds = {name: column for name, column in field_odds(chosen, rows).items() if name in fitted}
    right, recipe, found = field_right(chosen, rows) if odds else {}, CalibrateRecipe(level=level), []
    for name, column in odds.items():
        rated = fresh & ~np.isnan(column)
        if rated.any():
            raw, read = (
                reliability(name, field_chances(by, name, column[rated]), right[name][rated], recipe) for by in (replace(how, fields=()), how)
            )
            found.append(FieldConfidence(raw=raw, read=read, fitted_on=fitted[name]))
    return tuple(found)


def judge_within(kind: Fields | Text, pairs: tuple[Said, Sequence[str]], bars: tuple[Bar, ...], delta: float) -> tuple[WrittenBar, ...]:
    """
    Bars on shares that are no single count.

    Args:
        kind: what answers are.
        pairs: answers and true answers, one each a document.
        bars: "field_f1", "f1 FIELD" or "similarity".
        delta: admitted chance of a false pass.

    Returns: one for each bar. It passes where the lower end of an interval that holds at every n reaches the bar, and fails where
        the upper end lies below it.
    """
    if not bars:
        return ()
    answers, truths = pairs
    if isinstance(kind, Fields):
        records = field_scores(kind, answers, truths, level=1.0 - 2.0 * delta)
        shares = {"field_f1": records.f1} | {f"f1 {one.name}": one.f1 for one in records.fields}
    else:
        shares = {"similarity": text_scores(kind, answers, truths, level=1.0 - 2.0 * delta).similarity}
    return tuple(
        WrittenBar(metric=bar.metric, bar=bar.at_least, estimate=(one := shares[bar.metric]), verdict=_verdict(one, bar), delta=delta)
        for bar in bars
    )


def judged_candidates(
    candidates: tuple[CandidateReport, ...], report: WrittenReport | None, scores: Mapping[str, Scores], rows: TestSet, sealed: Sealed,
    *, bars: tuple[Bar, ...],
) -> tuple[CandidateReport, ...]:
    """
    "Clears the bars" with the bars within answers: as served for the chosen one, alone for the others.

    Args:
        candidates: judged by whole answers.
        report: of the chosen one, whose name is the only one with kept rows.
        scores: by name.
        rows: sealed rows.
        sealed: the same, opened.
        bars: within answers.

    Returns: the candidates; nobody's verdict gets better.
    """
    if rows.output is None or report is None or not bars:
        return candidates
    mask, parts = _with_gold(sealed) & sealed.fair, max(1, sum(c.kind == "baseline" for c in candidates))

    def verdicts(one: CandidateReport) -> list[Verdict | None]:
        if one.slices[0].kept is not None:
            return [bar.verdict for bar in report.judged]
        assert rows.output is not None
        pairs = _pairs(answers_of(scores[one.name], rows), rows, mask, "gold")
        # a false "this baseline is enough" has the whole budget, so each baseline gets its part
        delta = sealed.budget("accuracy") / (parts if one.kind == "baseline" else 1)
        return [bar.verdict for bar in judge_within(rows.output, pairs, bars, delta)]

    return tuple(
        c if c.clears_bars == "fail" else replace(c, clears_bars=overall([c.clears_bars, *verdicts(c)])) for c in candidates
    )


def _with_gold(sealed: Sealed) -> Mask:
    found: Mask = sealed.sheet.has_gold & (sealed.sheet.gold != STRANGE)
    return found


def _pairs(voice: Said, rows: TestSet, mask: Mask, against: str) -> tuple[Said, Sequence[str]]:
    places = np.flatnonzero(mask).tolist()
    truths = [e.gold if against == "gold" else e.target for e in (rows.examples[i] for i in places)]
    return [voice[i] for i in places], [one or "" for one in truths]


def _scores(kind: Fields | Text, who: str, against: str, pairs: tuple[Said, Sequence[str]], level: float) -> WrittenScores:
    records: RecordScores | None = field_scores(kind, *pairs, level=level) if isinstance(kind, Fields) else None
    texts: TextScores | None = text_scores(kind, *pairs, level=level) if isinstance(kind, Text) else None
    return WrittenScores(who=who, against=against, records=records, texts=texts)  # type: ignore[arg-type] # the words of `written_report`


def _verdict(share: Estimate, bar: Bar) -> Verdict:
    if share.value is None or share.n < bar.min_n:
        return "undecided"
    return "pass" if share.low >= bar.at_least else "fail" if share.high < bar.at_least else "undecided"
