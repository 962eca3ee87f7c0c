"""Prompts that a do-nothing baseline may be asked with: instructions, worded from training rows, and examples."""

from __future__ import annotations

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overproof.data import Example, Request, digest_of
from overproof.students.ngrams import NgramTable, Shape, learn
from overproof.students.normalise import text_of

SHOWN = "examples shown"  # no input field is called so: names have no spaces in a prompt's places
TYPICAL = 5  # words that describe a label
NGRAMS = Shape(analyzer="char_wb", low=2, high=4)
TERMS = 50_000
PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shot:
    """One labelled example."""

    text: str
    answer: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompting:
    """What a model is asked with."""

    text: str
    """Instructions, fixed examples included."""
    pool: tuple[Shot, ...] = ()
    """Where the examples of each request come from; empty where they are fixed, or there are none."""
    nearest: int = 0
    """Examples of the pool that are shown: those most like the request."""

    @property
    def digest(self) -> str:
        """SHA-256 of all that the model may be shown."""
        return digest_of([self.text, self.nearest, [[one.text, one.answer] for one in self.pool]])


class Nearest:
    """
    Finds the examples most like a text, by character n-grams.

    Args:
        pool: at least one example.
    """

    def __init__(self, pool: Sequence[Shot]) -> None:
        texts = [text_of(_as_request(one.text)) for one in pool]
        self.pool = tuple(pool)
        self.table: NgramTable = learn(texts, [NGRAMS], min_df=1, max_terms=TERMS)
        self.rows: Any = self.table.matrix(texts).tocsc()

    def of(self, request: Request, count: int) -> tuple[Shot, ...]:
        """The likest ones, the likest last: what stands next to the question weighs most."""
        row = self.table.encode(text_of(request))
        likeness = np.asarray(self.rows[:, row.indices] @ row.values).ravel()
        return tuple(self.pool[i] for i in np.argsort(-likeness, kind="stable")[:count][::-1])


def _as_request(text: str) -> Request:
    return Request(id="", fields={"text": text})


def shots_of(examples: Sequence[Example]) -> tuple[Shot, ...]:
    """
    Rows as examples to show.

    Args:
        examples: training rows.

    Returns: one for each, in order.
    """
    return tuple(Shot(text=e.request.text, answer=e.target) for e in examples)


def lines_of(shots: Sequence[Shot]) -> str:
    """
    Examples as a prompt shows them.

    Args:
        shots: any.

    Returns: the text.
    """
    return "\n\n".join(f"Message: {one.text}\nAnswer: {one.answer}" for one in shots)


def with_examples(instructions: str, shots: Sequence[Shot]) -> str:
    """
    Instructions, followed by examples.

    Args:
        instructions: of the task.
        shots: none leaves the instructions alone.

    Returns: the prompt. What reads like a place to fill in loses its braces; those of a record stay.
    """
    if not shots:
        return instructions
    shown = PLACE.sub(r"(\1)", lines_of(shots))
    return f"{instructions.rstrip()}\n\nExamples:\n\n{shown}\n"


def spread(examples: Sequence[Example], count: int, *, seed: int) -> tuple[Shot, ...]:
    """
    Examples drawn so that labels take turns: with few of them as many labels as possible are shown.

    Args:
        examples: training rows.
        count: how many.
        seed: of the draw.

    Returns: at most so many.
    """
    by_label: dict[str, list[Example]] = defaultdict(list)
    for example in sorted(examples, key=lambda e: e.request.id):
        by_label[example.target].append(example)
    draw = random.Random(seed)  # noqa: S311 - a draw that must repeat, no secret
    for group in by_label.values():
        draw.shuffle(group)
    turns = [group[i] for i in range(count) for group in by_label.values() if i < len(group)]
    return shots_of(turns[:count])


def confusable(examples: Sequence[Example], count: int) -> tuple[Shot, ...]:
    """
    Examples of the labels that are most alike, each the row that lies nearest to the other label.

    Args:
        examples: training rows.
        count: how many.

    Returns: at most so many, the most confusable pair first; none where the rows have one label alone.
    """
    labels = sorted({e.target for e in examples})
    if len(labels) < 2:
        return ()
    found = Nearest(shots_of(examples))
    member = np.array([[e.target == label for e in examples] for label in labels], dtype=np.float64)
    centres: NDArray[np.float64] = np.asarray((found.rows.T @ member.T).T) / member.sum(axis=1, keepdims=True)
    centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    alike, near = centres @ centres.T, np.asarray(found.rows @ centres.T)
    pairs = sorted((-alike[a, b], a, b) for a in range(len(labels)) for b in range(a))
    picked: dict[int, None] = {}
    for _, a, b in pairs:
        for own, other in ((a, b), (b, a)):
            rows = [int(i) for i in np.argsort(-near[:, other], kind="stable") if member[own, i] and int(i) not in picked]
            if rows and len(picked) < count:
                picked[rows[0]] = None
        if len(picked) >= count:
            break
    return tuple(found.pool[i] for i in picked)


def alone(instructions: str, labels: Sequence[str]) -> str:
    """
    The instructions, and that the answer is a label and nothing else.

    Args:
        instructions: of the task.
        labels: in the order in which they are to be listed.

    Returns: the instructions.
    """
    named = "\n".join(f"- {label}" for label in labels).replace("{", "(").replace("}", ")")
    return f"{instructions.rstrip()}\n\nAnswer with exactly one of these labels and nothing else:\n{named}\n"


def described(instructions: str, labels: Sequence[str], examples: Sequence[Example]) -> str:
    """
    The instructions, and each label with the words that are typical of its messages.

    Args:
        instructions: of the task.
        labels: of the task.
        examples: training rows; what they never say describes nothing.

    Returns: the instructions.
    """
    every: Counter[str] = Counter()
    sizes = Counter(e.target for e in examples)
    own: dict[str, Counter[str]] = {label: Counter() for label in labels}
    for e in examples:
        words = set(re.findall(r"[^\W\d_]{3,}", e.request.text.casefold()))
        every.update(words)
        own[e.target].update(words)
    lines = []
    for label in labels:
        by_chance = sizes[label] / max(1, len(examples))
        least = min(2 * by_chance, (1 + by_chance) / 2)  # of a word's messages, to be typical of the label
        weight = {w: n * math.log(n / every[w] / by_chance) for w, n in own[label].items() if n > 1 and n / every[w] >= least}
        typical = sorted(weight, key=lambda w: (-weight[w], w))[:TYPICAL]
        lines.append(f"{label} (typical words: {', '.join(typical)})" if typical else label)
    return alone(instructions, lines).replace("these labels", "these labels, without what stands in parentheses")


def by_count(labels: Sequence[str], examples: Sequence[Example]) -> tuple[str, ...]:
    """
    Labels, the rarest first: models lean to what they read last.

    Args:
        labels: of the task.
        examples: training rows.

    Returns: the labels in another order.
    """
    counts = Counter(e.target for e in examples)
    return tuple(sorted(labels, key=lambda label: (counts[label], label)))


def near(prompting: Prompting, pool: Sequence[Shot], count: int) -> Prompting:
    """
    The same instructions with the examples of a pool that are most like each request.

    Args:
        prompting: instructions without examples.
        pool: training rows.
        count: examples a request.

    Returns: the prompt with a place for them.
    """
    text = f"{prompting.text.rstrip()}\n\nExamples:\n\n{{{SHOWN}}}\n"
    return replace(prompting, text=text, pool=tuple(pool), nearest=count)
