"""One task as the pages see it: its project, its store, and the runs that were read before."""

from __future__ import annotations

import threading
from pathlib import Path

from overproof.errors import DataError
from overproof.evidence import Release
from overproof.pipeline import RunResult, load_run
from overproof.project import Project, load_project
from overproof.runs import RunRecord, runs_of
from overproof.store.project_store import Store, open_store

KEPT_RUNS = 4
"""Runs whose results stay in memory: they never change."""


class Place:
    """
    A task's project and store, for reading and for the few things that people decide on pages.

    Args:
        project: the checked project file, as it was at the start.
        source: where among the keyring's stores this one is.
    """

    def __init__(self, project: Project, *, source: int = 0) -> None:
        self.project = project
        self.source = source
        self.store: Store = open_store(project.root)
        self._runs: dict[str, RunResult] = {}
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The task."""
        return self.project.task.name

    @property
    def root(self) -> Path:
        """The project's folder."""
        return self.project.root

    def runs(self) -> list[RunRecord]:
        """Runs that reached a verdict, oldest first."""
        return runs_of(self.store)

    def run(self, run_id: str = "") -> RunResult | None:
        """
        An earlier run.

        Args:
            run_id: the newest where empty.

        Returns: the run; None where there is none at all.
        Raises: DataError where no run has this id.
        """
        known = self.runs()
        if not known and not run_id:
            return None
        wanted = run_id or known[-1].id
        with self._lock:
            found = self._runs.get(wanted)
            if found is None:
                found = load_run(self.store, wanted)
                while len(self._runs) >= KEPT_RUNS:
                    self._runs.pop(next(iter(self._runs)))
                self._runs[wanted] = found
        return found

    def release(self, release_id: str) -> Release | None:
        """A release of this store; None where there is none of this id."""
        return self.store.releases.get(release_id)

    def serving(self) -> str:
        """Id of the release that answers or is tried on traffic now; empty where there is none."""
        return self.store.rollouts.current(self.name).release_id or ""

    def reloaded(self) -> Project:
        """The project file as it is now. Raises what `load_project` raises."""
        return load_project(self.project.root / self.project.file)

    def close(self) -> None:
        """Close the store."""
        self.store.close()


def open_places(projects: list[Project]) -> tuple[Place, ...]:
    """
    The tasks of some projects.

    Args:
        projects: checked project files.

    Returns: one place each.
    Raises: DataError for two projects with one task; StoreError where a store can't be opened.
    """
    names = [one.task.name for one in projects]
    if len(set(names)) != len(names):
        raise DataError(f"two projects have the task {max(names, key=names.count)!r}", next_action="give each task a name of its own")
    return tuple(Place(project, source=at) for at, project in enumerate(projects))
