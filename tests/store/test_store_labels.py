"""The label ledger: bought once, never over the cap, one layer of retries, nothing made up."""

import asyncio
import contextlib
import dataclasses
from dataclasses import dataclass

import pytest

from overproof.data import Completion, Outcome, Request, TeacherPin
from overproof.errors import BudgetExceeded, PinMismatch, StoreError, TeacherError
from overproof.store.labels import LabelLedger, LedgeredTeacher, Prices, Settlement, to_micro
from overproof.store.pacing import Manners
from overproof.store.project_store import open_store

PIN = TeacherPin(use="openai.v1", provider="p", model="m-1", revision="r", parameters={"temperature": 0}, prompt_digest="d")
PRICES = Prices(usd_per_million_in=1.0, usd_per_million_out=10.0)
MAX_MICRO = 1000 * 1 + 100 * 10  # of the bound below


@dataclass(frozen=True)
class Bound:
    tokens_in: int = 1000
    tokens_out: int = 100


def outcome(kind, *, completion=None, reason="", status=None, wait=None, sent=True):
    return Outcome(
        kind=kind, completion=completion, reason=reason, http_status=status, retry_after_s=wait, fingerprint="fp",
        request_id="q", sent=sent,
    )  # fmt: skip


def ok(text="a", **fields):
    answer = Completion(text=text, value=text, model="m-1", tokens_in=500, tokens_out=10)
    return outcome("ok", completion=dataclasses.replace(answer, **fields), status=200)


def bad(text="rubbish"):
    answer = Completion(text=text, value=None, model="m-1", tokens_in=500, tokens_out=10, reason="no label")
    return outcome("bad", completion=answer, reason="no label", status=200)


class Script:
    """A provider that answers from a list, or by a function of request and sample."""

    def __init__(self, answer, *, free=False, takes_s=0.0):
        self.answer = answer
        self.free = free
        self.takes_s = takes_s
        self.calls = []
        self.in_flight = 0
        self.most_in_flight = 0

    async def attempt(self, request, *, sample_index, recorded=None):
        self.calls.append((request.id, sample_index))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(self.takes_s)
        self.in_flight -= 1
        if callable(self.answer):
            return self.answer(request, sample_index, recorded)
        return self.answer.pop(0)

    def worst_case_tokens(self, request):
        return Bound()

    async def close(self):
        pass


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path) as opened, opened.role("run"):
        opened.ledger.open_run("run-1", cap_usd=10.0)
        yield opened


def request(number=1):
    return Request(id=f"r{number}", fields={"text": f"text {number}"})


def wrap(store, script, *, naps=None, **changes):
    now = [1000.0]

    async def sleep(seconds):
        if naps is not None:
            naps.append(seconds)
        due = now[0] + seconds
        await asyncio.sleep(0)
        now[0] = max(now[0], due)

    manners = Manners(sleep=sleep, clock=lambda: now[0])
    options = {"pin": PIN, "prices": PRICES, "clearance_id": "c", "run_id": "run-1", "pace": manners}
    return LedgeredTeacher(script, store.ledger, **{**options, **changes})


def ask(teacher, number=1, n=1):
    return asyncio.run(teacher.sample(request(number), n=n))


def test_an_answer_is_bought_once(store):
    """A second run asks nothing, pays nothing, and gets the same answer; what it cost is known."""
    script = Script([ok()])
    (first,) = ask(wrap(store, script))
    (second,) = ask(wrap(store, script))
    assert first == second
    assert (first.value, first.cost_usd) == ("a", 0.0006)
    assert len(script.calls) == 1
    counts = store.ledger.counts()
    assert (counts.labels, counts.held_usd, counts.spent_usd) == (1, 0.0, 0.0006)
    assert store.ledger.spent_usd == 0.0006


@pytest.mark.parametrize(
    "change",
    [
        {"pin": dataclasses.replace(PIN, model="m-2")},
        {"pin": dataclasses.replace(PIN, parameters={"temperature": 0.5})},
        {"pin": dataclasses.replace(PIN, base_url="https://elsewhere")},
        {"pin": dataclasses.replace(PIN, revision="r2")},
        {"pin": dataclasses.replace(PIN, prompt_digest="other")},
        {"output_digest": "more labels"},
    ],
)
def test_whatever_changes_the_answer_changes_the_key(store, change):
    """Another model, parameter, address, revision, prompt or label list never gets a cached answer."""
    base = wrap(store, Script([]))
    assert wrap(store, Script([]), **change).key_of(request(), 0) != base.key_of(request(), 0)


