"""What the gate says of the prompt set: shares of critical slices, and a test that measures more than memory."""

from __future__ import annotations

from collections.abc import Iterator

from overproof.data import SliceShare
from overproof.measure.intervals import figure
from overproof.steps.comparisons import Answer

MOST_MORE = 100_000
STEP = 10


def off_share(shares: tuple[SliceShare, ...]) -> Iterator[Answer]:
    """
    The critical slices that training has too little or too much of, for certain.

    Args:
        shares: of critical slices.

    Returns: a failure for each; where the rows don't tell, none, since the distance judges the whole.
    """
    for one in shares:
        if one.verdict == "fail":
            high = "no upper end" if one.high is None else f"{one.high:.2f}"
            reason = (
                f"slice {one.slice!r}: its share of training is {one.ratio or 0:.2f} times the live share "
                f"({one.low:.2f} to {high}; {one.n_set:,} training and {one.n_live:,} live rows), asked is 0.8 to 1.25"
            )
            yield Answer(outcome="fail", reason=reason, todo=f"collect more {one.slice!r} requests that repeat no tested one")


def theatre(familiar: int, n: int, *, at_most: float) -> Answer:
    """
    Whether the sealed rows test more than memory.

    Args:
        familiar: sealed rows that say in the same words what a training row says.
        n: sealed rows.
        at_most: largest share admitted.

    Returns: pass where the interval's upper end is within it, fail where its lower end is above it, else not-run with
        the number of rows that would tell at half of it.
    """
    if n == 0:
        return Answer(outcome="not-run", reason="there are no sealed rows", todo="import more traffic, then run again")
    seen = figure(familiar, n, metric="familiar")
    head = f"{seen.value:.1%} ({seen.low:.1%} to {seen.high:.1%}, n = {n:,}) of the sealed rows say in the same words what a training row says"
    bar = f"at most {at_most:.0%} is asked"
    if seen.high <= at_most:
        return Answer(outcome="pass", reason=f"{head}, {bar}")
    if seen.low > at_most:
        todo = "import the variable part of a template alone, or seal rows of another period or template"
        return Answer(outcome="fail", reason=f"{head}, {bar}: such a test measures memory", todo=todo)
    more = next((m for m in range(STEP, MOST_MORE, STEP) if _clear(m, at_most)), MOST_MORE)
    lacking = f"seal about {max(STEP, more - n):,} more rows"
    return Answer(outcome="not-run", reason=f"{head}, {bar}: not enough data to tell", todo=lacking)


def _clear(n: int, at_most: float) -> bool:
    return figure(int(at_most / 2 * n), n, metric="familiar").high <= at_most
