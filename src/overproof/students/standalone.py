"""A folder that serves by itself: the bundle, what to install, and how to ask it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from overproof.errors import DataError
from overproof.registry import resolve
from overproof.students.bundle import MANIFEST, STUDENT, verify_files
from overproof.students.card import RELEASE, read_card
from overproof.students.runtimes import FP32, runtime_of
from overproof.students.settings import read_settings
from overproof.students.weights import sha256_of
from overproof.whole import whole_folder

BUNDLE, INSTALL, README = "bundle", "serve.txt", "README.md"
PAGE = """# {task}: {candidate}

{standing}

Install what it needs, and nothing of the training side:

    pip install -r {install}

Ask it:

```python
from overproof.students.bundle import load_bundle

bundle = load_bundle("{bundle}", manifest_sha256="{digest}")
answer = bundle.answer({fields})
print(answer.route, answer.value, answer.confidence, answer.reason)
```

`answer.value` is None where the teacher has to answer. Loading checks every file and runs a self-test: on a machine where the answers would differ from the certified ones it refuses.

| | |
|---|---|
{figures}
"""


def requirement(bundle: Path, *, version: str) -> str:
    """
    What a server has to install for a bundle.

    Args:
        bundle: its folder.
        version: of this package.

    Returns: one line for pip, such as "overproof[encoder]==0.1.0".
    """
    use = read_card(bundle / RELEASE).use
    extras = list(getattr(resolve("students", use), "extras", ()))
    if extras:
        facts = read_settings(bundle / STUDENT, kind=use).facts
        extras += runtime_of(facts.get("runtime", FP32.name)).extras
    return f"overproof[{','.join(extras)}]=={version}" if extras else f"overproof=={version}"


def write_standalone(
    bundle: Path, to: Path, *, version: str, figures: Mapping[str, str], papers: Mapping[str, bytes] | None = None
) -> None:
    """
    Write the folder whole, or not at all.

    Args:
        bundle: a checked bundle.
        to: a folder that is not there yet, or is empty.
        version: of this package.
        figures: what was measured, name to words.
        papers: further files beside the bundle, name to bytes.

    Raises: DataError for a folder that holds something; OSError.
    """
    if to.is_symlink() or (to.exists() and (not to.is_dir() or any(to.iterdir()))):
        raise DataError(f"{str(to)!r} is there and not empty", next_action="name a new folder; nothing is overwritten")
    card = read_card(bundle / RELEASE)
    certified = any(one.threshold is not None for one in card.thresholds)
    standing = (
        f"Released; the certificate ({card.label_kind}) holds until {card.expires}."
        if certified
        else "**Not certified.** Every request is left to the teacher; `answer.guess` is what the student would say."
    )
    with whole_folder(to.absolute()) as part:
        shutil.copytree(bundle, part / BUNDLE)
        verify_files(part / BUNDLE)
        (part / INSTALL).write_text(requirement(bundle, version=version) + "\n", encoding="utf-8")
        page = PAGE.format(
            task=card.task, candidate=card.candidate, standing=standing, install=INSTALL, bundle=BUNDLE,
            digest=sha256_of(part / BUNDLE / MANIFEST), fields=dict.fromkeys(card.input, "…"),
            figures="\n".join(f"| {name} | {words} |" for name, words in figures.items()),
        )  # fmt: skip
        (part / README).write_text(page, encoding="utf-8")
        for name, body in (papers or {}).items():
            (part / name).write_bytes(body)