def test_samples_and_contents_have_keys_of_their_own_and_ids_do_not(store):
    """Each sample is bought apart; the same text under another id is the same question."""
    teacher = wrap(store, Script([]))
    keys = {teacher.key_of(request(i), s) for i in (1, 2) for s in (0, 1)}
    assert len(keys) == 4
    assert teacher.key_of(dataclasses.replace(request(1), id="other", at="2026-01-01"), 0) in keys


def test_more_samples_buy_only_the_new_ones(store):
    """Asking for three after one makes two further calls, in sample order."""
    script = Script(lambda r, s, _: ok(f"answer {s}"))
    teacher = wrap(store, script)
    ask(teacher)
    assert [c.text for c in ask(teacher, n=3)] == ["answer 0", "answer 1", "answer 2"]
    assert script.calls == [("r1", 0), ("r1", 1), ("r1", 2)]


def test_the_same_question_at_once_is_asked_once(store):
    """Twenty workers with one question make one call and all get its answer, also when one of them gives up."""
    script = Script([ok()], takes_s=0.05)
    teacher = wrap(store, script)

    async def go():
        tasks = [asyncio.create_task(teacher.sample(request(), n=1)) for _ in range(20)]
        await asyncio.sleep(0.02)
        tasks[0].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(go())
    assert isinstance(results[0], asyncio.CancelledError)
    assert all(r[0].value == "a" for r in results[1:])
    assert len(script.calls) == 1


def test_transient_faults_are_retried_with_growing_waits(store):
    """Five faults and an answer: six calls, waits never above the exponential bound, one label."""
    naps = []
    script = Script([outcome("transient", reason="HTTP 500", status=500)] * 5 + [ok()])
    (answer,) = ask(wrap(store, script, naps=naps))
    assert answer.value == "a"
    assert len(script.calls) == 6
    assert len(naps) == 5
    assert all(0 <= nap <= 0.5 * 2 ** (k + 1) for k, nap in enumerate(naps))
    assert store.ledger.counts().attempts == {"ok": 1, "transient": 5}


def test_retry_after_is_obeyed_by_every_worker(store):
    """What the provider asks one worker to wait, the next call of any worker waits for as well."""
    naps, now, one, two = [], [1000.0], asyncio.Event(), asyncio.Event()
    script = Script([outcome("transient", reason="429", status=429, wait=30.0), ok(), ok("b")])

    async def sleep(seconds):
        due = now[0] + seconds
        naps.append(seconds)
        (two if one.is_set() else one).set()
        if seconds > 1:
            await two.wait()  # time stands still until the other worker waits too
        now[0] = max(now[0], due)

    teacher = wrap(store, script, pace=Manners(sleep=sleep, clock=lambda: now[0]))

    async def go():
        first = asyncio.create_task(teacher.sample(request(1), n=1))
        await one.wait()
        await asyncio.wait_for(teacher.sample(request(2), n=1), timeout=10)
        await first

    asyncio.run(go())
    assert naps[0] == 30.0
    assert 25 < naps[1] <= 30.0


def test_an_absurd_retry_after_stops_the_run(store):
    """More than ten minutes is not waited for; the run stops and says so."""
    naps = []
    with pytest.raises(TeacherError, match="wait 86400 s"):
        ask(wrap(store, Script([outcome("transient", reason="429", status=429, wait=86400.0)]), naps=naps))
    assert naps == []


def test_an_outage_stops_the_run_and_drops_nothing(store):
    """Where nobody gets an answer, six tries end the run; the row is asked again next time, not dropped."""
    down = [outcome("transient", reason="HTTP 503", status=503)] * 6
    script = Script([*down, ok()])
    with pytest.raises(TeacherError, match="doesn't answer"):
        ask(wrap(store, script))
    assert len(script.calls) == 6
    assert ask(wrap(store, script))[0].value == "a"


def test_a_row_that_always_fails_while_others_pass_is_dropped(store):
    """A single row that the provider can't do is dropped with its reason, and doesn't stop the others."""

    def answer(asked, sample, _):
        return outcome("transient", reason="HTTP 500", status=500) if asked.id == "r1" else ok()

    teacher = wrap(store, Script(answer))

    async def go():
        slow = asyncio.create_task(teacher.sample(request(1), n=1))
        for i in range(2, 30):
            await teacher.sample(request(i), n=1)
        return await slow

    ((dropped,), labels) = (asyncio.run(go()), store.ledger.counts().labels)
    assert dropped.value is None
    assert "6 tries failed" in dropped.reason
    assert labels == 28


