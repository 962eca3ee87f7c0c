"""The command line: help at once, results as tables or JSON, errors with a next action, exit codes that mean something."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from overproof import progress
from overproof.cli import VERBS, main, tables
from overproof.cli.door import RichReporter, jsonable
from overproof.evidence import (
    CandidateReport,
    Certificate,
    EvalReport,
    Figure,
    Finding,
    Refusal,
    SliceCertificate,
    SliceReport,
)
from overproof.steps.terms import read_entry

PROJECT = """
[task]
name = "shop"
input = ["text"]
output = { classes = ["order", "refund", "other"] }
prompt = "prompt.md"
[owner]
name = "Dana Ruiz"
email = "dana@northlane.example"
deputy = "Ana Vogt"
[traffic]
columns = { gold = "queue" }
[teacher]
use = "recorded.v1"
model = "readers-2025-06"
revision = "r-2025-06"
terms = "terms/teacher.toml"
[[verify]]
use = "label_set.v1"
[[student]]
use = "linear.v1"
[bars]
fidelity = 0.9
[[slice]]
name = "plus"
where = { tier = "plus" }
min_n = 500
"""
TERMS = """
id = "shop-1"
registry_id = "own-answers"
registry_digest = "DIGEST"
role = "teacher"
channel = "own"
contracting_party = "Northlane"
account_or_contract = "own work"
statement = "Our own people wrote every answer, none of them comes from a provider."
attested_on = 2026-01-02
[model]
provider = "recording"
base_url = ""
model = "readers-2025-06"
revision = "r-2025-06"
[use]
student_kind = "classifier"
distribution = "internal"
purpose = "sorting our inbox"
[conditions]
written_by_a_provider_model = false
[attested_by]
name = "Dana Ruiz"
role = "owner"
email = "dana@northlane.example"
[[document]]
key = "authorship"
read_on = 2026-01-02
"""


def write_project(folder: Path, text: str = PROJECT) -> Path:
    (folder / "terms").mkdir(exist_ok=True)
    (folder / "overproof.toml").write_text(text)
    (folder / "prompt.md").write_text("Answer with one label.")
    (folder / "terms" / "teacher.toml").write_text(TERMS.replace("DIGEST", read_entry("own-answers").digest))
    return folder


def write_log(folder: Path, rows: int = 40) -> Path:
    path = folder / "log.jsonl"
    words = {"order": "where is my parcel number", "refund": "give me back the money for order", "other": "do you open on day"}
    lines = []
    for i in range(rows):
        queue = ("order", "refund", "other")[i % 3]
        row = {"id": f"m{i}", "ts": f"2026-01-{1 + i % 28:02}T10:00:00Z", "text": f"{words[queue]} {i}", "tier": "plus" if i % 4 else "guest"}
        lines.append(json.dumps({**row, "output": queue, "queue": queue, "model": "readers-2025-06"}))
    path.write_text("\n".join(lines) + "\n")
    return path


def call(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args], catch_exceptions=False)


def overproof(*args: str | Path, **extra: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "overproof.cli", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **extra)


def test_help_loads_no_heavy_library() -> None:
    """`overproof --help` answers without numpy, scipy, duckdb, pydantic, apsw, rich or any room above the door."""
    code = (
        "import sys\nfrom overproof.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'numpy','scipy','sklearn','duckdb','pydantic','apsw','rich','overproof.project','overproof.pipeline'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "LOADED []" in out
    assert all(verb in out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_exists_and_has_the_shared_options(verb: str) -> None:
    """The table of verbs names real commands; each takes --json, --project and --set."""
    result = call(verb, "--help")
    assert result.exit_code == 0
    assert all(option in result.output for option in ("--json", "--project", "--set"))


def test_a_wrong_verb_is_the_users_mistake() -> None:
    """Exit code 2 and the verb that may have been meant, from a real process."""
    done = overproof("chek")
    assert done.returncode == 2
    assert "Did you mean 'check'?" in done.stderr


def test_init_writes_a_project_whose_gaps_check_names(tmp_path: Path) -> None:
    """The written file is valid but for what only a person can fill in; nothing is ever overwritten."""
    folder = tmp_path / "Müller & Söhne"
    assert call("init", folder).exit_code == 0
    done = call("check", "--project", folder, "--json")
    assert done.exit_code == 2
    problems = json.loads(done.stdout)["problems"]
    assert len(problems) == 2
    assert any(p.startswith("[owner]") for p in problems)
    assert any(p.startswith("[teacher]: model") for p in problems)
    (folder / "overproof.toml").write_text("mine")
    again = call("init", folder)
    assert again.exit_code == 2
    assert (folder / "overproof.toml").read_text() == "mine"


@pytest.mark.parametrize(("args", "code", "word"), [
    (["--kind", "tables"], 2, "use one of classes, fields, text"), (["--terms", "openai"], 3, "openai-api"),
])  # fmt: skip
def test_init_knows_what_it_can_write(tmp_path: Path, args: list[str], code: int, word: str) -> None:
    """An unknown output kind and an unknown terms entry are refused with what there is; nothing is written."""
    done = call("init", tmp_path / "new", *args)
    assert (done.exit_code, (tmp_path / "new").exists()) == (code, False)
    assert word in done.stderr


def test_a_file_with_ten_mistakes_shows_ten_problems(tmp_path: Path) -> None:
    """All are numbered on stderr, with exit code 2 and a next action, and no traceback."""
    text = PROJECT
    for old, new in (
        ('"shop"', '"Shop!"'), ('"prompt.md"', '"none.md"'), ('"Dana Ruiz"', '"The Team"'), ("recorded.v1", "recordd.v1"),
        ("readers-2025-06", "readers-latest"), ("label_set.v1", "labels.v1"), ("linear.v1", "liner.v1"), ("fidelity", "fidelty"),
        ("[[slice]]", "[serve]\ncpu_usd_per_hour = -1\n[[slice]]"), ("min_n = 500", "min_n = -5"),
    ):  # fmt: skip
        assert old in text
        text = text.replace(old, new, 1)
    done = overproof("check", "--project", write_project(tmp_path, text))
    assert done.returncode == 2
    assert done.stdout == ""
    numbered = re.findall(r"^ +\d+\. (.+)$", done.stderr, re.MULTILINE)
    for word in ("Shop!", "none.md", "The Team", "recordd.v1", "readers-latest", "labels.v1", "liner.v1", "fidelty", "cpu_usd", "min_n"):
        assert any(word in line for line in numbered), word
    assert "next: mend overproof.toml" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_finds_options_that_a_part_does_not_take(tmp_path: Path) -> None:
    """A misspelt option of a student is told with what it may have meant; load alone would let it pass."""
    text = PROJECT.replace('use = "linear.v1"', 'use = "encoder.v1"\nmax_tokns = 64')
    done = call("check", "--project", write_project(tmp_path, text))
    assert done.exit_code == 2
    assert "[[student]] 'encoder.v1': unknown option 'max_tokns'" in done.stderr
    assert "Did you mean 'max_tokens'?" in done.stderr


def test_check_loads_the_users_own_rules(tmp_path: Path) -> None:
    """A "module:function" beside the file is found; one that isn't there is told."""
    own = PROJECT + '[[slice]]\nname = "long"\nwhere = "mychecks_for_cli:is_long"\n'
    assert "mychecks_for_cli" in call("check", "--project", write_project(tmp_path, own)).stderr
    (tmp_path / "mychecks_for_cli.py").write_text("def is_long(request):\n    return len(request.text) > 80\n")
    assert call("check", "--project", tmp_path).exit_code == 0


