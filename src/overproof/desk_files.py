"""Review queues as files of annotation tools, and what came back as reviews."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from overproof.desk import Desk, spoken
from overproof.errors import DataError
from overproof.importers import argilla, label_studio
from overproof.importers.annotated import MOST_BYTES, Annotated, Reading, Ticket, Word, seconds_of, text_of
from overproof.steps.queues import Asked
from overproof.store.reviews import JUDGED, Review
from overproof.task import Output

Form = Literal["argilla", "label-studio", "jsonl"]
FORMS: tuple[Form, ...] = get_args(Form)


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """A file of words, held against the project."""

    reviews: tuple[Review, ...]
    refused: Mapping[str, int]
    """Why a row is not taken, to how many."""
    new: int = 0
    """How many of the reviews the project did not have."""

    @property
    def words(self) -> str:
        """One line for a person."""
        refused = "; ".join(f"{n} not taken: {why}" for why, n in self.refused.items())
        return f"{len(self.reviews)} words read, {self.new} of them new" + (f"; {refused}" if refused else "")


def written(rows: Sequence[Asked], form: Form, *, guesses: Mapping[str, str] | None = None) -> bytes:
    """
    A queue as a file.

    Args:
        rows: the queue.
        form: of the file.
        guesses: the teacher's answer by digest, where it is to be shown; rows of the audit queue never carry one.

    Returns: the bytes.
    """
    known = guesses or {}
    tickets = [
        Ticket(
            digest=r.digest, request_id=r.request_id, text=r.text, queue=r.queue, attributes=r.attributes,
            guess=known.get(r.digest, "") if r.queue == "fix" else "", model="teacher" if r.queue == "fix" and r.digest in known else "",
        )
        for r in rows
    ]  # fmt: skip
    if form == "argilla":
        return argilla.records(tickets)
    if form == "label-studio":
        return label_studio.tasks(tickets)
    lines = [json.dumps({**asdict(t), "attributes": dict(t.attributes), "label": "", "reviewer": "", "seconds": None}, ensure_ascii=False) for t in tickets]
    return "".join(line + "\n" for line in lines).encode("utf-8", "backslashreplace")


def form_of(data: bytes) -> Form:
    """
    Which form a file has.

    Args:
        data: its bytes.

    Returns: the form.
    Raises: DataError where it has none of them.
    """
    try:
        found = json.loads(data.decode("utf-8-sig")) if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[") else None
    except (ValueError, RecursionError):
        found = None
    first = next((one for one in found if isinstance(one, dict)), {}) if isinstance(found, list) else {}
    if "fields" in first or "label.responses" in first:
        return "argilla"
    if "data" in first or "overproof_digest" in first:
        return "label-studio"
    if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return "jsonl"
    raise DataError("this is no file of Label Studio, Argilla or JSON lines with reviews", next_action="say which with --form, or export it again")


def taken(data: bytes, form: Form, *, asked: Mapping[str, Asked], output: Output, reviewer: str, drawn: int) -> Taken:
    """
    What a file says, row by row.

    Args:
        data: of the file.
        form: of the file.
        asked: digest to the row as the project knows it.
        output: what a word may be.
        reviewer: for words that name nobody.
        drawn: audit words so far: an audit row must stand in the draw among these and the rows of the file.

    Returns: the reviews; what does not fit is counted by reason, and nothing of it is taken.
    Raises: DataError where the file is none of this form.
    """
    found = {"argilla": argilla.annotated, "label-studio": label_studio.annotated, "jsonl": _lines}[form](data)
    refused: Counter[str] = Counter(found.skipped)
    reach = drawn + found.rows
    said: dict[tuple[str, str], list[Review]] = {}
    for word in found.words:
        one = _review(word, asked, output, reviewer, reach)
        if isinstance(one, str):
            refused[one] += 1
        else:
            said.setdefault((one.digest, one.reviewer), []).append(one)
    reviews = []
    for same in said.values():
        if len({one.label for one in same}) > 1:
            refused["one person says two things of one row"] += len(same)
        else:
            reviews.append(same[0])
    return Taken(reviews=tuple(reviews), refused=dict(sorted(refused.items())))


def take(desk: Desk, data: bytes, form: Form, *, reviewer: str, judged: bool = False) -> Taken:
    """
    Read a file and keep its words, all of them or none.

    Args:
        desk: whose rows.
        data: of the file.
        form: of the file.
        reviewer: for words that name nobody.
        judged: whether it is about judged answers.

    Returns: what was taken, and what not.
    Raises: DataError, StoreError; then nothing is kept.
    """
    asked = {row.digest: row for row in desk.answers()} if judged else desk.known()
    found = taken(data, form, asked=asked, output=desk.asked_for(judged=judged), reviewer=reviewer, drawn=desk.drawn(judged=judged))
    return replace(found, new=desk.add(found.reviews))


def _review(word: Word, asked: Mapping[str, Asked], output: Output, reviewer: str, reach: int) -> Review | str:
    row = asked.get(word.digest)
    if row is None or word.text != row.text:
        return "the row changed, or is not of this project"
    if word.queue not in ("audit", "fix"):
        return "it names no queue"
    if word.queue == "fix" and row.split != "train":
        return "only training rows are in the fix queue"
    if word.queue == "audit" and row.place >= reach:
        return "it stands further on in the draw than the file has rows: review them in their order, and export all of them"
    person = word.reviewer or reviewer
    if not person:
        return "nobody is named as reviewer"
    try:
        label = spoken(word.label, output)
    except DataError:
        return "no answer of this task"
    return Review(
        digest=row.digest, request_id=row.request_id, label=label, reviewer=person, queue="fix" if word.queue == "fix" else "audit",
        blind=word.blind and not row.digest.startswith(JUDGED), seconds=word.seconds,
    )  # fmt: skip


def _lines(data: bytes) -> Annotated:
    """Our own form: what `written` wrote, with `label` filled in."""
    if len(data) > MOST_BYTES:
        raise DataError(f"the file is larger than {MOST_BYTES} bytes", next_action="split it")
    lines = [line for line in data.decode("utf-8-sig", "replace").split("\n") if line.strip()]  # not splitlines: a text may hold other line ends
    reading = Reading(len(lines))
    for line in lines:
        one: Any = None
        with contextlib.suppress(ValueError, RecursionError):
            one = json.loads(line)
        if not isinstance(one, dict):
            reading.skip("the line is no JSON object")
        elif not text_of(one.get("label")).strip():
            reading.skip("no label")
        else:
            reading.add(Word(
                digest=text_of(one.get("digest")), text=text_of(one.get("text")), queue=text_of(one.get("queue")), label=one["label"],
                reviewer=text_of(one.get("reviewer")), seconds=seconds_of(one.get("seconds")), blind=not one.get("guess"),
            ))  # fmt: skip
    return reading.done()
