"""No planted secret is anywhere under a project, nor in what was printed, after an import and a run at DEBUG."""

import ast
import json
import stat
from pathlib import Path

import pytest
from benchmarks.data.leaks import search, trial
from click.testing import CliRunner

from overproof.cli import main
from overproof.cli.intake import take
from overproof.errors import DataError, TeacherError
from overproof.pipeline import distil
from overproof.project import load_project
from overproof.store.project_store import HOME, open_store
from overproof.store.secret import NAME, project_secret
from overproof.testing import Faults, FaultTeacher
from overproof.testing_batch import BatchFaults, BatchProvider

ROOT = Path(__file__).parents[2]


def test_seventy_planted_entities_are_found_nowhere_and_without_redaction_all_of_them_are() -> None:
    """Store, write-ahead logs, artifacts, dossier, standard output and error; the control shows that the search finds."""
    assert trial(560, 70, 3) == []
    off = trial(280, 70, 3, extra='[sizing]\nseeds = 1\nbudgets = [1.0]\n[privacy]\nmode = "off"\nreason = "the control"\n')
    assert len({line.rpartition(" in ")[0] for line in off}) == 70


def test_every_row_that_enters_the_log_comes_through_the_redactor() -> None:
    """No caller of the traffic log's append hands over rows that `redactor.rows` has not seen."""
    calls = []
    for path in (ROOT / "src" / "overproof").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("traffic.append"):
                calls.append((path, ast.unparse(node.args[0])))
                source = path.read_text()
                assert "rows = redactor.rows(" in source, path
    assert calls
    assert {argument for _, argument in calls} <= {"rows", "_counted(rows, reasons)"}


def test_the_project_secret_is_its_owners_alone_and_stays_the_same(tmp_path) -> None:
    """Mode 600, 32 bytes, made once; one of another length is refused."""
    first = project_secret(tmp_path)
    assert project_secret(tmp_path) == first
    assert len(first) == 32
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == [NAME]
    (tmp_path / NAME).write_bytes(b"short")
    with pytest.raises(Exception, match="5 bytes"):
        project_secret(tmp_path)


def test_turning_redaction_off_needs_a_reason_and_goes_on_record(make, tmp_path) -> None:
    """Once for each change of the policy, not once for each import."""
    root = make.project(tmp_path / "p")
    toml = root / "overproof.toml"
    toml.write_text(toml.read_text() + '[privacy]\nmode = "off"\n')
    with pytest.raises(Exception, match="give a reason"):
        load_project(root)
    toml.write_text(toml.read_text() + 'reason = "the log is made up"\n')
    project = load_project(root)
    log = make.write_log(root / "more.jsonl", [{"id": "n1", "text": "mail maria@example.com", "truth": "bug report"}])
    with open_store(root) as store:
        for _ in range(2):
            take(store, project, [log])
        found = [d.body for d in store.decisions.read() if d.kind == "privacy"]
        texts = [r.request.text for r in store.traffic.read()]
    assert [(b["mode"], b["reason"]) for b in found] == [("off", "the log is made up")]
    assert "mail maria@example.com" in texts


def test_the_same_file_twice_adds_nothing_though_it_is_redacted(make, tmp_path) -> None:
    """The same entity has the same surrogate in a later import, in a new process or not."""
    root = make.project(tmp_path / "p")
    log = make.write_log(root / "more.jsonl", [{"id": f"n{i}", "text": f"mail maria{i}@example.com", "truth": "bug report"} for i in range(5)])
    project = load_project(root)
    for added in (5, 0):
        with open_store(root) as store:
            done = take(store, project, [log])[0]
            assert done["added"] == added
            assert done["redacted"] == {"email": 5}
            assert "maria" not in json.dumps([r.request.text for r in store.traffic.read()])


