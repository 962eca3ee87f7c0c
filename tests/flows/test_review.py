"""Reviews from the terminal and the spreadsheet to the next run, on a project on disk."""

import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.flows.conftest import rows, write_log

from overproof.cli import main
from overproof.cli.intake import take
from overproof.desk import open_desk
from overproof.pipeline import distil, status
from overproof.project import load_project
from overproof.store.project_store import open_store


def call(root: Path, *args: str, given: str = ""):
    return CliRunner().invoke(main, [*args, "--project", str(root)], input=given)


def labelled(root: Path):
    """The rows as they stand, stopped before training."""
    with open_store(root) as store:
        result = distil(store, load_project(root), to="filter")
        return result, {name: a.value for name, a in result.artifacts.items()}


@pytest.fixture
def asked(easy):
    """The easy project with its labels, not reviewed."""
    labelled(easy)
    return easy


def export(root: Path, name: str, *more: str) -> list[dict[str, str]]:
    done = call(root, "review", "--export", str(root / name), *more)
    assert done.exit_code == 0, done.output
    return list(csv.DictReader(io.StringIO((root / name).read_text(encoding="utf-8-sig"), newline="")))


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_review_before_any_label_says_what_to_run(easy) -> None:
    """Nothing is asked of a teacher behind a reviewer's back."""
    done = call(easy, "review", "--status")
    assert done.exit_code == 2
    assert "overproof run --to filter" in done.output


def test_the_terminal_keeps_each_word_and_takes_one_back(asked) -> None:
    """Number, label, skip, a typo, undo and the end of the input: what was said is in the store, no more."""
    done = call(asked, "review", "--n", "5", given="1\nhow to\nu\nbug reprt\n2\ns\n3\n")
    assert done.exit_code == 0, done.output
    assert "no label 'bug reprt'" in done.output
    with open_store(asked) as store:
        live, history = store.reviews.live().rows, store.reviews.history()
    labels = load_project(asked).task.output.labels
    assert [r.label for r in live] == [labels[0], labels[1], labels[2]]
    assert [r.kind for r in history] == ["review", "review", "withdrawn", "review", "review"]
    assert {r.reviewer for r in live} == {"Dana Ruiz"}
    assert {r.queue for r in live} == {"audit"}


def test_a_sheet_goes_out_and_comes_back_and_the_next_run_uses_it(asked) -> None:
    """Rows of the audit queue become gold and targets; steps before the filter are reused, later ones are not."""
    rows = export(asked, "q.csv", "--n", "60")
    labels = load_project(asked).task.output.labels
    for row in rows:
        row["label"] = labels[1]
    done = call(asked, "review", "--import", str(write(asked / "q.csv", rows)), "--json")
    assert json.loads(done.output)["new"] == 60
    assert json.loads(call(asked, "review", "--import", str(asked / "q.csv"), "--json").output)["new"] == 0
    with open_store(asked) as store:
        events = {e.step: e.action for e in status(store, load_project(asked))}
    assert {events[s] for s in ("capture", "promptset", "clear", "teach", "filter")} == {"reuse"}
    assert events["mend"] == "waits"  # for the texts to be read
    _, now = labelled(asked)
    reviewed = [e for e in now["labels"].train.examples if e.label_from == "review-audit"]
    assert len(reviewed) == 60
    assert {e.target for e in reviewed} == {e.gold for e in reviewed} == {labels[1]}
    assert now["labels"].calibration == now["filtered"].calibration
    assert now["labels"].test == now["filtered"].test
    done = call(asked, "review", "--status")
    assert "60 drawn by chance" in done.output
    shown = call(asked, "show", "teacher")
    assert shown.exit_code == 2  # the show verb speaks of runs with a verdict


def test_a_bad_sheet_is_refused_whole_with_row_and_suggestion(asked) -> None:
    """One misspelt label, one stranger and one row that was never drawn: nothing is imported."""
    rows = export(asked, "q.csv", "--n", "4")
    far = export(asked, "far.csv", "--n", "300")[-1]
    for row in rows:
        row["label"] = "how to"
    rows[1]["label"] = "how too"
    rows[2]["digest"] = "0" * 64
    rows[3] = {**far, "label": "how to"}
    done = call(asked, "review", "--import", str(write(asked / "bad.csv", rows)))
    assert done.exit_code == 2
    assert "row 3" in done.output
    assert "Did you mean 'how to'?" in done.output
    assert "row 4" in done.output
    assert "was not drawn yet" in done.output
    with open_store(asked) as store:
        assert store.reviews.history() == []


