"""The road with a teacher and a baseline behind HTTP: real servers on loopback, real ledger, real money arithmetic."""

import json
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from overproof.cli import main
from overproof.errors import BudgetExceeded, DataError
from overproof.evidence import Refusal, Release
from overproof.pipeline import distil
from overproof.project import load_project
from overproof.steps.terms import read_entry
from overproof.store.project_store import open_store
from overproof.testing import Faults, FaultTeacher

TEACHER = "big-teacher-2026-01-01"
SMALL = "small-model-2026-01-01"


def serving(answer, *, model: str, rates: dict[str, float] | None = None) -> FaultTeacher:
    """A server on a thread of its own, as a context manager."""
    return FaultTeacher(answer, model=model, faults=Faults(rates=rates or {}, retry_after_s=0.05))


def read(text: str) -> str:
    """The truth, read from the words' stems as the conftest writes them."""
    stems = {
        "billing 💶": ["invoice", "charged", "refund", "card", "payment", "receipt"],
        "bug report": ["crash", "error", "freezes", "broken", "stacktrace", "bug"],
        "how to": ["configure", "tutorial", "steps", "guide", "setup", "enable"],
    }
    message = text.rsplit("\n\n", 1)[-1]
    votes = Counter({label: sum(message.count(stem) for stem in found) for label, found in stems.items()})
    return votes.most_common(1)[0][0]


def with_endpoint(root: Path, port: int, *, budget_usd: float = 100.0, more: str = "") -> Path:
    """The easy project, asking a server instead of a recording."""
    text = (root / "overproof.toml").read_text()
    text = text.replace('use = "recorded.v1"', f'use = "openai.v1"\nbase_url = "http://127.0.0.1:{port}/v1"')
    text = text.replace("recorded-teacher-2026-01-01", TEACHER).replace(
        'terms = "terms.toml"',
        f'terms = "terms.toml"\nbudget_usd = {budget_usd}\nprice_in_usd_per_million = 1.0\nprice_out_usd_per_million = 4.0\n'
        "[teacher.options]\nallow_private = true",
    )
    (root / "overproof.toml").write_text(text + more)
    terms = (root / "terms.toml").read_text().replace("recorded-teacher-2026-01-01", TEACHER)
    (root / "terms.toml").write_text(terms.replace('base_url = ""', f'base_url = "http://127.0.0.1:{port}/v1"'))
    assert read_entry("own-answers").digest in terms
    return root


def baseline(port: int, name: str, shots: int) -> str:
    """A [[baseline]] table for an off-the-shelf model."""
    return (
        f'\n[[baseline]]\nuse = "openai.v1"\nname = "{name}"\nmodel = "{SMALL}"\nbase_url = "http://127.0.0.1:{port}/v1"\n'
        f"shots = {shots}\nallow_private = true\nprice_in_usd_per_million = 0.1\nprice_out_usd_per_million = 0.4\n"
    )


def run(root: Path, *, to: str | None = None):
    with open_store(root) as store:
        result = distil(store, load_project(root), to=to)
        for artifact in result.artifacts.values():
            assert artifact.value is not None
        return result, store.ledger.counts()


def test_a_faulty_teacher_gives_the_same_verdict_as_a_healthy_one(easy) -> None:
    """With a tenth of the answers broken in every way, all labels are right, paid once, and the student ships."""
    faults = dict.fromkeys(("429", "500", "cut", "bad_json", "wrong_label", "length"), 0.017)
    with serving(read, model=TEACHER, rates=faults) as server:
        result, counts = run(with_endpoint(easy, server.port))
        assert isinstance(result.verdict, Release), result.verdict.headline
        answered = [a for split in ("train", "calibration", "test") for a in getattr(result.artifacts["answers"].value, split)]
        assert all(a.completions[0].value == read(a.row.request.text) for a in answered)
        asked_twice = len(result.artifacts["answers"].value.asking.repeats)
        assert asked_twice == 100
        assert counts.labels == len({a.row.request.digest for a in answered}) + asked_twice
        wire = server.stats.wire
        again, after = run(easy)
        assert [e.step for e in again.events if e.action == "run"] == []
        assert (server.stats.wire, after.spent_usd) == (wire, counts.spent_usd)