def test_the_wire_carries_surrogates_only_and_a_talkative_teacher_is_redacted_before_the_ledger(make, tmp_path) -> None:
    """A real server on loopback: it never sees a raw address, and what it invents never lies on disk."""
    rows = make.rows(120)
    for i in range(0, 120, 40):
        rows[i]["text"] += " chatty, says maria.lopez@example.com"
    root = make.project(tmp_path / "p", rows)
    seen: list[str] = []

    def answer(text: str) -> str:
        seen.append(text)
        return "call erik.vogt@example.com or +49 171 2345678" if "chatty" in text else make.labels[1]

    with FaultTeacher(answer, model="big-teacher-2026-01-01", faults=Faults(rates={})) as server:
        toml, terms = root / "overproof.toml", root / "terms.toml"
        address = f'base_url = "http://127.0.0.1:{server.port}/v1"'
        text = toml.read_text().replace('use = "recorded.v1"', f'use = "openai.v1"\n{address}')
        text = text.replace("recorded-teacher", "big-teacher").replace(
            'terms = "terms.toml"',
            'terms = "terms.toml"\nbudget_usd = 100\nrepeat = 0\nprice_in_usd_per_million = 1.0\nprice_out_usd_per_million = 4.0\n'
            "[teacher.options]\nallow_private = true",
        )
        toml.write_text(text)
        terms.write_text(terms.read_text().replace("recorded-teacher", "big-teacher").replace('base_url = ""', address))
        with open_store(root) as store:
            distil(store, load_project(root), to="teach")
            assert store.ledger.counts().attempts["bad"] == 9  # three rows, three tries each
    assert sum("<EMAIL_" in text for text in seen) == 9
    assert not any("maria" in text for text in seen)
    found = search(root / HOME, {}, ["erik.vogt@example.com", "+49 171 2345678", "maria.lopez@example.com"])
    assert found == []


def test_what_a_batch_brings_is_redacted_before_the_ledger(make, tmp_path) -> None:
    """Results that come down in a file are answers like any other."""
    root = make.project(tmp_path / "p", make.rows(60))
    with BatchProvider(lambda _: "call erik.vogt@example.com", batch=BatchFaults(again_s=0.05), model="big-teacher-2026-01-01") as server:
        toml, terms = root / "overproof.toml", root / "terms.toml"
        address = f'base_url = "http://127.0.0.1:{server.port}/v1"'
        text = toml.read_text().replace('use = "recorded.v1"', f'use = "openai.v1"\n{address}').replace("recorded-teacher", "big-teacher")
        prices = 'budget_usd = 100\nrepeat = 0\nmode = "batch"\nprice_in_usd_per_million = 1.0\nprice_out_usd_per_million = 4.0'
        toml.write_text(text.replace('terms = "terms.toml"', f'terms = "terms.toml"\n{prices}\n[teacher.options]\nallow_private = true'))
        terms.write_text(terms.read_text().replace("recorded-teacher", "big-teacher").replace('base_url = ""', address))
        with open_store(root) as store, pytest.raises(TeacherError, match="failed for good"):
            distil(store, load_project(root), to="teach")
        with open_store(root) as store:
            assert store.ledger.counts().attempts["bad"] > 0
    assert search(root / HOME, {}, ["erik.vogt@example.com"]) == []


def test_a_recording_in_another_format_is_found_by_what_was_asked_though_the_log_is_redacted(make, tmp_path) -> None:
    """Both sides go through the same redactor, so that a request that names somebody still finds its answer."""
    rows = make.rows(120)
    for i, row in enumerate(rows):
        row["text"] += f" from person{i}@example.com"
    root = make.project(tmp_path / "p", rows)
    with (root / "recording.jsonl").open("w") as file:
        for row in rows:
            said = [{"role": "user", "content": row["text"]}, {"role": "assistant", "content": make.labels[1]}]
            file.write(json.dumps({"messages": said}) + "\n")
    toml = root / "overproof.toml"
    toml.write_text(toml.read_text().replace('use = "recorded.v1"', 'use = "recorded.v1"\npath = "recording.jsonl"'))
    with open_store(root) as store:
        answers = distil(store, load_project(root), to="teach").artifacts["answers"].value
    told = [a for split in (answers.train, answers.calibration, answers.test) for a in split]
    assert all("<EMAIL_" in a.row.request.text for a in told)
    assert {c.value for a in told for c in a.completions} == {make.labels[1]}
    assert all(a.completions for a in told)


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_an_error_that_quotes_a_row_is_told_without_what_the_row_holds(debug, monkeypatch) -> None:
    """Message, JSON body and traceback."""

    def broken(*_: object, **__: object) -> None:
        raise DataError("row 7: 'maria@example.com' names no label", next_action="look at the row")

    monkeypatch.setattr("overproof.project.load_project", broken)
    done = CliRunner().invoke(main, ["check", "--json", *debug])
    assert done.exit_code == 2
    assert "row 7: '<EMAIL>' names no label" in done.output
    assert "maria" not in done.output
    assert ("Traceback" in done.output) == bool(debug)