def test_no_terms_record_is_exit_code_three(tmp_path: Path) -> None:
    """Check still shows the rest, on stdout, and says on stderr what is missing."""
    write_project(tmp_path)
    (tmp_path / "terms" / "teacher.toml").unlink()
    done = overproof("check", "--project", tmp_path)
    assert done.returncode == 3
    assert "task 'shop', 3 labels" in done.stdout
    assert "nobody has vouched" in done.stderr
    machine = overproof("check", "--project", tmp_path, "--json")
    assert machine.returncode == 3
    assert json.loads(machine.stdout)["terms"] is None


def test_check_says_what_the_next_run_costs_and_which_bars_lack_rows(tmp_path: Path) -> None:
    """Rows x tokens x prices, and per bar and slice the rows needed against the rows there are."""
    paid = re.sub(
        r"\[teacher\].*?\[\[verify\]\]",
        '[teacher]\nuse = "openai.v1"\nbase_url = "http://localhost:1/v1"\nmodel = "m-2026-01-01"\nterms = "terms/teacher.toml"\n'
        "budget_usd = 1\nprice_in_usd_per_million = 10\nprice_out_usd_per_million = 100\nmax_tokens = 10\nsamples = 2\n[[verify]]",
        PROJECT, flags=re.DOTALL,
    )  # fmt: skip
    write_project(tmp_path)
    assert call("import", write_log(tmp_path), "--project", tmp_path).exit_code == 0
    free = json.loads(call("check", "--project", tmp_path, "--json").stdout)
    assert (free["traffic_rows"], free["cost"]["usd"], free["next"]) == (40, 0.0, "overproof run")
    needs = {(n["slice"], n["metric"]): (n["rows_needed"], n["rows_expected"]) for n in free["needs"]}
    assert needs[("all", "fidelity")][1] == 4  # 40 rows x .2 sealed x .5 that judge
    assert needs[("plus", "fidelity")] == (needs[("all", "fidelity")][0], 3)
    write_project(tmp_path, paid)
    cost = json.loads(call("check", "--project", tmp_path, "--json").stdout)["cost"]
    assert cost["calls"] == 80
    least = 80 * 10 * 100 / 1e6
    assert least < cost["usd"] < least + 80 * 30 * 10 / 1e6


