"""Who calls: keys are looked up in memory, and the store's changes are followed from the side."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from overproof.errors import DataError, OverproofError, StoreError
from overproof.serve.asgi import Refusal
from overproof.store.captured import is_away
from overproof.store.keys import ID_LENGTH, PREFIX, SCOPES, ApiKey, ApiKeys, Scope

FOLLOW_S: Final = 0.5  # half of the second within which a new or revoked key has to count
_BEARER: Final = b"bearer "
_LENGTH: Final = len(PREFIX) + 43
_ASK: Final = [(b"www-authenticate", b"Bearer")]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and what they may do."""

    id: str
    """Id of the key; empty where no keys are asked for."""
    scopes: frozenset[Scope]
    """"admin" is written out as all of them."""
    source: int = 0
    """Which of the keyring's stores has the key: a key moves nothing in another project."""


@dataclass(frozen=True, slots=True)
class Denied:
    """Nobody that we know."""

    reason: str
    """"missing", "unknown", "expired" or "revoked"."""
    refusal: Refusal
    """The answer, which says no more than that the key is not valid."""


_ANYBODY: Final = Caller("", frozenset(SCOPES))
_INVALID: Final = Refusal(401, "The key is not valid.", code="invalid_api_key", headers=_ASK)
_MISSING: Final = Denied(
    "missing", Refusal(401, "Give a key as `Authorization: Bearer op_...`; `overproof keys add` makes one.", code="invalid_api_key", headers=_ASK)
)
_UNKNOWN: Final = Denied("unknown", _INVALID)
_EXPIRED: Final = Denied("expired", _INVALID)
_REVOKED: Final = Denied("revoked", _INVALID)


@dataclass(frozen=True, slots=True)
class _Known:
    key: ApiKey
    caller: Caller


class Keyring:
    """
    The keys of one or more projects, in memory.

    Args:
        stores: where the keys are kept.
        clock: Unix time.

    Raises: StoreError where they can't be read at the start, and this machine has no copy of theirs from the last day; later the
        last ones read go on to hold.
    """

    def __init__(self, stores: Sequence[ApiKeys], *, clock: Callable[[], float] = time.time) -> None:
        self._stores = tuple(stores)
        self._clock = clock
        self._known: dict[bytes, _Known] = {}
        self._newest = 0.0
        self.required = False
        """Whether callers have to name themselves: so from the first key on, also where all were revoked since."""
        self.read_at = 0.0
        """When the stores were last read, Unix time."""
        try:
            self.reload()
        except StoreError as error:
            if not is_away(error):
                raise
            self._take([store.last_seen() for store in self._stores])

    def caller(self, authorization: bytes | None) -> Caller | Denied:
        """
        Who an Authorization header stands for; reads nothing but memory.

        Args:
            authorization: its value; None where there is none.

        Returns: the caller, or why it is nobody.
        """
        if not self.required:
            return _ANYBODY
        if authorization is None:
            return _MISSING
        if authorization[:7].lower() != _BEARER:
            return _UNKNOWN
        secret = authorization[7:].strip()
        if len(secret) != _LENGTH:
            return _UNKNOWN
        found = self._known.get(secret[3 : 3 + ID_LENGTH])
        if found is None or not hmac.compare_digest(hashlib.sha256(secret).digest(), found.key.digest):
            return _UNKNOWN
        return self._held(found)

    def holder(self, key_id: str) -> Caller | None:
        """
        Who a key stands for that was shown before, as in a signed session.

        Args:
            key_id: its public part.

        Returns: the caller; None where the key is unknown or holds no more.
        """
        found = self._known.get(key_id.encode("ascii", "replace"))
        who = None if found is None else self._held(found)
        return who if isinstance(who, Caller) else None

    def _held(self, found: _Known) -> Caller | Denied:
        key = found.key
        if key.revoked is not None:
            return _REVOKED
        # A clock that was set back must not wake a key up: no moment lies before the newest one that was stored.
        if key.expires is not None and max(self._clock(), self._newest) >= key.expires:
            return _EXPIRED
        return found.caller

    def reload(self) -> None:
        """Read the keys again; the change is one assignment, so that no request sees half of it."""
        self._take([store.all() for store in self._stores])

    def _take(self, found: Sequence[Sequence[ApiKey]]) -> None:
        known: dict[bytes, _Known] = {}
        newest = self._newest
        for place, keys in enumerate(found):
            for key in keys:
                scopes = frozenset(SCOPES) if "admin" in key.scopes else key.scopes
                known[key.id.encode()] = _Known(key, Caller(key.id, scopes, place))
                newest = max(newest, key.created, key.revoked or 0.0)
        self._known, self._newest = known, newest
        self.required = self.required or bool(known)
        self.read_at = self._clock()

    async def follow(self, *, every_s: float = FOLLOW_S) -> None:
        """Reload again and again, until cancelled; a store that can't be read changes nothing."""
        while True:
            await asyncio.sleep(every_s)
            with contextlib.suppress(OverproofError):
                await asyncio.to_thread(self.reload)


def is_own(host: str) -> bool:
    """
    Whether an address can be reached from this machine alone.

    Args:
        host: an address or a name.

    Returns: True for loopback addresses and `localhost`.
    """
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def refuse_open_bind(host: str, keyring: Keyring) -> None:
    """
    Listening where others can reach needs keys.

    Args:
        host: address to listen at.
        keyring: the keys there are.

    Raises: DataError for any address but this machine's own, without a key.
    """
    if not is_own(host) and not keyring.required:
        raise DataError(
            f"[gateway] host is {host!r}: others can reach it, and there are no keys",
            next_action="make one with `overproof keys add NAME --scope invoke`, or listen at 127.0.0.1",
        )
