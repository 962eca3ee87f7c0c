"""What was decided about one release: an extract of the log of decisions, chained anew, that leaves with the bundle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from overproof.evidence import Release
from overproof.store.decisions import Decision, Decisions


@dataclass(frozen=True, kw_only=True, slots=True)
class Extract:
    """Decisions as lines, each of which names the SHA-256 of the line before; the bodies stay in the project."""

    lines: tuple[bytes, ...]
    """JSON without its line's end: seq, at, kind, actor, subject, body_sha256, prev."""

    @property
    def head(self) -> str:
        """SHA-256 of the last line; empty without lines. Named elsewhere, it shows that lines were cut off."""
        return hashlib.sha256(self.lines[-1]).hexdigest() if self.lines else ""

    @property
    def text(self) -> bytes:
        """What `decisions.jsonl` holds."""
        return b"".join(line + b"\n" for line in self.lines)

    @property
    def named(self) -> dict[str, Any]:
        """What the dossier says of it: the head, and how many lines."""
        return {"head": self.head, "n": len(self.lines)}


def extract(decisions: Iterable[Decision]) -> Extract:
    """
    Chain decisions anew.

    Args:
        decisions: oldest first; `seq` is that of the project's log, so that gaps are decisions about something else.

    Returns: the lines.
    """
    lines: list[bytes] = []
    for one in decisions:
        line = {
            "seq": one.seq, "at": one.at, "kind": one.kind, "actor": one.actor, "subject": one.subject,
            "body_sha256": hashlib.sha256(json.dumps(dict(one.body), allow_nan=False).encode()).hexdigest(),  # as the log holds it
            "prev": hashlib.sha256(lines[-1]).hexdigest() if lines else "",
        }  # fmt: skip
        lines.append(json.dumps(line, separators=(",", ":")).encode())
    return Extract(lines=tuple(lines))


def decided_on(log: Decisions, release: Release, *, verdict: str, clearance: str) -> Iterator[Decision]:
    """
    The decisions about a release: its clearance, the waivers of its plan, the gate's word, and what people and the watch did with it.

    Args:
        log: of the project; its chain is checked first.
        release: as the gate made it.
        verdict: digest of the gate's result.
        clearance: id of the clearance that its labels were bought under.

    Returns: the decisions, oldest first.
    Raises: CorruptArtifact where the log's chain is broken.
    """
    log.verify()
    for one in log.read():
        of_gate = one.kind == "gate" and one.body.get("digests", {}).get("verdict") == verdict
        of_plan = one.kind == "waiver" and one.body.get("plan") == release.certificate.plan_hash
        of_terms = one.kind == "clearance" and one.subject == clearance
        if one.subject == release.id or of_gate or of_plan or of_terms:
            yield one
