"""The gate's table, row by row: what each check says of good, bad, borderline and lacking evidence, to the letter.

After a change of words: python -m tests.steps.test_gate_words writes gate_words.json anew; read its diff.
"""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
from tests.steps.conftest import sound_in
from tests.steps.gate_cases import TABLE
from tests.steps.test_gate import RECIPE

from overproof.evidence import Finding
from overproof.steps import gate as gate_module
from overproof.steps.collect import Evidence
from overproof.steps.gate import ASKED, CHECKS, run_checks

WORDS = Path(__file__).with_name("gate_words.json")


def found_by(name: str, sound: Evidence) -> list[Finding]:
    """The case's row alone: the table is the seam, and the others cost time."""
    one = TABLE[name]
    rows = {table: tuple(row for row in getattr(gate_module, table) if row.id == one.check) for table in ("CHECKS", "ASKED")}
    with patch.multiple(gate_module, **rows):
        return list(run_checks(one.change(sound), replace(RECIPE, **one.asked)))


def told(findings: list[Finding]) -> list[dict[str, object]]:
    """What a person reads, and the figures beside it; what is empty is left out."""
    fields = ("outcome", "slice", "reason", "next_action", "value", "bound", "bar", "n", "waivable")
    rows = [{name: getattr(f, name) for name in fields} for f in findings]
    return [{name: round(v, 9) if isinstance(v, float) else v for name, v in row.items() if v not in (None, "")} for row in rows]


@pytest.mark.parametrize("name", TABLE)
def test_each_piece_of_evidence_is_judged_and_told_as_written(name, sound) -> None:
    """The outcomes are those of the case, worst first; reason, next action and figures are those on file."""
    findings = found_by(name, sound)
    assert tuple(f.outcome for f in findings)[: len(TABLE[name].outcomes)] == TABLE[name].outcomes
    assert told(findings) == json.loads(WORDS.read_text())[name]


def test_what_passes_on_sound_evidence_is_told_as_written(sound) -> None:
    """Every row of the table that a plain project has."""
    assert told(list(run_checks(sound, RECIPE))) == json.loads(WORDS.read_text())["sound"]


@pytest.mark.parametrize("row", [*CHECKS, *ASKED], ids=lambda row: row.id)
def test_every_row_of_the_table_has_evidence_that_passes_fails_and_lacks(row, sound) -> None:
    """Contract: a new row needs its cases here. G14 can only fail: with a shadow stage it isn't asked."""
    cases = [one for one in TABLE.values() if one.check == row.id]
    outcomes = {word for one in cases for word in one.outcomes}
    if row in CHECKS:
        outcomes |= {f.outcome for f in run_checks(sound, RECIPE) if f.id == row.id}
    owed = {"G14": {"fail"}, "G18": {"pass", "fail"}, "G17": {"pass", "fail"}}.get(row.id, {"pass", "fail", "not-run"})
    assert outcomes == owed


def test_no_words_are_on_file_for_a_case_that_is_gone() -> None:
    """The file holds what is asked, no more."""
    assert set(json.loads(WORDS.read_text())) == {*TABLE, "sound"}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        evidence = sound_in(Path(folder))
        words = {"sound": told(list(run_checks(evidence, RECIPE))), **{name: told(found_by(name, evidence)) for name in TABLE}}
        for case_name, one in TABLE.items():
            outcomes_found = tuple(f["outcome"] for f in words[case_name])
            if outcomes_found[: len(one.outcomes)] != one.outcomes:
                print(f"{case_name}: expected {one.outcomes}, found {outcomes_found}")
    WORDS.write_text(json.dumps(words, indent=1, ensure_ascii=False) + "\n")
