"""The doors of records and texts: a project to start from, review by hand, a sheet, and what is proposed of a log."""

import io
import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from overproof import registry
from overproof.cli import main
from overproof.cli.door import Door
from overproof.cli.review import _ask
from overproof.cli.sheet import read_sheet, write_sheet
from overproof.cli.show import _labels
from overproof.cli.starters import STARTERS, named
from overproof.data import CalibrationSet, Example, Labelled, PromptSet, Request, TestSet, TrainSet
from overproof.desk import Desk
from overproof.errors import DataError
from overproof.project import load_project
from overproof.store.project_store import open_store
from overproof.task import Fields, Text, output_of


def call(*args):
    return CliRunner().invoke(main, [str(a) for a in args])


def started(folder: Path, kind: str) -> Path:
    """What `init` wrote, with what only a person knows filled in."""
    assert call("init", folder, "--output", kind).exit_code == 0
    text = (folder / "overproof.toml").read_text()
    for old, new in (
        ('"<a person>"', '"Dana Ruiz"'), ('"<their address>"', '"dana@shop.example"'), ("<exact id, with a date or version>", "big-2025-06-01"),
    ):  # fmt: skip
        assert old in text
        text = text.replace(old, new)
    (folder / "overproof.toml").write_text(text)
    return folder


@pytest.mark.parametrize("kind", STARTERS)
def test_init_writes_a_project_of_each_kind_that_says_what_an_answer_is(tmp_path, kind) -> None:
    """The written file is read as its kind; the only mistake that may be left is a part that another package brings."""
    folder = started(tmp_path / kind, kind)
    raw = tomllib.loads((folder / "overproof.toml").read_text())
    assert list(raw["task"]["output"]) == [kind]
    output = output_of(raw["task"]["output"])
    prompt = (folder / "prompts" / "task.md").read_text()
    assert all(one.name in prompt for one in output.fields) if isinstance(output, Fields) else len(prompt) > 50
    missing = [s["use"] for s in raw["student"] if s["use"] not in registry.names("students")]
    done = call("check", "--project", folder, "--json")
    body = json.loads(done.stdout)
    if missing:
        assert [p for p in body["problems"] if not any(use in p for use in missing)] == []
    else:
        assert (done.exit_code, body["output"]) == (3, named(output))  # terms are still to be attested
    terms = tomllib.loads((folder / "terms" / "teacher.toml").read_text().replace("<", "").replace(">", ""))
    assert terms["use"]["student_kind"] == STARTERS[kind]["student_kind"]


def test_init_refuses_a_kind_that_there_is_not(tmp_path) -> None:
    """Nothing is written."""
    done = call("init", tmp_path / "new", "--kind", "images")
    assert (done.exit_code, (tmp_path / "new").exists()) == (2, False)
    assert "classes, fields, text" in done.stderr


@pytest.mark.parametrize("kind", ["fields", "text"])
def test_check_tells_what_a_run_costs_and_needs_for_records_and_texts(tmp_path, kind) -> None:
    """With a log and a student that is there: kind, cost and the rows that its bars ask for, up to the terms."""
    folder = started(tmp_path / kind, kind)
    text = (folder / "overproof.toml").read_text()
    head, students = text.split("[[student]]", 1)
    bars = students[students.index("[bars]") :]
    (folder / "overproof.toml").write_text(f'{head}[[student]]\nuse = "nearest.v1"\nname = "copies"\n\n{bars}')
    (folder / "log.jsonl").write_text("\n".join(json.dumps({"id": f"r{i}", "text": f"order {i}"}) for i in range(50)))
    assert call("import", folder / "log.jsonl", "--project", folder).exit_code == 0
    done = call("check", "--project", folder, "--json")
    body = json.loads(done.stdout)
    assert (done.exit_code, body["traffic_rows"], body["output"][:5]) == (3, 50, {"fields": "4 fie", "text": "texts"}[kind])
    assert body["cost"]["usd"] > 0
    assert {need["metric"] for need in body["needs"]} == {"fidelity", "not worse", "threshold"}
    shown = call("check", "--project", folder)
    assert body["output"] in shown.stdout


RECORD = output_of({"fields": {"order": "text?", "mood": ["calm", "angry"]}})
GOOD = '{"order": "77", "mood": "calm"}'


@pytest.fixture
def desk(tmp_path):
    """A real desk over two rows of records, in a real store."""
    folder = started(tmp_path / "shop", "fields")
    text = (folder / "overproof.toml").read_text().replace('use = "span.v1"', 'use = "nearest.v1"\nname = "copies"')
    lines = [line for line in text.splitlines() if not line.startswith(('model = "all-Mini', "weights =", "sha256 ="))]
    project = (
        "\n".join(lines).replace(STARTERS["fields"]["output"], 'output = { fields = { order = "text?", mood = ["calm", "angry"] } }')
    )
    (folder / "overproof.toml").write_text(project)
    examples = tuple(
        Example(request=Request(id=f"m{i}", fields={"text": text}), target='{"order": null, "mood": "calm"}')
        for i, text in enumerate(["refund 77", "hello"])
    )
    with open_store(folder) as store, store.role("run"):
        rows = Labelled(
            train=TrainSet(examples=examples, labels=()), calibration=CalibrationSet(examples=(), labels=()),
            test=TestSet(examples=(), labels=()), dropped=(), counts={},
        )
        prompts = PromptSet(train=(), calibration=(), test=(), funnel={}, match=(), distance=0.0, leaks={})
        memo = store.memo()
        yield Desk(store, load_project(folder), memo.source("prompts", prompts), memo.source("filtered", rows))


