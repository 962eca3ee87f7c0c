"""The core stays small: what `pip install overproof` brings, followed through the metadata of what is installed."""

from importlib.metadata import requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

MOST_PACKAGES = 29
NO_NETWORK_CLIENTS = {"aiohttp", "httpx", "requests", "urllib3", "starlette", "torch", "pandas", "pyarrow"}


def brought_by(name: str, seen: set[str]) -> set[str]:
    for line in requires(name) or []:
        need = Requirement(line)
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            found = canonicalize_name(need.name)
            if found not in seen:
                seen.add(found)
                brought_by(found, seen)
    return seen


def test_the_core_brings_under_thirty_packages_and_nothing_that_opens_a_socket() -> None:
    """Counted over all dependencies of dependencies, without extras."""
    found = brought_by("overproof", set())
    assert len(found) <= MOST_PACKAGES, sorted(found)
    assert not found & NO_NETWORK_CLIENTS
    assert {"numpy", "apsw", "duckdb"} <= found
