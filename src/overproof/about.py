"""What a release's papers say beside the evidence: owner, files, software, and the release before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, requires, version
from re import match

from overproof.data import TestSet
from overproof.errors import OverproofError
from overproof.evidence import Refusal, Release
from overproof.outputs import kind_of
from overproof.project import Project
from overproof.recipes import functions_of
from overproof.registry import resolve
from overproof.runs import runs_of
from overproof.settings_watch import WatchTable
from overproof.steps.collect import Evidence
from overproof.steps.dossier import DossierRecipe, facts
from overproof.steps.filter import TAKE_TEST, NoRecipe
from overproof.steps.papers import About
from overproof.steps.since import SHARED, Former, Shared, SharedRecipe, former_of, of_challenge
from overproof.store.artifacts import Artifact, Memo, NotBuilt
from overproof.store.project_store import Store
from overproof.task import Slice


def about_of(
    project: Project, store: Store, memo: Memo, verdict: Release | Refusal, use: str, *, evidence: Artifact[Evidence], rows: Artifact[TestSet], slices: tuple[Slice, ...]
) -> About:
    """
    What the papers need.

    Args:
        project: the loaded project.
        store: its store, for the release before.
        memo: reads what earlier runs have made.
        verdict: of this run.
        use: part name of the chosen student.
        evidence: what the gate read.
        rows: the sealed rows, opened for this plan.
        slices: how they are cut.

    Returns: plain values, the same for the same release in the same environment.
    """
    owner, on = project.owner, project.watch
    redacted = project.privacy.redact if project.privacy.mode != "off" else ()
    return About(
        task=project.task.name, output=next(iter(kind_of(project.task.output))), input=project.task.input,
        owner=f"{owner.name} <{owner.email}>" if owner else "", deputy=owner.deputy if owner else "",
        out_of_scope=project.task.out_of_scope, redacted=tuple(redacted), digests=project.digests, software=software(use),
        drift=_watched(on), former=_former(store, memo, verdict, (evidence, rows, slices)),
    )  # fmt: skip


def _watched(on: WatchTable) -> str:
    return (
        f"`overproof watch` audits {on.audit_rate:.2%} of the student's answers, at least {on.floor_per_day} a day of each slice, asks the {on.ask}, and "
        f"looks for drift by {', '.join(on.drift) or 'nothing'}; canary prompts: {on.canaries}."
    )


def software(use: str) -> dict[str, str]:
    """
    The packages that serving a student needs, as they are installed here.

    Args:
        use: the student's part name.

    Returns: name to version, this package and its core included.
    """
    extras = set(getattr(resolve("students", use), "extras", ())) if ":" not in use else set()
    found = {"overproof": version("overproof")}
    for line in requires("overproof") or ():
        marker = match(r".*extra == ['\"]([a-z]+)['\"]", line)
        name = match(r"[A-Za-z0-9_.\-]+", line)
        if name and (marker is None or marker.group(1) in extras) and name.group(0) != "overproof":
            try:
                found[name.group(0)] = version(name.group(0))
            except PackageNotFoundError:
                continue
    return found


Now = tuple[Artifact[Evidence], Artifact[TestSet], tuple[Slice, ...]]


def _former(store: Store, memo: Memo, verdict: Release | Refusal, now: Now) -> Former | None:
    """The release that was recorded last before this one, as far as the store still has its evidence."""
    own = verdict.id if isinstance(verdict, Release) else ""
    before = ""
    for entry in store.releases.history():
        if entry.release_id == own:
            break
        if entry.stage == "candidate":
            before = entry.release_id
    for run in reversed(runs_of(store)) if before else ():
        if run.outcome != "release":
            continue
        try:
            earlier = memo.stored("verdict", run.digests["verdict"]).value
            if earlier.id == before:
                evidence = memo.stored("evidence", run.digests["evidence"]).value
                made = former_of(facts(evidence, earlier, DossierRecipe(today="", version="")))
                return replace(made, shared=_shared(memo, earlier, run.digests, now))
        except NotBuilt:
            raise
        except (OverproofError, KeyError):  # its files are gone: then nothing is compared
            return None
    return None


def _shared(memo: Memo, earlier: Release, digests: Mapping[str, str], now: Now) -> Shared:
    """Both students on the rows that both releases sealed: a refresh has asked them; else labels alone are cheap enough to ask for again."""
    evidence, rows, slices = now
    found = evidence.value
    if found.challenge is not None and found.challenge.champion == earlier.id:
        return of_challenge(found.challenge)
    if rows.value.output is not None or found.bundle is None:
        return Shared()
    try:
        before = memo.run(TAKE_TEST, memo.stored("labels", digests["labels"]), recipe=NoRecipe())
        champion, bundle = memo.source("former", earlier), memo.source("bundle", found.bundle)
        return memo.run(SHARED, champion, before, bundle, rows, recipe=SharedRecipe(slices=slices), functions=functions_of(slices)).value
    except NotBuilt:
        raise
    except (OverproofError, KeyError):  # the former student can't be loaded any more: two intervals have to do
        return Shared()
