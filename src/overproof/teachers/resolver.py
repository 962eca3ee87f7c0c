"""Name resolution for aiohttp that refuses private results."""

from __future__ import annotations

import socket

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from overproof.address import PrivateAddress, is_public


class CheckedResolver(AbstractResolver):
    """
    Resolves names and refuses private results; the connection goes to exactly the address that was checked.

    Args:
        allow_private: admit private results.
    """

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._inner = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve, then check every address; one private among them refuses the name."""
        found = await self._inner.resolve(host, port, family)
        if not self._allow_private and not all(is_public(result["host"]) for result in found):
            raise PrivateAddress(f"{host!r} resolves to a private address; set allow_private = true if that is meant")
        return found

    async def close(self) -> None:
        """Release the inner resolver."""
        await self._inner.close()
