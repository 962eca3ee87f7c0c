"""The house stands: imports go down the floors only, lazy ones included, and heavy libraries stay in their rooms."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "overproof").rglob("*.py"))

CONFINED = {
    "pydantic": ("project.py", "settings.py", "settings_probe.py", "settings_retention.py", "settings_watch.py"),
    "aiohttp": ("teachers/",),
    "sklearn": ("students/", "measure/"),
    "duckdb": ("importers/",),
    "psycopg": ("importers/", "store/"),
    "obstore": ("store/",),
    "zstandard": ("importers/",),
    "apsw": ("store/",),
    "onnxruntime": ("students/",),
    "onnx": ("students/",),
    "tokenizers": ("students/",),
    "safetensors": ("students/",),
    "rensa": ("measure/",),
    "presidio_analyzer": ("privacy/",),
    "torch": ("students/",),
    "transformers": ("students/",),
    "peft": ("students/",),
    "openvino": ("students/",),
    "gguf": ("students/",),
    "xllamacpp": ("students/", "teachers/"),
    "ray": ("engines/",),
    "uvicorn": ("serve/",),
    "httptools": ("serve/",),
    "uvloop": ("serve/",),
    "msgspec": ("serve/",),
    "prometheus_client": ("serve/",),
    "jsonschema_rs": ("serve/",),
    "opentelemetry": ("serve/",),
    "smtplib": ("channels/",),
    "click": ("cli",),
    "rich": ("cli", "show"),
    "jinja2": ("steps/dossier.py", "cli", "web/"),
}
BANNED = {"sqlite3", "httpx", "requests", "pandas", "pickle", "joblib", "shelve", "marshal"}


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_import_linter_finds_no_import_that_goes_up() -> None:
    """Every own import, in functions too, goes to a lower floor and never to a sibling room."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_planted_upward_import_would_be_seen(tmp_path: Path) -> None:
    """The layers contract names every room that exists, so that a new room can't escape it."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    named = {part.strip() for layer in contract["layers"] for part in layer.split("|")}
    package = ROOT / "src" / "overproof"
    rooms = {f"overproof.{p.stem}" for p in package.glob("*.py") if p.stem not in ("__init__", "__main__")}
    rooms |= {f"overproof.{p.parent.name}" for p in package.glob("*/__init__.py")}
    assert rooms - named == set()


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src" / "overproof")))
def test_third_party_libraries_stay_in_their_rooms(path: Path) -> None:
    """A library with weight is imported only where the architecture says; some never."""
    where = str(path.relative_to(ROOT / "src" / "overproof"))
    tops = {name.split(".")[0] for name in imports_of(path)}
    assert not tops & BANNED
    if where != "measure/calibration.py":
        assert "scipy.stats" not in imports_of(path)
    for library, rooms in CONFINED.items():
        if library in tops:
            assert any(where.startswith(room) for room in rooms), f"{library} in {where}, belongs in {rooms}"


def test_every_third_party_import_is_declared() -> None:
    """What is imported is a dependency of the core or of an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + [d for extra in project["optional-dependencies"].values() for d in extra]
    declared = {line.split(">")[0].split("[")[0].split("=")[0].strip().replace("-", "_") for line in lines}
    declared |= {"sklearn", "huggingface_hub", "opentelemetry", "overproof"}  # scikit-learn; with tokenizers; opentelemetry-sdk
    for path in SOURCES:
        tops = {name.split(".")[0] for name in imports_of(path)} - set(sys.stdlib_module_names)
        assert tops <= declared, f"{path}: {tops - declared}"


def own_imports(path: Path) -> set[str]:
    """Modules of the package that a file imports, wherever in the file, type-checking blocks included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("overproof"):
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("overproof")}
    return found


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_two_files_import_each_other_directly_or_in_a_circle() -> None:
    """Following imports from any file never leads back to it, lazy imports and type-checking ones included."""
    modules = {module_of(path): path for path in SOURCES}
    graph = {name: own_imports(path) & set(modules) - {name} for name, path in modules.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for found in sorted(graph[name]):
                visit(found, (*trail, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())
