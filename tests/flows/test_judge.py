"""A judge on the road: real servers on loopback, the real ledger, the terms gate, the terminal."""

import csv
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from overproof.cli import main
from overproof.cli.intake import take
from overproof.errors import ProjectError, TermsError
from overproof.pipeline import distil, status
from overproof.project import load_project
from overproof.store.project_store import open_store
from overproof.testing import FaultTeacher
from overproof.testing_batch import BatchFaults, BatchProvider

JUDGE = "judge-model-2026-01-01"
STEMS = {
    "billing 💶": ["invoice", "charged", "refund", "card", "payment", "receipt"],
    "bug report": ["crash", "error", "freezes", "broken", "stacktrace", "bug"],
    "how to": ["configure", "tutorial", "steps", "guide", "setup", "enable"],
}


def verdict(text: str, *, right: float = 1.0) -> str:
    """What a judge says that reads message and label out of the built-in prompt, and is right so often."""
    message = text.split("<message>")[1].split("</message>", maxsplit=1)[0].strip()
    label = text.split("The label under judgement: ")[1].splitlines()[0].strip()
    votes = Counter({name: sum(message.count(stem) for stem in found) for name, found in STEMS.items()})
    honest = votes.most_common(1)[0][0] == label
    return "right" if honest == (random.Random(message).random() < right) else "wrong"


def serving(answer) -> FaultTeacher:
    return FaultTeacher(answer, model=JUDGE)


def judged_project(make, root: Path, port: int, *, may: str = "drop", gold: bool = True, more: str = "") -> Path:
    """The easy project with a quarter of the teacher's answers wrong, and a judge behind HTTP."""
    draw, found = random.Random(4), make.rows(900)
    for row in found:
        if draw.random() < 0.25:
            row["output"] = draw.choice([x for x in make.labels if x != row["truth"]])
        if not gold and row is not found[-1]:  # a sealed one: the column has to be there
            del row["truth"]
    make.project(root, found[-1:])
    text = (root / "overproof.toml").read_text()
    text = text.replace('terms = "terms.toml"', 'terms = "terms.toml"\nbudget_usd = 5.0')
    (root / "overproof.toml").write_text(
        text + f'\n[judge]\nuse = "openai.v1"\nmodel = "{JUDGE}"\nbase_url = "http://127.0.0.1:{port}/v1"\nterms = "judge.toml"\n'
        f'may = "{may}"\nshare = 0.8\nprice_in_usd_per_million = 1.0\nprice_out_usd_per_million = 4.0\n{more}'
        "[judge.options]\nallow_private = true\n"
    )
    terms = (root / "terms.toml").read_text().replace('role = "teacher"', 'role = "judge"').replace('id = "easy-1"', 'id = "judge-1"')
    terms = terms.replace("recorded-teacher-2026-01-01", JUDGE).replace('revision = "2026-01-01"', 'revision = ""')
    terms = terms.replace('provider = "example"', 'provider = "127.0.0.1"')
    (root / "judge.toml").write_text(terms.replace('base_url = ""', f'base_url = "http://127.0.0.1:{port}/v1"'))
    log = make.write_log(root / "log.jsonl", found)
    with open_store(root) as store:
        take(store, load_project(root), [log])
    return root


def labelled(root: Path):
    with open_store(root) as store:
        result = distil(store, load_project(root), to="filter")
        return {name: a.value for name, a in result.artifacts.items()}, store.ledger.counts(), result.events


def call(root: Path, *args: str):
    return CliRunner().invoke(main, [*args, "--project", str(root)])