def test_a_person_types_records_and_only_canonical_ones_are_kept(desk, monkeypatch, capsys) -> None:
    """The form is shown, a bad record says which field is wrong and is asked again, and what is kept is what `parse` gives."""
    rows = desk.queue("audit", "train", "Ana")
    monkeypatch.setattr("sys.stdin", io.StringIO('{"order": "77"}\n {"mood": "CALM", "order": " 77 "}\n{"mood": "angry"}\n'))
    assert _ask(desk, rows, "Ana", "review", quiet=False) == 2
    shown = capsys.readouterr().out
    assert '{"order": null, "mood": null}' in shown
    assert "field 'mood'" in shown
    assert [r.label for r in desk._store.reviews.live().rows] == [GOOD, '{"order": null, "mood": "angry"}']


def test_a_sheet_takes_records_and_texts_and_names_the_bad_row(desk, tmp_path) -> None:
    """The same file as for labels; a record that is none stops the whole import with the field's name."""
    rows = {r.digest: r for r in desk.queue("audit", "train", "Ana")}
    path = tmp_path / "q.csv"
    write_sheet(path, list(rows.values()), reviewer="Ana")
    head, *lines = path.read_text(encoding="utf-8-sig").splitlines()

    def filled(answer):
        quoted = '"' + answer.replace('"', '""') + '"'
        parts = lines[0].split(",")
        parts[head.split(",").index("label")] = quoted
        path.write_text("\n".join([head, ",".join(parts), *lines[1:]]), encoding="utf-8")
        return read_sheet(path, asked=rows, output=RECORD, reviewer="Ana", drawn=2)

    (found,) = filled('{ "mood": "Calm", "order": "77" }')
    assert found.label == GOOD
    with pytest.raises(DataError, match="row 2: field 'mood'"):
        filled('{"mood": "so so"}')
    path.write_text("\n".join([head, lines[0].replace(",,Ana", ",Where is it?,Ana"), *lines[1:]]), encoding="utf-8")
    (text,) = read_sheet(path, asked=rows, output=Text(), reviewer="Ana", drawn=2)
    assert text.label == "Where is it?"


def test_show_counts_what_records_hold(desk, capsys) -> None:
    """Rows, different answers and values given a field, in place of labels."""
    filtered = desk._filtered.value
    _labels(Door(project=Path(), overrides=(), as_json=True, debug=False), filtered, "labels")
    assert json.loads(capsys.readouterr().out)["labels"] == {
        "answers": [2, 0, 0], "different answers": [1, 0, 0], "order given": [0, 0, 0], "mood given": [2, 0, 0],
    }


def test_discover_writes_a_starter_project_of_records(tmp_path) -> None:
    """A stream of JSON answers becomes fields with types, in a file that is read back as such."""
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(
        json.dumps({"id": f"r{i}", "text": f"order {i} for {i}.50 is {'late' if i % 3 else 'gone'}", "output": json.dumps(
            {"order": str(i), "sum": i + 0.5, "state": "late" if i % 3 else "gone", "due": f"2025-01-{i % 28 + 1:02d}" if i % 2 else None}
        )})
        for i in range(400)
    ))  # fmt: skip
    done = call("discover", log, "--map", "output=output", "--write", tmp_path / "new", "--json")
    assert done.exit_code == 0, done.output
    raw = tomllib.loads((tmp_path / "new" / "overproof.toml").read_text())
    assert raw["task"]["output"] == {"fields": {"order": "text", "sum": "number", "state": ["late", "gone"], "due": "date?"}}
    assert raw["verify"][0]["use"] == "grounding.v1"


KINDS_OF = {
    "linear.v1": {"classes"}, "static.v1": {"classes"}, "encoder.v1": {"classes"}, "ngram.v1": {"classes"},
    "span.v1": {"fields"}, "causal.v1": {"fields", "text"},
    "majority.v1": {"classes", "fields", "text"}, "nearest.v1": {"classes", "fields", "text"},
}  # fmt: skip


@pytest.mark.parametrize("kind", STARTERS)
def test_check_refuses_each_student_that_gives_no_such_answers_and_names_those_that_do(tmp_path, kind) -> None:
    """Every student of this package, on a project of each kind: taken, or refused with the names of those that fit."""
    folder = started(tmp_path / kind, kind)
    text = (folder / "overproof.toml").read_text()
    head, rest = text.split("[[student]]", 1)
    bars = rest[rest.index("[bars]") :]
    ours = {point.name for point in registry._points("students") if point.value.startswith("overproof.")}
    assert set(KINDS_OF) == ours
    for use, kinds in KINDS_OF.items():
        (folder / "overproof.toml").write_text(f'{head}[[student]]\nuse = "{use}"\nname = "tried"\n\n{bars}')
        body = json.loads(call("check", "--project", folder, "--json").stdout)
        problems = [one for one in body.get("problems", []) if use in one]
        if kind in kinds:
            assert not problems, use
        else:
            assert f"{use} gives no {kind}" in problems[0]
            assert {name for name in ours if name in problems[0].split(";")[1]} == {name for name in ours if kind in KINDS_OF[name]}
