"""The type checker is the police: inputs in the wrong place are type errors, right ones are not."""

from mypy import api

HEAD = """
from dataclasses import dataclass
from pathlib import Path
from overproof.store.artifacts import Artifact, Memo, Step

@dataclass(frozen=True)
class Train: ...
@dataclass(frozen=True)
class Test: ...
@dataclass(frozen=True)
class Fit:
    seed: int = 1
@dataclass(frozen=True)
class Other: ...

def fit(rows: Train, recipe: Fit, *, workdir: Path) -> int: return 1
def score(model: int, rows: Test, recipe: Other) -> float: return 1.0
FIT = Step(name="fit", version=1, fn=fit, workdir=True)
SCORE = Step(name="score", version=1, fn=score)
def go(memo: Memo, train: Artifact[Train], test: Artifact[Test]) -> None:
"""
GOOD = """
    model = memo.run(FIT, train, recipe=Fit())
    found: float = memo.run(SCORE, model, test, recipe=Other()).value
    many: tuple[int, ...] = memo.gather([model, model]).value
"""
BAD = {
    "a test set where a training set belongs": "memo.run(FIT, test, recipe=Fit())",
    "a recipe of another step": "memo.run(FIT, train, recipe=Other())",
    "a missing input": "memo.run(SCORE, test, recipe=Other())",
    "inputs the wrong way round": "memo.run(SCORE, test, memo.run(FIT, train, recipe=Fit()), recipe=Other())",
}


def test_the_right_flow_type_checks_and_the_wrong_ones_do_not(tmp_path):
    """mypy --strict accepts the correct flow and refuses each misuse, at its own line."""
    lines = HEAD + GOOD + "".join(f"    {code}\n" for code in BAD.values())
    (tmp_path / "flow.py").write_text(lines)
    first = (HEAD + GOOD).count("\n") + 1
    out, _, _ = api.run(["--strict", "--no-incremental", "--config-file=", str(tmp_path / "flow.py")])
    found = {int(line.split(":")[1]) for line in out.splitlines() if ": error:" in line}
    assert found == set(range(first, first + len(BAD))), out
