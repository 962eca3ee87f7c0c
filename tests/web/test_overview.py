"""The overview: what serves, what it saved with its interval, where it stands worst, and what waits for people."""

import time

import pytest
from tests.northlane import copied
from tests.web.conftest import Site, get
from tests.web.walks import CANDIDATE, refused, with_candidate

from overproof.data import Alarm
from overproof.project import load_project
from overproof.web.overview_model import read_overview, read_task
from overproof.web.place import Place


@pytest.fixture(scope="module")
def place(project_folder):
    """The walked task."""
    found = Place(load_project(project_folder / "overproof.toml"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def bare(project_folder, tmp_path_factory):
    """A project folder in which nothing was ever run."""
    folder = tmp_path_factory.mktemp("bare")
    for name in ("prompt.md", "overproof.toml"):
        (folder / name).write_text((project_folder / name).read_text().replace('"northlane-inbox"', '"not-begun"'))
    copied(project_folder / "terms", folder / "terms")
    return folder


def test_the_walked_task_says_what_serves_what_it_saved_and_where_it_is_worst(place) -> None:
    """Every figure is the store's: requests of the release, prices of the teacher's own answers, the watch's last reading."""
    one = read_task(place, now=time.time())
    rows = [r for r in place.store.traffic.read() if r.served is not None]
    serving = place.serving()
    mine = [r for r in rows if r.served.release == serving]
    assert (one.stage, one.candidate, one.state.release_id) == ("full", "linear.v1", serving)
    assert (one.answered.good, one.answered.n) == (sum(r.served.route == "student" for r in mine), len(mine))
    money = one.money
    assert money.avoided.kept == sum(r.served.route == "student" for r in rows)
    assert money.avoided.low < money.avoided.usd < money.avoided.high
    prices = [r.completion.cost_usd for r in rows if r.served.route == "teacher"]
    assert money.avoided.usd == pytest.approx(money.avoided.kept * sum(prices) / len(prices), rel=0.1)
    assert one.worst.source == "live audits"
    assert one.worst.n > 0
    assert one.review_word == "current"
    assert one.run.id == "r2"


def test_a_watch_that_does_not_run_is_no_good_news(place) -> None:
    """The walk ended long ago: the card asks for somebody, and a day after it, it does not say so."""
    late = read_task(place, now=time.time() + 40 * 86_400)
    assert (late.tone, late.word) == ("fail", "nobody watches")


def test_an_alarm_is_counted_and_said_and_comes_first(project_folder, place, bare) -> None:
    """A task with an open alarm stands before one that has nothing to say, whatever their names."""
    alarm = Alarm(
        id="a1", task=place.name, release_id=place.serving(), slice="english", signal="disagreement", at="2026-01-18", since="2026-01-10", kind="life", value=0.4, low=0.3,
        high=0.5, reference=0.15, n=50, words="slice 'english': <i>40%</i> differ",
    )  # fmt: skip
    place.store.watching.raise_alarm(alarm, at=time.time())
    other = Place(load_project(bare / "overproof.toml"))
    try:
        found = read_overview([other, place], now=time.time())
    finally:
        other.close()
        place.store.watching.close_alarm("a1", by="test", why="over", at=time.time())
    assert [one.task for one in found] == ["northlane-inbox", "not-begun"]
    assert (found[0].alarms, found[0].loudest, found[0].tone) == (1, "slice 'english': <i>40%</i> differ", "fail")
    assert (found[1].word, found[1].money.why_not, found[1].worst, found[1].run) == ("not begun", "the student has answered nothing yet", None, None)


def test_what_waits_for_people_is_on_the_card(northlane_folder, tmp_path) -> None:
    """A refused run and a release that nobody promoted are said, each with the page where it is dealt with."""
    folder = copied(northlane_folder, tmp_path / "inbox")
    refused(folder)
    with_candidate(folder)
    found = Place(load_project(folder / "overproof.toml"))
    try:
        waits = {one.what: one.where for one in read_task(found, now=time.time()).waits}
    finally:
        found.close()
    assert waits["run r3 was refused"] == "gate"
    assert waits[f"release {CANDIDATE} waits for promotion"] == "rollout"


def test_the_page_shows_the_tasks_and_leads_to_what_waits(page, project_folder, bare) -> None:
    """In a browser: both tasks, the money with its interval, and a way from the card to the gate."""
    site = Site(project_folder, bare)
    try:
        page.goto(f"{site.url}/ui")
        walked, fresh = page.locator("section.card[aria-label='northlane-inbox']"), page.locator("section.card[aria-label='not-begun']")
        assert "95%" in walked.locator("dd", has_text="USD").first.inner_text()
        assert "not from bills" in walked.inner_text()
        assert "overproof run" in fresh.inner_text()
        assert "pass" not in (fresh.get_attribute("class") or "")
        walked.get_by_role("link", name="r2").click()
        page.wait_for_url("**/northlane-inbox/gate")
        for path in ("gate", "rollout"):
            assert get(f"{site.url}/ui/not-begun/{path}")[0] == 200
    finally:
        site.stop()
