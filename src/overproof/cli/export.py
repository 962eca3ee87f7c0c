"""The verb that takes a release out of the store: a folder that serves by itself."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from overproof.cli.door import Door, verb
from overproof.errors import EXIT_PASS, DataError

if TYPE_CHECKING:
    from overproof.evidence import ExportReport
    from overproof.pipeline import RunResult
    from overproof.project import Project
    from overproof.steps.collect import Evidence


@click.command(short_help="Write the release as a folder that serves by itself.")
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option("--to", "to", type=click.Path(path_type=Path), required=True, help="The folder to write; new or empty.")
@click.option("--candidate", default=None, help="Another candidate, uncertified: it only guesses.")
@verb
def export(door: Door, run_id: str | None, to: Path, candidate: str | None) -> int:
    """Write the release of a run, the last one where absent, as a folder that serves by itself."""
    import overproof
    from overproof.cli.walk import find
    from overproof.evidence import Release
    from overproof.pipeline import load_run
    from overproof.store.project_store import open_store
    from overproof.students.standalone import requirement, write_standalone

    project = door.load()
    if not (project.root / ".overproof").is_dir():
        raise DataError("the project has no store yet", next_action="run `overproof run` first")
    with open_store(project.root) as store, tempfile.TemporaryDirectory() as scratch:
        result = load_run(store, run_id)
        evidence: Evidence = find(result, "evidence")
        if candidate is not None:
            name, bundle = candidate, _uncertified(project, evidence, candidate, Path(scratch))
        elif isinstance(result.verdict, Release):
            name, bundle = result.verdict.candidate, result.verdict.bundle.path
        else:
            raise DataError(
                f"run {result.run_id} was refused: there is no release to export",
                next_action="read `overproof show verdict`, or name a --candidate to take it uncertified",
            )
        report = next((one for one in evidence.exports if one.candidate == name), None)
        write_standalone(bundle, to, version=overproof.__version__, figures=_figures(result, evidence, name, report))
        needs = requirement(to / "bundle", version=overproof.__version__)
    body = {"folder": str(to), "run": result.run_id, "candidate": name, "certified": candidate is None, "install": needs}
    door.emit(body, f"{name}: {'certified' if candidate is None else 'not certified, it only guesses'}; install {needs}".replace("[", r"\["), to)
    return EXIT_PASS


def _uncertified(project: Project, evidence: Evidence, name: str, scratch: Path) -> Path:
    """A bundle without any threshold: it guesses, and leaves every request to the teacher."""
    from overproof.registry import suggest
    from overproof.steps.pack import PackRecipe, pack

    trained = next((one for one in evidence.trained if one.name == name), None)
    if trained is None or evidence.report is None:
        known = suggest(name, [one.name for one in evidence.trained])
        raise DataError(f"the run has no candidate {name!r}. {known}", next_action="name one of these")
    report = evidence.report
    bare = replace(report, chosen=name, certificate=replace(report.certificate, slices=()))
    return pack(trained, bare, PackRecipe(task=project.task.name, input=project.task.input), workdir=scratch).path


def _figures(result: RunResult, evidence: Evidence, name: str, report: ExportReport | None) -> dict[str, str]:
    trained = next(one for one in evidence.trained if one.name == name)
    found = {"run": result.run_id, "size": f"{trained.size_bytes / 1e6:.1f} MB"}
    one = next((t for t in report.tried if t.runtime == report.runtime), None) if report is not None else None
    if one is not None:
        found["runtime"] = one.runtime
        if one.latency_s is not None and one.per_second is not None:
            found["a message of 16 tokens, one thread"] = f"{1000 * one.latency_s:.1f} ms (median, n = {one.latency_n})"
            found["32 at once, one thread"] = f"{one.per_second:.0f} a second"
        if one.load_s is not None and one.peak_bytes is not None:
            found["load, in a fresh process"] = f"{one.load_s:.1f} s, {one.peak_bytes / 1e6:.0f} MB at most"
    scores = next((c for c in evidence.report.candidates if c.name == name), None) if evidence.report else None
    if scores is not None and scores.latency_n:
        found["latency on this task's rows"] = f"{1000 * scores.latency_s:.2f} ms median, {1000 * scores.latency_p95_s:.2f} ms 95th percentile (n = {scores.latency_n})"
    return found
