"""`overproof import` on folders, vendors' logs, whole prompts and databases: what is taken, and what is said about the rest."""

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from overproof.cli import main
from overproof.data import ToolCall, Turn
from overproof.store.project_store import open_store

sys.path.insert(0, str(Path(__file__).parent / "importers"))
import vendors as v

PROJECT = """
[task]
name = "desk"
input = ["subject", "body"]
output = { classes = ["bug", "billing"] }
prompt = "prompt.md"
[traffic]
TRAFFIC
[owner]
name = "Dana Ruiz"
email = "dana@northlane.example"
deputy = "Ana Vogt"
[teacher]
use = "recorded.v1"
model = "m-2026-01-01"
terms = "terms/teacher.toml"
[bars]
fidelity = 0.9
[[student]]
use = "linear.v1"
"""
LANGFUSE = "overproof.importers.langfuse:Langfuse"


@pytest.fixture
def folder(tmp_path):
    return project_in(tmp_path)


def project_in(tmp_path, *, fields='["subject", "body"]', traffic=""):
    (tmp_path / "overproof.toml").write_text(PROJECT.replace('["subject", "body"]', fields).replace("TRAFFIC", traffic))
    (tmp_path / "prompt.md").write_text("Route it.")
    return tmp_path


def call(*args, code=0):
    done = CliRunner().invoke(main, ["import", *map(str, args)], catch_exceptions=False)
    assert done.exit_code == code, done.output + done.stderr
    return done


def as_json(folder, *args):
    return json.loads(call(*args, "--project", folder, "--json").stdout)


def prompts(folder, n=60, odd=2, name="log.jsonl"):
    path = folder / name
    rows = [{"id": f"r{i}", "prompt": f"Route this.\nSubject: case {i}\nBody: it broke {i} times\nOne word.", "output": "bug"} for i in range(n)]
    for i in range(odd):
        rows[-1 - i]["prompt"] = f"Translate: {i}"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_a_frame_is_learned_shown_and_used_and_rows_that_do_not_fit_are_counted(folder):
    """Fields come out of whole prompts; the template that was found goes into the project file as it is shown."""
    log = prompts(folder)
    body = as_json(folder, log, "--learn-template")
    text = "Route this.\nSubject: case {subject}\nBody: it broke {body} times\nOne word."
    assert body["template"]["text"] == text
    assert (body["template"]["fitting"], body["template"]["n"], len(body["template"]["examples"])) == (58, 60, 3)
    (row,) = body["files"]
    assert (row["read"], row["added"], row["skipped"]) == (60, 58, 2)
    assert list(row["reasons"].values()) == [2]
    shown = call(log, "--learn-template", "--project", folder).output
    assert "58 of 60" in shown
    assert "case 0" not in shown.split("template =")[1].splitlines()[0]
    with open_store(folder) as store:
        assert dict(next(iter(store.traffic.read())).request.fields) == {"subject": "0", "body": "0"}
    other = folder / "other"
    other.mkdir()
    project_in(other, traffic=f"template = {json.dumps(text)}")
    assert as_json(other, log)["files"][0]["added"] == 58
    assert as_json(other, log, "--template", "Translate: {subject}{body}"[:-6] + " {body}")["files"][0]["skipped"] == 60


def test_no_template_is_used_where_too_few_prompts_fit(folder):
    """A tenth of another task is a refusal, and nothing is imported."""
    done = call(prompts(folder, odd=6), "--learn-template", "--project", folder, code=2)
    assert "no template learned" in done.stderr
    with open_store(folder) as store:
        assert store.traffic.counts().records == 0


def test_a_template_in_the_project_file_needs_every_field(folder):
    """A template that loses a field is a mistake of the file, with its table."""
    project_in(folder, traffic='template = "Subject: {subject}"')
    assert "[traffic]: template has no place {body}" in call(prompts(folder), "--project", folder, code=2).stderr


