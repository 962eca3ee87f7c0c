"""The review desk: what people are asked, where their words go, and what the words have shown so far."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from overproof import registry
from overproof.data import Folder, Labelled, PromptSet
from overproof.errors import DataError
from overproof.evidence import EvalReport
from overproof.pipeline import load_run, look_ahead
from overproof.project import Project
from overproof.recipes import features_recipe
from overproof.runs import runs_of
from overproof.steps.mend import FEATURES, MEND, HeldOut, MendRecipe, held_out, learn, load_features, mend
from overproof.steps.queues import SPLITS, Asked, Reason, Split, audit_queue, fix_queue, fix_reasons
from overproof.steps.reviewing import AUDIT, Outcome, settle
from overproof.steps.suspicion import Suspicion
from overproof.steps.teacher_errors import TEACHER_ERRORS, TeacherErrors, TeacherErrorsRecipe, teacher_errors
from overproof.steps.text_judge import people_asked
from overproof.store.artifacts import Artifact
from overproof.store.project_store import Store
from overproof.store.reviews import JUDGED, LIVE, Queue, Review, Reviews
from overproof.task import RIGHT, WRONG, Classes, Output


@dataclass(frozen=True, kw_only=True, slots=True)
class FixQueue:
    """The fix queue as the reviews of one moment made it."""

    rows: tuple[Asked, ...]
    """By falling worth of a person's word."""
    reasons: Mapping[str, Reason]
    """Why, by digest."""
    words: int
    """Words that it was learned from."""
    check: HeldOut
    """Whether what they taught may relabel rows that nobody has reviewed."""
    relabelled: int
    """Unreviewed training rows that get another label in the next run; 0 where the check does not hold."""


