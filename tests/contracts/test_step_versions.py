"""A step whose source changes must say so: bump its version, or record that its output is unchanged."""

import ast
import hashlib
import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
STEPS = ROOT / "src" / "overproof" / "steps"
LEDGER = Path(__file__).with_name("step_versions.json")


def current() -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for path in sorted(STEPS.glob("*.py")):
        tree = ast.parse(path.read_text())
        versions = {
            kw.value.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Step"
            for kw in node.keywords
            if kw.arg == "version" and isinstance(kw.value, ast.Constant)
        }
        if versions:
            source = hashlib.sha256(ast.unparse(tree).encode()).hexdigest()  # comments and layout don't count
            found[path.stem] = {"versions": sorted(versions), "source": source}
    return found


def test_an_edited_step_has_a_new_version_or_a_recorded_digest() -> None:
    """Editing a step without saying what it means for reuse fails here."""
    recorded, now = json.loads(LEDGER.read_text()), current()
    stale = [name for name in now if recorded.get(name) != now[name]]
    assert not stale, (
        f"steps {stale} changed: bump `version` where the output may differ, then record with "
        f"`python tests/contracts/test_step_versions.py` (also when the output is unchanged)"
    )
    assert set(recorded) == set(now)


if __name__ == "__main__":
    LEDGER.write_text(json.dumps(current(), indent=1) + "\n")