def test_the_same_file_twice_adds_nothing_and_bad_rows_are_kept_aside(tmp_path: Path) -> None:
    """Import counts every row once: added, there already, or kept aside with file, line and reason."""
    write_project(tmp_path)
    log = write_log(tmp_path)
    with log.open("ab") as file:
        file.write(b'{"id": "x", "text": "\xff"}\nnot json\n')
    first = json.loads(call("import", log, "--project", tmp_path, "--json").stdout)
    assert {k: first["files"][0][k] for k in ("added", "skipped", "already_there")} == {"added": 40, "skipped": 2, "already_there": 0}
    second = json.loads(call("import", log, "--project", tmp_path, "--json").stdout)
    assert (second["files"][0]["added"], second["files"][0]["already_there"], second["log"]["rows"]) == (0, 40, 40)
    aside = json.loads(call("show", "skipped", "--project", tmp_path, "--json").stdout)
    assert [row["where"] for row in aside] == ["log.jsonl:41", "log.jsonl:42"]
    shown = call("show", "traffic", "--project", tmp_path).output
    assert "40 rows" in shown
    assert "guest" in shown


@pytest.mark.parametrize(("args", "word"), [
    (["none.jsonl"], "no file none.jsonl"), (["log.jsonl", "--format", "jsnl"], "Did you mean 'jsonl.v1'?"),
    (["log.jsonl", "--map", "gld=queue"], "Did you mean 'gold'?"), (["empty.jsonl"], "empty"),
])  # fmt: skip
def test_import_says_what_is_wrong_with_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], word: str) -> None:
    """A missing or empty file, an unknown format or field: exit code 2 with what there is."""
    monkeypatch.chdir(write_project(tmp_path))
    write_log(tmp_path)
    (tmp_path / "empty.jsonl").touch()
    done = call("import", *args)
    assert done.exit_code == 2
    assert word in done.stderr


