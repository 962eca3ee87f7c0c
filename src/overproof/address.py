"""Which addresses may be asked or told: the user's URLs, and nothing inside the own network by surprise."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

from overproof.errors import TeacherError

WEBHOOK_PORTS = (None, 443, 8443)
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
HOST_NAME = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.?")


class PrivateAddress(OSError):
    """A name resolved to an address that is not on the public network."""


def is_public(address: str) -> bool:
    """
    Tell public addresses from those of this machine or a local network.

    Args:
        address: an IPv4 or IPv6 address in text form.

    Returns: True iff it, and any IPv4 address wrapped in it, is globally reachable unicast.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = [found.ipv4_mapped, found.sixtofour, *(found.teredo or ())]
        if found in NAT64 or int(found) < 2**32:
            inner.append(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF))
        if any(v4 is not None and not is_public(str(v4)) for v4 in inner):
            return False
    return found.is_global and not found.is_multicast


def check_base_url(url: str, *, allow_private: bool, where: str = "[teacher] base_url") -> None:
    """
    Refuse a base URL that is malformed, carries a secret, is unencrypted, or names a private address.

    Args:
        url: as the project file has it.
        allow_private: admit plain http and private addresses.
        where: table and key that hold the URL, for the message.

    Raises: TeacherError; the message never repeats a password.
    """
    fix = "write it as https://HOST/v1; for a model on your own network also set allow_private = true"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise TeacherError(f"{where} is not a URL", next_action=fix) from error
    if "@" in parts.netloc:
        raise TeacherError(
            f"{where} carries a user name or password",
            next_action="take it out and name an environment variable in api_key_env",
        )
    if not _well_formed(url, parts, host) or port == 0:
        raise TeacherError(f"{where} {url[:200]!r} is not a plain http(s) URL", next_action=fix)
    assert host is not None
    if allow_private:
        return
    if parts.scheme != "https":
        raise TeacherError(f"{where} {url[:200]!r} is not encrypted", next_action=fix)
    if _surely_private(host):
        raise TeacherError(f"{where} {url[:200]!r} names a private address", next_action=fix)


def webhook_problem(url: str, *, allow_private: bool) -> str | None:
    """
    Why a webhook's URL is not admitted; unlike a base URL it may carry a query, which is often its secret.

    Args:
        url: as the project file has it.
        allow_private: admit plain http, private addresses and any port.

    Returns: the reason, which repeats nothing but the host; None where the URL is admitted.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "is not a URL"
    if "@" in parts.netloc:
        return "carries a user name or password"
    if not _well_formed(url, parts, host, query=True) or port == 0 or host is None:
        return "is not a plain https URL"
    if allow_private:
        return None
    if parts.scheme != "https":
        return "is not encrypted; write https, or set webhook_allow_private = true"
    if port not in WEBHOOK_PORTS:
        return f"goes to port {port}; without webhook_allow_private only 443 and 8443 are admitted"
    return f"names {host!r}, a private address; set webhook_allow_private = true if that is meant" if _surely_private(host) else None


def _well_formed(url: str, parts: SplitResult, host: str | None, *, query: bool = False) -> bool:
    if parts.scheme not in ("http", "https") or not host or (parts.query and not query) or parts.fragment or "\\" in url:
        return False
    if any(c.isspace() or not c.isprintable() or ord(c) > 126 for c in url) or "%" in parts.netloc or ".." in parts.path:
        return False
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            return False
        return True
    return HOST_NAME.fullmatch(host) is not None


def _surely_private(host: str) -> bool:
    name = host.rstrip(".")
    if ":" in host:
        return not is_public(host)
    if name == "localhost" or name.endswith((".localhost", ".local", ".internal")):
        return True
    last = name.rsplit(".", 1)[-1]
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", last):  # every spelling that the C library reads as an IPv4 number
        try:
            return not is_public(str(ipaddress.IPv4Address(name)))
        except ValueError:
            return True
    return False
