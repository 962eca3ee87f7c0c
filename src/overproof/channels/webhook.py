"""One POST to a webhook: resolved once, checked, and connected to exactly the address that was checked."""

from __future__ import annotations

import hashlib
import hmac
import re
import socket
import ssl
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from overproof.address import is_public, webhook_problem
from overproof.channels import Lifeline, within
from overproof.errors import NoticeError

MOST_BYTES = 64 * 1024
"""Of an answer: its head is all that is read."""
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)(?: [^\r\n]*)?\r\n")
_FIX = "mend [notify] webhook"


def signature(body: bytes, *, secret: str, at: int) -> str:
    """
    What proves to a receiver that a body is ours, and how old it is.

    Args:
        body: as it is sent.
        secret: shared with the receiver.
        at: seconds since 1970.

    Returns: "t=AT,v1=HEX", HEX the HMAC-SHA-256 of "AT.BODY" under the secret.
    """
    mac = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256)
    return f"t={at},v1={mac.hexdigest()}"


def post(
    url: str, body: bytes, *, headers: Mapping[str, str], allow_private: bool, timeout_s: float, tls: ssl.SSLContext | None = None
) -> None:
    """
    Hand a JSON body to a webhook.

    Args:
        url: https without `allow_private`; user names, odd ports and addresses that are not public are refused.
        body: JSON.
        headers: further ones.
        allow_private: admit plain http, private addresses and any port.
        timeout_s: deadline from resolving to the answer's head.
        tls: trust of its own, for a private authority; the system's where None.

    Raises: NoticeError for anything but an answer of 2xx; it names the host and never the rest of the URL, which is often a
        secret. A redirect is not followed.
    """
    if (why := webhook_problem(url, allow_private=allow_private)) is not None:
        raise NoticeError(f"[notify] webhook {why}", next_action=_FIX)
    parts = urlsplit(url)
    where = f"webhook at {parts.hostname}"
    head = _head(parts, headers, len(body))

    def exchange(line: Lifeline) -> int:
        wire = _connect(parts, allow_private=allow_private, timeout_s=timeout_s, line=line, tls=tls)
        wire.sendall(head + body)
        return _status(wire, where)

    status = within(timeout_s, exchange, where=where)
    if not 200 <= status < 300:
        moved = "; redirects are not followed" if 300 <= status < 400 else ""
        raise NoticeError(f"{where} answered HTTP {status}{moved}", next_action="look at what receives it; it is tried again")


def _head(parts: SplitResult, headers: Mapping[str, str], length: int) -> bytes:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = {
        "Host": parts.netloc, "Content-Type": "application/json", "Content-Length": str(length), "User-Agent": "overproof",
        "Connection": "close", **headers,
    }  # fmt: skip
    if not all(re.fullmatch(r"[\x20-\x7e]*", value) for value in (target, *lines.values())):
        raise NoticeError("a header of the webhook holds a character that no header may hold", next_action=_FIX)
    return "\r\n".join([f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in lines.items()), "", ""]).encode("ascii")


def _connect(
    parts: SplitResult, *, allow_private: bool, timeout_s: float, line: Lifeline, tls: ssl.SSLContext | None
) -> socket.socket:
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
    if not allow_private and not (addresses and all(is_public(address) for address in addresses)):
        raise NoticeError(f"webhook at {host}: the name leads to a private address", next_action=_FIX)
    fault: OSError | None = None
    for address in addresses:  # numeric: nothing is resolved a second time
        try:
            wire = socket.create_connection((address, port), timeout=timeout_s)
        except OSError as error:
            fault = error
            continue
        line.hold(wire)
        return (tls or ssl.create_default_context()).wrap_socket(wire, server_hostname=host) if parts.scheme == "https" else wire
    raise fault or OSError(f"no address of {host}")


def _status(wire: socket.socket, where: str) -> int:
    seen, read = b"", 0
    with wire:
        while read < MOST_BYTES:
            if not (more := wire.recv(min(16_384, MOST_BYTES - read))):
                break
            read += len(more)
            seen += more
            while (end := seen.find(b"\r\n\r\n")) >= 0:
                known = _STATUS.match(seen)
                if known is None:
                    break
                status = int(known[1])
                if status >= 200:
                    return status
                seen = seen[end + 4 :]  # 1xx: the answer is still to come
    raise NoticeError(f"{where} gave no answer that HTTP knows", next_action="look at what receives it; it is tried again")
