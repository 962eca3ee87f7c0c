"""Which packings of an answer the upstream is asked for, so that what a caller can unpack, the log can read."""

from __future__ import annotations

from functools import lru_cache

from overproof.serve.asgi import Headers
from overproof.serve.stream import ZLIB_BITS

ACCEPT = b"accept-encoding"
READ = (*(name.encode() for name in ZLIB_BITS), b"identity")
OFFERED = (b"gzip", b"deflate", b"identity")


def readable(headers: Headers) -> Headers:
    """
    The headers of a recognised call, asking for no packing that isn't read here.

    Args:
        headers: the caller's, names in lower case.

    Returns: the same, but of `accept-encoding` only what is read here, with the caller's weights; as it was where the caller
        takes nothing of that, not even an answer as it is.
    """
    said = [value for name, value in headers if name == ACCEPT]
    if not said:
        return headers
    kept = _kept(b",".join(said))
    if kept is None:
        return headers
    return [*((name, value) for name, value in headers if name != ACCEPT), (ACCEPT, kept)]


@lru_cache(maxsize=256)
def _kept(value: bytes) -> bytes | None:
    """RFC 9110 §12.5.3: what isn't named is taken only where `*` is, but for an answer as it is, which is taken unless refused."""
    weights: dict[bytes, bytes] = {}
    for one in value.split(b","):
        name, _, weight = one.partition(b";")
        if name.strip():
            weights.setdefault(name.strip().lower(), weight.strip())
    rest = weights.get(b"*")
    wanted = {name: weight for name, weight in weights.items() if name in READ}
    if rest is not None:
        wanted |= {name: rest for name in OFFERED if name not in wanted}
    elif all(map(_refused, wanted.values())):
        wanted.setdefault(b"identity", b"")
    taken = {name: weight for name, weight in wanted.items() if not _refused(weight)}
    if not taken:
        return None
    return b", ".join(name + (b";" + weight if weight else b"") for name, weight in {**taken, **wanted}.items())


def _refused(weight: bytes) -> bool:
    name, _, value = weight.partition(b"=")
    try:
        return name.strip().lower() == b"q" and float(value) <= 0
    except ValueError:
        return False