def test_sealed_rows_are_reviewed_blind_and_by_chance_only(asked) -> None:
    """The fix queue is closed to sealed rows; an audit of them becomes gold and leaves the teacher's label alone."""
    assert call(asked, "review", "--queue", "fix", "--rows", "sealed").exit_code == 2
    rows = export(asked, "s.csv", "--rows", "sealed", "--n", "3")
    assert set(rows[0]) == {"row", "text", "label", "reviewer", "seconds", "queue", "digest"}  # and no answer of a model
    for row in rows:
        row["label"] = "how to"
    assert call(asked, "review", "--import", str(write(asked / "s.csv", rows))).exit_code == 0
    _, now = labelled(asked)
    drawn = {r["row"] for r in rows}
    before = {e.request.id: e.target for e in now["filtered"].test.examples}
    golds = {e.request.id: e for e in now["labels"].test.examples if e.request.id in drawn}
    assert {e.gold for e in golds.values()} == {"how to"}
    assert all(e.target == before[name] for name, e in golds.items())


def test_two_people_differ_and_a_third_word_ends_it(asked) -> None:
    """A conflict changes no row until somebody decides."""
    call(asked, "review", "--n", "2", "--reviewer", "Ana", given="1\n1\n")
    call(asked, "review", "--n", "2", "--reviewer", "Bo", given="1\n2\n")
    shown = json.loads(call(asked, "review", "--status", "--json").output)
    assert (len(shown["conflicts"]), shown["agreement"]["n"], shown["agreement"]["good"]) == (1, 2, 1)
    done = call(asked, "review", "--adjudicate", "--reviewer", "Cy", given="2\n")
    assert done.exit_code == 0, done.output
    shown = json.loads(call(asked, "review", "--status", "--json").output)
    assert (len(shown["conflicts"]), shown["reviewed"]["audit"]) == (0, 2)


def test_the_fix_queue_wants_an_audit_first(asked) -> None:
    """Nobody knows what is worth a look before chance has shown some rows."""
    done = call(asked, "review", "--queue", "fix", "--n", "5", given="1\n")
    assert done.exit_code == 2
    assert "--queue audit" in done.output


def test_the_fix_queue_after_an_audit_trains_and_proves_nothing(asked) -> None:
    """Rows of the fix queue become targets, never gold."""
    truth = {e.request.id: e.target for e in labelled(asked)[1]["labels"].train.examples}
    rows = export(asked, "a.csv", "--n", "60")
    for row in rows:
        row["label"] = truth[row["row"]]
    assert call(asked, "review", "--import", str(write(asked / "a.csv", rows))).exit_code == 0
    fix = export(asked, "f.csv", "--queue", "fix", "--n", "5")
    assert {r["queue"] for r in fix} == {"fix"}
    assert not {r["digest"] for r in fix} & {r["digest"] for r in rows}
    for row in fix:
        row["label"] = "how to"
    assert call(asked, "review", "--import", str(write(asked / "f.csv", fix))).exit_code == 0
    _, now = labelled(asked)
    picked = [e for e in now["labels"].train.examples if e.label_from == "review-fix"]
    golds = {e.request.id: e.gold for e in now["filtered"].train.examples}
    assert {e.target for e in picked} == {"how to"}
    assert all(e.gold == golds[e.request.id] for e in picked)


def test_a_run_with_reviews_reaches_a_verdict_and_shows_the_teachers_errors(asked) -> None:
    """Whoever reviewed sees what it found, with an interval; the same run again does nothing."""
    rows = export(asked, "a.csv", "--n", "20")
    truth = {e.request.id: e.target for e in labelled(asked)[1]["labels"].train.examples}
    for place, row in enumerate(rows):
        row["label"] = "how to" if place < 2 else truth[row["row"]]
    assert call(asked, "review", "--import", str(write(asked / "a.csv", rows))).exit_code == 0
    with open_store(asked) as store:
        first = distil(store, load_project(asked))
        again = distil(store, load_project(asked))
    assert first.verdict is not None
    assert "What reviews found" in first.dossier_path.read_text(encoding="utf-8")
    assert not [e for e in again.events if e.action == "run"]
    shown = json.loads(call(asked, "show", "teacher", "--json").output)
    wrong = sum(row["label"] != truth[row["row"]] for row in rows)
    assert shown["teacher"]["overall"]["good"] == wrong
    assert "where how to is true" in call(asked, "show", "teacher").output or wrong == 0
    done = call(asked, "show", "teachers")
    assert done.exit_code == 2


