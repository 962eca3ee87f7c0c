"""What a release was made from: its run, the prompt set it was trained on, its bundle."""

from __future__ import annotations

import warnings
from functools import cached_property, partial
from typing import Any, cast

from overproof.data import PromptSet
from overproof.errors import StoreError
from overproof.evidence import Release
from overproof.runs import RunRecord, runs_of
from overproof.store.artifacts import Artifact
from overproof.store.codec import encode
from overproof.store.project_store import Store
from overproof.students.bundle import Bundle, load_bundle


class Reference:
    """
    A release and what it stands on. `reference_of` makes one; values load when they are asked for.

    Args:
        store: the project's store.
        release: the release.
        run: the run that the gate passed it in.
    """

    def __init__(self, store: Store, release: Release, run: RunRecord) -> None:
        self._store = store
        self.release = release
        self.run = run

    def artifact(self, name: str) -> Artifact[Any]:
        """
        A result of the release's run, as it was then.

        Args:
            name: as in `RunRecord.digests`, for example "prompts", "labels" or "report".

        Returns: the result; its value loads and is verified when it is asked for.
        Raises: StoreError where the run has no such result.
        """
        digest = self.run.digests.get(name)
        if digest is None:
            raise StoreError(
                f"run {self.run.id} has no result {name!r}", next_action=f"use one of {', '.join(sorted(self.run.digests))}"
            )
        objects = self._store.objects
        return Artifact(name, digest, partial(objects.value, digest, where=name), path=objects.value_path(digest))

    @cached_property
    def prompts(self) -> PromptSet:
        """The prompt set that it was trained, calibrated and tested on."""
        return cast("PromptSet", self.artifact("prompts").value)

    @cached_property
    def bundle(self) -> Bundle:
        """Its bundle, loaded; one past the certificate's end still says what it would say."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return load_bundle(self._store.objects.find(self.release.bundle.digest))


def reference_of(store: Store, release: Release) -> Reference:
    """
    Find the run that made a release.

    Args:
        store: the project's store.
        release: one of its releases.

    Returns: the release with its run; of several runs with this verdict the last.
    Raises: StoreError where no run of this store made it, for example since its bundle was brought from elsewhere.
    """
    digest = encode(release).digest
    for run in reversed(runs_of(store)):
        if run.outcome == "release" and run.digests.get("verdict") == digest:
            return Reference(store, release, run)
    raise StoreError(
        f"no run of this project made release {release.id!r}: what it was trained on is not known here",
        next_action="watch it in the project that made it, or run `overproof run` here",
    )
