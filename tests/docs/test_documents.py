"""Documents tell the truth: their code runs, their links lead somewhere."""

import re
from pathlib import Path

import pytest

from overproof.data import Request

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").rglob("*.md")])


def code_of(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_code_of_the_page_on_parts_runs_as_it_stands() -> None:
    """The check keeps and drops what it says, and the student passes its conformance suite."""
    check, student, proof, outage = code_of(ROOT / "docs" / "parts.md")
    names: dict = {}
    exec(compile(check, "parts.md: check", "exec"), names)
    assert names["refund_has_order"](Request(id="1", fields={"text": "order 12345, money back"}), "refund") is True
    assert "no order" in names["refund_has_order"](Request(id="1", fields={"text": "money back"}), "refund")
    exec(compile(student, "parts.md: student", "exec"), names)
    exec(compile(proof, "parts.md: proof", "exec"), names)
    exec(compile(outage, "parts.md: outage", "exec"), names)
    assert not names["teacher"].stats.fates, "nobody asked it"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page) -> None:
    """Every relative link of a page names a file or folder that is there."""
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), target


def test_the_map_of_the_readme_names_places_that_exist() -> None:
    """Folders and files in the README's map are there."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Map")[2].partition("##")[0]
    for name in re.findall(r"`((?:src|benchmarks|docs|tests)/[\w/.]*)`", text):
        assert (ROOT / name).exists(), name