def test_a_good_judge_drops_mostly_wrong_training_rows_and_is_paid_once(make, tmp_path) -> None:
    """It asks about training rows only, shows in every view, and a second run costs nothing."""
    with serving(lambda text: verdict(text, right=0.95)) as server:
        root = judged_project(make, tmp_path / "p", server.port)
        now, counts, _ = labelled(root)
        gone = [d for d in now["labels"].dropped if d.by == "judge.v1"]
        assert len(gone) == now["judge"].report.dropped > 20
        assert {d.split for d in gone} == {"train"}
        assert sum(d.target != d.gold for d in gone) > 0.7 * len(gone)
        assert now["labels"].calibration == now["filtered"].calibration
        assert now["labels"].test == now["filtered"].test
        assert server.stats.billed == counts.labels == now["judge"].report.asked
        assert counts.spent_usd == pytest.approx(now["judge"].report.spent_usd, abs=1e-6)
        assert counts.spent_usd > 0
        _, again, events = labelled(root)
        assert [e.step for e in events if e.action == "run"] == []
        assert (server.stats.billed, again.spent_usd) == (counts.labels, counts.spent_usd)
        with open_store(root) as store:
            assert {e.action for e in status(store, load_project(root)) if e.step in ("docket", "judge")} == {"reuse"}
        run = call(root, "run", "--json")
        assert run.exit_code in (0, 1), run.output
        body = json.loads(run.stdout)
        assert body["judge"]["dropped"] == len(gone)
        shown = json.loads(call(root, "show", "filter", "--json").stdout)
        assert [r["rule"] for r in shown["rules"]] == ["judge.v1"]
        assert shown["judge"]["sensitivity"]["n"] > 0
        lines = " ".join(call(root, "show", "filter").output.split())
        assert f"{len(gone):,} are dropped" in lines
        assert "wrong labels, counted on known rows: 2" in lines
        assert server.stats.billed == counts.labels


def test_a_judge_that_always_objects_never_drops_a_row(make, tmp_path) -> None:
    """The rows are those of the filter, and the run says why."""
    with serving(lambda text: "wrong") as server:
        root = judged_project(make, tmp_path / "p", server.port)
        now, _, _ = labelled(root)
        assert now["labels"] == now["filtered"]
        assert now["judge"].report.objected == now["judge"].report.asked > 200
        assert "nothing is dropped" in call(root, "run", "--to", "filter").output


@pytest.mark.parametrize("mode", [pytest.param("live", marks=pytest.mark.slow), "batch"])
def test_a_judge_behind_the_messages_api_is_asked_the_same_way(make, tmp_path, mode) -> None:
    """anthropic.v1, one by one and as a batch: every row is answered, once, and it may drop."""
    with BatchProvider(verdict, batch=BatchFaults(again_s=0.05), model=JUDGE) as server:
        root = judged_project(make, tmp_path / "p", server.port, more=f'mode = "{mode}"\n')
        text = (root / "overproof.toml").read_text()
        (root / "overproof.toml").write_text(text.replace('[judge]\nuse = "openai.v1"', '[judge]\nuse = "anthropic.v1"'))
        now, counts, _ = labelled(root)
        report = now["judge"].report
        assert counts.labels == report.asked == report.answered > 200
        assert report.dropped > 20
        assert (server.batch_stats()["most_per_row"] == 1) == (mode == "batch")


def test_a_judge_nobody_has_measured_marks_only(make, tmp_path) -> None:
    """Right on all rows, but no true label is known: marked, with how many reviews it takes; reviews then let it drop."""
    with serving(verdict) as server:
        root = judged_project(make, tmp_path / "p", server.port, gold=False)
        now, first, _ = labelled(root)
        report = now["judge"].report
        assert now["labels"] == now["filtered"]
        assert (report.dropped, report.sensitivity) == (0, None)
        assert len(report.marked) > 50
        assert all(g.more for g in report.groups)
        out = root / "q.csv"
        assert call(root, "review", "--export", str(out), "--n", "200").exit_code == 0
        lines = out.read_text(encoding="utf-8-sig").splitlines(keepends=True)
        truth = {r["id"]: r["truth"] for r in make.rows(900)}
        head = lines[0].strip().split(",")
        rows = list(csv.DictReader(lines))
        for row in rows:
            row["label"] = truth[row["row"]]
        with out.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=head)
            writer.writeheader()
            writer.writerows(rows)
        assert call(root, "review", "--import", str(out)).exit_code == 0
        now, second, _ = labelled(root)
        report = now["judge"].report
        assert report.sensitivity.n > 0
        assert report.wrong.low <= 0.25 <= report.wrong.high < 0.6
        assert "corrected for its own error" in report.words[2]
        assert report.dropped > 0
        gone = [d for d in now["labels"].dropped if d.by == "judge.v1"]
        assert all(d.target != truth[d.request.id] for d in gone)
        assert not {d.request.id for d in gone} & {r["row"] for r in rows}  # a person has decided these
        assert second.labels - first.labels == server.stats.billed - first.labels < first.labels


