"""[privacy.retention] of overproof.toml."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class RetentionTable:
    """[privacy.retention]: days that each kind is kept, counted from a row's time; absent for good. `overproof retain` applies it."""

    __pydantic_config__ = STRICT
    text: Count | None = None
    """The messages; a row without them leaves the log that runs read."""
    answers: Count | None = None
    """What was answered, and true answers, in the log."""
    context: Count | None = None
    """Turns and tool calls before the message."""
    attributes: Count | None = None
    """What slices are cut by, and the session."""
    key: Count | None = None
    """Id of the caller's key."""
    feedback: Count | None = None
    """Comments of callers; labels and ratings stay."""
    rejected: Count | None = None
    """Raw answers of the teacher that became no label, counted from the first pass that saw them."""
    examples: Count | None = None
    """Examples in alarms and in sketches of drift."""
    artifacts: Count | None = None
    """Results of steps, prompt sets among them; what a serving release stands on stays, and is counted."""