def test_a_folder_of_a_vendors_exports_says_what_was_passed_over(tmp_path):
    """Each file has its counts; spans and strange fields are named; files that are no logs are told; twice adds nothing."""
    folder = project_in(tmp_path, fields='["text"]')
    logs = folder / "export"
    (logs / "observations_v2").mkdir(parents=True)
    (logs / "README.txt").write_text("x")
    rows = [v.LANGFUSE, v.LANGFUSE | {"id": "2", "novel": 1}, v.LANGFUSE | {"type": "SPAN"}, v.LANGFUSE | {"id": "4", "input": ""}]
    (logs / "observations_v2" / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (logs / "b.json").write_text(json.dumps([v.LANGFUSE | {"id": "5"}], indent=1))
    body = as_json(folder, logs, "--format", LANGFUSE)
    first, second = sorted(body["files"], key=lambda row: row["file"])
    assert (first["read"], first["added"], first["skipped"], first["passed"]) == (3, 2, 1, {"an observation of type SPAN": 1})
    assert first["ignored"] == {"novel": 1}
    assert "no input" in next(iter(first["reasons"]))
    assert (second["added"], body["log"]["rows"]) == (1, 3)
    assert body["not_read"] == [str(logs / "README.txt")]
    again = as_json(folder, logs, "--format", LANGFUSE)
    assert [row["added"] for row in again["files"]] == [0, 0]
    assert again["log"] == body["log"]
    shown = " ".join(call(logs, "--format", LANGFUSE, "--project", folder).output.split())
    for word in ("passed over: an observation of type SPAN x1", "fields not taken: novel x1", "README.txt"):
        assert word in shown


def test_the_format_that_was_guessed_comes_with_its_reason(folder):
    """Nobody has to wonder why a file was read as it was."""
    log = folder / "a.jsonl"
    log.write_text('{"subject": "a", "body": "b", "label": "bug"}\n')
    row = as_json(folder, log)["files"][0]
    assert (row["format"], row["why"], row["ignored"]) == ("jsonl.v1", "a JSON object on each line, of no known vendor", {"label": 1})
    assert as_json(folder, log, "--format", "jsonl")["files"][0]["why"] == ""


def test_conversations_are_kept_in_the_log_and_runs_read_without_them(tmp_path):
    """System prompt, earlier turns and tool calls survive storing; the rows of a run carry the fields only."""
    folder = project_in(tmp_path, fields='["text"]')
    tool = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    earlier = [*v.MESSAGES[:-1], {"role": "assistant", "content": None, "tool_calls": [tool]}, v.MESSAGES[-1]]
    (folder / "a.jsonl").write_text(json.dumps({"request": {"messages": earlier}, "response": v.chat(None, "tool_calls", tool_calls=[tool])}))
    assert as_json(folder, folder / "a.jsonl", "--format", "overproof.importers.openai_chat:OpenAIChat")["files"][0]["added"] == 1
    with open_store(folder) as store:
        (whole,) = store.traffic.read(context=True)
        (lean,) = store.traffic.read()
        assert [turn.role for turn in whole.context] == ["system", "user", "assistant", "assistant"]
        assert whole.context[0] == Turn(role="system", text=v.SYSTEM)
        assert whole.context[-1].calls == whole.calls == (ToolCall(name="look", arguments="{}", id="c1"),)
        assert (lean.context, lean.calls, lean.request) == ((), (), whole.request)


def test_a_query_goes_with_a_database_and_the_rows_with_the_log(folder):
    """duckdb: with --query imports like a file; one without the other says how it is written."""
    prompts(folder)
    sql = f"SELECT id, 's' AS subject, 'b' || id AS body FROM read_json('{folder}/log.jsonl')"
    (row,) = as_json(folder, "duckdb:", "--query", sql)["files"]
    assert (row["added"], row["format"], row["file"]) == (60, "query", "duckdb:")
    assert as_json(folder, "duckdb:", "--query", sql)["files"][0]["already_there"] == 60
    for args in (("duckdb:",), (folder / "log.jsonl", "--query", "SELECT 1")):
        assert "--query and a database go together" in call(*args, "--project", folder, code=2).stderr
