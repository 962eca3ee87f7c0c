"""Size budgets: a file, a function, a parameter list, the import of the package."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "overproof").rglob("*.py"))
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 8


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src" / "overproof")))
def test_files_functions_and_parameter_lists_stay_small(path: Path) -> None:
    """No file over 600 lines, no function over 60, no parameter list over 8."""
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{node.name}: {length} lines"
            spec = node.args
            count = len([a for a in spec.posonlyargs + spec.args if a.arg not in ("self", "cls")]) + len(spec.kwonlyargs)
            is_command = any("click" in ast.unparse(d) or ".command" in ast.unparse(d) for d in node.decorator_list)
            assert is_command or count <= MAX_PARAMETERS, f"{node.name}: {count} parameters"


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_the_package_and_its_command_line_pulls_no_weight() -> None:
    """`import overproof` and the CLI's start load no numeric, ML, HTTP or database library."""
    heavy = "{'numpy','scipy','sklearn','torch','onnxruntime','duckdb','pydantic','aiohttp','apsw','rensa'}"
    assert run_python(f"import sys, overproof; print({heavy} & set(sys.modules))").strip() == "set()"
    assert run_python(f"import sys, overproof.cli; print({heavy} & set(sys.modules))").strip() == "set()"


def test_importing_the_package_takes_few_milliseconds_of_cpu() -> None:
    """`import overproof` costs well under the 250 ms budget (processor time, not wall time)."""
    code = "import time; a = time.process_time(); import overproof; print(time.process_time() - a)"
    assert min(float(run_python(code)) for _ in range(3)) < 0.25


def test_there_is_no_drawer_for_odds_and_ends() -> None:
    """No module is called utils, helpers, common or misc."""
    assert not [p for p in SOURCES if p.stem in {"utils", "util", "helpers", "common", "misc"}]
