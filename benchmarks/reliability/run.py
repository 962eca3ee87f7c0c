"""
The table of docs/reliability.md, each row with its command: python -m benchmarks.reliability.run [--quick] [--only NAME …].

The benchmarks of this folder report counts; rows that a test proves run that test. Ends with 1 where a row doesn't hold.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

MODULE = "benchmarks.reliability"
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    what: str
    args: tuple[str, ...] = ()
    """Of the module of this name; of pytest, where `tests` are named."""
    quick: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    n: str = ""
    """Key of the count in the report that the module prints."""
    wrong: str = ""
    """Key of the count that has to be 0."""
    more: tuple[str, ...] = field(default=())
    """Further keys to show."""


CRASH, CAPTURE = "tests/faults/test_crash_store.py", "tests/serve/test_capture_faults.py"
ROWS = (
    Row(name="power", what="power cuts: acknowledged rows lost, artifacts torn, databases unsound", args=("--cuts", "10000", "--seed", "1"),
        quick=("--cuts", "100", "--seed", "1"), n="cuts", wrong="cuts with a fault", more=("recordings",)),
    Row(name="verbs", what="kill -9 at every call that changes a file, of every mutating verb", args=("--step", "1", "--finish", "5", "--seed", "1"),
        quick=("--step", "20", "--finish", "1", "--only", "init", "import", "review", "promote", "keys"), n="kills", wrong="wrong",
        more=("cases", "run again", "labels lost", "labels duplicated", "artifacts torn", "skipped")),
    Row(name="teacher", what="faulty answers accepted", args=("--answers", "11500", "--rows", "10000", "--seed", "1"),
        quick=("--answers", "300", "--rows", "300", "--seed", "1"), n="faulty answers", wrong="accepted", more=("kinds", "run", "rows mixed")),
    Row(name="control", what="seeded control planes with a broken invariant", args=("--seeds", "10000"), quick=("--seeds", "30"), n="seeds", wrong="broken"),
    Row(name="kills", what="kill -9 at random moments of the stores in use", tests=(f"{CRASH}::test_killed_runs_leave_whole_artifacts_or_none",
        f"{CRASH}::test_killed_imports_lose_no_acknowledged_row_and_double_none")),
    Row(name="full disk", what="full disk: acknowledged rows lost", tests=(f"{CRASH}::test_a_full_disk_is_said_and_loses_nothing",
        f"{CRASH}::test_a_full_disk_leaves_no_half_artifact", f"{CAPTURE}::test_a_disk_that_fills_up_stops_the_log_alone_and_it_goes_on_by_itself")),
    Row(name="fsync", what="fsync fails with EIO: rows acknowledged after it, or lost before it", tests=("tests/faults/test_io_errors.py",)),
    Row(name="clock", what="clocks that jump: order, expiries, promotions", tests=("tests/watch/test_duties.py::test_a_clock_that_was_set_back_renews_nothing",
        "tests/serve/test_keys.py::test_a_key_ends_when_it_was_said_and_a_clock_set_back_wakes_none", "tests/serve/test_moves.py",
        "tests/serve/test_together.py::test_a_stage_is_as_old_as_the_stores_clock_says")),
    Row(name="migration", what="kill -9 in a migration", tests=(f"{CRASH}::test_killed_migrations_leave_the_old_or_the_new_schema",)),
    Row(name="postgres", what="runs and a gateway while Postgres restarts and sessions end: other digests, labels or counts", args=("--runs", "20", "--first", "1"),
        quick=("--runs", "1", "--seconds", "10"), n="runs", wrong="wrong", more=("restarts", "sessions ended", "stopped", "wire calls", "labels", "requests")),
    Row(name="counts", what="counts whose commit the server did not answer, added twice or lost", tests=("tests/serve/test_together.py::test_counts_whose_commit_nobody_heard_of_are_added_once",
        "tests/serve/test_together.py::test_counts_are_added_once_where_the_server_stays_away_right_at_the_commit",
        "tests/serve/test_capture.py::test_a_commit_that_nobody_heard_of_is_counted_once_whether_it_was_made_or_not")),
    Row(name="missing", what="a canary promoted without evidence: counts gone, impossible, no number, unreadable, nobody compares, store away",
        tests=("tests/serve/test_missing.py", "tests/serve/test_together.py::test_gateways_share_one_truth_and_one_that_is_cut_off_ends_with_the_teacher")),
    Row(name="out of memory", what="a run that memory ends: something half written, or another end after the next run", tests=("tests/faults/test_memory.py",)),
    Row(name="memory", what="a gateway that the out-of-memory killer ends: answered rows lost, or not back within 2 s", quick=("--kills", "2", "--within", "0"),
        n="kills", wrong="wrong", more=("answered", "median s", "longest s")),
    Row(name="without the store", what="a gateway started while Postgres is away: an uncertified answer, a row lost",
        tests=("tests/serve/test_together.py::test_a_gateway_that_starts_while_the_server_is_away_asks_the_teacher_until_it_is_back",)),
    Row(name="restarts", what="gateways restarted and killed under load", tests=("tests/serve/test_restarts.py",)),
)  # fmt: skip


def upper(n: int) -> str:
    """The most that a rate can be after 0 of n, one-sided, exact."""
    return f"{1 - (1 - CONFIDENCE) ** (1 / n):.2g}" if n else "1"


def command_of(row: Row, *, quick: bool) -> list[str]:
    if row.tests:
        return ["-m", "pytest", "-p", "no:xdist", *(("-m", "not slow") if quick else ()), *row.tests]
    return ["-m", f"{MODULE}.{row.name}", *(row.quick if quick else row.args)]


def measured(row: Row, *, quick: bool) -> tuple[bool, str]:
    """Whether the row holds, and its line of the table."""
    command = command_of(row, quick=quick)
    began = time.monotonic()
    done = subprocess.run([sys.executable, *command], check=False, capture_output=True, text=True)
    took = time.monotonic() - began
    if done.returncode:
        print(done.stdout[-6000:], done.stderr[-2000:], file=sys.stderr, flush=True)
    shown = "python " + " ".join(command)
    if row.tests:
        last = (done.stdout.strip().splitlines() or ["no output"])[-1]
        ran = re.search(r"(\d+) passed", last)
        holds = done.returncode == 0 and ran is not None and " skipped" not in last  # what was skipped shows nothing
        return holds, f"| {row.what} | {f'{ran[1]} tests passed' if ran and holds else last} | – | – | – | `{shown}` | {took:.0f} s |"
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    said: dict[str, Any] = json.loads(lines[0]) if lines else {}
    n, wrong = int(said.get(row.n, 0)), said.get(row.wrong, 0 if lines else "no report")
    holds = done.returncode == 0 and n > 0 and wrong == 0
    more = "; ".join(f"{key}: {said[key]}" for key in row.more if key in said)
    bound = upper(n) if wrong == 0 else "–"
    return holds, f"| {row.what} | {wrong} of {n:,}{f' ({more})' if more else ''} | {n:,} | {bound} | {said.get('seed', said.get('first', '–'))} | `{shown}` | {took:.0f} s |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small counts, to see that everything runs")
    parser.add_argument("--only", nargs="+", choices=[row.name for row in ROWS], default=[])
    given = parser.parse_args()
    failed = []
    print("| what | found | n | 95 % upper bound for zero | seed | command | took |\n|---|---|---|---|---|---|---|")
    for row in ROWS:
        if given.only and row.name not in given.only:
            continue
        holds, line = measured(row, quick=given.quick)
        print(line, flush=True)
        failed += [] if holds else [row.name]
    print(f"\n{'FAILS: ' + ', '.join(failed) if failed else 'every row holds'}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
