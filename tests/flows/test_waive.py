"""`overproof waive`: a refusal that two people take upon themselves ships, says so first, and is overdue after the last day."""

import html
import json
from datetime import UTC, date, datetime, timedelta

from click.testing import CliRunner
from tests.flows.walked import run

from overproof.cli import main
from overproof.evidence import Refusal, Release
from overproof.runs import review_state, today_of
from overproof.store.project_store import open_store

CHECK = "nowhere_at_all:check"
WORDS = (
    "--by", "Dana Ruiz", "--second", "Sam Ito", "--reason", "The module with the house's rule is being written this week.",
    "--control", "Dana reads every answer of the day each evening.",
)  # fmt: skip


def call(root, *args: str):
    return CliRunner().invoke(main, [*args, "--project", str(root)])


def test_a_waived_finding_ships_until_its_day(ran) -> None:
    """Refused, waived, released; a check that passes, one that is locked and too long a time are refused with words."""
    file = ran / "overproof.toml"
    file.write_text(file.read_text() + f'\n[gate]\nchecks = ["{CHECK}"]\n')
    refused = run(ran).verdict
    assert isinstance(refused, Refusal)
    assert {f.id for f in refused.findings if f.outcome != "pass"} == {CHECK}
    with open_store(ran) as store:
        today = today_of(store)
    last, late = ((today + timedelta(days=n)).isoformat() for n in (20, 31))
    for args, said in (
        (("waive", "G01", *WORDS, "--until", last), "stops nothing"),
        (("waive", "G99", *WORDS, "--until", last), "no check 'G99'"),
        (("waive", CHECK, *WORDS, "--until", late), "31 days"),
        (("waive", CHECK, *WORDS[:4], "--until", last), "reason has 0 characters"),
    ):
        done = call(ran, *args)
        assert done.exit_code != 0
        assert said in done.output
    assert isinstance(run(ran).verdict, Refusal)
    done = call(ran, "waive", CHECK, *WORDS, "--until", last, "--json")
    assert done.exit_code == 0, done.output
    assert [w["check"] for w in json.loads(done.stdout)["live"]] == [CHECK]
    done_run = run(ran)
    release = done_run.verdict
    assert isinstance(release, Release)
    assert release.headline.startswith(f"Under 1 waiver ({CHECK} until {last} by Dana Ruiz and Sam Ito)")
    assert release.findings[0].outcome == "waived"
    for name, end in (("index.html", 'id="findings"'), ("MODEL_CARD.md", "| Release |"), ("summary.html", "What was measured")):
        first = html.unescape((done_run.dossier_path.parent / name).read_text().partition(end)[0])
        for words in (CHECK.replace("_", "\\_") if name.endswith("md") else CHECK, *WORDS[1:8:2], last, "without the waiver", "(not-run)"):
            assert words.casefold() in first.casefold(), (name, words)
    now = datetime.combine(date.fromisoformat(last), datetime.min.time(), UTC)
    words = [review_state(release, [], None, now + timedelta(days=n)).word for n in (1, 31)]
    assert words == ["overdue", "lapsed"]
