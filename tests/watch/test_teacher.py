"""The teacher as the watch sees it: real rounds through the real ledger, its names, and the day on which it ends."""

from dataclasses import replace

import pytest
from tests.watch.worlds import LABELS, MODEL, START, after, live, write_project, write_terms

from overproof.asking import terms_of
from overproof.data import Answered, Answers, Completion, PromptRow, Repeat, Request
from overproof.data.answers import Asking
from overproof.errors import TermsError
from overproof.project import load_project
from overproof.store.logs import AnsweredBy
from overproof.store.project_store import open_store
from overproof.testing import Faults, hashed_labels
from overproof.testing_batch import BatchProvider
from overproof.watch.teacher import REFERENCE_ROUNDS, chosen, renamed, watch_teacher

SAME = hashed_labels(LABELS)


def turned(text: str) -> str:
    """The same answers but on three prompts of thirty."""
    other = {"billing": "bug", "bug": "safety", "safety": "billing"}
    return other[SAME(text)] if text.rsplit(" ", 1)[-1] in ("3", "11", "27") else SAME(text)


class World:
    """One project, a provider, and a store that stays open."""

    def __init__(self, root, provider, n=30, **project):
        self.provider = provider
        self.root = root
        self.project = write_project(root, url=provider.base_url, canaries=n, **project)

    def look(self, store, days):
        return watch_teacher(store, self.project, release=None, now=after(days))


@pytest.fixture
def world(tmp_path):
    with BatchProvider(SAME, model=MODEL) as provider:
        yield World(tmp_path, provider)


def test_a_teacher_that_changed_a_little_is_seen_and_one_that_did_not_is_left_alone(world) -> None:
    """Ten reference rounds, quiet days, then three answers of thirty change: seen within a week, named since the day, told once."""
    with open_store(world.root) as store:
        first = world.look(store, 0)
        assert (first.rounds, first.asked, first.alarms) == (REFERENCE_ROUNDS, 300, ())
        assert (world.look(store, 0.2).asked, world.provider.stats.wire) == (0, 300)  # not due
        quiet = [world.look(store, day) for day in range(1, 6)]
        assert [(one.asked, one.alarms, one.readings[-1].state) for one in quiet] == [(30, (), "quiet")] * 5
        assert (quiet[-1].readings[-1].value, quiet[-1].readings[-1].n) == (0.0, 30)
        world.provider._answer = turned
        seen = [world.look(store, day) for day in range(6, 12)]
        at = next(i for i, one in enumerate(seen) if one.alarms)
        assert at <= 5
        (alarm,) = seen[at].alarms
        assert (alarm.signal, alarm.since, alarm.value, alarm.n) == ("canaries", after(6).date().isoformat(), 0.1, 30)
        assert "3 of 30" in alarm.words
        assert {one.id for later in seen[at:] for one in later.alarms} == {alarm.id}
        assert [one.id for one in store.watching.alarms("routing")] == [alarm.id]
        store.watching.close_alarm(alarm.id, by="Dana", why="labels are made anew", at=after(11.5).timestamp())
        again = world.look(store, 12)  # the answers as they are now become the reference
        assert again.alarms == ()
        assert "1 of 10 reference rounds" in " ".join(again.notes)


def test_many_changed_answers_are_seen_in_one_round(world) -> None:
    """A third of the answers at once is no matter of patience."""
    with open_store(world.root) as store:
        world.look(store, 0)
        other = hashed_labels(LABELS[::-1])
        world.provider._answer = other
        (alarm,) = world.look(store, 1).alarms
        assert alarm.since == after(1).date().isoformat()


def test_money_and_outages_make_a_round_wait_and_are_said(tmp_path) -> None:
    """The month's cap stops before it is passed; a round cut short goes on where it stopped, and buys nothing twice."""
    with BatchProvider(SAME, model=MODEL) as provider, open_store(tmp_path) as store:
        world = World(tmp_path, provider, n=12, watch="usd_per_month = 0.002")
        found = world.look(store, 0)
        assert 0 < found.rounds < REFERENCE_ROUNDS
        assert 0 < found.spent_usd <= 0.002
        assert "the canary round waits" in " ".join(found.notes)
        assert "reference rounds are there" in " ".join(found.notes)
        rounds = found.rounds
        bought = provider.stats.wire
        next_month = world.look(store, 31)
        assert next_month.rounds > rounds
        assert bought < provider.stats.wire <= bought + 12 * (next_month.rounds - rounds)
        with store.role("run"):
            busy = world.look(store, 62)
        assert (busy.asked, "waits: another" in " ".join(busy.notes)) == (0, True)
        provider.faults = Faults(rates={"401": 1.0})
        refused = world.look(store, 62)
        assert (refused.asked, "waits: the teacher" in " ".join(refused.notes)) == (0, True)


def test_nothing_is_asked_without_permission_or_of_a_recording_or_when_off(world) -> None:
    """Each time the reason is said, or the owner has said it."""
    with open_store(world.root) as store:
        write_terms(world.root, url=world.provider.base_url, expires="2031-01-01")
        barred = world.look(store, 0)
        assert "no canary prompt is asked" in barred.notes[0]
        write_terms(world.root, url=world.provider.base_url)
        off = watch_teacher(store, replace(world.project, watch=replace(world.project.watch, canaries="off")), release=None, now=START)
        recorded = replace(world.project, teacher=replace(world.project.teacher, use="recorded.v1"))
        assert (off.asked, off.readings) == (0, ())
        assert watch_teacher(store, recorded, release=None, now=START).asked == 0
        assert world.provider.stats.wire == 0


