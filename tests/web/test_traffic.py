"""The traffic explorer: what is looked for is found, and one request's story is told without opening what is sealed."""

import json
import shutil
import time
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from tests.web.conftest import Site, get

from overproof.store.captured import Feedback
from overproof.store.reviews import Review
from overproof.store.search import Wanted
from overproof.web.traffic_model import is_request, moment, read_story, read_traffic
from overproof.web.view import Query
from overproof.web.views.traffic import wanted

TASK = "northlane-inbox"


@pytest.fixture
def bare(northlane_folder, tmp_path):
    """A project before its first import."""
    shutil.copytree(northlane_folder, tmp_path / "bare", ignore=shutil.ignore_patterns(".overproof", "dossier"))
    return tmp_path / "bare"


def test_a_list_says_who_answered_what_and_why(place):
    """Newest first, with the way of each row, and what there is to filter by."""
    found = read_traffic(place, Wanted(route="teacher", reason="below_threshold"))
    assert len(found.lines) == 50
    assert found.older is not None
    assert [line.hit.at for line in found.lines] == sorted((line.hit.at for line in found.lines), reverse=True)
    assert {(line.hit.route, line.hit.reason) for line in found.lines} == {("teacher", "below_threshold")}
    assert set(found.choices.routes) == {"student", "teacher", "imported"}
    assert found.choices.slices[0] == "english"
    assert found.caught.behind == 0


def test_rows_that_audits_found_wrong_are_among_those_that_differ(place):
    """The gateway could not compare them; the teacher did later."""
    wrong = set(place.store.watching.found_wrong())
    found = read_traffic(place, Wanted(differs=True, route="student"))
    assert wrong
    assert {line.id for line in found.lines} == wrong


def test_a_story_has_capture_label_student_and_audit_of_one_request(place):
    """A request that was served by the student, audited, and learned from by the next run."""
    labels = place.run().artifacts["labels"].value
    audits = {one.request_id: one for one in place.store.watching.audits(place.runs() and place.run("r1").verdict.id, state="labelled")}
    known = next(one for one in labels.train.examples if one.request.id in audits)
    place.store.reviews.append([Review(digest=known.request.digest, request_id=known.request.id, label="other", reviewer="Ana", queue="fix")])
    word = Feedback(request_id=known.request.id, at="2026-01-20T10:00:00+00:00", key="", kind="comment", value="this was wrong")
    place.store.captured.commit([], {}, [[word]])
    story = read_story(place, known.request.id, budget_s=60)
    assert story.record.served.release == place.run("r1").verdict.id
    assert [(part.run.id, part.row is not None) for part in story.runs] == [("r2", True), ("r1", False)]
    assert story.runs[0].row.split == "train"
    assert story.runs[0].row.example.target == known.target
    assert story.runs[0].row.answered.completions
    assert [one.audit.truth for one in story.audits] == [audits[known.request.id].truth]
    assert story.audits[0].plan is not None
    assert [one.label for one in story.reviews] == ["other"]
    assert [one.value for one in story.feedback] == ["this was wrong"]


def test_a_sealed_row_stays_sealed_on_its_page(place, site):
    """Whoever looks at the traffic must not come to know the labels that judge the next student."""
    sealed = place.run().artifacts["labels"].value.test.examples[0]
    story = read_story(place, sealed.request.id, budget_s=60)
    row = story.runs[0].row
    assert (row.split, row.answered, row.example, row.dropped) == ("test", None, None, None)
    for _ in range(60):
        html = get(f"{site.url}/ui/{TASK}/traffic/{quote(sealed.request.id)}")[2]
        if "still being read" not in html:
            break
        time.sleep(0.5)
    assert "sealed row" in html
    assert "True answer" not in html
    assert "Teacher said" not in html


def test_an_address_that_nobody_could_mean_asks_for_nothing(site):
    """Numbers, days and names that make no sense are left out; none of them breaks the page."""
    query = Query(b"low=nan&high=7&since=yesterday&until=2026-13-40&route=admin&reason=x&differs=2&q=a")
    assert wanted(query) == Wanted(text="a", high=1.0)
    assert moment("2026-03-01", end=True) == datetime(2026, 3, 2, tzinfo=UTC)
    for asked in ("before=99999999999999999999999", "before=-1", "q=%00", "q=%ff%fe", "slice=%27%20OR%201", "low=1e999&high=-5", "since=0001-01-01", "until=9999-12-31", "q=" + "x" * 3000):
        assert get(f"{site.url}/ui/{TASK}/traffic?{asked}")[0] == 200, asked


def test_an_id_leads_to_its_request_and_an_unknown_one_is_said(place, site):
    """Typing an id is looking for one row."""
    known = read_traffic(place, Wanted(route="student")).lines[0].id
    assert is_request(place, known)
    assert not is_request(place, "ember mug")
    status, headers, _ = get(f"{site.url}/ui/{TASK}/traffic?q={known}")
    assert (status, headers["location"]) == (303, f"/ui/{TASK}/traffic/{known}")
    status, _, html = get(f"{site.url}/ui/{TASK}/traffic/%3Cb%3E")
    assert status == 404
    assert "<b>" not in html


def test_before_the_first_import_the_page_says_what_to_do(bare):
    """An empty log is no error, and neither page nor index makes one of it."""
    site = Site(bare)
    try:
        status, _, html = get(f"{site.url}/ui/{TASK}/traffic")
        assert status == 200
        assert "The log holds no request yet" in html
        assert "overproof import" in html
    finally:
        site.stop()


def test_while_the_index_is_made_the_page_says_how_far_it_is(northlane_folder, tmp_path):
    """A child does the work; the page answers at once, and the figure on it follows."""
    from tests.northlane import copied

    folder = copied(northlane_folder, tmp_path / "fresh")
    (folder / ".overproof" / "search.db").unlink(missing_ok=True)
    site = Site(folder)
    try:
        first = get(f"{site.url}/ui/{TASK}/traffic")[2]
        assert "index of the log is being made" in first
        for _ in range(120):
            live = json.loads(get(f"{site.url}/ui/{TASK}/traffic", headers={"x-overproof-live": "1"})[2])
            if not live:
                break
            time.sleep(0.25)
        assert "there are older ones" in get(f"{site.url}/ui/{TASK}/traffic")[2]
    finally:
        site.stop()


def test_a_person_filters_to_the_teacher_and_reads_one_story(page, site, place):
    """The main path in a browser."""
    page.goto(f"{site.url}/ui/{TASK}/traffic")
    page.get_by_label("Answered by").select_option("teacher")
    page.get_by_label("Words, or a request’s id").fill("ember")
    page.get_by_role("button", name="Look").click()
    rows = page.locator("table.traffic tbody tr")
    assert rows.count() > 0
    assert {text.split()[0] for text in page.locator("table.traffic tbody td:nth-child(4)").all_inner_texts()} == {"teacher"}
    message = rows.first.locator("a").inner_text()
    rows.first.locator("a").click()
    assert message[:40] in page.locator("blockquote.message").inner_text()
    for title in ("Captured", "Student", "Audit", "Feedback"):
        assert page.get_by_role("heading", name=title).count() >= 1
    page.get_by_role("link", name="← Traffic").click()
    assert page.url.endswith("/traffic")