class Desk:
    """
    Reviews of one project; made by `open_desk`.

    Args:
        store: the project's store.
        project: the checked project file.
        prompts: the prompt set of the present log and file.
        filtered: the teacher's labels, before any review.
        marks: suspicious rows, where the project asks for them and they are there.
        behind: the earlier run whose rows these are; empty where they are those of the present log and file.
    """

    def __init__(
        self, store: Store, project: Project, prompts: Artifact[PromptSet], filtered: Artifact[Labelled],
        marks: Artifact[Suspicion] | None = None, *, behind: str = "",
    ) -> None:  # fmt: skip
        self._store, self._project = store, project
        self._prompts, self._filtered, self._marks = prompts, filtered, marks
        self._known: dict[str, Asked] = {}
        self._drawn: dict[Split, tuple[Asked, ...]] = {}
        self._said: dict[str, str] = {}
        self.behind = behind
        """The earlier run whose rows these are, since the log or the file changed after it; else empty."""

    @property
    def identity(self) -> tuple[str, ...]:
        """Two desks with the same one ask for the same rows."""
        return (self._filtered.digest, self._prompts.digest, self._marks.digest if self._marks is not None and self._marks.built else "", self.behind)

    @property
    def labelled(self) -> Labelled:
        """The rows with the teacher's labels, before any review."""
        return self._filtered.value

    @property
    def output(self) -> Output:
        """The task's labels."""
        return self._project.task.output

    def asked_for(self, *, judged: bool) -> Output:
        """What a person's word may be: an answer of the task, or right or wrong."""
        return Classes(labels=(RIGHT, WRONG)) if judged else self.output

    @property
    def outcome(self) -> Outcome:
        """What the reviewers settled on so far."""
        return settle(self._store.reviews.live())

    def known(self) -> dict[str, Asked]:
        """Every row that may be reviewed, by the digest of its content; where splits share one, the last of them."""
        if not self._known:
            for split in SPLITS:
                self._known.update({row.digest: row for row in self._draw(split)})
        return self._known

    def sizes(self) -> dict[Split, int]:
        """Different rows of each split."""
        return {split: len(self._draw(split)) for split in SPLITS}

    def said(self) -> Mapping[str, str]:
        """The teacher's answer by digest, for training and calibration rows: not to be shown to whoever reviews blind."""
        if not self._said:
            self._said = {e.request.digest: e.target for e in (*self.labelled.calibration.examples, *self.labelled.train.examples)}
        return self._said

    def _draw(self, split: Split) -> tuple[Asked, ...]:
        if split not in self._drawn:
            self._drawn[split] = audit_queue(self._filtered.value, Reviews(rows=()), split=split, seed=self._project.promptset.seed)
        return self._drawn[split]

    def queue(self, queue: Queue, split: Split, reviewer: str) -> tuple[Asked, ...]:
        """
        Rows to review next.

        Args:
            queue: "audit" or "fix".
            split: whose rows; the fix queue has training rows only.
            reviewer: who is asked; a second person gets the same draw from its start.

        Returns: the rows in order.
        Raises: DataError where the fix queue has too little to go by, or the split is "live".
        """
        if split == "live":
            raise DataError("live answers are reviewed without a run's rows", next_action="use `open_live_desk`")
        if queue == "fix":
            return self.fix().rows
        done = {r.digest for r in self._store.reviews.live().rows if r.queue == AUDIT and reviewer in ("", r.reviewer)}
        return tuple(row for row in self._draw(split) if row.digest not in done)

    def fix(self) -> FixQueue:
        """
        The fix queue and what it rests on; learns from all words anew, which takes seconds where there are many rows.

        Returns: the queue.
        Raises: DataError where there is too little to go by; StoreError while a run holds the project.
        """
        reviews = self._store.reviews.live()
        outcome = settle(reviews)
        with self._store.role("run"):
            features = self._store.memo().run(FEATURES, self._filtered, recipe=features_recipe(self._project))
        labelled, pending = self._filtered.value, self._pending()
        learned = learn(labelled.train, load_features(features.value), outcome)
        marked = {mark.digest for mark in self._marks.value.marks} if self._marks is not None and self._marks.built else ()
        rows = fix_queue(labelled, self._prompts.value, learned, outcome, pending=pending, marked=marked)
        assert learned is not None  # else fix_queue has raised
        check, relabelled = held_out(labelled.train, learned, outcome), 0
        if check.helped and self._project.promptset.mend:
            likeliest = learned.posterior.chance.argmax(axis=1)
            likeliest[learned.reviewed] = learned.said[learned.reviewed]
            relabelled = int((likeliest != learned.said).sum())
        return FixQueue(
            rows=rows, reasons=fix_reasons(labelled, learned, outcome, pending, marked=marked), words=len(reviews.rows),
            check=check, relabelled=relabelled,
        )  # fmt: skip

    def answers(self, reviewer: str = "") -> tuple[Asked, ...]:
        """
        The served answers of the last run that people and the judge are asked about.

        Args:
            reviewer: answers that this person has spoken on are left out; nobody's where empty.

        Returns: in the order of the draw.
        Raises: DataError where no run has asked a judge of texts.
        """
        artifact: Any = load_run(self._store).artifacts.get("text_docket") if runs_of(self._store) else None
        if artifact is None:
            raise DataError("no run has asked a judge of texts yet", next_action="write [judge] for a task of texts, then `overproof run`")
        done = {r.digest for r in self._store.reviews.live(judged=True).rows if reviewer and r.reviewer == reviewer}
        return tuple(row for row in people_asked(artifact.value) if row.digest not in done)

    def conflicts(self, *, judged: bool = False) -> tuple[Asked, ...]:
        """Rows, or judged answers, on which reviewers differ, as rows to decide."""
        words = self._store.reviews.live(judged=judged)
        known, queues = {r.digest: r for r in self.answers()} if judged else self.known(), {r.digest: r.queue for r in words.rows}
        return tuple(replace(known[c.digest], queue=queues[c.digest]) for c in settle(words).conflicts if c.digest in known)

    def drawn(self, *, judged: bool = False) -> int:
        """How many words there are on rows of the audit queue, or on judged answers."""
        return sum(r.queue == "audit" for r in self._store.reviews.live(judged=judged).rows)

    def keep(
        self, row: Asked, label: str, reviewer: str, *, kind: Literal["review", "adjudication"] = "review", seconds: float | None = None,
        blind: bool = True,
    ) -> None:  # fmt: skip
        """
        Keep one word; durable on return.

        Args:
            row: as it was asked.
            label: one of the task's labels, or right or wrong of a judged answer.
            reviewer: who says so.
            kind: a review, or the word that ends a conflict.
            seconds: how long it took.
            blind: whether no model's answer was shown; a judged answer is never blind.
        """
        found = Review(
            digest=row.digest, request_id=row.request_id, label=label, reviewer=reviewer, queue=row.queue, kind=kind,
            blind=blind and not row.digest.startswith(JUDGED), seconds=seconds,
        )  # fmt: skip
        self._store.reviews.append([found])

    def withdraw(self, row: Asked, reviewer: str) -> None:
        """Take a person's last word on a row back; both stay in the history."""
        found = Review(
            digest=row.digest, request_id=row.request_id, label="", reviewer=reviewer, queue=row.queue, kind="withdrawn"
        )
        self._store.reviews.append([found])

    def add(self, reviews: Sequence[Review]) -> int:
        """Keep many words, all or none; how many were new."""
        return self._store.reviews.append(reviews)

    def errors(self) -> TeacherErrors:
        """The teacher-error report as the reviews stand now."""
        p = self._project
        with self._store.role("run"):
            memo = self._store.memo()
            words = memo.source("reviews", self._store.reviews.live())
            features = memo.run(FEATURES, self._filtered, recipe=features_recipe(p))
            mended = memo.run(MEND, self._filtered, features, words, recipe=MendRecipe(relabel=p.promptset.mend))
            attributes = tuple(dict.fromkeys(s.by for s in p.slices if s.by is not None))
            return memo.run(TEACHER_ERRORS, self._filtered, mended, recipe=TeacherErrorsRecipe(attributes=attributes)).value

    def errors_so_far(self) -> TeacherErrors:
        """The same from people's words alone, without what they teach about other rows: quick, and possible while a run goes on."""
        attributes = tuple(dict.fromkeys(s.by for s in self._project.slices if s.by is not None))
        found = mend(self._filtered.value, Folder(path=Path()), self._store.reviews.live(), MendRecipe(relabel=False))
        return teacher_errors(self._filtered.value, found, TeacherErrorsRecipe(attributes=attributes))

    def _pending(self) -> tuple[str, ...]:
        """Labels whose slice is undecided or failed in the last run that reached a verdict."""
        if not runs_of(self._store):
            return ()
        artifact: Any = load_run(self._store).artifacts.get("report")
        if artifact is None:
            return ()
        report: EvalReport = artifact.value
        chosen = next(c for c in report.candidates if c.name == report.chosen)
        judged = [(s.slice, f) for s in chosen.slices if s.kind == "label" for f in (s.fidelity, s.accuracy) if f is not None]
        names = {name for name, figure in judged if figure.verdict in ("fail", "undecided")}
        return tuple(label for label in self.output.labels if label in names or f"label={label}" in names)