def test_errors_under_json_are_json_on_stdout(tmp_path: Path) -> None:
    """A machine reads what, next and the exit code."""
    done = overproof("show", "certficate", "--project", write_project(tmp_path), "--json")
    body = json.loads(done.stdout)
    assert (done.returncode, body["exit_code"]) == (2, 2)
    assert "Did you mean 'certificate'?" in body["error"]
    assert body["next"]


def test_show_terms_prints_what_is_asked_and_never_advises(tmp_path: Path) -> None:
    """Clauses, conditions and the attestor's own words, with the disclaimer; no run is needed."""
    done = call("show", "terms", "--project", write_project(tmp_path))
    assert done.exit_code == 0
    for word in ("no-restriction-found", "[conditions]: written-by-a-provider-model", "«Our own people", "This is not legal advice."):
        assert word in " ".join(done.output.split())


def test_an_unexpected_crash_is_no_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug leaves neither a traceback nor exit code 1, which means "refused"."""

    def crash(*_: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("overproof.cli.parts.check_parts", crash)  # the only way to a bug is to plant one
    done = call("check", "--project", write_project(tmp_path))
    assert done.exit_code == 4
    assert "unexpected ZeroDivisionError" in done.stderr
    assert "--debug" in done.stderr


def test_interrupting_says_how_to_go_on(tmp_path: Path) -> None:
    """SIGINT during work: exit code 130, one sentence, no traceback; the next call finishes the work."""
    write_project(tmp_path)
    log = write_log(tmp_path, 40_000)
    command = [sys.executable, "-m", "overproof.cli", "import", str(log), "--project", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ})
    deadline = time.monotonic() + 60
    while not (tmp_path / ".overproof" / "traffic.db").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "run again to resume" in err
    assert "Traceback" not in err
    assert json.loads(call("import", log, "--project", tmp_path, "--json").stdout)["log"]["rows"] == 40_000


def figure(value: float, n: int, metric: str = "served_fidelity", **more: Any) -> Figure:
    return Figure(metric=metric, value=value, low=value - 0.1, high=min(1.0, value + 0.02), level=0.95, method="clopper-pearson",
                  n=n, good=round(value * n), **more)  # fmt: skip


def report(value: float = 0.95, chosen: str = "linear.v1") -> EvalReport:
    def piece(name: str, kind: Any, served: Figure, *, critical: bool = False) -> SliceReport:
        return SliceReport(slice=name, kind=kind, critical=critical, n=100, fidelity=figure(0.8, 100), accuracy=None, teacher_accuracy=None,
                           served_fidelity=served, served_accuracy=None, kept=figure(0.7, 100, "kept"), two_by_two=None)  # fmt: skip

    slices = (
        piece("all", "all", figure(value, 100, bar=0.9, verdict="pass")),
        piece("tier=[x]", "attribute", figure(0.5, 20, bar=0.9, verdict="fail"), critical=True),
        piece("tier=plus", "attribute", figure(0.97, 7, bar=0.9, verdict="undecided", rows_needed=140)),
        piece("refund", "label", figure(0.97, 7, bar=0.9, verdict="undecided", rows_needed=140)),
    )
    candidate = CandidateReport(
        name=chosen, kind="student", size_bytes=10**6, parameters=10, latency_s=0.001, latency_p95_s=0.002, cost_usd_per_1000=0.01,
        calibration=None, ece_test=None, reliability_before=(), reliability_after=(), slices=slices, clears_bars="fail", margin=None,
    )  # fmt: skip
    one = SliceCertificate(slice="other", alpha=0.03, delta=0.05, threshold=0.912, n=100, kept=70, wrong=1, upper=0.066,
                           keep_share=figure(0.7, 100), verdict="undecided", rows_needed=50)  # fmt: skip
    certificate = Certificate(plan_hash="p", sealed_digest="s", label_kind="teacher:big", use_k=1, delta_spent=0.03, slices=(one,),
                              assumptions=("Rows are drawn from the window.",), window=(None, None), expires="2026-12-01")  # fmt: skip
    return EvalReport(candidates=(candidate,), chosen=chosen, reason="smallest", certificate=certificate, n_test=100, n_gold=0,
                      weak_labels=(), disagreements=(), cheaper=None)  # fmt: skip


def rendered(*items: Any) -> str:
    console = Console(width=80, record=True, file=open(os.devnull, "w"), highlight=False)  # noqa: SIM115, PTH123 - closed with the test
    with console.file:
        for item in items:
            console.print(item)
    return console.export_text()


def test_slices_show_figure_interval_n_bar_and_word() -> None:
    """Every bar has its word; too few rows is never a pass and says how many more; names are no markup; 80 columns do."""
    text = rendered(tables.slices_table(report()))
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "95.0%" in lines["all"]
    assert "85.0-97.0" in lines["all"]
    assert "90.0%" in lines["all"]
    assert "pass" in lines["all"]
    assert "tier=[x] !" in lines["tier=[x]"]
    assert "fail" in lines["tier=[x]"]
    assert "not enough data" in lines["tier=plus"]
    assert "+140" in lines["tier=plus"]
    assert "pass" not in lines["tier=plus"]
    assert "refund" not in lines
    assert max(map(len, text.splitlines())) <= 80


def test_the_certificate_shows_share_bound_and_assumptions() -> None:
    """Threshold, share kept with interval, wrong of kept, bound against bar, and what it rests on."""
    text = rendered(*tables.certificate_page(report().certificate))
    for word in ("0.912", "70.0%", "60.0-72.0", "1/70", "6.6%", "3.0%", "not enough data", "+50", "Rows are drawn", "use 1", "2026-12-01"):
        assert word in text, word


def test_a_refusal_shows_failing_findings_with_next_actions() -> None:
    """Reason and next action of what doesn't pass; passing checks are counted, and listed on demand."""
    same: dict[str, Any] = {"slice": "tier=[x]", "value": 0.5, "bound": 0.4, "bar": 0.9, "n": 20}
    bad = Finding(id="G08", title="Slices", outcome="fail", reason="half is wrong", next_action="collect 140 more", **same)
    fine = Finding(id="G01", title="Terms", outcome="pass", reason="covered", next_action="", **same)
    verdict = Refusal(task="shop", findings=(bad, fine), headline="Not released: one slice fails.")
    text = rendered(*tables.verdict_page(verdict))
    for word in ("REFUSED", "Not released: one slice fails.", "1 of 2 checks pass", "fail G08 Slices [tier=[x]]", "half is wrong", "next: collect 140 more"):
        assert word in text, word
    assert "G01" not in text
    assert "G01" in rendered(*tables.verdict_page(verdict, everything=True))


