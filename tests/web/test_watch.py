"""The monitoring page: figures as the watch has them, loud where it doesn't run, and decisions with name and reason."""

import shutil
from dataclasses import replace
from datetime import date, datetime

import pytest
from tests.web.conftest import Site, get

from overproof.data import Alarm, ExampleShown, Reading, Request, TrafficRecord
from overproof.measure.audited import Counted, Draw, audited_rate
from overproof.measure.monitor import AuditDay
from overproof.project import load_project
from overproof.serve.keys import Caller
from overproof.web import watch_model
from overproof.web.place import Place
from overproof.web.render import rendered
from overproof.web.view import Ask, Query
from overproof.web.views.watch import chart, watch
from overproof.web.watch_model import read_watch, running, sentence_of

TASK = "northlane-inbox"
AT = datetime.fromisoformat("2026-01-18T06:00:00+00:00").timestamp()
"""Some hours after the last pass of the walk."""


@pytest.fixture(scope="module")
def bare(northlane_folder, tmp_path_factory):
    """A project before its first import, served."""
    folder = tmp_path_factory.mktemp("bare") / "inbox"
    shutil.copytree(northlane_folder, folder, ignore=shutil.ignore_patterns(".overproof", "dossier"))
    site = Site(folder)
    site.folder = folder
    yield site
    site.stop()


def test_the_last_point_of_each_chart_is_the_figure_that_the_watch_itself_read(place):
    """The running interval is recomputed; where it ends, nothing may differ from the pass."""
    found = read_watch(place, now=AT)
    assert {one.reading.slice for one in found.errors} == {"", "english"}
    for one in found.errors:
        last = one.points[-1]
        assert (last.value, last.low, last.high, last.audits) == pytest.approx((one.reading.value, one.reading.low, one.reading.high, one.reading.n))
        assert last.day.isoformat() == one.reading.day
        assert all(point.low <= point.value <= point.high for point in one.points)


def test_a_point_is_what_was_known_on_its_day():
    """Each point is the interval of the days up to it, whatever came later; many days are thinned out, never the last."""
    days = tuple(Counted(row=AuditDay(day=date.fromordinal(730_000 + at), requests=40, audited=20, unlabelled=0, wrong_by_pi=((0.5, at % 3),)), draw=Draw(low=0.5, high=0.5)) for at in range(100))
    points = running(days)
    assert len(points) <= watch_model.POINTS
    assert points[-1].day == days[-1].row.day
    for point in points[::9]:
        upto = [day for day in days if day.row.day <= point.day]
        assert (point.value, point.low, point.high) == pytest.approx([getattr(audited_rate(upto, 0.05), name) for name in ("value", "low", "high")])


@pytest.mark.parametrize(("state", "high", "begins"), [
    ("quiet", 0.09, "Within its bar"), ("quiet", 0.2, "No alarm, and not shown"), ("not enough", 0.09, "Not enough data"), ("starved", 0.09, "Starved"), ("alarm", 0.3, "Too often"),
])  # fmt: skip
def test_quiet_reads_as_a_pass_only_where_the_whole_interval_lies_within_the_bar(state, high, begins):
    """No alarm is not the same as shown to be good."""
    reading = Reading(release_id="r", slice="", signal="disagreement", day="2026-01-01", value=0.05, low=0.02, high=high, reference=0.1, n=99, method="", state=state)
    assert sentence_of(reading).startswith(begins)
    assert sentence_of(replace(reading, value=None)).startswith("Not enough data")


def test_a_watch_that_has_not_run_for_two_days_is_loud_and_a_fresh_one_is_not(place):
    """Silence must not look like health."""
    assert not read_watch(place, now=AT).stale
    assert not read_watch(place, now=AT + 40 * 3600).stale
    assert read_watch(place, now=AT + 43 * 3600).stale


def test_escalations_add_up_to_the_log(place):
    """Every request through the gateway in the window is counted once, with its reason."""
    found = read_watch(place, now=AT).escalation
    first = found.days[0].day
    served = [one.served for one in place.store.traffic.read() if one.served is not None and one.request.at[:10] >= first]
    assert found.n == len(served)
    assert found.escalated == sum(one.route == "teacher" for one in served)
    assert found.low < found.escalated / found.n < found.high
    assert {reason: sum(day.reasons.get(reason, 0) for day in found.days) for reason in found.reasons} == {
        reason: sum(one.reason == reason for one in served) for reason in {one.reason for one in served if one.route == "teacher"}
    }


def test_no_time_left_leaves_charts_to_the_next_look(place, monkeypatch):
    """A page with many slices comes in time and says what is missing; the first chart is always there."""
    running.cache_clear()
    monkeypatch.setattr(watch_model, "BUDGET_S", -1.0)
    found = read_watch(place, now=AT)
    assert sorted((bool(one.points), one.waits) for one in found.errors) == [(False, True), (True, False)]
    for one in found.errors:
        assert len(chart(one)["steps"]) == len(one.points)


def test_before_anything_serves_the_page_says_what_to_do(bare):
    """No pass, no release, no traffic: three things to do, no failure."""
    status, _, html = get(f"{bare.url}/ui/{TASK}/watch")
    assert status == 200
    assert "Nothing is watched" in html
    assert "overproof serve" in html
    assert "· quiet" not in html


