"""Who looks at the pages: a key brings a signed cookie, and whatever changes something brings a token of the same."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from typing import Final

from overproof.serve.keys import Caller, Denied, Keyring

COOKIE: Final = "overproof_session"
TOKEN: Final = b"x-overproof-token"
"""Header in which the pages' script brings the token."""
HOURS: Final = 12
_PARTS: Final = 4  # key's id, end, nonce, seal


class Entry:
    """
    Sessions without a table: what a cookie says is signed, and whether its key still holds is asked at every request.

    Args:
        keyring: the keys there are; without any, who reaches this address may do everything, as with the gateway.
        secrets_of: the projects' own secrets: a session holds as long as they stay.
    """

    def __init__(self, keyring: Keyring, secrets_of: Sequence[bytes]) -> None:
        self._keyring = keyring
        self._seal = hashlib.sha256(b"overproof.web.session\0" + b"".join(secrets_of)).digest()
        self._open = secrets.token_urlsafe(24)  # stands for the session where there are no keys

    def opened(self, key: str, now: float) -> str | None:
        """
        A session for a key.

        Args:
            key: as `overproof keys add` printed it.
            now: Unix time.

        Returns: the cookie's value; None where the key does not hold.
        """
        who = self._keyring.caller(b"Bearer " + key.strip().encode("ascii", "replace"))
        if isinstance(who, Denied) or not who.id:
            return None
        said = f"{who.id}.{int(now) + HOURS * 3600}.{secrets.token_hex(8)}"
        return f"{said}.{self._signed(said)}"

    def caller(self, headers: Mapping[bytes, bytes], now: float) -> Caller | None:
        """
        Who asks.

        Args:
            headers: of the request, by lower-case name.
            now: Unix time.

        Returns: the caller; None where a session or key is needed and none holds.
        """
        if not self._keyring.required or b"authorization" in headers:
            who = self._keyring.caller(headers.get(b"authorization"))
            return None if isinstance(who, Denied) else who
        parts = self.session(headers).split(".")
        if len(parts) != _PARTS or not hmac.compare_digest(parts[3], self._signed(".".join(parts[:3]))) or now >= int(parts[1]):
            return None
        return self._keyring.holder(parts[0])

    def session(self, headers: Mapping[bytes, bytes]) -> str:
        """The cookie's value as it came, not checked; empty where there is none."""
        for one in headers.get(b"cookie", b"").decode("latin-1").split(";"):
            name, mark, value = one.strip().partition("=")
            if mark and name == COOKIE:
                return value
        return ""

    def token(self, headers: Mapping[bytes, bytes]) -> str:
        """What the script of a page of this session brings with every change."""
        return self._signed("token." + (self.session(headers) if self._keyring.required else self._open))

    def may_change(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a change was asked for by our own page, or by a program with a key in its header."""
        if b"authorization" in headers and self._keyring.required:
            return True
        return hmac.compare_digest(headers.get(TOKEN, b""), self.token(headers).encode())

    def _signed(self, text: str) -> str:
        return hmac.new(self._seal, text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def cookie(value: str) -> tuple[bytes, bytes]:
    """
    The header that keeps a session, or ends it.

    Args:
        value: of the cookie; empty ends it.

    Returns: the header. No script can read the cookie, and no other site's page sends it.
    """
    age = HOURS * 3600 if value else 0
    return (b"set-cookie", f"{COOKIE}={value}; Path=/ui; Max-Age={age}; HttpOnly; SameSite=Strict".encode())
