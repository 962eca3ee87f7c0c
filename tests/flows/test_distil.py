"""The whole offline road on real parts: a store on disk, an importer, a replayed teacher, linear students."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from overproof.cli import main
from overproof.errors import DataError, StoreError, TermsError
from overproof.evidence import Refusal, Release
from overproof.pipeline import STAGES, distil, load_run, status
from overproof.project import load_project
from overproof.runs import runs_of
from overproof.store.project_store import open_store
from overproof.students.bundle import load_bundle


def run(root: Path, *, to: str | None = None, overrides: tuple[str, ...] = ()):
    with open_store(root) as store:
        result = distil(store, load_project(root, overrides=overrides), to=to)
        for artifact in result.artifacts.values():
            assert artifact.value is not None  # loads while the store is open
        return result


def executed(result) -> list[str]:
    return [e.step for e in result.events if e.action == "run"]


def test_an_easy_task_ends_in_a_release_whose_bundle_answers(ran) -> None:
    """Where the student agrees and rows are enough, the gate passes every check and the bundle routes requests."""
    result = run(ran)
    assert isinstance(result.verdict, Release), result.verdict
    assert {f.outcome for f in result.verdict.findings} == {"pass"}
    bundle = load_bundle(result.verdict.bundle.path)
    sealed = [e for e in result.artifacts["labels"].value.test.examples if e.target == "billing 💶"]
    answers = [bundle.answer(dict(e.request.fields), dict(e.request.attributes)) for e in sealed]
    assert sum((a.route, a.value) == ("student", "billing 💶") for a in answers) > 0.9 * len(sealed) > 0
    foreign = bundle.answer({"text": "my card was charged twice, send the invoice and a refund"}, {"tier": "pro"})
    assert (foreign.route, foreign.cause) == ("teacher", "out_of_scope")  # nobody in this log writes plain English
    with open_store(ran) as store:
        assert store.releases.latest().id == result.verdict.id
        assert runs_of(store)[-1].outcome == "release"


def test_the_dossier_needs_nothing_from_outside_and_says_the_verdict(ran) -> None:
    """One HTML file without script or link to another host, and the same facts as JSON."""
    result = run(ran)
    page = result.dossier_path.read_text(encoding="utf-8")
    assert "<script" not in page
    assert not [w for w in ('src="http', "url(http", "@import", '<link rel="stylesheet" href="http') if w in page]
    facts = json.loads((result.dossier_path.parent / "dossier.json").read_text(encoding="utf-8"))
    assert facts["verdict"] == "release"


def test_an_unchanged_run_executes_no_step_and_records_no_second_run(ran) -> None:
    """The second run reuses everything, with the same digests and the same run id."""
    with open_store(ran) as store:
        first = load_run(store)
    second = run(ran)
    assert executed(second) == []
    assert {n: a.digest for n, a in first.artifacts.items()} == {n: a.digest for n, a in second.artifacts.items()}
    assert first.run_id == second.run_id


def test_changing_one_students_option_retrains_that_student_only(ran) -> None:
    """Labels, baselines and the other student are reused; one student is fitted."""
    run(ran)
    again = run(ran, overrides=("student.1.c=3.0",))
    assert executed(again).count("train") == 1
    assert not {"capture", "promptset", "clear", "teach", "filter"} & set(executed(again))


def test_a_run_stops_after_the_stage_that_was_asked_for_and_the_next_one_goes_on(easy) -> None:
    """`--to STAGE` leaves a state from which the next stage, and the whole run, do only the rest."""
    done: set[tuple[str, str]] = set()
    for stage in (*STAGES[:-1], None):
        result = run(easy, to=stage)
        new = {(e.step, e.subject) for e in result.events if e.action == "run"}
        assert new, stage
        assert not new & done, stage
        assert (result.verdict is None) == (stage is not None)
        done |= new


def test_an_unknown_stage_names_the_known_ones(easy) -> None:
    """A slip of the pen gets a suggestion."""
    with pytest.raises(DataError, match="Did you mean 'teach'"):
        run(easy, to="teech")


def test_status_says_what_a_change_makes_stale_and_writes_nothing(ran) -> None:
    """A changed share makes the prompt set stale, with the option's name; nothing is run."""
    run(ran)
    with open_store(ran) as store:
        clean = status(store, load_project(ran))
        assert {e.action for e in clean} == {"reuse"}
        stale = status(store, load_project(ran, overrides=("promptset.seed=5",)))
        assert [(e.step, e.why) for e in stale if e.action == "stale"] == [("promptset", "option seed changed")]
        assert len(runs_of(store)) == 1


