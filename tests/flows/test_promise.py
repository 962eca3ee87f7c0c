"""What a verdict stands on, through the whole road: ledgers, guarantees, recomputing, expiry."""

import dataclasses
import json

import pytest
from click.testing import CliRunner
from tests.flows.walked import report_of, run, uses

from overproof.cli import main
from overproof.cli.tables import expiry_words
from overproof.errors import ProjectError
from overproof.evidence import Refusal, Release
from overproof.project import load_project


def test_a_run_spends_one_use_of_each_label_kind_and_shows_both_certificates(ran) -> None:
    """Agreement and correctness each have an entry in the ledger; a second plan is the second use of both."""
    report = report_of(run(ran))
    assert (report.certificate.supports, report.other.supports) == ("G4", "G1")
    assert [kind for kind, _ in uses(ran)] == ["gold", "teacher:recorded-teacher-2026-01-01"]
    again = report_of(run(ran, "student.1.c=0.5"))
    assert (again.certificate.use_k, again.other.use_k) == (2, 2)
    assert len(uses(ran)) == 4
    fixed = set(report.certificate.fixed)
    assert {"prompt", "calibration", "weights linear.v1", "bars", "slices", "decoding", "sealed"} <= fixed


def test_the_page_and_the_terminal_show_both_certificates_and_the_paired_tests(ran) -> None:
    """The first is never called accuracy; the dossier and `show certificate` carry both, and b, c, n, p."""
    page = run(ran).dossier_path.read_text(encoding="utf-8")
    assert "Agreement with the teacher" in page
    assert "Correctness, against true labels" in page
    assert "is not worse than the teacher by more than the margin" in page
    assert "least familiar traffic" in page
    text = CliRunner().invoke(main, ["show", "certificate", "--project", str(ran)]).output
    assert text.index("Certificate of agreement (G4") < text.index("Certificate of correctness (G1, gold)")
    agreement = text[: text.index("Certificate of correctness")]
    assert "accura" not in agreement
    assert "served, not worse" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_one_more_imported_row_does_not_restart_the_count(ran, make) -> None:
    """The sealed set has another digest, but nearly all of its rows were opened before: the count goes on."""
    first = report_of(run(ran)).certificate
    extra = make.rows(905, seed=0)[900:]
    for i, row in enumerate(extra):
        row.update(id=f"more{i}", ts="2026-02-28T23:30:00Z")
    assert CliRunner().invoke(
        main, ["import", str(make.write_log(ran / "more.jsonl", extra)), "--project", str(ran)]).exit_code == 0
    second = report_of(run(ran)).certificate
    assert first.sealed_digest != second.sealed_digest
    assert (first.use_k, second.use_k) == (1, 2)


def test_the_budget_dial_gives_one_threshold_for_all_traffic(fitted) -> None:
    """[serve] wrong_when_served instead of accuracy_when_confident: guarantee G2, and a bundle that routes by it."""
    text = (fitted / "overproof.toml").read_text().replace("accuracy_when_confident = 0.9", "wrong_when_served = 0.05")
    (fitted / "overproof.toml").write_text(text)
    result = run(fitted)
    assert isinstance(result.verdict, Release), result.verdict
    assert [s.slice for s in report_of(result).certificate.slices] == ["other"]
    assert report_of(result).certificate.supports == "G2"
    assert "at most 5.0% of all requests" in result.verdict.headline
    with pytest.raises(ProjectError, match="two dials"):
        load_project(fitted, overrides=("serve.accuracy_when_confident=0.9",))


def test_the_default_margin_leaves_a_small_run_undecided_with_the_rows_that_it_takes(fitted) -> None:
    """180 judging rows can't show a margin of one point: nothing ships, and the finding says how many would do."""
    verdict = run(fitted, "proof.margin=0.01").verdict
    assert isinstance(verdict, Refusal)
    found = next(f for f in verdict.findings if f.id == "N01")
    assert found.outcome == "not-run"
    assert "rows" in found.next_action


def test_recompute_passes_on_what_was_made_and_fails_on_what_was_edited(ran, monkeypatch) -> None:
    """`show certificate --recompute` exits 0, and 1 with the difference as soon as one bound is not its counts'."""
    run(ran)
    call = ["show", "certificate", "--recompute", "--project", str(ran)]
    done = CliRunner().invoke(main, call)
    assert done.exit_code == 0, done.output
    assert "every bound follows from its counts" in done.output
    import overproof.pipeline as road

    real = road.load_run

    def edited(store, run_id=None):
        result = real(store, run_id)
        report = result.artifacts["report"].value
        better = tuple(dataclasses.replace(s, upper=s.upper / 2) for s in report.certificate.slices)
        forged = dataclasses.replace(report, certificate=dataclasses.replace(report.certificate, slices=better))
        fake = type("Fake", (), {"value": forged})()
        return dataclasses.replace(result, artifacts={**result.artifacts, "report": fake})

    monkeypatch.setattr(road, "load_run", edited)
    done = CliRunner().invoke(main, [*call, "--json"])
    assert done.exit_code == 1
    assert any("upper is stated as" in line for line in json.loads(done.stdout)["differences"])
    assert CliRunner().invoke(main, ["show", "report", "--recompute", "--project", str(ran)]).exit_code == 2


def test_status_and_show_say_that_a_certificate_ends_or_has_ended(ran, monkeypatch) -> None:
    """Silent at first, a warning 14 days ahead, and "ran out" from the day after the end on."""
    import datetime as dt

    import overproof.runs as road

    end = dt.date.fromisoformat(report_of(run(ran)).certificate.expires)

    def told(verb, days):
        monkeypatch.setattr(road, "today_of", lambda store: end + dt.timedelta(days=days))
        return " ".join(CliRunner().invoke(main, [*verb, "--project", str(ran)]).output.split())

    for verb in (["status"], ["show", "certificate"]):
        assert "runs out" not in told(verb, -15)
        assert "runs out" in told(verb, -14)
        assert "in 0 day(s)" in told(verb, 0)
        assert "ran out" in told(verb, 1)
    assert expiry_words("2026-01-20", "2026-01-05") == ""


def test_the_least_familiar_rows_are_a_critical_slice_with_the_overall_bars(ran) -> None:
    """By default it is judged as served and can't be waived; [proof] novelty = false leaves it out."""
    with_it = [s for s in report_of(run(ran)).candidates[0].slices if s.kind == "novelty" and s.critical]
    assert [s.served_fidelity.bar for s in with_it] == [0.9]
    without = report_of(run(ran, "proof.novelty=false")).candidates[0].slices
    assert not [s for s in without if s.kind == "novelty" and s.critical]
