"""Errors are for people: each class is raised somewhere, and each message ends in something to do."""

import ast
from pathlib import Path

from overproof import errors

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "overproof").rglob("*.py"))
CLASSES = {
    name for name, item in vars(errors).items()
    if isinstance(item, type) and issubclass(item, errors.OverproofError) and item is not errors.OverproofError
}


def raised() -> set[str]:
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                found.add(node.func.id if isinstance(node.func, ast.Name) else node.func.attr)
    return found


def test_every_error_class_is_raised_somewhere() -> None:
    """An error class that nobody raises is a promise that nobody keeps."""
    assert CLASSES - raised() == set()


def test_every_error_names_the_next_action() -> None:
    """No error is built without a next action that has words in it."""
    plain = CLASSES - {"ProjectError", "MissingExtra"}  # these two make their own
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in plain:
                given = {kw.arg: kw.value for kw in node.keywords}
                assert "next_action" in given, f"{path}:{node.lineno}"
                value = given["next_action"]
                assert not (isinstance(value, ast.Constant) and len(str(value.value)) < 8), f"{path}:{node.lineno}"


def test_exit_codes_follow_the_table() -> None:
    """2 for the user's file, 3 for terms, 4 for the outside world."""
    assert errors.ProjectError(["x"], file="f").exit_code == 2
    assert errors.NotCleared("x", next_action="y").exit_code == 3
    assert errors.BudgetExceeded("x", next_action="y").exit_code == 4
    assert errors.StoreError("x", next_action="y").exit_code == 4
