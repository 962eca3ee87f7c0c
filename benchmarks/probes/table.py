"""What spoiled, padded, attacked and foreign texts do to linear and encoder students: Banking77 (recording) and the bundled inbox."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from overproof.cli.bundled import make_demo
from overproof.data import TrainSet
from overproof.evidence import EvalReport
from overproof.evidence.figures import Figure
from overproof.evidence.probes import ProbeCell, ProbeReport
from overproof.pipeline import distil
from overproof.project import load_project
from overproof.steps.probe_checks import CHECKED, share_caught
from overproof.store.project_store import open_store

BANKING = Path(__file__).parents[1] / "banking77"
STUDENT = re.compile(r"\[\[student\]\]\n(?:(?!\[).*\n)*")
PADDING = ("all_classes.v1", "polite.v1", "story.v1", "document.v1")
STUFFING = ("stuff_one.v1", "stuff_three.v1")
UNSEEN = ("front", "fillers", "shuffled", "telling")
UNICODE_POINTS, CAUGHT = 0.005, 0.95


def main() -> int:
    """Print one table for each student and data set; non-zero where Unicode tricks, padding or stuffing miss what is asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds banking77/")
    parser.add_argument("--rows", type=int, default=400, help="calibration rows that are tried")
    parser.add_argument("--attack-rows", type=int, default=100, help="of them, rows that the greedy attack tries")
    parser.add_argument("--triggers", type=int, default=20, help="rare words that are tried")
    parser.add_argument("--mixed-share", type=float, default=None, help="[serve] mixed_share; 0 turns the rule against stuffing off")
    parser.add_argument("--students", default="linear,encoder")
    parser.add_argument("--sets", default="inbox,banking77")
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}. Intervals: Clopper-Pearson, 95 %; n counts source rows.\n")
    missed = []
    for data in given.sets.split(","):
        for student in given.students.split(","):
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                report, evaluation = probed(Path(folder) / "project", data, student, given)
            print(f"### {data}, {student}.v1{' (frozen)' if student == 'encoder' else ''}: {report.rows} calibration rows, right is what {report.truth} says\n")
            print(f"{kept(evaluation)} {time.perf_counter() - began:.0f} s.\n")
            missed += [f"{data} {student}: {line}" for line in told(report)]
    print("\n".join(f"MISSED {line}" for line in missed) or "Unicode tricks, padding and stuffing hold what is asked.")
    return 1 if missed else 0


def probed(folder: Path, data: str, student: str, given: argparse.Namespace) -> tuple[ProbeReport, EvalReport]:
    """One project with one student on the whole road."""
    if data == "inbox":
        make_demo(folder)
    else:
        shutil.copytree(BANKING, folder, ignore=shutil.ignore_patterns("*.py", "README.md", "__pycache__"))
    file = folder / "overproof.toml"
    text = file.read_text(encoding="utf-8")
    keep = next(block for block in STUDENT.findall(text) if f'"{student}.v1"' in block)
    file.write_text(STUDENT.sub("", text) + f'\n{keep}\n[probe]\nuse = "report"\nrows = {given.rows}\nattack_rows = {given.attack_rows}\n'
                    f'triggers = {given.triggers}\nextra = {json.dumps([f"unseen:{one}" for one in UNSEEN])}\n', encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name("unseen.py"), folder / "unseen.py")
    sys.modules.pop("unseen", None)  # that of the project before
    sys.path[:] = [str(folder), *(one for one in sys.path if not one.endswith("/project") and Path(one) != Path(__file__).parent)]
    if data != "inbox":
        recording = (given.data / "banking77" / "banking77.jsonl.gz").resolve()
        subprocess.run([sys.executable, "-m", "overproof.cli", "import", str(recording), "--project", str(folder), "--json"], check=True, stdout=subprocess.DEVNULL)
    with open_store(folder) as store:
        more = [] if given.mixed_share is None else [f"serve.mixed_share={given.mixed_share}"]
        project = load_project(file, overrides=["sizing.budgets=[]", *more])
        rows = distil(store, project, to="filter").artifacts["labels"].value.train
        (folder / "telling.json").write_text(json.dumps(telling(rows)), encoding="utf-8")
        found = distil(store, project).artifacts
        return found["probes"].value, found["report"].value


