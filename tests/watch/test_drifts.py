import random
from dataclasses import replace
from datetime import date, timedelta

import pytest
from tests.watch.living import BEGIN, LABELS, MIX, Living, message, noon

from overproof.data import ALL, Request
from overproof.errors import StoreError
from overproof.steps.usual import GRAM, OWN, USUAL, UsualRecipe
from overproof.store.logs import TrafficLog
from overproof.watch.daybook import Daybook
from overproof.watch.drifts import look_for_drift
from overproof.watch.reference import reference_of

NEWS = ("Akku", "überhitzt", "heiß", "Gerät", "Rauch", "Ladekabel")


def look(one, day, **changed):
    project = replace(one.project, watch=replace(one.project.watch, **changed)) if changed else one.project
    return look_for_drift(one.store, project, one.release, now=noon(day))


@pytest.fixture
def live(tmp_path):
    made = Living(tmp_path)
    with made.store:
        yield made


def test_four_quiet_weeks_with_a_weekly_swing_page_nobody(live):
    """Every signal and slice is read, and nothing is said to have moved."""
    end = live.days(BEGIN, 28, 40)
    found = look(live, end)
    assert found.days_read == 28
    assert not found.alarms
    assert not found.examples
    assert {one.signal for one in found.readings} == {
        "far_share", "ngram_far_share", "slice_share", "label_share", "escalation", "confidence", "vocabulary", "clusters", "mmd_sketch",
    }  # fmt: skip
    assert {one.slice for one in found.readings} == {ALL, "english", "german"}
    assert {one.part for one in found.readings if one.signal == "label_share"} == set(LABELS)
    share = next(one for one in found.readings if one.signal == "slice_share" and one.slice == "german")
    assert share.low < share.value < share.high
    assert share.n > 1_000
    assert {one.state for one in found.readings} <= {"quiet", "not enough"}


def test_a_tenth_of_new_content_is_found_and_shown_as_its_messages(live):
    """After two quiet weeks one message in ten is about burning batteries: who sees it, since when, and the messages."""
    changed = live.days(BEGIN, 14, 60)
    end = live.days(changed, 14, 60, new=0.1, news=NEWS)
    found = look(live, end)
    words = [one for one in found.alarms if one.signal == "vocabulary"]
    assert {"akku", "ladekabel"} <= {key.removeprefix("vocabulary: ") for key in found.examples}
    assert words
    assert all(date.fromisoformat(one.since) >= changed for one in words)
    assert all(any(word.casefold() in example.text.casefold() for word in NEWS) for one in words for example in one.examples)
    far = [one for one in found.alarms if one.signal == "ngram_far_share" and one.slice == ALL]
    assert len(far) == 1
    assert far[0].value > 0.04 > far[0].reference
    assert str(changed) <= far[0].since <= far[0].at < str(end)
    assert far[0].examples
    assert all("nr" in one.text and one.said in LABELS for one in far[0].examples)
    shown = [example for key, some in found.examples.items() if key.startswith("clusters") for example in some]
    assert shown
    assert sum(any(word in example.text for word in NEWS) for example in shown) >= 0.8 * len(shown)


def test_a_label_whose_share_doubles_is_named(live):
    """Login goes from 20 to 40 %: the label is named, with both shares and messages that get it."""
    changed = live.days(BEGIN, 14, 60)
    end = live.days(changed, 21, 60, mix={**MIX, "login": 0.533})
    found = [one for one in look(live, end).alarms if one.signal == "label_share" and one.slice == ALL]
    assert "login" in {one.part for one in found}
    named = next(one for one in found if one.part == "login")
    assert "'login'" in named.words
    assert "rose" in named.words
    assert named.value == pytest.approx(0.4, abs=0.08)
    assert named.reference == pytest.approx(0.2, abs=0.05)
    assert {one.said for one in named.examples} == {"login"}


def test_a_slice_that_grows_is_named(live):
    """German goes from 30 to 75 % of the traffic; the slice says so, and English that it shrank."""
    changed = live.days(BEGIN, 14, 60)
    found = look(live, live.days(changed, 7, 60, german=0.75))
    moved = {one.slice: one.words for one in found.alarms if one.signal == "slice_share"}
    assert "rose" in moved["german"]
    assert "fell" in moved["english"]


def test_the_student_gives_away_more_and_the_reason_is_said(live):
    """Requests that it can't read are under its threshold: the share given away pages, confidence asks for audits."""
    changed = live.days(BEGIN, 7, 60)
    end = live.days(changed, 7, 60, new=0.4, news=("qxzj", "wvkq", "zzxq", "jqwx", "kxqz", "vwqj"))
    found = look(live, end)
    assert found.audit_more >= {ALL}
    away = [one for one in found.alarms if one.signal == "escalation"]
    assert not away or all("unsure" in one.words for one in away)
    reading = next(one for one in found.readings if one.signal == "confidence" and one.slice == ALL)
    assert reading.high < reading.reference
    assert reading.state == "quiet"


def test_a_second_look_reads_only_what_is_new_and_says_the_same(live, monkeypatch):
    """Closed days are read from the log once; the alarms keep their ids."""
    changed = live.days(BEGIN, 7, 40)
    end = live.days(changed, 7, 40, new=0.3, news=NEWS)
    spans = []
    between = TrafficLog.between
    monkeypatch.setattr(TrafficLog, "between", lambda self, start, stop: spans.append(start.date()) or between(self, start, stop))
    first = look(live, end)
    assert len(spans) == 14
    again = look(live, end)
    assert len(spans) == 14
    assert again.days_read == 0
    assert [one.id for one in again.alarms] == [one.id for one in first.alarms]
    assert again.readings == first.readings
    live.days(end, 1, 40, new=0.3, news=NEWS)
    later = look(live, end + timedelta(days=1))
    assert spans[14:] == [end]
    assert {one.id for one in first.alarms} <= {one.id for one in later.alarms}