def test_a_change_counts_only_where_intervals_are_apart() -> None:
    """Overlapping intervals are "no clear change"; apart ones are up or down."""
    words = {(r["slice"], r["metric"]): r["word"] for r in tables.comparison(report(0.95), report(0.94))}
    assert words[("all", "fidelity")] == "no clear change"
    words = {(r["slice"], r["metric"]): r["word"] for r in tables.comparison(report(0.95), report(0.5))}
    assert words[("all", "fidelity")] == "down"


def test_json_says_everything_and_needs_no_tags() -> None:
    """Dataclasses, tuples, paths and mappings become plain JSON."""
    value = jsonable({"r": report(), "p": Path("a/b"), 3: (1, 2)})
    assert json.loads(json.dumps(value))["r"]["candidates"][0]["slices"][2]["served_fidelity"]["rows_needed"] == 140
    assert (value["p"], value["3"]) == ("a/b", [1, 2])


def test_progress_is_silent_when_short_and_tells_when_long(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Work of a moment shows nothing; long work without a terminal says on stderr how far it is, and nothing on stdout."""
    token = progress.reporter.set(RichReporter())
    try:
        assert list(progress.track(range(5), "quick")) == list(range(5))
        assert capsys.readouterr().err == ""
        clock = iter(range(0, 1000, 6))
        monkeypatch.setattr("overproof.cli.door.time.monotonic", lambda: float(next(clock)))
        assert list(progress.track(range(5), "slow", total=5)) == list(range(5))
    finally:
        progress.reporter.reset(token)
    seen = capsys.readouterr()
    assert "slow: 2 of 5" in seen.err
    assert "slow: 5 in" in seen.err
    assert seen.out == ""


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was run once; what `run` printed is in run.txt, its exit code in code.txt."""
    folder = write_project(tmp_path_factory.mktemp("shop"), PROJECT + "[promptset]\nnear_duplicates = false\n")
    assert call("import", write_log(folder, 400), "--project", folder).exit_code == 0
    done = call("run", "--project", folder)
    (folder / "run.txt").write_text(done.output)
    (folder / "code.txt").write_text(str(done.exit_code))
    return folder


def test_a_run_ends_with_a_verdict_its_reasons_and_the_dossier(walked: Path) -> None:
    """Exit code 0 or 1 goes with RELEASE or REFUSED; steps, funnel, candidates, slices and certificate come first."""
    text, code = (walked / "run.txt").read_text(), (walked / "code.txt").read_text()
    assert ("RELEASE" in text, "REFUSED" in text) == (code == "0", code == "1")
    places = [text.index(w) for w in ("capture", "From traffic", "Candidates alone", "Served:", "Certificate", "dossier:")]
    assert places == sorted(places)
    assert "not enough data" in text  # the plus slice asks for 500 rows
    assert Path(text.rpartition("dossier:")[2].split()[0]).read_text().startswith("<!")
    assert max(len(line) for line in text.splitlines() if ".overproof" not in line) <= 80


def test_a_second_run_reuses_everything(walked: Path) -> None:
    """Nothing is run again, the exit code is the same, and stdout under --json is one JSON document."""
    done = call("run", "--project", walked, "--json")
    assert str(done.exit_code) == (walked / "code.txt").read_text()
    body = json.loads(done.stdout)
    assert {e["action"] for e in body["steps"]} - {"start"} == {"reuse"}
    assert body["findings"]
    assert body["certificate"]["slices"]


def test_a_stage_can_be_the_last(walked: Path) -> None:
    """--to stops there with exit code 0 and no verdict; an unknown stage is told."""
    done = call("run", "--to", "filter", "--project", walked, "--json")
    assert (done.exit_code, json.loads(done.stdout)["verdict"]) == (0, None)
    assert "Did you mean 'filter'?" in call("run", "--to", "filtr", "--project", walked).stderr


def test_status_says_what_would_run_and_why(walked: Path) -> None:
    """After a run nothing is stale; with another bar the plan is."""
    assert "nothing to do" in call("status", "--project", walked).output
    changed = json.loads(call("status", "--project", walked, "--set", "bars.fidelity=0.7", "--json").stdout)
    stale = [e["step"] for e in changed["next_run"] if e["action"] == "stale"]
    assert stale == ["plan"]
    assert [r["id"] for r in changed["runs"]] == ["r1"]


@pytest.mark.parametrize("what", ["prompts", "labels", "dropped", "report", "candidates", "certificate", "verdict", "dossier"])
def test_every_result_can_be_shown_and_read_by_machines(walked: Path, what: str) -> None:
    """`show` prints each result of the run, as text in 80 columns and as JSON."""
    assert call("show", what, "--project", walked).exit_code == 0
    assert json.loads(call("show", what, "--project", walked, "--json").stdout) is not None


def test_two_runs_are_compared_slice_by_slice(walked: Path) -> None:
    """A run against itself shows no change anywhere; an unknown run is told with the known ones."""
    body = json.loads(call("diff", "r1", "r1", "--project", walked, "--json").stdout)
    assert {row["word"] for row in body["slices"]} == {"no clear change"}
    assert {"all", "plus"} <= {row["slice"] for row in body["slices"]}
    assert "Available: r1." in call("diff", "r1", "r7", "--project", walked).stderr
