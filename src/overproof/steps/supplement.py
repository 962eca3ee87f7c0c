"""Written rows beside the traffic: for training alone, marked, and never more than a small part of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from overproof.data import PromptRow, PromptSet, Skipped, TrafficRecord
from overproof.errors import DataError
from overproof.measure.leakage import clusters, nearest_similarity
from overproof.steps.promptset import leaks
from overproof.store.artifacts import Step

PREFIX = "supplement:"


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """Rows that somebody, or some machine, wrote for training."""

    name: str
    """The file's name."""
    records: tuple[TrafficRecord, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SupplementRecipe:
    """How much may be written."""

    cap: float = 0.1
    """Largest part of the training rows, in (0, 1)."""


def written(name: str, rows: Iterable[TrafficRecord | Skipped]) -> Written:
    """
    The rows of a supplement file; a file with a bad row is refused, since somebody can mend it.

    Args:
        name: the file's name, for messages.
        rows: what an importer yields.

    Returns: the rows.
    Raises: DataError with the number of bad rows, the reasons and the first place; for a file without a row.
    """
    records: list[TrafficRecord] = []
    bad: list[Skipped] = []
    for row in rows:
        if isinstance(row, Skipped):
            bad.append(row)
        else:
            records.append(row)
    if bad or not records:
        first = f"; the first: {bad[0].where}: {bad[0].reason}" if bad else ""
        raise DataError(
            f"{name}: {len(bad)} of {len(bad) + len(records)} rows can't be read{first}" if bad else f"{name} has no rows",
            next_action="mend the file that [promptset] supplement names",
        )
    return Written(name=name, records=tuple(records))


def supplement(prompts: PromptSet, extra: Written, recipe: SupplementRecipe) -> PromptSet:
    """
    Add written rows to training, and to nothing else.

    Args:
        prompts: the prompt set of the traffic.
        extra: the written rows.
        recipe: the cap.

    Returns: the set with marked training rows; similarity of calibration and test rows is measured again, since a
        written row can make a test row familiar. The funnel stays that of the log.
    Raises: DataError with counts where there are more rows than the cap admits, where an id occurs twice, or where
        rows repeat a calibration or test row: such rows would be learned from and then tested on.
    """
    n, train = len(extra.records), len(prompts.train)
    most = int(recipe.cap * train / (1 - recipe.cap) + 1e-9)
    if n > most:
        raise DataError(
            f"{extra.name} has {n} rows; with {train} training rows from the traffic at most {most} are admitted "
            f"([promptset] supplement_cap = {recipe.cap:g} of training)",
            next_action=f"take {n - most} rows out, or collect more traffic",
        )
    twice = [one for one, times in Counter(r.request.id for r in extra.records).items() if times > 1]
    if twice:
        raise DataError(f"{extra.name}: id {twice[0]!r} occurs twice", next_action="give each row its own id")
    held = (*prompts.calibration, *prompts.test)
    texts = [record.request.text for record in extra.records]
    groups = clusters([*texts, *(row.request.text for row in held)]).near.tolist()
    taken = {split: set(groups[n + at : n + at + len(rows)]) for split, at, rows in (
        ("calibration", 0, prompts.calibration), ("test", len(prompts.calibration), prompts.test))}  # fmt: skip
    repeats = {split: sum(group in found for group in groups[:n]) for split, found in taken.items()}
    if any(repeats.values()):
        counts = " and ".join(f"{k} repeat a {split} row" for split, k in repeats.items() if k)
        raise DataError(
            f"{extra.name}: of {n} rows {counts} (equal or near-duplicate texts)",
            next_action="take these rows out: what is tested can't be taught",
        )
    return _joined(prompts, extra)


def _joined(prompts: PromptSet, extra: Written) -> PromptSet:
    new = [
        PromptRow(
            request=replace(record.request, id=f"{PREFIX}{record.request.id}", session=None, at=None),
            weight=1.0,
            group=f"{PREFIX}{record.request.id}",
            recorded=record.completion,
            origin="supplement",
        )
        for record in extra.records
    ]
    train = (*prompts.train, *new)
    known = [row.request.text for row in train]

    def familiar(rows: tuple[PromptRow, ...]) -> tuple[PromptRow, ...]:
        near = nearest_similarity(known, [row.request.text for row in rows]).tolist()
        return tuple(replace(row, near_train=round(one, 6)) for row, one in zip(rows, near, strict=True))

    note = (
        f"{len(new)} written rows from {extra.name} were added to training ({len(new) / len(train):.1%} of it); "
        "none is in calibration or test."
    )
    calibration, test = familiar(prompts.calibration), familiar(prompts.test)
    return replace(
        prompts,
        train=train,
        calibration=calibration,
        test=test,
        leaks=leaks(train, calibration, test, by_time="time order" in prompts.leaks),
        notes=(*prompts.notes, note),
    )


SUPPLEMENT = Step(name="supplement", version=1, fn=supplement)