def open_desk(store: Store, project: Project, *, known: Desk | None = None) -> Desk:
    """
    The desk over the rows of the present log and project file; asks no teacher and costs nothing.

    Args:
        store: the project's store.
        project: the checked project file.
        known: one that was opened before; returned where it still holds, with what it has read.

    Returns: the desk. Where the log or the file changed since the last run, which a gateway's log does with each call, its
        rows are that run's: a word is about a row's content, and the next run uses it wherever it has that content.
    Raises: DataError where the teacher's labels are not there yet, or there are none of this task.
    """
    ran = bool(runs_of(store))
    if not ran or store.traffic.known_digest():  # else nothing is built over this log, and to look would read all of it
        desk = _desk(store, project, look_ahead(store, project, to="filter").artifacts)
        if desk is not None:
            return known if known is not None and known.identity == desk.identity else desk
    if ran:
        run = load_run(store)
        desk = _desk(store, project, run.artifacts, behind=run.run_id)
        if desk is not None and known is not None and known.identity == desk.identity:
            return known
        if desk is not None and (desk.labelled.train.labels, desk.labelled.train.output) == (project.task.output.labels, project.task.written):
            return desk
    raise DataError("the teacher's labels are not there yet, or are stale", next_action="run `overproof run --to filter` first")


def _desk(store: Store, project: Project, artifacts: Mapping[str, Artifact[Any]], *, behind: str = "") -> Desk | None:
    filtered, prompts = artifacts.get("filtered", artifacts.get("labels")), artifacts.get("prompts")
    if filtered is None or prompts is None or not filtered.built or not prompts.built:
        return None
    return Desk(store, project, prompts, filtered, artifacts.get("suspicion"), behind=behind)


