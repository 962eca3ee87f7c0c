"""A review queue as a CSV file that a spreadsheet may open, edit and save."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from overproof.desk import spoken
from overproof.errors import DataError
from overproof.steps.queues import Asked
from overproof.store.reviews import JUDGED, LIVE, Review
from overproof.task import Output
from overproof.whole import write_whole

COLUMNS = ("row", "text", "label", "reviewer", "seconds", "queue", "digest")
NEEDED = ("digest", "label", "queue")
RISKY = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run these as formulas
MEND = "mend this row of the sheet, and import it again"
MOST_PROBLEMS = 20
MOST_BYTES = 200_000_000


def write_sheet(path: Path, rows: Sequence[Asked], *, reviewer: str) -> None:
    """
    Write the rows to review; the `label` column is empty.

    Args:
        path: replaced whole.
        rows: the queue.
        reviewer: goes into each row; may be empty.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for r in rows:
        writer.writerow([_safe(r.request_id), _safe(r.text), "", _safe(reviewer), "", r.queue, r.digest])
    write_whole(path, b"\xef\xbb\xbf" + out.getvalue().encode("utf-8", "backslashreplace"))  # the mark is for Excel


def of_live(path: Path) -> bool:
    """
    Whether a sheet is about audited live answers.

    Args:
        path: of the sheet.

    Returns: True where any of its rows is one.
    Raises: DataError as `read_sheet`.
    """
    return any(line["digest"].strip().startswith(LIVE) for line in _lines(path))


def read_sheet(path: Path, *, asked: Mapping[str, Asked], output: Output, reviewer: str, drawn: int) -> list[Review]:
    """
    Read what a person filled in; rows without a label are left out.

    Args:
        path: a CSV file with commas, semicolons or tabs, in UTF-8 or as old Excel writes it.
        asked: digest to the row as the project knows it.
        output: the task's labels.
        reviewer: for rows that name nobody.
        drawn: audit reviews so far: an audit row must stand in the draw among these and the rows of the file.

    Returns: the reviews.
    Raises: DataError that names every bad row, before anything is kept.
    """
    lines = _lines(path)
    found: dict[tuple[str, str], Review] = {}
    problems: list[str] = []
    for number, line in enumerate(lines, 2):
        label = _plain(line.get("label", ""))
        if not label:
            continue
        try:
            review = _review(line, label, asked, output, reviewer)
            _check_draw(asked[review.digest], review.queue, drawn + len(lines))
        except DataError as error:
            problems.append(f"row {number}: {error.what}")
            continue
        before = found.setdefault((review.digest, review.reviewer), review)
        if before.label != review.label:
            problems.append(f"row {number}: the row of {review.request_id!r} is there twice, as {before.label!r} and {review.label!r}")
    if problems:
        more = [f"and {len(problems) - MOST_PROBLEMS} more"] if len(problems) > MOST_PROBLEMS else []
        raise DataError(
            "\n  ".join([f"{path.name}: {len(problems)} row(s) can't be taken; nothing was imported", *problems[:MOST_PROBLEMS], *more]),
            next_action="mend these rows and import the file again",
        )
    return list(found.values())


def _lines(path: Path) -> list[dict[str, str]]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path.name} is larger than {MOST_BYTES} bytes", next_action="split the file")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path.name} can't be read: {error.strerror}", next_action="look at the path") from error
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
    first = text.partition("\n")[0]
    mark = max(",;\t", key=first.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=mark, restval="")
    names = {(name or "").strip().casefold(): name for name in reader.fieldnames or ()}
    if missing := [name for name in NEEDED if name not in names]:
        raise DataError(
            f"{path.name} has no column {', '.join(missing)}; it has {', '.join(filter(None, names)) or 'none'}",
            next_action="import a file that `overproof review --export` wrote, with its header",
        )
    try:
        return [{name: str(row[raw] or "") for name, raw in names.items() if name} for row in reader]
    except csv.Error as error:
        raise DataError(f"{path.name}: {error}", next_action="save it as CSV again") from error


def _review(line: Mapping[str, str], label: str, asked: Mapping[str, Asked], output: Output, reviewer: str) -> Review:
    row = asked.get(line["digest"].strip())
    if row is None:
        raise DataError(f"no row of this project has the digest {line['digest'][:16]!r}", next_action=MEND)
    queue = line["queue"].strip().casefold()
    if queue not in ("audit", "fix"):
        raise DataError(f"queue is {line['queue']!r}, not audit or fix", next_action=MEND)
    if queue == "fix" and row.split != "train":
        raise DataError("the row is not a training row, so it can't be of the fix queue", next_action=MEND)
    value = spoken(label, output)
    person = _plain(line.get("reviewer", "")) or reviewer
    if not person:
        raise DataError("nobody is named as reviewer", next_action=MEND)
    return Review(
        digest=row.digest, request_id=row.request_id, label=value, reviewer=person,
        queue="fix" if queue == "fix" else "audit",
        blind=not row.digest.startswith(JUDGED), seconds=_seconds(line.get("seconds", "")),
    )  # fmt: skip


def _check_draw(row: Asked, queue: str, drawn: int) -> None:
    if queue == "audit" and row.place >= drawn:
        raise DataError(f"{row.request_id!r} was not drawn yet, so it can't be of the audit queue", next_action=MEND)


def _seconds(text: str) -> float | None:
    if not text.strip():
        return None
    try:
        value = float(text.strip().replace(",", "."))
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise DataError(f"seconds is {text!r}", next_action=MEND)
    return value


def _safe(text: str) -> str:
    """With an apostrophe before what a spreadsheet would take for a formula, or for our own apostrophe."""
    return f"'{text}" if text.startswith((*RISKY, "'")) else text


def _plain(text: str) -> str:
    stripped = text.strip()
    return stripped[1:] if stripped.startswith("'") and stripped[1:].startswith((*RISKY, "'")) else stripped