def test_a_bad_answer_is_tried_thrice_and_never_becomes_a_label(store):
    """Three unacceptable answers drop the row with a reason; a later run doesn't pay for it again."""
    script = Script([bad(), bad(), bad()])
    (dropped,) = ask(wrap(store, script))
    assert (dropped.value, dropped.reason) == (None, "no label")
    assert store.ledger.counts().labels == 0
    assert store.ledger.counts().attempts == {"bad": 3}
    assert store.ledger.spent_usd == pytest.approx(3 * 0.0006)
    (again,) = ask(wrap(store, script))
    assert again == dropped
    assert (again.text, again.reason) == ("rubbish", "no label")
    assert len(script.calls) == 3


def test_a_bad_answer_may_be_followed_by_a_good_one(store):
    """The second try counts where the first was not accepted, and both are paid for."""
    (answer,) = ask(wrap(store, Script([bad(), ok()])))
    assert answer.value == "a"
    assert store.ledger.spent_usd == pytest.approx(2 * 0.0006)


def test_a_permanent_refusal_drops_the_row_at_once(store):
    """One call, nothing charged, the reason kept."""
    script = Script([outcome("permanent", reason="HTTP 400", status=400)])
    (dropped,) = ask(wrap(store, script), n=1)
    assert (dropped.value, dropped.reason) == (None, "HTTP 400")
    assert len(script.calls) == 1
    assert store.ledger.spent_usd == 0


def test_many_refusals_at_the_start_stop_the_run(store):
    """When over five of the first hundred rows are refused, the request is wrong and the run stops."""
    script = Script(lambda *_: outcome("permanent", reason="HTTP 404", status=404))
    teacher = wrap(store, script)

    async def go():
        for i in range(100):
            await teacher.sample(request(i), n=1)

    with pytest.raises(TeacherError, match="6 of the first 6"):
        asyncio.run(go())


def test_rows_that_an_earlier_run_dropped_do_not_stop_a_resumed_one(store):
    """Ten rows dropped among two hundred, then a resume: it asks nothing again and goes through."""

    def answer(asked, sample, _):
        return bad() if int(asked.id[1:]) % 20 == 19 else ok()

    async def go(teacher):
        return [(await teacher.sample(request(i), n=1))[0].value for i in range(200)]

    script = Script(answer)
    first = asyncio.run(go(wrap(store, script)))
    calls = len(script.calls)
    assert asyncio.run(go(wrap(store, script))) == first
    assert first.count(None) == 10
    assert calls == 190 + 30
    assert len(script.calls) == calls


def test_a_fatal_answer_stops_the_run(store):
    """Refused credentials stop everything after one call, with exit code 4."""
    script = Script([outcome("fatal", reason="HTTP 401", status=401)])
    with pytest.raises(TeacherError, match="HTTP 401") as error:
        ask(wrap(store, script))
    assert error.value.exit_code == 4
    assert len(script.calls) == 1
    assert store.ledger.spent_usd == 0


def test_another_model_than_the_pinned_one_halts(store):
    """An answer of another model raises PinMismatch, is paid for, and is no label."""
    foreign = dataclasses.replace(bad().completion, model="m-2", value=None)
    script = Script([outcome("fatal", completion=foreign, reason="model m-2", status=200)])
    with pytest.raises(PinMismatch, match="'m-2' answered"):
        ask(wrap(store, script))
    assert store.ledger.counts().labels == 0
    assert store.ledger.spent_usd == pytest.approx(0.0006)


def test_no_call_is_made_without_prices_or_without_a_cap(tmp_path, store):
    """Unknown prices, an unknown cap and a ledger that was never opened each mean no call."""
    script = Script([ok()])
    with pytest.raises(TeacherError, match="prices") as error:
        ask(wrap(store, script, prices=None))
    assert error.value.next_action == "add prices to [teacher]"
    store.ledger.open_run("run-2", cap_usd=None)
    with pytest.raises(BudgetExceeded, match=r"cap of \$0\.00"):
        ask(wrap(store, script))
    (tmp_path / "other").mkdir()
    with open_store(tmp_path / "other") as other, pytest.raises(BudgetExceeded):
        ask(wrap(other, script))
    assert script.calls == []