def spoken(word: str, output: Output) -> str:
    """
    What a person means by what they wrote.

    Args:
        word: a label, a record as JSON, or a text.
        output: the task's.

    Returns: the canonical answer.
    Raises: DataError that says what is wrong with it.
    """
    labels = output.labels
    try:
        return output.parse(word)
    except DataError as error:
        what = f"no label {word!r}. {registry.suggest(word, list(labels))}" if labels else error.what
        raise DataError(what, next_action="mend this word and say it again") from error


class LiveDesk(Desk):
    """
    Audited answers of the releases that serve: people say what is right, and see no model's answer; made by `open_live_desk`.

    Args:
        store: the project's store.
        project: the checked project file.
    """

    def __init__(self, store: Store, project: Project) -> None:
        self._store, self._project, self.behind = store, project, ""
        self._known: dict[str, Asked] = {}

    @property
    def outcome(self) -> Outcome:
        """What the reviewers settled on so far."""
        return settle(self._words())

    def known(self) -> dict[str, Asked]:
        """Audits that wait for a person, by the digest of their content, oldest day first."""
        if not self._known:
            names = self._store.watching.audited_releases()
            due = [a for name in names for a in self._store.watching.audits(name, state="due") if a.source == "person"]
            due.sort(key=lambda a: (a.day, hashlib.sha256(a.request_id.encode()).hexdigest()))
            for row in self._store.traffic.find(a.request_id for a in due):
                digest = LIVE + row.request.digest
                asked = Asked(digest=digest, request_id=row.request.id, text=row.request.text, queue="audit", split="live", attributes=row.request.attributes)
                self._known.setdefault(digest, asked)
        return self._known

    def queue(self, queue: Queue, split: Split, reviewer: str) -> tuple[Asked, ...]:
        """Audits that this person has not spoken on; see `Desk.queue`."""
        if queue != "audit" or split != "live":
            raise DataError("live answers are in the audit queue alone: picked rows prove nothing", next_action="use --queue audit")
        done = {r.digest for r in self._words().rows if reviewer in ("", r.reviewer)}
        return tuple(row for digest, row in self.known().items() if digest not in done)

    def conflicts(self, *, judged: bool = False) -> tuple[Asked, ...]:
        """Audits on which reviewers differ."""
        del judged
        return tuple(self.known()[c.digest] for c in self.outcome.conflicts if c.digest in self.known())

    def drawn(self, *, judged: bool = False) -> int:
        """How many words there are on live answers."""
        del judged
        return len(self._words().rows)

    def _words(self) -> Reviews:
        return self._store.reviews.live(audited=True)


def open_live_desk(store: Store, project: Project) -> LiveDesk:
    """
    The desk over audited live answers; needs no run, asks no teacher and costs nothing.

    Args:
        store: the project's store.
        project: the checked project file.

    Returns: the desk.
    """
    return LiveDesk(store, project)