def test_a_second_plan_on_the_same_sealed_rows_gets_a_smaller_share_of_the_error_budget(ran) -> None:
    """Retrying with another student is the second use of the rows, and the certificate says so."""
    first = run(ran).artifacts["report"].value.certificate
    second = run(ran, overrides=("student.1.c=0.5",)).artifacts["report"].value.certificate
    assert (first.use_k, second.use_k) == (1, 2)
    assert second.delta_spent == pytest.approx(first.delta_spent / 4)


def test_without_gold_the_teacher_is_not_proven_and_nothing_ships(easy, make, tmp_path) -> None:
    """No gold means that the check of the teacher is not run, and not run never passes."""
    bare = [{k: v for k, v in row.items() if k != "truth"} for row in make.rows(900)]
    root = tmp_path / "bare"
    with pytest.raises(DataError, match="truth"):  # a mapped column that no row has is a slip
        make.project(root, bare)
    text = (root / "overproof.toml").read_text().replace('columns = { gold = "truth" }', "").replace("accuracy = 0.85\n", "")
    (root / "overproof.toml").write_text(text)
    from overproof.cli.intake import take

    with open_store(root) as store:
        take(store, load_project(root), [root / "log.jsonl"])
    verdict = run(root).verdict
    assert isinstance(verdict, Refusal)
    assert {f.id for f in verdict.findings if f.outcome == "not-run"} == {"G05", "N01"}


def test_too_few_rows_are_undecided_and_never_a_pass(make, tmp_path) -> None:
    """150 rows of a perfect student refuse with how many more it takes."""
    verdict = run(make.project(tmp_path / "few", make.rows(150))).verdict
    assert isinstance(verdict, Refusal)
    assert [f for f in verdict.findings if f.outcome == "not-run" and "more" in f.next_action]


def test_a_slice_that_never_occurs_refuses_by_name(fitted) -> None:
    """A bar on a slice without rows is undecided."""
    text = (fitted / "overproof.toml").read_text() + '\n[[slice]]\nname = "mars"\nwhere = { tier = "martian" }\ncritical = true\n'
    (fitted / "overproof.toml").write_text(text)
    verdict = run(fitted).verdict
    assert isinstance(verdict, Refusal)
    assert any(f.slice == "mars" and f.outcome == "not-run" for f in verdict.findings)


def test_a_log_with_one_label_only_is_refused_with_words(make, tmp_path) -> None:
    """A student can't be fitted on one label; the message says what was found."""
    one = [row | {"output": "bug report", "truth": "bug report"} for row in make.rows(300)]
    with pytest.raises(DataError, match="label"):
        run(make.project(tmp_path / "one", one))


def test_an_empty_log_is_refused_with_the_next_action(easy, make, tmp_path) -> None:
    """Nothing imported yet: the message names the verb."""
    root = tmp_path / "empty"
    root.mkdir()
    for name in ("overproof.toml", "prompt.md", "terms.toml"):
        (root / name).write_text((easy / name).read_text())
    with pytest.raises(DataError, match="overproof import"):
        run(root)