def test_without_terms_of_its_own_the_judge_is_not_asked(make, tmp_path) -> None:
    """No record, or one for a teacher: exit code 3 before any call is made, in check as in run."""
    with serving(verdict) as server:
        root = judged_project(make, tmp_path / "p", server.port)
        good = (root / "judge.toml").read_text()
        (root / "judge.toml").write_text(good.replace('role = "judge"', 'role = "teacher"'))
        with pytest.raises(TermsError, match="role is 'teacher'"):
            labelled(root)
        assert [call(root, verb).exit_code for verb in ("run", "check")] == [3, 3]
        text = (root / "overproof.toml").read_text()
        (root / "overproof.toml").write_text(text.replace('terms = "judge.toml"\n', ""))
        done = call(root, "run")
        assert done.exit_code == 3
        assert "[judge] names no terms record" in done.output
        assert server.stats.wire == 0


def test_check_prices_the_judge_and_refuses_what_can_not_work(make, tmp_path) -> None:
    """The price stands beside the teacher's; a judge without prices, cap or a model that stays is refused."""
    root = judged_project(make, tmp_path / "p", 9)
    body = json.loads(call(root, "check", "--json").stdout)
    assert body["judge"]["calls"] == 288  # 0.8 of the 360 training rows
    assert body["judge"]["usd"] > 0
    assert "judge at most" in " ".join(call(root, "check").output.split())
    text = (root / "overproof.toml").read_text()
    for old, new, word in (
        ("budget_usd = 5.0", "", "the judge is paid under the same cap"),
        (JUDGE, "judge-latest", "moves"),
        ('[judge]\nuse = "openai.v1"', "[judge]", "use is missing"),
        ("share = 0.8", "share = 0.8\nsamples = 3", "asked once about each row"),
        ('may = "drop"', 'may = "erase"', "may"),
        ("share = 0.8", 'share = 0.8\nprompt = "none.md"', "none.md"),
        ("share = 0.8", "share = 0.8\nbudget_usd = 1.0", "one cap holds for all"),
    ):
        assert old in text
        (root / "overproof.toml").write_text(text.replace(old, new))
        with pytest.raises(ProjectError, match=word):
            load_project(root)


def test_a_recorded_judge_with_a_prompt_of_its_own_costs_nothing(make, tmp_path) -> None:
    """Answers from a file are read by the rows' ids; another prompt is another judge, and asks for nothing but its file."""
    root = judged_project(make, tmp_path / "p", 9, more="")
    text = (root / "overproof.toml").read_text()
    start = text.index("[judge]")
    answers = [{"id": f"r{i}", "output": "wrong" if i % 9 == 0 else "right", "finish": "stop"} for i in range(900)]
    (root / "judged.jsonl").write_text("".join(json.dumps(a) + "\n" for a in answers))
    (root / "judge.md").write_text("Is {judged_label} right for: {text}")
    (root / "overproof.toml").write_text(
        text[:start] + f'[judge]\nuse = "recorded.v1"\nprovider = "example"\nmodel = "{JUDGE}"\nrevision = "1"\npath = "judged.jsonl"\nprompt = "judge.md"\n'
        'terms = "judge.toml"\n'
    )  # fmt: skip
    terms = (root / "judge.toml").read_text().replace("http://127.0.0.1:9/v1", "").replace('revision = ""', 'revision = "1"')
    (root / "judge.toml").write_text(terms.replace('provider = "127.0.0.1"', 'provider = "example"'))
    now, counts, _ = labelled(root)
    report = now["judge"].report
    assert 36 < report.asked == report.answered <= 72  # at most a fifth of the training rows
    assert 0 < report.objected < 30
    assert (counts.labels, counts.spent_usd) == (0, 0.0)
