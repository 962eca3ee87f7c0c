"""The next prompt set of a release that serves: what is kept, what is new, and why each row is in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from overproof.data.prompts import PromptSet
from overproof.data.traffic import Completion, digest_of

Picked = Literal["audit", "cluster", "escalated"]
"""Why a row was picked for training: an audit found it wrong, it is unlike all of training, or the student passed it on."""
Why = Literal["reference", "audit", "cluster", "escalated", "live mix"]
""""reference": it was in the release's own prompt set; "live mix": chance drew it from today's traffic."""
PICKED: tuple[Picked, ...] = get_args(Picked)


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """What is known of the requests since the release, beyond what their rows in the log say."""

    named: Mapping[str, Picked] = field(default_factory=dict)
    """Request id to the reason for which somebody picked it; requests that the log says were escalated need no entry."""
    wrong: tuple[str, ...] = ()
    """Requests whose answer a caller marked as wrong: never learned from as it stands."""
    bought: tuple[str, ...] = ()
    """Requests whose answer the ledger holds: labelling them costs nothing."""
    worn: tuple[str, ...] = ()
    """Hashes of rows that were sealed too often: none of them is sealed again. Empty while the release's sealed rows are kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NextSet:
    """The next prompt set, with the provenance of every row."""

    prompts: PromptSet
    release_id: str
    """Whose prompt set it goes on from."""
    why: Mapping[str, Why]
    """Request id to the reason, for every row of all three sets."""
    served: Mapping[str, Completion]
    """Training rows whose label is what the teacher said to the caller, under the caller's own parameters or prompt."""
    counts: Mapping[str, int]
    """"SPLIT: REASON" to rows."""
    capped: Mapping[str, int]
    """Why a row that could have been taken was not, to rows."""
    live: int
    """Rows of the log since the release."""

    @property
    def fresh(self) -> frozenset[str]:
        """Ids of the sealed rows that chance drew from today's traffic."""
        return frozenset(row.request.id for row in self.prompts.test if self.why[row.request.id] == "live mix")


def call_digest(messages: Sequence[tuple[str, str]], parameters: Mapping[str, object], fields: Mapping[str, str]) -> str:
    """
    What a call asks beyond its input: two calls with the same input and the same digest are the same question.

    Args:
        messages: (role, text), in order.
        parameters: everything else that may change the answer.
        fields: the input; each field's text counts as the field's name, so that the digest holds nothing of it.

    Returns: 64 hexadecimal digits.
    """
    longest = sorted(((text, name) for name, text in fields.items() if text), key=lambda one: (-len(one[0]), one[1]))

    def framed(text: str) -> str:
        for value, name in longest:
            text = text.replace(value, "\0" + name + "\0")
        return text

    return digest_of([[[role, framed(text)] for role, text in messages], dict(parameters)])
