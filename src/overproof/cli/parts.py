"""Whether the parts that the user's file names can be loaded and take the options that it gives them."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from overproof import registry
from overproof.asking import asks
from overproof.errors import OverproofError
from overproof.project import ASKED
from overproof.students.parts import options_of

if TYPE_CHECKING:
    from overproof.project import Project

OF_THE_RUN = (*ASKED, "provider", "revision", "price_in_usd_per_million", "price_out_usd_per_million")  # not the part's
GIVEN = ("labels", "output", "seed", "task", "kind", "self", "cls")  # what the steps hand to every part


def check_parts(project: Project) -> list[str]:
    """
    Load every part and compare its options with what its constructor takes; calls nothing.

    Args:
        project: a loaded project.

    Returns: one line per mistake; empty where all is well.
    """
    sys.path.insert(0, str(project.root))  # the user's own "module:function" lies beside the file
    try:
        lists = {"students": ("[[student]]", project.students), "verifiers": ("[[verify]]", project.verifiers)}
        problems = [
            line
            for kind, (where, parts) in lists.items()
            for part in parts
            for line in _faults(kind, part.use, part.options, f"{where} {part.name!r}")
        ]
        for part in project.baselines:
            asked = asks(part)
            options = {k: v for k, v in part.options.items() if not (asked and k in OF_THE_RUN)}
            problems += _faults("teachers" if asked else "students", part.use, options, f"[[baseline]] {part.name!r}")
        problems += _faults("teachers", project.teacher.use, project.teacher.options, "[teacher.options]")
        if project.judge.use:
            problems += _faults("teachers", project.judge.use, project.judge.options, "[judge.options]")
        for table in project.slices:
            if isinstance(table.where, str):
                problems += _faults("students", table.where, {}, f"[[slice]] {table.name!r}")
        return problems
    finally:
        sys.path.remove(str(project.root))


def _faults(kind: str, use: str, options: Mapping[str, Any], where: str) -> list[str]:
    try:
        made = registry.resolve(kind, use)
    except OverproofError as error:
        return [f"{where}: {error.what}; {error.next_action}"]
    known = _known(made)
    if known is None:
        return []
    return [f"{where}: unknown option {name!r}. {registry.suggest(name, known)}" for name in options if name not in known]


def _known(made: Any) -> list[str] | None:
    """Names of the options that a part takes; None where it takes whatever comes."""
    declared = getattr(made, "Options", None)
    if dataclasses.is_dataclass(declared):
        return sorted(f.name for f in dataclasses.fields(declared))
    if not inspect.isclass(made):
        return []
    takes = options_of(made)
    if takes is None:
        return None
    chosen = ["runtime"] if hasattr(made, "exported") else []  # read by the export step, not by the part
    return sorted({*takes, *chosen} - set(GIVEN))
