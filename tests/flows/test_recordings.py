"""A teacher's recording in the format of somebody else's log, replayed by what was asked."""

import json
from pathlib import Path

import pytest

from overproof.errors import DataError
from overproof.pipeline import distil
from overproof.project import load_project
from overproof.store.project_store import open_store


def replay(root: Path, path: str, options: str = "") -> list:
    text = (root / "overproof.toml").read_text()
    keys = f'terms = "terms.toml"\npath = "{path}"\n' + (f"options = {{ {options} }}\n" if options else "")
    (root / "overproof.toml").write_text(text.replace('terms = "terms.toml"\n', keys))
    with open_store(root) as store:
        answers = distil(store, load_project(root), to="teach").artifacts["answers"].value
    return [*answers.train, *answers.calibration, *answers.test]


def chat(row: dict, label: str) -> str:
    asked = [{"role": "system", "content": "Answer with one label."}, {"role": "user", "content": row["text"]}]
    choice = {"index": 0, "message": {"role": "assistant", "content": label}, "finish_reason": "stop"}
    model = "recorded-teacher-2026-01-01"
    return json.dumps({"request": {"model": model, "messages": asked}, "response": {"model": model, "choices": [choice]}})


def test_a_chat_log_is_a_recording_and_its_format_is_seen(make, tmp_path) -> None:
    """The log's ids have nothing to do with the traffic's; each request gets the answer to its own text."""
    rows = make.rows(60)
    root = make.project(tmp_path / "p", rows)
    (root / "chat.jsonl").write_text("\n".join(chat(row, row["truth"]) for row in reversed(rows[:50])))
    truth = {row["text"]: row["truth"] for row in rows[:50]}
    said = replay(root, "chat.jsonl")
    heard = [a for a in said if a.completions]
    assert len(heard) == sum(a.row.request.fields["text"] in truth for a in said) > 30
    assert all(a.completions[0].value == truth[a.row.request.fields["text"]] for a in heard)
    assert {a.reason for a in said if not a.completions} == {"not in the recording"}


def test_several_files_by_a_pattern_with_columns_of_their_own(make, tmp_path) -> None:
    """Two files, a column named "said": found by the pattern; a changed byte in one of them asks anew."""
    rows = make.rows(60)
    root = make.project(tmp_path / "p", rows)
    (root / "logs").mkdir()
    for part in (0, 1):
        lines = [json.dumps({"n": i, "text": row["text"], "said": row["truth"]}) for i, row in enumerate(rows[part::2])]
        (root / "logs" / f"{part}.jsonl").write_text("\n".join(lines))
    said = replay(root, "logs/*.jsonl", 'columns = { output = "said" }')
    truth = {row["text"]: row["truth"] for row in rows}
    assert all(a.completions[0].value == truth[a.row.request.fields["text"]] for a in said)
    before = load_project(root).pin
    first = root / "logs" / "1.jsonl"
    first.write_text(first.read_text() + "\n")
    assert load_project(root).pin != before


def test_a_recording_without_answers_says_what_to_mend(make, tmp_path) -> None:
    """No column holds an answer: an error that names the option, not a run without labels."""
    rows = make.rows(60)
    root = make.project(tmp_path / "p", rows)
    (root / "logs.jsonl").write_text("\n".join(json.dumps({"n": i, "text": row["text"]}) for i, row in enumerate(rows)))
    with pytest.raises(DataError, match="holds no answer"):
        replay(root, "logs.jsonl", 'format = "jsonl.v1"')