def test_a_log_that_was_only_imported_has_no_escalations_and_says_so(bare, tmp_path):
    """Nothing of it came through a gateway: no share, no interval, no pass."""
    folder = tmp_path / "imported"
    shutil.copytree(bare.folder, folder, ignore=shutil.ignore_patterns(".overproof"))
    place = Place(load_project(folder))
    place.store.traffic.append([TrafficRecord(request=Request(id=f"m{at}", fields={"text": "hello"}, at=f"2026-01-0{at + 1}T10:00:00+00:00")) for at in range(5)], "file")
    found = read_watch(place, now=AT)
    assert (found.escalation.n, found.escalation.low, found.escalation.high) == (0, 0.0, 1.0)
    assert found.errors == ()
    assert found.report is None
    assert not found.stale
    html = rendered_page(place)
    assert "No request came through the gateway" in html
    place.close()


def rendered_page(place):
    """The page's own words, without a server."""
    asked = Ask(places=(place,), params={"task": TASK}, query=Query(b""), caller=Caller(id="", scopes=frozenset({"read"})), now=AT)
    reply = watch(asked)
    frame = {"tasks": [TASK], "menu": [], "caller": None, "keyed": False, "token": "", "title": reply.title, "live": {}, "ask": asked, "now": AT, "here": "", "task": TASK}
    return rendered(reply.template, {**frame, **reply.values}).decode()


def test_who_may_not_decide_is_offered_no_form(place):
    """A key for reading sees what is open, and no button that would be refused."""
    html = rendered_page(place)
    assert "What asks for somebody" in html
    assert "data-send" not in html


def test_an_alarm_is_closed_and_a_trigger_dismissed_by_a_person_with_a_reason(page, site, place):
    """As `overproof watch --close` and `--dismiss`: both stand in the log of decisions under the name."""
    shown = ExampleShown(request_id="m0000", text="<img src=x onerror=alert(1)>", said="other", truth="complaint")
    alarm = Alarm(
        id="a1", task=TASK, release_id=place.serving(), slice="english", signal="disagreement", at="2026-01-17", since="2026-01-10", kind="page", value=0.4, low=0.3,
        high=0.5, reference=0.15, n=80, words="In slice 'english' <script>alert(1)</script> too often.", examples=(shown,),
    )  # fmt: skip
    place.store.watching.raise_alarm(alarm, at=AT)
    page.goto(f"{site.url}/ui/{TASK}/watch")
    assert "The watch has not run for" in page.locator("[role=alert].loud").inner_text()
    assert page.get_by_text("<img src=x onerror=alert(1)>").count() == 1
    page.locator("details summary", has_text="Close this alarm").click()
    form = page.locator("form[data-send$='/watch/close']")
    form.get_by_label("Your name").fill("Imre Sandoval")
    form.get_by_label("Reason").fill("the recall is over")
    form.get_by_role("button").click()
    page.get_by_role("button", name="Yes, do it").click()
    page.get_by_text("The alarm is closed").wait_for()
    before = len(place.store.watching.triggers(TASK))
    page.locator("details summary", has_text="Dismiss this trigger").first.click()
    form = page.locator("form[data-send$='/watch/dismiss']").first
    assert form.get_by_label("Your name").input_value() == "Imre Sandoval"
    form.get_by_label("Reason").fill("seen")
    form.get_by_role("button").click()
    page.get_by_role("button", name="Yes, do it").click()
    page.get_by_text("The trigger is dismissed").wait_for()
    assert place.store.watching.alarms(TASK) == []
    assert len(place.store.watching.triggers(TASK)) == before - 1
    said = {(one.kind, one.actor) for one in place.store.decisions.read()}
    assert ("alarm-closed", "Imre Sandoval") in said
    assert any(one.outcome == "Imre Sandoval: seen" for one in place.store.watching.triggers(TASK, open_only=False))


def test_a_hold_is_lifted_and_what_is_missing_or_gone_changes_nothing(page, site, place):
    """Without a reason nothing happens; a second closing is told."""
    place.store.watching.hold(TASK, by="watch", why="drift", cause="", at=AT)
    page.goto(f"{site.url}/ui/{TASK}/watch")
    posted = """async ([path, body]) => {
        const answer = await fetch(path, {method: "POST", headers: {"content-type": "application/json", "x-overproof-token": document.querySelector('meta[name="overproof-token"]').content}, body: JSON.stringify(body)});
        return [answer.status, await answer.json()];
    }"""
    assert page.evaluate(posted, [f"/ui/{TASK}/watch/unhold", {"by": "Ana", "why": " "}])[0] == 409
    assert len(place.store.watching.holds(TASK)) == 1
    assert page.evaluate(posted, [f"/ui/{TASK}/watch/unhold", {"by": "Ana", "why": "looked into it"}])[0] == 200
    assert place.store.watching.holds(TASK) == []
    for path, body in (("unhold", {}), ("close", {"alarm": "nobody"}), ("dismiss", {"trigger": "nobody"})):
        status, found = page.evaluate(posted, [f"/ui/{TASK}/watch/{path}", {**body, "by": "Ana", "why": "x"}])
        assert status == 409
        assert found["error"]["next"] == "load the page again"