def telling(rows: TrainSet) -> dict[str, list[str]]:
    """Of each class the four words whose share of its rows is furthest above their share of all, by standard errors."""
    texts = [(set(re.findall(r"[^\W\d]+", e.request.text.lower())), e.target) for e in rows.examples]
    total, size = Counter(word for words, _ in texts for word in words), Counter(label for _, label in texts)
    within = Counter((label, word) for words, label in texts for word in words)
    found: dict[str, list[tuple[float, str]]] = {}
    for (label, word), n in within.items():
        rate = total[word] / len(texts)
        if n >= 3:
            found.setdefault(label, []).append(((n / size[label] - rate) / math.sqrt(rate / size[label]), word))
    return {label: [word for _, word in sorted(scored, reverse=True)[:4]] for label, scored in found.items()}


def kept(report: EvalReport) -> str:
    """What the rule against messages that are put together costs, and what is kept with it."""
    one = next(c for c in report.candidates if c.name == report.chosen)
    calibration = one.calibration.mixed if one.calibration else None
    routed = [f"{percent(f)} of {f.n} {where} rows go to the teacher as put together" for where, f in (("calibration", calibration), ("sealed", one.mixed)) if f]
    slices = [f"slice {s.slice!r}: " + (f"{s.kept} of {s.n} kept, {s.wrong} wrong" if s.threshold is not None else f"nothing certified on {s.n}") for s in report.certificate.slices if s.n]
    return "; ".join([*routed, *slices]) + "."


def told(report: ProbeReport) -> list[str]:
    """Print the table, and say what misses."""
    print("| probe | n | right before | right after | attack success alone | after routing | wrong answers that go to the teacher | to the teacher before, after | teacher |\n|---|---|---|---|---|---|---|---|---|")
    for cell in (c for c in report.cells if c.slice == "all"):
        side = f"{percent(cell.teacher.wrong)}" if cell.teacher else "not measured"
        print(f"| {cell.probe} | {cell.n} | {percent(cell.clean)} | {percent(cell.right)} | {percent(cell.broken)} | {percent(cell.through)} | {'-' if cell.caught is None else f'{cell.caught:.1%}'} "
              f"| {cell.routed_before / cell.n:.1%}, {cell.routed / cell.n:.1%} | {side} |")  # fmt: skip
    for one in report.greedy:
        print(f"\nGreedy, slice {one.slice!r}: {percent(one.flipped)} of {one.n} changed with {one.calls:.0f} of {one.most} questions a row; {percent(one.through)} served wrong.")
    if report.triggers:
        worst = report.triggers[0]
        print(f"\nRare words as triggers: the worst of {len(report.triggers)} turns {percent(worst.flipped)} to {worst.label!r}, {percent(worst.through)} as served.")
    print(f"\nEmpty texts answered: {report.empty_answered} of {report.empty}. Teacher: {report.teacher_note or f'{report.teacher_asked} texts asked'}.")
    groups = {"padding": PADDING, "stuffing with one wrong class": STUFFING, "stuffing of further kinds": [f"unseen:{one}" for one in UNSEEN]}
    caught = {name: share_caught([c for probe in probes if (c := report.cell(probe)) is not None]) for name, probes in groups.items()}
    for name, one in caught.items():
        print(f"\nOf the answers that {name} turns wrong, {percent(one)} go to the teacher (n = {one.n}; several variants a row).")
    for check, title, answers in CHECKED:
        print("".join(f"\n{check} {title}: {answer.outcome}. {answer.reason}" for answer in answers(report)))
    print()
    worst_drop = max((drop(c) for c in report.cells if c.kind == "unicode" and c.slice == "all"), default=0.0)
    lines = [f"Unicode tricks cost {100 * worst_drop:.1f} points"] if worst_drop > UNICODE_POINTS else []
    asked = [(name, caught[name]) for name in ("padding", "stuffing with one wrong class")]
    return lines + [f"{name}: {percent(one)} go to the teacher" for name, one in asked if one.n and (one.value or 0.0) < CAUGHT]


def drop(cell: ProbeCell) -> float:
    """Accuracy lost, the student alone."""
    return (cell.worse - cell.better) / cell.n


def percent(one: Figure) -> str:
    """A figure with its interval."""
    return "-" if one.value is None else f"{100 * one.value:.1f} ({100 * one.low:.1f} to {100 * one.high:.1f})"


if __name__ == "__main__":
    sys.exit(main())
