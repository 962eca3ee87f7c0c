"""The project speaks of itself alone, and in its own nouns."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def tracked() -> list[Path]:
    out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / line for line in out.stdout.splitlines() if (ROOT / line).is_file()]


def test_no_file_carries_a_path_of_somebodys_machine() -> None:
    """No absolute path of a home or work folder stands in a tracked text file."""
    pattern = re.compile(r"/(?:home|Users|work|root)/[a-z]")
    for path in tracked():
        if path.suffix in {".py", ".md", ".toml", ".html", ".sql", ".json", ".txt", ""} and path != Path(__file__):
            text = path.read_text(errors="replace")
            hit = pattern.search(text)
            assert hit is None, f"{path}: {text[hit.start() : hit.start() + 40]!r}"
