"""[proof] through the whole road: all slices or none, planned looks, one budget by cost, the certificate's end."""

import dataclasses
import datetime as dt
import json

import pytest
from click.testing import CliRunner
from tests.flows.walked import report_of, run, uses

from overproof.cli import main
from overproof.errors import ProjectError
from overproof.pipeline import status
from overproof.project import load_project
from overproof.store.project_store import open_store
from overproof.students.bundle import load_bundle

ALL = "proof.ship=all"
LOOKS = "proof.looks=2"


def bring(root, make, rows, *, replace=True):
    file = make.write_log(root / "more.jsonl", rows)
    done = CliRunner().invoke(main, ["import", str(file), "--project", str(root), *(["--replace"] if replace else [])])
    assert done.exit_code == 0, done.output


def half_gold(make):
    """Every second of the newest rows has no true label yet."""
    found = make.rows(900)
    return [{k: v for k, v in row.items() if k != "truth" or i < 620 or i % 2} for i, row in enumerate(found)]


def test_all_or_none_certifies_every_slice_at_one_point_and_recomputes(fitted, monkeypatch) -> None:
    """Both slices have the undivided budget, the bundle has their thresholds, and edited counts end in exit code 1."""
    result = run(fitted, ALL)
    report = report_of(result)
    certificate = report.certificate
    assert certificate.moved == "all"
    assert {s.slice for s in certificate.slices} == {"pro", "other"}
    assert {s.delta for s in certificate.slices} == {certificate.delta_spent}
    points = [{i for i, t in enumerate(s.grid) if t == s.threshold} for s in certificate.slices]
    assert set.intersection(*points)
    card = load_bundle(result.artifacts["verdict"].value.bundle.path).card
    assert {t.slice.name: t.threshold for t in card.thresholds} == {s.slice: s.threshold for s in certificate.slices}
    call = ["show", "certificate", "--project", str(fitted)]
    assert "certification slices or none" in " ".join(CliRunner().invoke(main, call).output.split())
    assert "certification slices or none" in result.dossier_path.read_text(encoding="utf-8")
    assert CliRunner().invoke(main, [*call, "--recompute"]).exit_code == 0
    import overproof.pipeline as road

    real = road.load_run

    def edited(store, run_id=None):
        found = real(store, run_id)
        first, *rest = certificate.slices
        more = tuple((wrong + 1, max(kept, wrong + 1)) for wrong, kept in first.counts)
        forged = dataclasses.replace(certificate, slices=(dataclasses.replace(first, counts=more), *rest))
        fake = type("Fake", (), {"value": dataclasses.replace(report, certificate=forged)})()
        return dataclasses.replace(found, artifacts={**found.artifacts, "report": fake})

    monkeypatch.setattr(road, "load_run", edited)
    done = CliRunner().invoke(main, [*call, "--recompute", "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["differences"]


def test_more_gold_on_the_sealed_rows_is_the_next_planned_look_of_the_same_use(tmp_path, make) -> None:
    """Look 2 has the same plan and use, keeps look 1's counts, and a third one is a new use."""
    root = make.project(tmp_path / "looks", half_gold(make))
    first = report_of(run(root, LOOKS))
    assert (first.certificate.look, first.certificate.looks, first.other.look) == (1, 2, 1)
    assert report_of(run(root, LOOKS)).certificate == first.certificate  # the same labels again are no look
    every = make.rows(900)
    bring(root, make, every)
    with open_store(root) as store:
        ahead = status(store, load_project(root, overrides=(LOOKS,)))
        assert any(e.action == "stale" for e in ahead)
    assert len(uses(root)) == 2  # to say what is due takes no look
    second = report_of(run(root, LOOKS))
    assert second.certificate.plan_hash == first.certificate.plan_hash
    assert (second.certificate.look, second.certificate.use_k, second.other.use_k) == (2, 1, 1)
    assert second.n_gold > first.n_gold
    for now, before in zip(second.other.slices, first.other.slices, strict=True):
        assert now.earlier[0].counts == before.counts
        assert now.counts[-1][1] > before.counts[-1][1]
        assert before.threshold is None or now.grid.index(now.threshold) >= now.grid.index(before.threshold)
    assert len(uses(root)) == 2
    call = ["show", "certificate", "--recompute", "--project", str(root), "--set", LOOKS]
    assert CliRunner().invoke(main, call).exit_code == 0
    changed = [dict(row, truth="how to") if i == 899 else row for i, row in enumerate(every)]
    bring(root, make, changed)
    third = report_of(run(root, LOOKS))
    assert (third.certificate.look, third.certificate.use_k) == (1, 2)
    assert third.certificate.plan_hash != first.certificate.plan_hash


def test_without_planned_looks_more_gold_is_a_new_use(tmp_path, make) -> None:
    """The default plans one look: labels that come later cost a use, and can't be tried again for free."""
    root = make.project(tmp_path / "one", half_gold(make))
    assert report_of(run(root)).certificate.use_k == 1
    bring(root, make, make.rows(900))
    assert report_of(run(root)).certificate.use_k == 2


def test_more_sealed_rows_are_a_look_where_training_rows_are_named_by_an_attribute(tmp_path, make) -> None:
    """New rows that an attribute seals leave student and plan alone: the look after them has all rows so far."""
    rows = [dict(row, part="train" if i < 500 else "calibration" if i < 640 else "test") for i, row in enumerate(make.rows(1000))]
    root = make.project(tmp_path / "grown", rows[:900])
    file = root / "overproof.toml"
    file.write_text(file.read_text().replace('match = ["tier"]', 'match = ["tier"]\nsplit = "attribute:part"'))
    first = report_of(run(root, LOOKS)).certificate
    bring(root, make, rows, replace=False)
    second = report_of(run(root, LOOKS)).certificate
    assert (second.look, second.use_k, second.plan_hash) == (2, 1, first.plan_hash)
    assert second.sealed_digest != first.sealed_digest
    assert sum(s.n for s in second.slices) > sum(s.n for s in first.slices)
    assert len(uses(root)) == 2


def test_one_budget_by_cost_keeps_the_dear_slice_first(tmp_path, make) -> None:
    """Pro answers cost ten times as much: their thresholds loosen first, and the bundle routes by slice."""
    rows = [dict(row, cost_usd=0.02 if row["tier"] == "pro" else 0.002) for row in make.rows(900)]
    root = make.project(tmp_path / "cost", rows)
    text = (root / "overproof.toml").read_text().replace("accuracy_when_confident = 0.9", "wrong_when_served = 0.05")
    text = text.replace("[2, 3]", "[2, 4]")  # with shorter ones nearly all confidences are 1, and there is no path to walk
    (root / "overproof.toml").write_text(text)
    result = run(root, "proof.by_cost=true")
    certificate = report_of(result).certificate
    assert (certificate.supports, certificate.moved) == ("G2", "cost")
    pro, other = (next(s for s in certificate.slices if s.slice == name) for name in ("pro", "other"))
    assert pro.grid.index(-1.0) < other.grid.index(-1.0)
    total, n = pro.wrong + other.wrong, pro.n + other.n
    assert total / n <= pro.upper == other.upper <= 0.05
    call = ["show", "certificate", "--recompute", "--project", str(root)]
    assert CliRunner().invoke(main, call).exit_code == 0
    with pytest.raises(ProjectError, match="a bar for each slice"):
        load_project(root, overrides=("proof.ship=all",))


def test_the_run_says_what_more_rows_would_bring_and_when_the_certificate_ends(fitted) -> None:
    """The outlook stands in report, terminal, JSON and dossier; [proof] expires sets the last day."""
    result = run(fitted, "proof.expires=30d", "proof.on_expiry=warn")
    report = report_of(result)
    assert [m.times for m in report.outlook.more] == [1, 2, 4, 10]
    assert report.outlook.more[-1].keep >= report.outlook.more[0].keep > 0
    saved = report.outlook.saved
    assert saved.low_usd < saved.value_usd <= saved.high_usd
    assert all(one.use_k == 2 and one.rows > one.now for one in report.outlook.next_use)
    assert "would probably keep with more sealed rows" in result.dossier_path.read_text(encoding="utf-8")
    shown = CliRunner().invoke(main, ["show", "outlook", "--project", str(fitted)]).output
    assert "10 x" in shown
    assert max(len(line) for line in shown.splitlines()) <= 80
    end = dt.date.fromisoformat(report.certificate.expires)
    assert end - dt.date.fromisoformat(report.decided) == dt.timedelta(days=30)
    card = load_bundle(result.verdict.bundle.path).card
    assert (card.expires, card.on_expiry) == (report.certificate.expires, "warn")
