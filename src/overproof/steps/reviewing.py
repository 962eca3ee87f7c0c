"""Many words to one: what the reviewers settled on, how far they agree, and where they don't."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from overproof.evidence import Figure
from overproof.measure.intervals import figure
from overproof.measure.reviewers import Kappa, cohen_kappa
from overproof.store.reviews import Queue, Review, Reviews

AUDIT: Queue = "audit"
FIX: Queue = "fix"
VOTES = 3  # from so many words on a majority decides


@dataclass(frozen=True, kw_only=True, slots=True)
class Settled:
    """The label that holds for a row after all that was said."""

    digest: str
    label: str
    queue: Queue
    """"audit" where anyone reviewed the row as drawn by chance."""
    words: int
    """People who said something."""
    blind: bool
    """True where nobody had seen an answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Conflict:
    """A row on which reviewers differ, and nobody has ended it."""

    digest: str
    request_id: str
    words: Mapping[str, str]
    """Reviewer to label."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """All reviews together."""

    settled: Mapping[str, Settled]
    """By the request's digest."""
    conflicts: tuple[Conflict, ...]
    agreement: Figure
    """Pairs of people who said the same of a row, of all pairs; adjudications are not counted."""
    kappa: Kappa | None
    """Of the two people with the most rows in common; None where no row has two words."""


def settle(reviews: Reviews) -> Outcome:
    """
    One label for each row: an adjudication ends all; else all who spoke agree, or the majority of three and more.

    Args:
        reviews: from the store.

    Returns: settled labels, open conflicts and the agreement; a row is in exactly one of the first two.
    """
    rows: dict[str, list[Review]] = {}
    for review in reviews.rows:
        rows.setdefault(review.digest, []).append(review)
    settled: dict[str, Settled] = {}
    conflicts = []
    same = pairs = 0
    shared: Counter[tuple[str, str]] = Counter()
    spoken: dict[str, dict[str, str]] = {}
    for digest, said in rows.items():
        words = {r.reviewer: r.label for r in said if r.kind == "review"}
        spoken[digest] = words
        people = sorted(words)
        for i, a in enumerate(people):
            for b in people[i + 1 :]:
                shared[a, b] += 1
                pairs, same = pairs + 1, same + (words[a] == words[b])
        label = _label(said, words)
        if label is None:
            conflicts.append(Conflict(digest=digest, request_id=said[0].request_id, words=words))
            continue
        queue: Queue = AUDIT if any(r.queue == AUDIT for r in said) else FIX
        settled[digest] = Settled(
            digest=digest, label=label, queue=queue, words=len({r.reviewer for r in said}), blind=all(r.blind for r in said)
        )
    kappa = None
    if shared:
        a, b = min(shared, key=lambda pair: (-shared[pair], pair))
        both = [(w[a], w[b]) for w in spoken.values() if a in w and b in w]
        kappa = cohen_kappa([x for x, _ in both], [y for _, y in both])
    return Outcome(
        settled=settled, conflicts=tuple(conflicts), agreement=figure(same, pairs, metric="agreement"), kappa=kappa
    )


def _label(said: list[Review], words: Mapping[str, str]) -> str | None:
    ended = [r.label for r in said if r.kind == "adjudication"]
    if ended:
        return ended[-1]
    votes = Counter(words.values()).most_common()
    if len(votes) == 1:
        return votes[0][0]
    return votes[0][0] if len(words) >= VOTES and votes[0][1] * 2 > len(words) else None
