"""
How many small faults the tests find: python -m benchmarks.mutation.run [--only NAME …] [--sample N] [--survivors FILE].

mutmut writes the faults; a test suite that ran once is forked for each of them, with the fast tests that reach the function.
A fault that no test sees has survived. Ends non-zero where a module's score is under --least.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
KILLED = ("killed", "timeout")  # a fault that never ends is seen by whoever waits


@dataclass(frozen=True, kw_only=True, slots=True)
class Module:
    """What is changed, and which tests have to see it."""

    files: tuple[str, ...]
    tests: tuple[str, ...]
    leave_out: str = ""
    """Tests by name that take seconds, measure time, or look at source text: pytest -k."""


MODULES = {
    "gate": Module(
        files=("steps/gate.py", "steps/checks/*.py"),
        tests=("tests/steps/test_gate_words.py", "tests/steps/test_gate_contract.py", "tests/steps/test_gate.py", "tests/steps/test_gate_rules.py"),
        leave_out="turned_worse or has_code_of_its_own or has_evidence_that",
    ),
    "ledger": Module(
        files=("store/labels.py", "store/money.py"),
        tests=("tests/store/test_ledger_words.py", "tests/store/test_store_labels.py"),
        leave_out="labels_per_second or in_a_tenth_of_all_requests",
    ),
    "router": Module(files=("serve/router.py",), tests=("tests/serve/test_router.py",)),
    "certify": Module(
        files=("measure/certify.py",),
        tests=("tests/measure/test_certify_words.py", "tests/measure/test_certify.py"),
        leave_out="at_most_as_often or planned_start_is_what or eight_slices",
    ),
}


def main() -> int:
    """Change, run, count; say which modules lie under the bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=MODULES, default=list(MODULES))
    parser.add_argument("--sample", type=int, help="faults of each module, drawn by --seed; all where not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--least", type=float, default=0.85, help="score under which it ends non-zero")
    parser.add_argument("--children", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--survivors", type=Path, help="file for what no test saw")
    given = parser.parse_args()
    print("| module | faults | tried | killed | timeouts | survived | score | seconds |\n|---|---|---|---|---|---|---|---|", flush=True)
    under, told = [], []
    for name in given.only:
        start = time.monotonic()
        with tempfile.TemporaryDirectory(dir=_quick()) as folder:
            ended, many, diffs = _tried(MODULES[name], Path(folder), given)
        found = Counter(ended.values())
        score = sum(found[word] for word in KILLED) / len(ended)
        print(
            f"| {name} | {many} | {len(ended)} | {found['killed']} | {found['timeout']} | {found['survived']} | "
            f"{_said(score, ended, many)} | {time.monotonic() - start:.0f} |",
            flush=True,
        )
        under += [name] if score < given.least else []
        told += [f"## {key}\n{diffs[key]}" for key in sorted(ended) if ended[key] not in KILLED]
    if given.survivors:
        given.survivors.parent.mkdir(parents=True, exist_ok=True)
        given.survivors.write_text("\n".join(told))
    if under:
        print(f"under {given.least:.0%}: {', '.join(under)}")
    return int(bool(under))


def _quick() -> str | None:
    """A folder in memory, where there is one: a ledger that is durable on return would wait for the disk."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and os.access(memory, os.W_OK) else None


def _said(score: float, ended: dict[str, str], many: int) -> str:
    if len(ended) == many:
        return f"{score:.1%}"
    from overproof.measure.intervals import cp_interval

    found = cp_interval(round(score * len(ended)), len(ended))
    return f"{score:.1%} ({found.low:.1%} to {found.high:.1%})"


def _tried(module: Module, folder: Path, given: argparse.Namespace) -> tuple[dict[str, str], int, dict[str, str]]:
    """Fault to what became of it, how many there are in all, and each one's text."""
    for part in ("src", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    diffs: dict[str, str] = {}
    for pattern in module.files:
        for path in sorted((folder / "src" / "overproof").glob(pattern)):
            diffs |= _changed(path, folder)
    names = sorted(diffs)
    drawn = names if given.sample is None else random.Random(given.seed).sample(names, min(given.sample, len(names)))
    asked = {"tests": module.tests, "leave_out": module.leave_out, "faults": drawn, "children": given.children}
    (folder / "asked.json").write_text(json.dumps(asked))
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "src"), str(folder)]), "TMPDIR": str(folder), "OMP_NUM_THREADS": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }  # fmt: skip
    with (folder / "said.txt").open("wb") as said:
        done = subprocess.run([sys.executable, Path(__file__).with_name("forked.py")], cwd=folder, env=environment, check=False, stdout=said)
    if done.returncode:
        raise SystemExit((folder / "said.txt").read_text()[-4_000:] + "\nthe tests don't pass on the code as it is")
    return json.loads((folder / "ended.json").read_text()), len(names), diffs


def _changed(path: Path, folder: Path) -> dict[str, str]:
    """Put all faults of a file into it, each behind a name; the name with the lines that differ."""
    from mutmut.mutation.file_mutation import mutate_file_contents
    from mutmut.utils.format_utils import get_mutant_name, mangled_name_from_mutant_name

    made = mutate_file_contents(str(path), path.read_text())
    path.write_text(made.code)
    lines = made.code.splitlines()

    def text(name: str) -> list[str]:
        span = made.line_span_by_function_name[name]
        return [line.strip() for line in lines[span.start - 1 : span.end]]

    found = {}
    for name in made.mutant_names:
        differs = difflib.unified_diff(text(f"{mangled_name_from_mutant_name(name)}__mutmut_orig"), text(name), n=0, lineterm="")
        found[get_mutant_name(path.relative_to(folder), name)] = "\n".join(line for line in differs if not line.startswith(("---", "+++", "@@")) and "__mutmut_" not in line)
    return found


if __name__ == "__main__":
    sys.exit(main())