def test_megabyte_messages_and_broken_bytes_go_through_or_aside(make, tmp_path) -> None:
    """A 1 MB message is a row like others; invalid UTF-8 is kept aside, counted, and stops nothing."""
    found = make.rows(300)
    found[7]["text"] = "invoice charged " * 62_500
    root = make.project(tmp_path / "big", found)
    with (root / "more.jsonl").open("wb") as file:
        file.write(b'{"id": "bad", "text": "caf\xe9 charged", "output": "how to", "truth": "how to"}\n')
        file.write(b'{"id": "good", "text": "invoice for the caf\xc3\xa9", "output": "how to", "truth": "how to"}\n')
    from overproof.cli.intake import take

    with open_store(root) as store:
        report = take(store, load_project(root), [root / "more.jsonl"])[0]
        assert (report["added"], report["skipped"]) == (1, 1)
        assert "UTF-8" in next(iter(store.traffic.skipped())).reason
    assert run(root, to="filter").events


def test_without_a_valid_terms_record_no_answer_is_used(easy) -> None:
    """A record for another model stops the run before the teacher step."""
    (easy / "terms.toml").write_text((easy / "terms.toml").read_text().replace("recorded-teacher-2026-01-01", "other-2026-01-01"))
    with pytest.raises(TermsError, match="other-2026-01-01"):
        run(easy)
    with open_store(easy) as store:
        stopped = [e.step for e in status(store, load_project(easy)) if e.action == "reuse"]
    assert stopped == ["capture", "promptset"]


def test_two_runs_on_one_project_at_once_are_refused_by_name(easy) -> None:
    """The second run is told which process holds the project."""
    with open_store(easy) as store, store.role("run"), open_store(easy) as other, pytest.raises(StoreError, match=str(os.getpid())):
        distil(other, load_project(easy))


def test_a_missing_encoder_is_said_with_what_was_looked_for(fitted) -> None:
    """The message names the package that isn't there; everything before the student is kept."""
    text = (fitted / "overproof.toml").read_text() + '\n[[student]]\nuse = "encoder.v1"\nweights = "package:no_such_encoder/model"\n'
    (fitted / "overproof.toml").write_text(text)
    with pytest.raises(DataError, match="no_such_encoder"):
        run(fitted)
    assert executed(run(fitted, to="filter")) == []


def test_runs_can_be_loaded_again_by_id(ran) -> None:
    """The first run's report is there after a second one changed everything after training."""
    first = run(ran)
    second = run(ran, overrides=("bars.fidelity=0.8",))
    with open_store(ran) as store:
        assert load_run(store, first.run_id).artifacts["report"].digest == first.artifacts["report"].digest
        assert load_run(store).run_id == second.run_id
        with pytest.raises(DataError, match="Available: r1, r2"):
            load_run(store, "r9")


def test_a_kill_at_any_moment_leaves_a_state_that_the_next_run_finishes(ran, make, tmp_path) -> None:
    """kill -9 at six moments of a run: the run after it ends in the verdict of an undisturbed one."""
    want = run(ran).artifacts["labels"].digest
    root = make.project(tmp_path / "killed")
    for number in range(6):
        process = subprocess.Popen(
            [sys.executable, "-m", "overproof.cli", "run", "--project", str(root)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(0.5 + 0.6 * number)
        process.send_signal(signal.SIGKILL)
        process.wait()
    result = run(root)
    assert isinstance(result.verdict, Release)
    assert result.artifacts["labels"].digest == want


def test_the_command_line_walks_the_same_road_and_exits_by_the_verdict(fitted, capsys) -> None:
    """Exit 0 for a release; the JSON carries verdict, certificate and where the dossier is."""
    with pytest.raises(SystemExit) as ended:
        main(["run", "--project", str(fitted), "--json"])
    assert ended.value.code == 0
    body = json.loads(capsys.readouterr().out)
    assert body["verdict"] == "release"
    assert Path(body["dossier"]).parent == fitted / "dossier"
    assert Path(body["dossier"]).is_file()


def test_results_are_frozen(ran) -> None:
    """A verdict can't be edited after the fact."""
    verdict = run(ran).verdict
    with pytest.raises(dataclasses.FrozenInstanceError):
        verdict.headline = "fine"
