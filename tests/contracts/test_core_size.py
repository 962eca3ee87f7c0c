"""What `pip install overproof` and a server bring: this project's own lines, followed through the metadata of what is installed."""

import tomllib
from importlib.metadata import files, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MOST_PACKAGES = 29
MOST_MB = 370  # of 400 that are promised: we come on top, and libraries grow
NO_NETWORK_CLIENTS = {"aiohttp", "httpx", "requests", "urllib3", "starlette", "torch", "pandas", "pyarrow"}


def brought_by(lines: list[str], seen: set[str]) -> set[str]:
    for line in lines:
        need = Requirement(line)
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            found = canonicalize_name(need.name)
            if found not in seen:
                seen.add(found)
                brought_by(requires(found) or [], seen)
    return seen


def test_the_core_brings_under_thirty_packages_and_nothing_that_opens_a_socket() -> None:
    """Counted over all dependencies of dependencies, without extras."""
    found = brought_by(PROJECT["dependencies"], set())
    assert len(found) <= MOST_PACKAGES, sorted(found)
    assert not found & NO_NETWORK_CLIENTS
    assert {"numpy", "apsw", "scikit-learn", "joblib"} <= found


def test_a_server_of_an_encoder_stays_within_400_megabytes() -> None:
    """Core and the extra `encoder`, all files that the wheels brought, byte code left out."""
    found = brought_by([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["encoder"]], set())
    sizes = {name: sum(one.size or 0 for one in files(name) or []) / 1e6 for name in found}
    assert sizes["numpy"] > 20
    assert sizes["onnxruntime"] > 20
    assert sum(sizes.values()) <= MOST_MB, sorted(sizes.items(), key=lambda item: -item[1])
