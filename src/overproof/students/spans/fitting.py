"""From training rows to fitted weights: what is held out, what each round reads, what is counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from overproof.data import TrainSet
from overproof.students.checkpoints import Checkpoint
from overproof.students.spans.augment import said_anew
from overproof.students.spans.candidates import Plan, goal_of, tables_of
from overproof.students.spans.decoding import decode
from overproof.students.spans.groups import held_out
from overproof.students.spans.pages import LIKE, Page, Reader
from overproof.students.spans.training import Fitted, Model, Row, Schedule, train

PROBES = 4
LOOKS = 4  # a long pass over many rows is cut into so many rounds, so that there is something to choose from
CHECKED = 64  # most held-out rows that a round is judged on


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """The encoder that is fine-tuned."""

    folder: Path
    size: int
    """Most tokens in a window."""
    pad: int
    layers: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What fitting gives."""

    fitted: Fitted
    probes: tuple[Page, ...]
    """Pages that `Fitted.probes` are the token scores of."""
    facts: Mapping[str, Any]
    """What the folder says of the training."""


class _Rounds:
    """The rows of each round: drawn anew, and some of them said anew."""

    def __init__(self, train: TrainSet, records: Sequence[Mapping[str, Any]], *, kept: Sequence[int], plan: Plan, reader: Reader, options: Mapping[str, Any]) -> None:
        self.train, self.records, self.plan, self.reader, self.options = train, records, plan, reader, options
        self.kept = np.array(kept)
        self.rounds = int(min(options["rounds"], max(LOOKS, -(-options["views"] // len(kept)))))
        self.each = int(min(len(kept), max(1, options["views"] // self.rounds)))

    def of(self, at: int) -> list[Row]:
        """Rows of one round."""
        rng = np.random.default_rng((self.options["seed"], at))
        # every row comes up as often as any other: the rounds walk through one order
        order = np.random.default_rng((self.options["seed"], 1 << 20)).permutation(self.kept)
        chosen = [int(order[(at * self.each + i) % len(order)]) for i in range(self.each)]
        texts, values = [], []
        for i in chosen:
            text, record = self.train.examples[i].request.text, dict(self.records[i])
            if rng.random() < self.options["anew"]:
                text, record = said_anew(text, record, output=self.plan.output, rng=rng)
            texts.append(text)
            values.append(record)
        weights = [self.train.examples[i].weight for i in chosen]
        return self.rows(texts, values, weights)

    def rows(self, texts: Sequence[str], values: Sequence[Mapping[str, Any]], weights: Sequence[float]) -> list[Row]:
        """Texts and their records as rows."""
        found = []
        for page, record, weight in zip(self.reader.read(texts), values, weights, strict=True):
            tables = tables_of(page, words=self.plan.words)
            found.append(Row(page=page, tables=tables, goal=goal_of(tables, record, self.plan), weight=weight))
        return found


def fit(
    train_set: TrainSet, records: Sequence[Mapping[str, Any]], *, plan: Plan, reader: Reader, options: Mapping[str, Any], place: Place,
    checkpoint: Checkpoint | None = None,
) -> Found:
    """
    Fine-tune on a training set.

    Args:
        train_set: the rows.
        records: their values.
        plan: the roles.
        reader: cuts texts into tokens.
        options: of `SpanGenerator`.
        place: the encoder.
        checkpoint: where a kill leaves its state; None keeps none.

    Returns: the weights, with what was counted on the way.
    Raises: MissingExtra without torch and transformers.
    """
    texts = [example.request.text for example in train_set.examples]
    out = held_out(texts, share=options["held_out"], seed=options["seed"])
    kept = sorted(set(range(len(texts))) - set(out))
    rounds = _Rounds(train_set, records, kept=kept, plan=plan, reader=reader, options=options)
    some = out if len(out) <= CHECKED else sorted(np.random.default_rng(options["seed"]).choice(out, CHECKED, replace=False).tolist())
    judged = rounds.rows([texts[i] for i in some], [records[i] for i in some], [1.0] * len(some))
    right = [train_set.examples[i].target for i in some]

    def check(model: Model) -> float:
        """Share of fields right."""
        hits = 0
        for row, target in zip(judged, right, strict=True):
            tokens, whole = model.scores([row.page])
            said = decode(row.tables, tokens[0], whole[0], seen=model.weights_seen(), plan=plan)
            hits += 0 if said.value is None else sum(plan.output.compare(said.value, target))
        return hits / max(1, len(judged) * len(plan.output.fields))

    tokenizer = reader.tokenizer
    schedule = Schedule(
        epochs=rounds.rounds, batch=int(options["batch"]), rate=options["rate"], seed=options["seed"], size=place.size, first=reader.first,
        last=reader.last, pad=place.pad, frozen=int(min(options["frozen"], place.layers)),
        marks={mark: int(tokenizer.token_to_id(like) or reader.last) for mark, like in zip(reader.marks, LIKE, strict=True)},
    )  # fmt: skip
    probes = tuple(reader.read(texts[:PROBES]))
    fitted = train(
        rounds.of, folder=place.folder, plan=plan, schedule=schedule, check=check if judged else None, probes=probes, checkpoint=checkpoint
    )
    names = [field.name for field in plan.output.fields]
    facts = {
        "read": fitted.read, "unfound": dict(zip(names, fitted.unfound, strict=True)), "held_out": len(out), "judged": len(judged), "losses": list(fitted.losses),
        "checks": list(fitted.checks), "round": fitted.best,
    }  # fmt: skip
    return Found(fitted=fitted, probes=probes, facts=facts)
