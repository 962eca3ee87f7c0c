"""Rows that were erased, or have run out of their time, don't come back with a later import."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from overproof.data import Skipped, TrafficRecord
from overproof.store.sql import Connection


def mark_of(secret: bytes, kind: str, text: str) -> str:
    """
    A keyed hash: it knows a text again, and tells nobody without the project's secret which one.

    Args:
        secret: the project's.
        kind: what the text is; the same text has another mark as another kind.
        text: for example a request's id.

    Returns: 64 hexadecimal digits.
    """
    key = hmac.digest(secret, b"overproof traces 1", "sha256")
    return hmac.new(key, f"{kind}\0{text}".encode("utf-8", "backslashreplace"), hashlib.sha256).hexdigest()


class Graves:
    """
    Knows gone rows again.

    Args:
        secret: gives the project's secret; asked only where something has been erased.
    """

    def __init__(self, secret: Callable[[], bytes]) -> None:
        self._secret = secret

    def hold(self, connection: Connection, item: TrafficRecord | Skipped, digest: str, *, imported: bool) -> bool:
        """
        Whether a row is gone for good.

        Args:
            connection: of a transaction on `traffic.db`.
            item: the row.
            digest: of its stored form.
            imported: False for a request that the gateway has just served: it is a new one, whatever it says.

        Returns: True for a row with the id or the content of an erased one, and for the very row whose time has run out.
        """
        ((erased, expired),) = connection.execute("SELECT EXISTS(SELECT 1 FROM erased), EXISTS(SELECT 1 FROM expired)").fetchall()
        if expired and isinstance(item, TrafficRecord):
            query = "SELECT 1 FROM expired WHERE id=? AND digest=?"
            if connection.execute(query, (item.request.id, digest)).fetchall():
                return True
        if not erased or not imported:
            return False
        secret = self._secret()
        if isinstance(item, Skipped):
            marks = [mark_of(secret, "raw", item.raw[:2000])]
        else:
            marks = [mark_of(secret, "id", item.request.id), mark_of(secret, "row", item.request.digest)]
        return any(connection.execute("SELECT 1 FROM erased WHERE mark=?", (one,)).fetchall() for one in marks)