def test_two_things_at_once_are_refused(easy) -> None:
    """Asking for a status and an export in one call is a mistake with a name."""
    assert call(easy, "review", "--status", "--export", str(easy / "x.csv")).exit_code == 2


def test_a_queue_goes_to_an_annotation_tool_and_back(asked) -> None:
    """Label Studio gets tasks and a configuration; its annotations come back without naming the form, and what is no word is counted."""
    done = call(asked, "review", "--export", str(asked / "tasks.json"), "--form", "label-studio", "--n", "4", "--json")
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.output)["files"]) == 2
    assert '<Choice value="how to"/>' in (asked / "tasks.config.xml").read_text(encoding="utf-8")
    tasks = json.loads((asked / "tasks.json").read_text(encoding="utf-8"))
    assert not any("predictions" in task for task in tasks)
    for task in tasks:
        result = [{"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": ["how to"]}}]
        task["annotations"] = [{"completed_by": 4, "result": result, "was_cancelled": task is tasks[3], "lead_time": 1.0}]
    (asked / "back.json").write_text(json.dumps(tasks), encoding="utf-8")
    done = call(asked, "review", "--import", str(asked / "back.json"), "--json")
    found = json.loads(done.output)
    assert (found["new"], found["refused"]) == (3, {"skipped by the annotator": 1})
    assert json.loads(call(asked, "review", "--import", str(asked / "back.json"), "--json").output)["new"] == 0
    with open_store(asked) as store:
        assert {r.reviewer for r in store.reviews.live().rows} == {"Label Studio 4"}


def test_a_log_that_grew_leaves_the_last_runs_rows_to_review(ran) -> None:
    """As behind a gateway, where each call is a new row: what is said is of the last run's rows, and the desk says which run."""
    project = load_project(ran)
    with open_store(ran) as store:
        before = open_desk(store, project)
        take(store, project, [write_log(ran / "more.jsonl", [{**row, "id": f"n{row['id']}"} for row in rows(30, seed=9)])])
        desk = open_desk(store, project)
        assert not store.traffic.known_digest()  # a page that asks for rows never reads a log of a million rows for it
        assert (before.behind, desk.behind) == ("", "r1")
        assert [r.digest for r in desk.queue("audit", "train", "Ana")] == [r.digest for r in before.queue("audit", "train", "Ana")]
        assert open_desk(store, project, known=desk) is desk
    assert "rows of run r1" in call(ran, "review", "--n", "1", given="q\n").output


def test_the_fix_queue_says_why_without_saying_what(asked) -> None:
    """Each row's reason counts the reviewed rows that share its label, and no reason names one."""
    rows_ = export(asked, "q.csv", "--n", "80")
    project = load_project(asked)
    labels = project.task.output.labels
    with open_store(asked) as store:
        desk = open_desk(store, project)
        said = desk.said()
        for i, row in enumerate(desk.queue("audit", "train", "Ana")[: len(rows_)]):
            desk.keep(row, said[row.digest] if i % 4 else labels[(labels.index(said[row.digest]) + 1) % 3], "Ana")
        found = desk.fix()
        for row in found.rows[:20]:
            same = [one for one in desk.outcome.settled.values() if said[one.digest] == said[row.digest]]
            reason = found.reasons[row.digest]
            assert (reason.reviewed, reason.wrong) == (len(same), sum(one.label != said[one.digest] for one in same))
            assert f"{reason.wrong} of {reason.reviewed} reviewed rows" in reason.words
            assert not any(label in reason.words for label in labels)
        assert found.words == 80
        leads = [found.reasons[row.digest].lead for row in found.rows]
        assert leads == sorted(leads)  # all rows stand for one request each, and no run is there that failed
