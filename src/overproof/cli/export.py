"""The verb that takes a release out of the store: a folder that serves by itself."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from overproof.cli.door import Door, verb
from overproof.errors import EXIT_PASS, DataError

if TYPE_CHECKING:
    from overproof.evidence import Release
    from overproof.pipeline import RunResult
    from overproof.project import Project
    from overproof.steps.collect import Evidence
    from overproof.store.decided import Extract
    from overproof.store.project_store import Store


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
            name, seal = candidate, "not signed: it is no release"
            bundle = _uncertified(project, evidence, candidate, Path(scratch))
            write_standalone(bundle, to, version=overproof.__version__, figures=_figures(result, evidence, name))
        elif isinstance(result.verdict, Release):
            name, seal = result.verdict.candidate, _handed_on(store, result, result.verdict, Path(scratch) / "release", to)
        else:
            raise DataError(
                f"run {result.run_id} was refused: there is no release to export",
                next_action="read `overproof show verdict`, or name a --candidate to take it uncertified",
            )
        needs = requirement(to / "bundle", version=overproof.__version__)
    body = {"folder": str(to), "run": result.run_id, "candidate": name, "certified": candidate is None, "install": needs, "signature": seal}
    door.emit(body, f"{name}: {'certified' if candidate is None else 'not certified, it only guesses'}; install {needs}".replace("[", r"\["), seal, to)
    return EXIT_PASS


def write_release(result: RunResult, to: Path, *, decided: Extract, signature: bytes | None = None) -> None:
    """
    Write a release as it leaves: bundle, papers and `verify.py`; the same bytes for the same run, decisions and version.

    Args:
        result: of a run that ended in a release.
        to: a folder that is not there yet, or is empty.
        decided: see `decided_so_far`; the dossier that leaves names its head.
        signature: goes beside them.

    Raises: DataError; OSError.
    """
    import overproof
    from overproof import verify
    from overproof.cli.walk import find
    from overproof.evidence import Release
    from overproof.students.standalone import write_standalone

    assert isinstance(result.verdict, Release)
    assert result.dossier_path is not None
    papers = {one.name: one.read_bytes() for one in sorted(result.dossier_path.parent.iterdir()) if one != result.dossier_path}  # the page quotes rows
    dossier = {**json.loads(papers["dossier.json"]), "decisions": decided.named}
    papers["dossier.json"] = (json.dumps(dossier, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    papers[verify.DECISIONS] = decided.text
    papers["verify.py"] = Path(verify.__file__).read_bytes()
    if signature is not None:
        papers[verify.SIGNATURE] = signature
    figures = _figures(result, find(result, "evidence"), result.verdict.candidate)
    write_standalone(result.verdict.bundle.path, to, version=overproof.__version__, figures=figures, papers=papers)


def decided_so_far(store: Store, result: RunResult, *, signed: bool) -> Extract:
    """
    What was decided about a run's release.

    Args:
        store: the project's store.
        result: of a run that ended in a release.
        signed: only as many as its last signature is over.

    Returns: the extract.
    Raises: CorruptArtifact where the log's chain is broken.
    """
    from overproof.cli.walk import find
    from overproof.evidence import Release
    from overproof.store.decided import decided_on, extract

    assert isinstance(result.verdict, Release)
    clearance, verdict = find(result, "clearance").id, result.artifacts["verdict"].digest
    found = list(decided_on(store.decisions, result.verdict, verdict=verdict, clearance=clearance))
    over = [one.body.get("decisions", {}).get("n") for one in found if one.kind == "signed"] if signed else []
    return extract(found[: over[-1]] if over else found)


def _handed_on(store: Store, result: RunResult, release: Release, scratch: Path, to: Path) -> str:
    """Write the release with its signature, if that is over these very files; what is to be said of it."""
    from overproof.signatures import signed_as
    from overproof.store.signatures import UNSIGNED

    words, signature = store.signatures.check(release.id, release.bundle.path).words, store.signatures.get(release.id)
    decided = decided_so_far(store, result, signed=signature is not None)
    if signature is not None:
        write_release(result, scratch, decided=decided)
        signed_as(signature, scratch)  # another version of this package writes another page
        words = "signed; no key is trusted here, so `python verify.py --key` has to tell by whom" if words == UNSIGNED else words
    write_release(result, to, decided=decided, signature=signature)
    return words


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


def _figures(result: RunResult, evidence: Evidence, name: str) -> dict[str, str]:
    report = next((one for one in evidence.exports if one.candidate == name), None)
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
