"""A judge of texts on the road: a real server on loopback, people's words from a sheet and the terminal, the gate's word."""

import csv
import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.flows.test_written import TEXT, installed, wishes, written
from tests.flows.walked import run, uses

from overproof.cli import main
from overproof.errors import ProjectError
from overproof.evidence import Refusal
from overproof.measure.slices import split_hash
from overproof.project import load_project
from overproof.store.project_store import open_store
from overproof.students.bundle import load_bundle
from overproof.testing import FaultTeacher

assert installed  # the fixture that installs cue.v1
JUDGE = "judge-model-2026-01-01"
BARS = "[bars]\nfidelity = 0.3\naccuracy = 0.3\n"


def thing(text: str) -> str:
    """What an answer says is wanted."""
    return text.rsplit(maxsplit=1)[-1].rstrip(".")


def verdict(text: str, *, right: float = 0.97) -> str:
    """What a judge says that compares the two answers of the built-in prompt, and is right so often."""
    one, other = (text.split(f"<{name}>")[1].split(f"</{name}>", maxsplit=1)[0].strip() for name in ("reference", "answer"))
    honest = thing(one) == thing(other)
    return "right" if honest == (random.Random(text).random() < right) else "wrong"


def noisy(count: int) -> list[dict]:
    """In every sixth row the true answer is another than the teacher gave, whom the student learns from; on tier pro the teacher says what nobody can learn."""
    draw, found = random.Random(3), wishes(count)
    for at, row in enumerate(found):
        if draw.random() < 1 / 6:
            row["truth"] = "The customer wants one brass-bell."
        row["tier"] = "pro" if draw.random() < 0.2 else "free"
        if row["tier"] == "pro":
            row["output"] = f"The customer wants a unicorn{at}."
    return found


@pytest.fixture(scope="module")
def project(maker, tmp_path_factory):
    """A small task of texts with a judge behind HTTP; nobody has said yet what its word is worth."""
    root = tmp_path_factory.mktemp("judged") / "p"
    with FaultTeacher(verdict, model=JUDGE) as server:
        written(maker, root, TEXT, noisy(700), BARS)
        with_judge(root, server.port)
        yield root, server


def with_judge(root: Path, port: int) -> None:
    text = (root / "overproof.toml").read_text()
    text = text.replace('terms = "terms.toml"', 'terms = "terms.toml"\nbudget_usd = 5.0').replace(BARS, BARS + "judged = 0.6\n")
    text = text.replace("accuracy_when_confident = 0.9", "accuracy_when_confident = 0.6")
    (root / "overproof.toml").write_text(
        text + f'\n[judge]\nuse = "openai.v1"\nmodel = "{JUDGE}"\nbase_url = "http://127.0.0.1:{port}/v1"\nterms = "judge.toml"\n'
        "price_in_usd_per_million = 1.0\nprice_out_usd_per_million = 4.0\n[judge.options]\nallow_private = true\n"
    )
    terms = (root / "terms.toml").read_text().replace('role = "teacher"', 'role = "judge"').replace('id = "easy-1"', 'id = "judge-1"')
    terms = terms.replace("recorded-teacher-2026-01-01", JUDGE).replace('revision = "2026-01-01"', 'revision = ""')
    terms = terms.replace('provider = "example"', 'provider = "127.0.0.1"')
    (root / "judge.toml").write_text(terms.replace('base_url = ""', f'base_url = "http://127.0.0.1:{port}/v1"'))


def call(root: Path, *args: str, given: str = ""):
    return CliRunner().invoke(main, [*args, "--project", str(root)], input=given)


def by_judge(result):
    assert isinstance(result.verdict, Refusal)  # the nearest row's answer names the thing as well, so this student is never worth it
    [found] = [f for f in result.verdict.findings if f.id == "R02"]
    return found


def drawn(result):
    return sorted(result.artifacts["text_docket"].value.prompts.train, key=lambda row: row.request.id)


def served_by_the_bundle(result) -> list[tuple[str, str]]:
    """What the packed student answers on the rows that judge the bars; the slice that could not be certified goes to the teacher."""
    rows, plan = [e.request for e in result.artifacts["labels"].value.test.examples], result.artifacts["plan"].value
    fresh = [r for r, certifies in zip(rows, split_hash([r.id for r in rows], plan.salt, plan.certify_share), strict=True) if not certifies]
    bundle = load_bundle(result.artifacts["evidence"].value.bundle.path)
    found = [(r.id, bundle.answer(dict(r.fields), dict(r.attributes))) for r in fresh]
    assert {r.attributes["tier"] for r in fresh} == {"pro", "free"}
    assert 0 < sum(said.route == "student" for _, said in found) < len(found)
    return sorted((name, said.value) for name, said in found if said.route == "student")


