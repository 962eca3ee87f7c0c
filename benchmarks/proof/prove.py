"""Run every proof, print the table, and write it with a plot into the docs: `python -m benchmarks.proof`."""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import pkgutil
import platform
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path

from benchmarks.proof.figure import picture
from benchmarks.proof.rows import FULL, ProofRow
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
OPENING = """# Proof

Written by `make prove`: seeded simulations with a known truth, in which each promise is tested beside the method that people
use instead. {trials} trials a row unless the row says otherwise, seed {seed}, {system}.

A row **holds** if our figure reaches what is promised *and*, wherever the naive method is known to fail, it was seen to fail in
the same run: a test that cannot see the fault proves nothing. Where it is nearly right (paired Wald from 300 rows on), or there
is none (primitives), the row says what was measured and guards our figure alone. Intervals are exact (Clopper-Pearson, 95 %). Students, teachers and traffic are simulated;
the worlds are in `benchmarks/proof/`, and no simulation says what your own traffic will do.

![Naive method and ours, against the promised level](proof.svg)
"""


def modules(only: str | None = None) -> list[str]:
    """Every module in this folder that has proofs; a module is found by its function `rows`, not by its name."""
    names = sorted(
        found.name for found in pkgutil.iter_modules([str(HERE)]) if not found.name.startswith("_")
    )
    wanted = [name for name in names if only in {None, name}]
    return [
        name
        for name in wanted
        if callable(getattr(importlib.import_module(f"benchmarks.proof.{name}"), "rows", None))
    ]


def proofs(name: str, trials: int, seed: int) -> list[ProofRow]:
    """The rows of one module; they are the same whichever process makes them."""
    found: list[ProofRow] = importlib.import_module(f"benchmarks.proof.{name}").rows(trials, seed)
    return found


def run(names: list[str], trials: int, seed: int, jobs: int, console: Console) -> list[ProofRow]:
    """All modules, several at a time, in a stable order."""
    done: dict[str, list[ProofRow]] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    spawn = multiprocessing.get_context("spawn")
    with Progress(*columns, console=console) as bar, ProcessPoolExecutor(jobs, mp_context=spawn) as pool:
        task = bar.add_task(f"proving: {', '.join(names)}", total=len(names))
        waiting = {pool.submit(proofs, name, trials, seed): name for name in names}
        for future in as_completed(waiting):
            done[waiting[future]] = future.result()
            left = [name for name in names if name not in done]
            bar.update(task, advance=1, description=f"proving: {', '.join(left)}" if left else "proved")
    return [row for name in names for row in done[name]]


def shown(rows: list[ProofRow]) -> Table:
    """The table in the terminal."""
    table = Table("claim", "naive", "reach", "measured", "holds", show_lines=True)
    for row in rows:
        mark = "[green]yes[/]" if row.holds else "[bold red]NO[/]"
        table.add_row(row.claim, row.naive, row.reach, row.measured, mark)
    return table


def page(rows: list[ProofRow], trials: int, seed: int) -> str:
    """The page of the docs."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy"))
    system = f"Python {platform.python_version()}, {packages}, {platform.machine()}, {os.cpu_count()} cores"
    lines = [OPENING.format(trials=f"{trials:,}", seed=seed, system=system)]
    lines += [
        "| claim | naive method, measured | reach | ours, measured | trials | holds |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row.claim,
            row.naive,
            row.reach,
            row.measured,
            f"{row.n_trials:,}",
            "yes" if row.holds else "**NO**",
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Prove everything; exit code 1 where a row does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proof", description=__doc__)
    parser.add_argument("--trials", type=int, default=FULL, help="simulated runs of each row")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="one module, for example certify; writes nothing without --out")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="modules that run at the same time"
    )
    parser.add_argument("--out", type=Path, help="folder for proof.md and proof.svg; docs/ for a whole run")
    given = parser.parse_args()
    console = Console()
    names = modules(given.only)
    if not names:
        console.print(f"no proofs named {given.only!r}; there are: {', '.join(modules())}", style="red")
        return 2
    rows = run(names, given.trials, given.seed, max(1, given.jobs), console)
    console.print(shown(rows))
    out = given.out or (DOCS if given.only is None and given.trials >= FULL else None)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "proof.md").write_text(page(rows, given.trials, given.seed), encoding="utf-8")
        (out / "proof.svg").write_text(picture(rows), encoding="utf-8")
        console.print(f"wrote {out / 'proof.md'} and {out / 'proof.svg'}")
    broken = [row.claim for row in rows if not row.holds]
    console.print(f"{len(rows) - len(broken)} of {len(rows)} rows hold", style="red" if broken else "green")
    return 1 if broken else 0
