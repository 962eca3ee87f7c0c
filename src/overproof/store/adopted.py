"""Answers that the teacher gave to callers through the gateway, in the label ledger: nobody is asked for them again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from overproof.data import Completion
from overproof.errors import StoreError
from overproof.store.local import Db

WHY = "served through the gateway"
_ATTEMPT = """
    INSERT INTO attempt(run_id, key, state, max_micro, cost_micro, reason, model, fingerprint, provider_request_id)
    SELECT ?1, ?2, 'ok', 0, 0, ?3, ?4, ?5, ?6 WHERE NOT EXISTS (SELECT 1 FROM label WHERE key=?2) RETURNING id"""
_LABEL = "INSERT INTO label VALUES(?, ?, ?, ?)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Adopted:
    """One answer that a caller got, to the very question that the project would have asked."""

    key: str
    """See `store.labels.label_key`: pin, prompt, output and request have to be those of the call."""
    request_id: str
    """The gateway's id of the call, which says where the label is from."""
    answer: Completion
    """Whole, by the pinned model, with its parsed value."""


class Adoptions:
    """
    The way from the traffic log into the ledger.

    Args:
        db: the open `project.db`.
    """

    def __init__(self, db: Db) -> None:
        self._db = db

    def put(self, rows: Sequence[Adopted], *, run_id: str, clearance_id: str) -> int:
        """
        Keep answers as labels at no cost, all or none; durable on return.

        Args:
            rows: the answers.
            run_id: for the record.
            clearance_id: the permission under which they become labels.

        Returns: how many were new; a key that has a label keeps it.
        Raises: StoreError for an answer without a value.
        """
        if bare := next((one for one in rows if one.answer.value is None), None):
            raise StoreError(f"the answer to request {bare.request_id!r} has no value", next_action="report this")
        new = 0
        with self._db.write() as connection:
            for one in rows:
                said = replace(one.answer, cost_usd=0.0, reason=None)
                row = (run_id, one.key, WHY, said.model, said.fingerprint, one.request_id)
                for (attempt,) in connection.execute(_ATTEMPT, row).fetchall():
                    connection.execute(_LABEL, (one.key, json.dumps(asdict(said)), attempt, clearance_id))
                    new += 1
        return new

    def origins(self) -> dict[str, str]:
        """Key of each label that came in this way, to the gateway's id of the call."""
        query = "SELECT a.key, a.provider_request_id FROM attempt a JOIN label l ON l.attempt=a.id WHERE a.reason=?"
        return {str(key): str(request) for key, request in self._db.rows(query, (WHY,))}