def test_the_cap_is_never_passed(store):
    """Calls stop at the cap: what is spent and set aside is never more, and what is paid for is kept."""
    store.ledger.open_run("run-2", cap_usd=0.01)
    script = Script(lambda *_: ok(), takes_s=0.002)
    teacher = wrap(store, script)

    async def go():
        return await asyncio.gather(*(teacher.sample(request(i), n=1) for i in range(40)), return_exceptions=True)

    results = asyncio.run(go())
    stopped = [r for r in results if isinstance(r, BudgetExceeded)]
    counts = store.ledger.counts()
    # a call costs 600 and sets 2,000 aside: of 10,000 the last call may begin at 8,000 at most
    assert counts.labels == 14
    assert len(stopped) == 26
    assert counts.spent_usd == pytest.approx(0.0084)
    assert script.most_in_flight <= 5
    store.ledger.open_run("run-3", cap_usd=1.0)
    asyncio.run(go())
    assert store.ledger.counts().labels == 40


@pytest.mark.parametrize(
    ("result", "charged"),
    [
        (ok(), 600),
        (ok(tokens_in=None), MAX_MICRO),
        (ok(cost_usd=0.000001), 1),
        (outcome("transient", reason="no connection", sent=False), 0),
        (outcome("transient", reason="deadline"), MAX_MICRO),
        (outcome("transient", reason="HTTP 500", status=500), 0),
        (outcome("bad", reason="body cut", status=200), MAX_MICRO),
    ],
)
def test_what_nobody_can_know_is_charged_at_the_maximum(store, result, charged):
    """A call that may have been billed costs its upper bound; one that can't have been costs nothing."""
    script = Script([result, *[outcome("fatal", reason="stop", sent=False)]])
    with contextlib.suppress(TeacherError):
        ask(wrap(store, script))
    assert to_micro(store.ledger.spent_usd) == charged


def test_a_call_that_costs_more_than_its_bound_is_recorded_and_stops_the_run(store):
    """The bound was none: the true cost is booked, then nothing more is asked."""
    with pytest.raises(TeacherError, match="more than its upper bound"):
        ask(wrap(store, Script([ok(cost_usd=0.5)])))
    assert store.ledger.spent_usd == 0.5
    assert store.ledger.counts().labels == 1


def test_calls_in_flight_at_a_crash_are_lost_and_charged(store):
    """Reservations that nobody settled become lost at the next opening, at their maximum, and can't be settled later."""
    number = store.ledger.reserve("k", run_id="run-1", max_micro=700)
    store.ledger.reserve("l", run_id="run-1", max_micro=300)
    assert store.ledger.counts().held_usd == 0.001
    assert store.ledger.open_run("run-2", cap_usd=10.0) == 2
    counts = store.ledger.counts()
    assert (counts.held_usd, counts.spent_usd, counts.attempts) == (0.0, 0.001, {"lost": 2})
    with pytest.raises(StoreError, match="not open"):
        store.ledger.settle(Settlement(attempt=number, state="ok", cost_micro=1, clearance_id="c", completion=ok().completion))
    assert store.ledger.counts().labels == 0
    assert store.ledger.spent_usd == 0.001


def test_the_ledger_opens_only_under_the_role(tmp_path):
    """Without the role nobody may declare another process's calls lost."""
    with open_store(tmp_path) as store, pytest.raises(StoreError, match="role 'run'"):
        store.ledger.open_run("run-1", cap_usd=1.0)


def test_an_answer_without_a_value_is_never_settled_as_a_label(store):
    """A teacher part that says ok without a parsed answer is stopped, and no label appears."""
    broken = outcome("ok", completion=Completion(text="x", value=None, model="m-1"), status=200)
    with pytest.raises(TeacherError, match="ok without an answer"):
        ask(wrap(store, Script([broken])))
    assert store.ledger.counts().labels == 0


def test_a_free_teacher_passes_through(store):
    """A replay is neither cached nor charged, sees what the log holds, and its failures keep their reasons."""

    def answer(asked, sample, recorded):
        return ok(recorded.text) if sample == 0 else outcome("permanent", reason="not in the recording", sent=False)

    teacher = wrap(store, Script(answer, free=True), prices=None)
    recorded = Completion(text="from the log", value=None, model="m")
    first, second = asyncio.run(teacher.sample(request(), n=2, recorded=recorded))
    assert first.value == "from the log"
    assert (second.value, second.reason, second.text) == (None, "not in the recording", "")
    assert store.ledger.counts().attempts == {}