def test_day_by_day_is_as_all_at_once(tmp_path):
    """Whoever looks each day sees in the end what one look at the end sees."""
    ends = []
    for name in ("daily", "once"):
        (tmp_path / name).mkdir()
        made = Living(tmp_path / name, seed=4)
        with made.store:
            day = BEGIN
            for _ in range(9):
                day = made.days(day, 1, 30, new=0.15, news=NEWS)
                if name == "daily":
                    look(made, day)
            ends.append(look(made, day))
    assert ends[0].readings == ends[1].readings
    assert ends[0].alarms == ends[1].alarms


def test_a_day_that_was_cut_off_is_read_again(live, monkeypatch):
    """A kill between two slices of a day leaves no half day behind."""
    end = live.days(BEGIN, 8, 40)
    whole = look(live, end)
    book_note, calls = Daybook._note, []

    def killed(self, *args):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        book_note(self, *args)

    with live.store._project_db.write() as connection:
        connection.execute("DELETE FROM drift_day")
    monkeypatch.setattr(Daybook, "_note", killed)
    with pytest.raises(KeyboardInterrupt):
        look(live, end)
    monkeypatch.setattr(Daybook, "_note", book_note)
    assert look(live, end).readings == whole.readings


def test_few_rows_are_not_enough_and_never_quiet(live):
    """Three days of eight requests: no share is called quiet."""
    found = look(live, live.days(BEGIN, 3, 8))
    assert {one.state for one in found.readings if one.signal != "confidence"} == {"not enough"}


def test_before_the_first_closed_day_nothing_is_said(live):
    """The day goes on: it is not read yet."""
    live.days(BEGIN, 1, 20)
    found = look(live, BEGIN)
    assert not found.readings
    assert "no closed day" in found.notes[0]


def test_rows_that_the_student_was_not_asked_about_count_by_what_it_would_say(live):
    """Teacher rows of the task count in shares; the student is asked about them now."""
    draw = random.Random(3)
    live.serve(BEGIN, [message(draw) for _ in range(40)])
    live.serve(BEGIN, [message(draw) for _ in range(60)], asked=False)
    reading = next(one for one in look(live, BEGIN + timedelta(days=1)).readings if one.signal == "label_share" and one.slice == ALL)
    assert reading.n == 100
    assert reading.value > 0.2


def test_one_conversation_counts_once_a_day(live):
    """Thirty requests of one session are one row."""
    draw = random.Random(3)
    live.serve(BEGIN, [message(draw) for _ in range(30)], session="s1")
    live.serve(BEGIN, [message(draw) for _ in range(10)])
    readings = look(live, BEGIN + timedelta(days=1)).readings
    assert {one.n for one in readings if one.signal == "escalation" and one.slice == ALL} == {11}


def test_signals_that_are_not_asked_for_are_not_read(live):
    """[watch] drift says which; the others share the false pages."""
    end = live.days(BEGIN, 3, 30)
    few, all_of_them = look(live, end, drift=("shares",)), look(live, end)
    assert {one.signal for one in few.readings} == {"slice_share", "label_share"}
    level = {name: next(one.level for one in found.readings if one.part == "login" and one.slice == ALL) for name, found in (("few", few), ("all", all_of_them))}
    assert level["few"] < level["all"]


def test_the_reference_is_the_prompt_set_of_the_releases_own_run(live):
    """Found by the verdict of the run; a release without one is refused with what to do."""
    found = reference_of(live.store, live.release)
    assert found.prompts == live.prompts
    assert found.run.headline == "h"
    assert found.bundle.answer({"text": "where is my parcel"}).guess == "delivery"
    with pytest.raises(StoreError, match="no result 'labels'"):
        found.artifact("labels")
    with pytest.raises(StoreError, match="no run of this project made"):
        reference_of(live.store, replace(live.release, id="brought"))


def test_the_reference_leaves_out_what_is_no_fair_draw(live):
    """Boosted and written rows are in no share; a linear student's rows are hashed n-grams."""
    rows = list(live.prompts.test)
    rows[0] = replace(rows[0], boost=("german",))
    rows[1] = replace(rows[1], origin="supplement")
    memo = live.store.memo()
    prompts = memo.source("prompts", replace(live.prompts, test=tuple(rows)))
    usual = memo.run(USUAL, prompts, memo.source("bundle", live.release.bundle), recipe=UsualRecipe()).value
    assert len(usual.held) == len(live.prompts.calibration) + len(live.prompts.test) - 2
    assert usual.vectors == GRAM
    assert usual.near_rows().shape == (len(live.prompts.train), usual.width)
    assert sum(one.rows for one in usual.words.values()) == len(live.prompts.train) + len(usual.held)
    assert 0.0 < sum(row.far for row in usual.held) / len(usual.held) < 0.2


def test_a_student_with_features_is_asked_for_them(tmp_path):
    """An encoder's own vectors are used, and are the same for one request as for many."""
    from tests.serve.packing import pack

    from overproof.students.bundle import load_bundle

    (tmp_path / "bundle").mkdir()
    pack(tmp_path / "bundle", "encoder")
    bundle = load_bundle(tmp_path / "bundle")
    rows = [Request(id=str(at), fields={"text": text}) for at, text in enumerate(["where is my parcel", "refund me", "I can't log in to my account"])]
    many, one = bundle.features(rows), bundle.features(rows[1:2])
    assert many.shape[0] == 3
    assert abs(many[1] - one[0]).max() < 1e-4
    assert OWN != GRAM