def test_the_budget_stops_the_run_before_the_call_that_could_exceed_it(easy) -> None:
    """A cap of two cents ends in an error that names it, and the ledger never shows more."""
    with serving(read, model=TEACHER) as server:
        root = with_endpoint(easy, server.port, budget_usd=0.02)
        with open_store(root) as store:
            with pytest.raises(BudgetExceeded):
                distil(store, load_project(root))
            assert 0 < store.ledger.counts().spent_usd <= 0.02
            kept = store.ledger.counts().labels
        assert kept > 0
        text = (root / "overproof.toml").read_text().replace("budget_usd = 0.02", "budget_usd = 10.0")
        (root / "overproof.toml").write_text(text)
        before = server.stats.billed
        _, counts = run(root, to="teach")
        assert server.stats.billed - before == counts.labels - kept


def test_a_perfect_small_model_off_the_shelf_means_do_not_distil(easy) -> None:
    """An endpoint that answers as well at a tenth of the price is named, with the money, and the gate refuses."""
    with serving(read, model=TEACHER) as teacher, serving(read, model=SMALL) as small:
        more = baseline(small.port, "small zero-shot", 0) + baseline(small.port, "small few-shot", 6)
        text = (easy / "overproof.toml").read_text().replace("accuracy_when_confident = 0.9", "accuracy_when_confident = 0.9\ncpu_usd_per_hour = 9000.0")
        (easy / "overproof.toml").write_text(text)  # a dear computer: the student costs more than the small model
        result, _ = run(with_endpoint(easy, teacher.port, more=more))
        report = result.artifacts["report"].value
        names = {c.name: c for c in report.candidates}
        assert names["small zero-shot"].slices[0].fidelity.value == 1.0
        assert names["small zero-shot"].cost_usd_per_1000 > 0
        assert names["small few-shot"].cost_usd_per_1000 > names["small zero-shot"].cost_usd_per_1000
        assert isinstance(result.verdict, Refusal)
        finding = next(f for f in result.verdict.findings if f.id == "G06")
        assert finding.outcome == "fail"
        assert report.cheaper == "small zero-shot"
        assert "USD" in finding.reason
        json.dumps(finding.next_action)


def test_a_bad_small_model_is_measured_and_changes_nothing(easy) -> None:
    """An endpoint that always says the same thing, or nonsense, is scored as it deserves."""
    with serving(read, model=TEACHER) as teacher, serving(lambda text: "how to", model=SMALL) as small:
        result, _ = run(with_endpoint(easy, teacher.port, more=baseline(small.port, "stuck", 0)))
        stuck = next(c for c in result.artifacts["report"].value.candidates if c.name == "stuck")
        assert stuck.slices[0].fidelity.value < 0.5
        assert isinstance(result.verdict, Release)


def test_labels_of_a_record_that_nobody_took_over_are_set_aside_and_come_back(easy) -> None:
    """Another attestation uses no label of the former one and buys none twice; naming it under `supersedes` brings them back."""
    with serving(read, model=TEACHER) as server:
        root = with_endpoint(easy, server.port)
        _, counts = run(root, to="filter")
        billed = server.stats.billed
        terms = root / "terms.toml"
        terms.write_text(terms.read_text().replace('id = "easy-1"', 'id = "easy-2"'))
        with pytest.raises(DataError, match="quarantined"):
            run(root, to="filter")
        lines = CliRunner().invoke(main, ["show", "terms", "--project", str(root)]).output
        assert f"{counts.labels} labels were bought under 'easy-1': set aside" in " ".join(lines.replace(",", "").split())
        terms.write_text(terms.read_text().replace('id = "easy-2"', 'id = "easy-2"\nsupersedes = "easy-1"'))
        result, after = run(root, to="filter")
        assert len(result.artifacts["labels"].value.train.examples) > 100
        assert (server.stats.billed, after.labels) == (billed, counts.labels)