def fill(path: Path) -> None:
    """A person who reads right: the thing of the reference is that of the answer."""
    rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines(keepends=True)))
    for row in rows:
        one, other = row["text"].split("[reference] ")[1].split("[answer] ")
        row["label"] = "right" if thing(one) == thing(other) else "wrong"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_a_judge_of_texts_counts_only_once_people_have_calibrated_it(project) -> None:
    """Asked once behind the ledger; undecided first, then a pass under one bar and a failure under another."""
    root, server = project
    result = run(root)
    share, finding = result.artifacts["judged"].value, by_judge(result)
    assert {c.clears_bars for c in result.artifacts["report"].value.candidates} <= {"fail", "undecided"}  # no other's answers were judged
    assert (share.calibrated, share.n_known, finding.outcome, finding.value) == (False, 0, "not-run", None)
    assert "review --queue judge" in finding.next_action
    assert "Judge not calibrated" in result.dossier_path.read_text(encoding="utf-8")
    assert served_by_the_bundle(result) == [(row.request.id, row.request.fields["judged_answer"]) for row in drawn(result)]
    with open_store(root) as store:
        counts = store.ledger.counts()
    assert share.n - 5 < server.stats.billed == counts.labels <= share.n  # the same question is paid for once
    assert share.n > 100
    assert counts.spent_usd > 0
    labels = result.artifacts["labels"].digest

    out = root / "words.csv"
    assert call(root, "review", "--queue", "judge", "--n", "2", "--reviewer", "Ana", given="s\nq\n").exit_code == 0
    assert call(root, "review", "--queue", "judge", "--export", str(out), "--n", "500").exit_code == 0
    fill(out)
    done = call(root, "review", "--queue", "judge", "--import", str(out), "--reviewer", "Ana")
    assert done.exit_code == 0, done.output
    assert "[0/" not in call(root, "review", "--queue", "judge", "--reviewer", "Ana", given="q\n").output  # nothing is left to ask

    result = run(root)
    share, finding = result.artifacts["judged"].value, by_judge(result)
    assert share.calibrated, share.why
    rows = list(csv.DictReader(out.read_text(encoding="utf-8-sig").splitlines(keepends=True)))
    assert share.low <= sum(row["label"] == "right" for row in rows) / len(rows) <= share.high
    assert (finding.outcome, finding.bar, finding.n) == ("pass", 0.6, share.n), finding.reason
    assert server.stats.billed == counts.labels  # the judge is not asked again
    assert result.artifacts["labels"].digest == labels  # right and wrong are no true answers of rows
    assert not any("teacher" in name for name in result.artifacts)
    shown = json.loads(call(root, "show", "judge", "--json").stdout)
    assert (shown["calibrated"], shown["n"]) == (True, share.n)
    assert "called right by people" in call(root, "show", "judge").output
    assert "as the judge sees it, corrected" in result.dossier_path.read_text(encoding="utf-8")

    before = uses(root)
    finding = by_judge(run(root, "bars.judged=0.97"))
    assert (finding.outcome, finding.bar) == ("fail", 0.97)
    assert len(uses(root)) > len(before)  # another bar is another use of the sealed rows


def test_what_a_judge_of_texts_can_not_do_is_refused_before_anything_runs(project, tmp_path) -> None:
    """A bar without a judge, a judge that may drop, a field of its own name: each by name; and the price stands in check."""
    root, _ = project
    body = json.loads(call(root, "check", "--json").stdout)
    assert body["judge"]["calls"] == 166  # half of the sealed 40 %, and what chance may add
    assert body["judge"]["usd"] > 0
    text = (root / "overproof.toml").read_text()
    for name in ("prompt.md", "terms.toml", "judge.toml"):
        (tmp_path / name).write_bytes((root / name).read_bytes())
    for old, new, word in (
        (text[text.index("[judge]") :], "", "judged needs a \\[judge\\]"),
        ('terms = "judge.toml"', 'terms = "judge.toml"\nmay = "drop"', "may is for a judge of labels"),
        ('input = ["text"]', 'input = ["text", "judged_answer"]', "'judged_answer'; rename it"),
    ):
        assert old in text
        (tmp_path / "overproof.toml").write_text(text.replace(old, new))
        with pytest.raises(ProjectError, match=word):
            load_project(tmp_path)
