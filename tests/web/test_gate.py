"""The gate page: failing checks first, waivers with two names, papers that are only ever downloads."""

import hashlib
import json

import pytest
from tests.northlane import copied
from tests.web.conftest import Site, get
from tests.web.walks import refused

from overproof.evidence import Release
from overproof.project import load_project
from overproof.web.gate_model import paper, read_gate
from overproof.web.place import Place

TASK = "northlane-inbox"


@pytest.fixture(scope="module")
def refusal(northlane_folder, tmp_path_factory):
    """A copy whose last run was refused, and the verdict."""
    folder = copied(northlane_folder, tmp_path_factory.mktemp("refused") / "inbox")
    return folder, refused(folder)[1]


@pytest.fixture(scope="module")
def place(refusal):
    """Its place."""
    found = Place(load_project(refusal[0] / "overproof.toml"))
    yield found
    found.close()


def test_every_finding_of_the_verdict_is_there_failing_ones_first(place, refusal) -> None:
    """Nothing is left out, whatever its outcome; the sets name every check that reported."""
    seen = read_gate(place)
    assert (seen.run.outcome, seen.release) == ("refusal", "")
    assert sorted(f.id for f in (*seen.stopping, *seen.waived, *seen.passing)) == sorted(f.id for f in refusal[1].findings)
    assert [f.id for f in seen.stopping] == ["G17"]
    assert seen.stopping[0].next_action
    assert {name.split()[0] for one in seen.sets for name in one.names} == {f.id for f in refusal[1].findings}


def test_a_waiver_has_both_names_its_reason_and_its_last_day(place) -> None:
    """The finding under it is "waived", never passed."""
    seen = read_gate(place)
    (one,) = seen.waived
    assert (one.id, one.waiver.by, one.waiver.second) == ("S01", "Dana Ruiz", "Imre Sandoval")
    assert one.waiver.until
    assert "<b>itself</b>" in one.waiver.reason
    assert [(w.waiver.check, w.live) for w in seen.waivers] == [("S01", w.live) for w in seen.waivers]


def test_an_earlier_run_is_shown_with_its_own_papers_and_changes(place) -> None:
    """r2 has what changed since r1's release; r1 has nothing before it."""
    r1, r2 = read_gate(place, "r1"), read_gate(place, "r2")
    assert r1.changes is None
    assert r2.changes.since == r1.release
    assert all(row.word != "no clear difference" for row in r2.changes.clear)
    assert {p.name for p in r2.papers} >= {"index.html", "dossier.json", "MODEL_CARD.md", "DATA_CARD.md", "summary.html", "bom.cdx.json", "provenance.intoto.jsonl"}
    facts = json.loads(paper(place, "r2", "dossier.json"))
    assert isinstance(place.run("r2").verdict, Release)
    assert facts["decision"]["id"] == r2.release
    assert paper(place, "r2", "../../../overproof.toml") is None


def test_papers_are_downloads_of_the_very_bytes(site, project_folder) -> None:
    """Never a page of ours: the dossier quotes people's messages. A name or run that is not there is 404."""
    status, headers, body = get(f"{site.url}/ui/{TASK}/gate/r2/index.html")
    assert status == 200
    assert headers["content-disposition"].startswith("attachment")
    assert "html" not in headers["content-type"]
    found = Place(load_project(project_folder / "overproof.toml"))
    try:
        assert hashlib.sha256(body.encode()).hexdigest() == hashlib.sha256(paper(found, "r2", "index.html")).hexdigest()
    finally:
        found.close()
    for path in ("gate/r2/verdict.pkl", "gate/r9/index.html", "gate/r2/..%2f..%2foverproof.toml", "gate?run=r9"):
        assert get(f"{site.url}/ui/{TASK}/{path}")[0] in (400, 404)


def test_the_page_shows_the_refusal_and_the_choice_of_runs(page, refusal) -> None:
    """In a browser: what stops it with what to do next, the waiver's words as words, and from there to the release before."""
    site = Site(refusal[0])
    try:
        page.goto(f"{site.url}/ui/{TASK}/gate")
        first = page.locator("ol.stops li").first
        assert first.locator("code").first.inner_text() == "G17"
        assert "Next:" in first.locator(".next").evaluate("(e) => getComputedStyle(e, '::before').content + e.textContent")
        assert "<b>itself</b>" in page.locator("main").inner_text()
        page.locator("#run").select_option("r2")
        page.get_by_role("button", name="Show").click()
        page.wait_for_url("**/gate?run=r2")
        assert "Released" in page.locator(".verdict").inner_text()
        with page.expect_download() as got:
            page.get_by_role("link", name="MODEL_CARD.md").click()
        assert got.value.suggested_filename == f"{TASK}-r2-MODEL_CARD.md"
    finally:
        site.stop()
