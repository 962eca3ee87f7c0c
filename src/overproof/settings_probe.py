"""[probe]: what is tried on the packed student before it may serve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from overproof.evidence.probe_bars import CHECK_OF, Asked, loosened, measures
from overproof.settings import STRICT, Name

Bar = Annotated[float, Field(gt=0, lt=1)] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class WeaknessTable:
    """[[probe.weaknesses]]: what the teacher is known to get wrong, and the student must not serve."""

    __pydantic_config__ = STRICT
    name: Name
    texts: Annotated[tuple[Name, ...], Field(min_length=1)]
    """Requests, in the first input field; "{a|b}" stands for one or the other."""
    right: Name
    """The right answer."""
    wrong: str = ""
    """The teacher's answer, where it is always the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BarTable:
    """[probe.bars]: what is asked of one perturbation; a measure left out keeps its default."""

    __pydantic_config__ = STRICT
    drop: Bar = None
    flip: Bar = None
    rerouted: Bar = None
    wrong: Bar = None
    through: Bar = None
    beyond: Bar = None
    worse: Bar = None

    @property
    def asked(self) -> Asked:
        """As the gate reads it."""
        return Asked(drop=self.drop, flip=self.flip, rerouted=self.rerouted, wrong=self.wrong, through=self.through, beyond=self.beyond, worse=self.worse)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeTable:
    """[probe]: spoiled, padded, attacked and foreign texts; a few are always tried unless `use` says otherwise."""

    __pydantic_config__ = STRICT
    use: Literal["off", "watch", "report", "gate"] = "watch"
    """"watch" tries a few on 60 rows and shows them, "report" tries all and shows them, "gate" lets nothing ship that misses a bar or can't be told."""
    rows: Annotated[int, Field(ge=20, le=20_000)] = 400
    """Calibration rows that are tried, of the whole and of each slice; a bar of 1 % needs 299 without a failure."""
    teacher_rows: Annotated[int, Field(ge=0)] = 0
    """Rows on which the teacher is asked about each perturbation as well, some forty texts a row; its cap is [teacher] budget_usd."""
    attack_rows: Annotated[int, Field(ge=0, le=5_000)] = 100
    """Rows that the greedy attack tries; 0 for none."""
    attack_calls: Annotated[int, Field(ge=2, le=1_000)] = 60
    """Questions that it may ask about one row."""
    triggers: Annotated[int, Field(ge=0, le=500)] = 20
    """Rare training words that are tried as triggers."""
    extra: tuple[Name, ...] = ()
    """Further perturbations, as "module:name": a `Perturbation`, or a function (text, given, rng) -> text or None."""
    cases: str = ""
    """JSON lines of what must work: the input fields, "answer", and at will "name"; "{a|b}" in a field stands for one or the other."""
    weaknesses: tuple[WeaknessTable, ...] = ()
    """Known weaknesses of the teacher: { name, texts, right, wrong }."""
    bars: Mapping[str, BarTable] = field(default_factory=dict)
    """Tighter bars of the owner's, by perturbation: `"typo.v1" = { drop = 0.02 }`; a looser one is refused, since that takes a waiver."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of all draws."""

    @property
    def own_bars(self) -> dict[str, Asked]:
        """The owner's bars as the gate reads them."""
        return {name: bar.asked for name, bar in self.bars.items()}


def probe_problems(probe: ProbeTable) -> Iterator[str]:
    """
    What no single key of [probe] shows.

    Args:
        probe: the table.

    Returns: one line each.
    """
    names = [one.name for one in probe.weaknesses]
    if len(set(names)) < len(names):
        yield "two weaknesses have one name"
    yield from (f"weakness {one.name!r}: right and wrong are the same" for one in probe.weaknesses if one.right == one.wrong)
    yield from (f'extra = {one!r}; write "module:name"' for one in probe.extra if ":" not in one)
    if probe.use == "off" and (probe.cases or probe.weaknesses or probe.extra):
        yield 'cases, weaknesses and extra have no effect while use = "off"; write use = "gate"'
    yield from loosened(probe.own_bars, CHECK_OF)
    yield from (f"bars: {name!r} asks nothing; write for example {{ drop = 0.02 }}" for name, bar in probe.own_bars.items() if not measures(bar))
    yield from (
        f'bars: {name!r}: worse is asked of "greedy.v1", and nothing else is' for name, bar in probe.own_bars.items()
        if ("worse" in measures(bar)) is not (name == "greedy.v1") or (name == "greedy.v1" and len(measures(bar)) > 1)
    )
    if probe.bars and probe.use != "gate":
        yield f'bars refuse nothing while use = "{probe.use}"; write use = "gate"'