def test_a_new_fingerprint_is_told_at_once_with_both_and_since_when(world) -> None:
    """In labels and in the gateway's log, each by itself; the same news is told once."""
    world = World(world.root, world.provider, n=12)
    with open_store(world.root) as store:
        world.provider.system = "fp-a"
        world.look(store, 0)
        world.provider.system = "fp-b"
        (alarm,) = world.look(store, 1).alarms
        assert alarm.words == f"labels: the teacher answers with fingerprint 'fp-b' since {after(1).date()}; before with 'fp-a'"
        store.traffic.append([live(1, mark="fp-x", at=after(1)), live(2, mark="fp-x", at=after(1.5)), live(3, mark="fp-y", at=after(2)),
                              live(4, route="student", mark="fp-z", at=after(2))], "gateway")  # fmt: skip
        found = world.look(store, 2.1).alarms
        assert ["fp-y" in one.words and "fp-x" in one.words for one in found if "the gateway" in one.words] == [True]
        assert after(2).isoformat()[:16] in found[-1].words
        store.watching.close_alarm(alarm.id, by="Dana", why="known", at=after(2).timestamp())
        assert [one.id for one in world.look(store, 2.2).alarms] == [found[-1].id]


def test_each_new_name_is_one_alarm_and_silence_is_none() -> None:
    """A provider that names no fingerprint changes nothing; going back to an earlier name is no news."""
    rows = [AnsweredBy(since=f"2031-03-0{i}", model=model, fingerprint=mark)
            for i, (model, mark) in enumerate([("m", ""), ("m", "a"), ("m", ""), ("n", "a"), ("m", "b"), ("m", "a")], 1)]  # fmt: skip
    words = [one.words for one in renamed("t", None, rows, source="labels")]
    assert len(words) == 2
    assert "model 'n' since 2031-03-04; before with 'm'" in words[0]
    assert "fingerprint 'b' since 2031-03-05; before with 'a'" in words[1]


def answers(n=80, *, disputed=range(40, 60), wavered=0) -> Answers:
    def one(i):
        said = ["bug", "billing"] if i in disputed else ["bug", "bug"]
        done = tuple(Completion(text=value, value=value, model=MODEL) for value in said)
        return Answered(row=PromptRow(request=Request(id=f"p{i}", fields={"text": f"canary {i}"}), weight=1.0, group=str(i)), completions=done)
    repeats = tuple(Repeat(request_id=f"z{i}", first="a", second="b" if i < wavered else "a") for i in range(100))
    return Answers(train=tuple(map(one, range(n))), calibration=(), test=(), pin=None, clearance_id="", spent_usd=0.0, asking=Asking(repeats=repeats))


def test_canaries_out_of_the_prompt_set_are_half_drawn_and_half_disputed() -> None:
    """The same draw each time; only training rows; too few rows give none."""
    found = chosen(answers(), salt="r1")
    assert (found.drawn, found.repeated) == (25, 100)
    drawn, rest = found.prompts[:25], found.prompts[25:]
    assert {int(one.id[1:]) for one in rest} == set(range(40, 60)) - {int(one.id[1:]) for one in drawn}
    assert found == chosen(answers(), salt="r1")
    assert found.digest != chosen(answers(), salt="r2").digest
    assert chosen(answers(9, disputed=()), salt="r1") is None


@pytest.mark.parametrize(("changed", "alarms"), [(0, 0), (1, 0), (12, 1)])
def test_answers_that_are_not_the_labels_are_seen_in_the_first_rounds(world, monkeypatch, changed, alarms) -> None:
    """A teacher that changed between labelling and the first round: the agreement with its labels says so."""
    labels = answers(30, disputed=())
    labels = replace(labels, train=tuple(
        replace(one, completions=(replace(one.completions[0], value=SAME(f"canary {i}")),)) for i, one in enumerate(labels.train)
    ))  # fmt: skip
    monkeypatch.setattr("overproof.watch.teacher.REFERENCE_ROUNDS", 1)  # the first round is what it is about
    canaries = chosen(labels, salt="x")
    turned_rows = {one.text for one in canaries.prompts[:changed]}
    world.provider._answer = lambda text: next((("bug" if SAME(one) != "bug" else "safety") for one in turned_rows if text.endswith(one)), SAME(text))
    monkeypatch.setattr("overproof.watch.teacher.canaries_of", lambda *_: canaries)
    with open_store(world.root) as store:
        found = world.look(store, 0)
        (reading,) = [one for one in found.readings if one.signal == "teacher_agreement"]
        assert (reading.n, round(reading.value * 25), reading.reference) == (25, 25 - changed, 1.0)
        assert reading.low < reading.value
        assert [one.signal for one in found.alarms] == ["teacher_agreement"] * alarms


def test_an_end_of_life_counts_down_and_names_its_source(world) -> None:
    """Silent before the warning, counted inside it, past on the day after; a date without a source is refused."""
    world.project = replace(world.project, watch=replace(world.project.watch, canaries="off"))
    with open_store(world.root) as store:
        assert world.look(store, 0).ends == ()
        write_terms(world.root, url=world.provider.base_url, ends='ends = 2031-06-01\nends_source = "the provider\'s page of 2031-02-01"')
        warned = {day: [(one.days_left, one.warn) for one in world.look(store, day).ends] for day in (0, 32, 92, 93)}
        assert warned == {0: [(92, False)], 32: [(60, True)], 92: [(0, True)], 93: [(-1, True)]}
        assert "ended on 2031-06-01 (the provider's page" in " ".join(world.look(store, 94).notes)
    write_terms(world.root, ends="ends = 2031-06-01")
    with pytest.raises(TermsError, match="ends_source"):
        terms_of(load_project(world.root))