def test_a_teacher_outlives_its_event_loop(store):
    """The same wrapped teacher works in a second event loop, as notebooks do."""
    teacher = wrap(store, Script(lambda *_: ok()))
    assert ask(teacher, 1)[0].value == "a"
    assert ask(teacher, 2)[0].value == "a"


def test_labels_per_second(store):
    """Reserving and settling keeps up with 200 labels a second at 16 in flight; here with 100 a second of processor time, machines differ."""
    import time

    teacher = wrap(store, Script(lambda *_: ok()))
    todo = iter(range(600))

    async def work():
        for number in todo:
            await teacher.sample(request(number), n=1)

    async def go():
        await asyncio.gather(*(work() for _ in range(16)))

    began = time.process_time()
    asyncio.run(go())
    rate = 600 / (time.process_time() - began)
    assert store.ledger.counts().labels == 600
    assert rate > 100, f"{rate:.0f} labels/s"


@pytest.mark.parametrize(("usd", "micro"), [(0.0, 0), (1e-7, 1), (0.000003, 3), (0.1 + 0.2, 300000), (1.0000005, 1000001)])
def test_charges_are_rounded_up_to_millionths(usd, micro):
    """Charges never round to less, and the noise of binary fractions costs nothing."""
    assert to_micro(usd) == micro


@pytest.mark.parametrize("usd", [-0.1, float("nan"), float("inf")])
def test_sums_that_are_none_are_refused(usd):
    """Negative, infinite and NaN prices are refused."""
    with pytest.raises(StoreError):
        to_micro(usd)


def test_one_failing_change_does_not_undo_the_others(store):
    """In a shared commit each change stands for itself: one fails alone, the others are durable."""
    ledger: LabelLedger = store.ledger

    async def go():
        def fail(connection):
            connection.execute("INSERT INTO budget VALUES('half', 1, 0, 0)")
            raise KeyError("mine")

        def insert(name):
            return lambda c: c.execute("INSERT INTO budget VALUES(?, 1, 0, 0)", (name,))

        return await asyncio.gather(
            ledger.group.write(insert("x")), ledger.group.write(fail), ledger.group.write(insert("y")), return_exceptions=True
        )

    results = asyncio.run(go())
    assert isinstance(results[1], KeyError)
    assert not isinstance(results[0], Exception)
    assert [r[0] for r in ledger._db.rows("SELECT name FROM budget WHERE cap_micro=1 ORDER BY name")] == ["x", "y"]


def test_a_provider_that_fails_in_a_tenth_of_all_requests(store):
    """
    Over real HTTP with 10 % faults: every row gets the right label, no unacceptable answer becomes one, wire requests
    for each label stay within 1.15, and the books never show less than the bill.
    """
    from overproof.task import Classes, Task
    from overproof.teachers.openai import OpenAIOptions, OpenAITeacher
    from overproof.testing import MODEL, Faults, FaultTeacher, hashed_labels

    labels = ("billing", "bug", "other")
    answer = hashed_labels(labels)
    task = Task(name="t", input=("text",), output=Classes(labels=labels), prompt="Name the label.")
    rates = {"429": 0.05, "500": 0.03, "cut": 0.01, "bad_json": 0.005, "length": 0.005}
    with FaultTeacher(answer, faults=Faults(rates=rates, retry_after_s=0.01, seed=3)) as server:
        options = OpenAIOptions(model=MODEL, base_url=server.base_url, api_key_env=None, allow_private=True, timeout_s=5)
        pin = dataclasses.replace(PIN, model=MODEL)
        teacher = wrap(store, OpenAITeacher(task=task, options=options), pin=pin)
        todo = iter(range(1000))
        got = {}

        async def work():
            for number in todo:
                (got[number],) = await teacher.sample(request(number), n=1)

        async def go():
            await asyncio.gather(*(work() for _ in range(16)))
            await teacher.close()

        asyncio.run(go())
        stats = server.stats
    assert {n: c.value for n, c in got.items()} == {n: answer(f"text {n}") for n in range(1000)}
    counts = store.ledger.counts()
    assert counts.labels == 1000
    assert sum(counts.attempts.values()) == stats.wire
    assert stats.wire / 1000 <= 1.15
    assert counts.held_usd == 0
    cheapest = min(c.cost_usd for c in got.values())
    assert counts.spent_usd >= stats.billed * cheapest
