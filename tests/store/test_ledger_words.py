"""The label ledger at its limits: what it says when it stops, what it keeps, and to the millionth what it charges."""

import asyncio
import dataclasses

import pytest
from tests.store.test_store_labels import (
    PIN,
    PRICES,
    Bound,
    Script,
    ask,
    bad,
    ok,
    outcome,
    request,
    wrap,
)

from overproof.data import Completion
from overproof.errors import BudgetExceeded, OverproofError, PinMismatch, StoreError, TeacherError
from overproof.store.labels import SET_ASIDE, LedgerCounts, Rejected, Settlement, label_key
from overproof.store.money import Prices, to_micro
from overproof.store.pacing import Manners
from overproof.store.project_store import open_store

KEPT = "answers that are paid for are kept"


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path) as opened, opened.role("run"):
        opened.ledger.open_run("run-1", cap_usd=10.0)
        yield opened


def said(call) -> tuple[type[OverproofError], str, str]:
    with pytest.raises(OverproofError) as caught:
        call()
    return type(caught.value), caught.value.what, caught.value.next_action


def manners(**more) -> Manners:
    now = [1000.0]

    async def sleep(seconds):
        now[0] += seconds
        await asyncio.sleep(0)

    return Manners(**({"sleep": sleep, "clock": lambda: now[0]} | more))


def label(store, key="k", *, clearance="c", text="a", run_id="run-1", cost=600) -> None:
    number = store.ledger.reserve(key, run_id=run_id, max_micro=2_000)
    store.ledger.settle(Settlement(attempt=number, state="ok", cost_micro=cost, clearance_id=clearance, completion=ok(text).completion))


def transient(reason="HTTP 500", status=500, wait=None):
    return outcome("transient", reason=reason, status=status, wait=wait)


STOPS = {
    "prices": (
        {"prices": None}, [],
        (TeacherError, "the prices of 'm-1' are unknown, so no call can be kept under the cap", "add prices to [teacher]")),
    "outage": (
        {}, [transient()] * 6, (TeacherError, "the teacher 'm-1' doesn't answer: HTTP 500", f"run again later: {KEPT}")),
    "long-wait": (
        {}, [transient("slow", 429, wait=600.5)], (TeacherError, "the provider asks to wait 600 s: slow", f"run again then: {KEPT}")),
    "dearer-than-its-bound": (
        {}, [ok(cost_usd=0.002001)],
        (TeacherError, "a call cost $0.002001, more than its upper bound $0.002000: the cap can't be kept", "correct the prices and max_tokens in [teacher]")),
    "no-answer": (
        {}, [outcome("ok", completion=Completion(text="x", value=None, model="m-1"))],
        (TeacherError, "the teacher part says ok without an answer", "mend the part; see testing.teacher_conformance")),
    "no-completion": (
        {}, [outcome("ok")],
        (TeacherError, "the teacher part says ok without an answer", "mend the part; see testing.teacher_conformance")),
    "fatal": (
        {}, [outcome("fatal", reason="HTTP 401")],
        (TeacherError, "the teacher 'm-1' stopped the run: HTTP 401", f"mend [teacher] or the account, then run again: {KEPT}")),
    "another-model": (
        {}, [outcome("fatal", completion=dataclasses.replace(bad().completion, model="m-2"), reason="no")],
        (PinMismatch, "'m-2' answered, the project pins 'm-1': no",
         "pin the model that answers, or ask the provider; labels of two teachers are never mixed")),
    "another-system": (
        {}, [outcome("fatal", reason="fingerprint x")],
        (PinMismatch, "'m-1' answered, the project pins 'm-1': fingerprint x",
         "pin the model that answers, or ask the provider; labels of two teachers are never mixed")),
}  # fmt: skip


@pytest.mark.parametrize("case", STOPS)
def test_what_stops_a_run_says_why_and_what_to_do(case, store):
    """To the letter: the sum, the model, the next step."""
    change, answers, expected = STOPS[case]
    assert said(lambda: ask(wrap(store, Script(list(answers)), **change))) == expected


def test_a_free_teacher_that_stops_says_the_same(store):
    """A recording of another model is no recording of the pinned one."""
    stop = [outcome("fatal", reason="fingerprint x", sent=False)]
    assert said(lambda: ask(wrap(store, Script(stop, free=True))))[0] is PinMismatch


def test_a_full_ledger_says_what_is_spent_and_set_aside(store):
    """Three sums, and the setting or the purse that would have to grow; a ledger that nobody opened has none of them."""
    store.ledger.open_run("run-2", cap_usd=0.005)
    label(store, cost=600)
    store.ledger.reserve("l", run_id="run-2", max_micro=1_500)
    call = "the next call can cost $0.003000; of the cap of $0.01 $0.000600 is spent and $0.001500 set aside"
    assert said(lambda: store.ledger.reserve("m", run_id="run-2", max_micro=3_000)) == (
        BudgetExceeded, call, f"raise [teacher] budget_usd, then run again: {KEPT}")  # fmt: skip
    assert said(lambda: store.ledger.reserve("m", run_id="run-2@unknown", max_micro=1)) == (
        BudgetExceeded, "the next call can cost $0.000001; of the cap of $0.00 $0.000000 is spent and $0.000000 set aside",
        f"raise unknown, then run again: {KEPT}")  # fmt: skip
    store.ledger.reserve("m", run_id="run-2", max_micro=2_900)  # to the last millionth


def test_a_purse_is_kept_beside_the_cap(store):
    """A run with a purse fits in both; what is settled comes back to both, and what is lost is charged to both."""
    store.ledger.open_run("run-2@audits", cap_usd=10.0, purse_usd=0.0030009)
    number = store.ledger.reserve("k", run_id="run-2@audits", max_micro=2_000)
    assert said(lambda: store.ledger.reserve("l", run_id="run-2@audits", max_micro=1_001))[2].startswith("raise audits, then")
    store.ledger.settle(Settlement(attempt=number, state="bad", cost_micro=500, clearance_id="c"))
    held = "SELECT name, cap_micro, held_micro, spent_micro FROM budget ORDER BY name"
    assert store.ledger.rows(held) == [("audits", 3_000, 0, 500), ("teacher", 10_000_000, 0, 500)]
    store.ledger.reserve("l", run_id="run-2@audits", max_micro=2_500)
    store.ledger.reserve("m", run_id="run-2", max_micro=100)
    assert store.ledger.open_run("run-3", cap_usd=10.0) == 2
    assert store.ledger.rows(held) == [("audits", 3_000, 0, 3_000), ("teacher", 10_000_000, 0, 3_100)]
    store.ledger.open_run("run-4@empty", cap_usd=10.0)
    assert store.ledger.rows(f"{held.partition(' ORDER')[0]} WHERE name=?", ("empty",)) == [("empty", 0, 0, 0)]


def test_a_ledger_that_nobody_opened_is_empty(tmp_path):
    """No cap, nothing spent, and no call fits."""
    with open_store(tmp_path) as store, store.role("run"):
        assert store.ledger.counts() == LedgerCounts(labels=0, attempts={}, cap_usd=0.0, held_usd=0.0, spent_usd=0.0)
        assert store.ledger.spent_usd == 0.0
        assert store.ledger.could_fit(0) is False
        store.ledger.open_run("run-1", cap_usd=1.5)
        assert (store.ledger.could_fit(1_500_000), store.ledger.could_fit(1_500_001)) == (True, False)
        store.ledger.reserve("k", run_id="run-1", max_micro=250_000)
        label(store, cost=1_000)
        assert store.ledger.counts() == LedgerCounts(labels=1, attempts={"ok": 1, "reserved": 1}, cap_usd=1.5, held_usd=0.25, spent_usd=0.001)
        assert (store.ledger.could_fit(1_499_000), store.ledger.could_fit(1_499_001)) == (True, False)


def test_the_role_is_asked_for_by_name(tmp_path):
    """Who opens a ledger without it reads how."""
    with open_store(tmp_path) as store:
        assert said(lambda: store.ledger.open_run("run-1", cap_usd=1.0)) == (
            StoreError, "run 'run-1' doesn't hold the role 'run'", 'open the ledger inside `store.role("run")`')  # fmt: skip


def test_labels_under_a_clearance_that_is_not_honoured_are_set_aside(store):
    """They stay, say why they have no value, and are not bought again; without a word about clearances all count."""
    label(store, "k", clearance="c1", text="one")
    label(store, "l", clearance="c1", text="two")
    label(store, "m", clearance="c2", text="three")
    assert store.ledger.under() == {"c1": 2, "c2": 1}
    assert store.ledger.get("m").value == "three"
    store.ledger.honour(["c1"])
    assert store.ledger.get("k") == ok("one").completion
    assert store.ledger.get("m") == dataclasses.replace(ok("three").completion, text="", value=None, reason=SET_ASIDE)
    assert store.ledger.get("n") is None
    assert SET_ASIDE == "quarantined: bought under a clearance that no present terms record takes over"


def test_a_call_is_settled_once_and_as_what_it_was(store):
    """Twice is an error; ok without a value is one too, and leaves the call open."""
    number = store.ledger.reserve("k", run_id="run-1", max_micro=700)
    without = dataclasses.replace(ok().completion, value=None)
    for completion in (None, without):
        done = Settlement(attempt=number, state="ok", cost_micro=1, clearance_id="c", completion=completion)
        assert said(lambda done=done: store.ledger.settle(done)) == (StoreError, f"call {number} is settled as ok without an answer", "report this")
    assert store.ledger.counts().attempts == {"reserved": 1}
    done = Settlement(attempt=number, state="permanent", cost_micro=1, clearance_id="c")
    store.ledger.settle(done)
    assert said(lambda: store.ledger.settle(done)) == (StoreError, f"call {number} is not open", "run again")


def test_all_that_a_provider_said_of_a_call_is_on_record(store):
    """State, price, status, reason, model, fingerprint, its own id; the text of an answer that is no label, cut; half a surrogate pair breaks nothing."""
    odd = dataclasses.replace(bad("x" * 2_001).completion, model="m\ud800")
    answers = [outcome("bad", completion=odd, reason="no \ud800", status=200), ok()]
    ask(wrap(store, Script(answers)))
    seen = "SELECT state, cost_micro, http_status, reason, model, fingerprint, provider_request_id FROM attempt ORDER BY id"
    assert store.ledger.rows(seen) == [("bad", 600, 200, "no \\ud800", "m\\ud800", "fp", "q"), ("ok", 600, 200, "", "m-1", "fp", "q")]
    assert store.ledger.rows("SELECT answer FROM attempt WHERE state='ok'") == [(None,)]
    key = wrap(store, Script([])).key_of(request(), 0)
    kept = dataclasses.replace(odd, text="x" * 2_000, cost_usd=0.0006)
    assert store.ledger.rejected(key) == [Rejected(reason="no \\ud800", completion=kept)]
    assert store.ledger.get(key).text == "a"


def test_a_whole_answer_is_kept_however_long(store):
    """Only what is no label is cut."""
    assert ask(wrap(store, Script([ok("x" * 3_000)])))[0].text == "x" * 3_000


def test_answers_that_nobody_could_read_are_on_record_too(store):
    """Oldest first, without a text."""
    ask(wrap(store, Script([outcome("bad", reason="cut", status=200), bad(), outcome("bad", reason="last", status=200)])))
    key = wrap(store, Script([])).key_of(request(), 0)
    assert [(one.reason, one.completion is None) for one in store.ledger.rejected(key)] == [("cut", True), ("no label", False), ("last", True)]
    (again,) = ask(wrap(store, Script([])))
    assert again == Completion(text="", value=None, model="m-1", finish="error", reason="last")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (outcome("permanent", reason="gone"), Completion(text="", value=None, model="m-1", finish="error", reason="gone")),
        (outcome("permanent"), Completion(text="", value=None, model="m-1", finish="error", reason="no answer")),
        (outcome("bad", completion=ok().completion), dataclasses.replace(ok().completion, value=None, reason="not accepted")),
        (outcome("bad", completion=bad().completion), bad().completion),
        (outcome("bad", completion=bad().completion, reason="mine"), dataclasses.replace(bad().completion, reason="mine")),
        (outcome("ok"), Completion(text="", value=None, model="m-1", finish="error", reason="no answer")),
    ],
)
def test_a_dropped_row_has_no_value_and_a_reason(store, given, expected):
    """The provider's own where it gave one; what it did say is kept beside."""
    assert ask(wrap(store, Script([given], free=True))) == [expected]


def test_a_dropped_row_keeps_what_was_said_and_is_not_asked_again_in_this_run(store):
    """Neither one that was refused nor one that failed too often."""
    answers = [outcome("permanent", completion=bad("no").completion, reason="refused", status=400)]
    teacher = wrap(store, Script(answers))
    (first,) = ask(teacher)
    assert (first.text, first.value, first.reason) == ("no", None, "refused")
    assert ask(teacher) == [first]
    bads = wrap(store, Script([bad("one"), bad("two"), bad("three")]))
    assert [ask(bads, 2)[0].text for _ in range(2)] == ["three", "three"]


def test_a_row_that_outlived_its_tries_while_others_passed_is_asked_no_more(store):
    """Its reason counts the tries and names the last fault."""
    script = Script(lambda asked, *_: transient() if asked.id == "r1" else ok())
    teacher = wrap(store, script)

    async def go():
        await teacher.sample(request(99), n=1)  # what passed before says nothing of now
        slow = asyncio.create_task(teacher.sample(request(1), n=1))
        for i in range(2, 30):
            await teacher.sample(request(i), n=1)
        first = await slow
        return first, await teacher.sample(request(1), n=1)

    (first,), (again,) = asyncio.run(go())
    assert first == again
    assert first.reason == "6 tries failed, the last: HTTP 500"
    assert [asked for asked, _ in script.calls].count("r1") == 6


def hundred(at: int, *, bought=()):
    """Six of the requests fail for good, the last as number `at`."""
    fails = {*range(5), at - 1}
    return Script(lambda asked, *_: outcome("permanent", reason="HTTP 404", status=404) if int(asked.id[1:]) in fails else ok())


@pytest.mark.parametrize("resumed", [False, True])
def test_the_sixth_failure_stops_up_to_the_hundredth_row(store, resumed):
    """At the hundredth it does, at the hundred and first not; rows that an earlier run bought are counted like others."""

    def go(teacher, count, start=0):
        async def all_of():
            for i in range(start, count):
                await teacher.sample(request(i), n=1)

        asyncio.run(all_of())

    if resumed:
        go(wrap(store, hundred(101)), 60, start=5)
    expected = (TeacherError, "6 of the first 100 requests failed for good, the last: HTTP 404", "look at the prompt, the model's name and max_tokens in [teacher]")
    assert said(lambda: go(wrap(store, hundred(100)), 100)) == expected
    go(wrap(store, hundred(101)), 101)


def test_a_candidate_is_asked_once_and_its_failures_stop_nothing(store):
    """An answer that is no label is a baseline's own; no answer at all is still a reason to stop."""
    script = Script(lambda *_: bad())
    teacher = wrap(store, script, pace=manners(baseline=True))
    for i in range(8):
        assert ask(teacher, i)[0].value is None
    assert len(script.calls) == 8
    silent = wrap(store, Script(lambda *_: outcome("permanent", reason="HTTP 404", status=404)), pace=manners(baseline=True))
    for i in range(20, 25):
        assert ask(silent, i)[0].value is None
    with pytest.raises(TeacherError, match="6 of the first 6"):
        ask(silent, 25)
    again = Script([])
    assert ask(wrap(store, again, pace=manners(baseline=True)), 0)[0].reason == "no label"
    assert again.calls == []


def system(fingerprint, kind="ok"):
    return dataclasses.replace(ok() if kind == "ok" else bad(), fingerprint=fingerprint)


def test_another_system_behind_the_model_stops_a_run_that_asks_for_it(store):
    """The first fingerprint seen is the reference; answers without one and answers that are none say nothing."""
    answers = [system(None), system("a" * 90), system("b", "bad"), system("a" * 90), system(None), system("c" * 90)]
    teacher = wrap(store, Script(answers), pace=manners(stop_on_fingerprint=True))
    for i in range(4):
        assert ask(teacher, i)[0].value == "a"
    expected = (PinMismatch, f"'m-1' now answers with fingerprint {'c' * 80!r}; earlier labels have {'a' * 80!r}",
                'look at canary prompts, then label anew or set on_fingerprint = "report" in [teacher]')  # fmt: skip
    assert said(lambda: ask(teacher, 4)) == expected
    assert store.ledger.counts().labels == 5
    calm = wrap(store, Script([system("a"), system("b"), system("a")]), pace=manners())
    assert [ask(calm, i)[0].value for i in (10, 11, 12)] == ["a", "a", "a"]


def test_labels_of_an_earlier_run_name_the_system_to_compare_with(store):
    """A resumed run takes the reference from the first label that it finds."""
    first = ok()
    script = [dataclasses.replace(first, completion=dataclasses.replace(first.completion, fingerprint=name), fingerprint=name) for name in ("old", "old")]
    ask(wrap(store, Script(script)), 1)
    resumed = wrap(store, Script([system("new")]), pace=manners(stop_on_fingerprint=True))
    ask(resumed, 1)
    assert "earlier labels have 'old'" in said(lambda: ask(resumed, 2))[1]


def test_waits_grow_are_drawn_anew_and_never_undercut_what_is_asked(store):
    """From nothing to twice as long with each try; ten minutes to the second are waited for."""
    naps: list[list[float]] = [[] for _ in range(6)]
    for i in range(30):
        seen: list[float] = []
        ask(wrap(store, Script([*[transient()] * 5, ok()]), naps=seen), i)
        for k, nap in enumerate(seen):
            naps[k].append(nap)
    assert [max(tried) <= 0.5 * 2 ** (k + 1) for k, tried in enumerate(naps[:5])] == [True] * 5
    assert min(naps[0]) < 0.5
    assert max(naps[4]) > 8
    assert max(naps[2]) > 2
    waits: list[float] = []
    ask(wrap(store, Script([transient("slow", 429, wait=600.0), ok()]), naps=waits), 50)
    assert waits[0] == 600.0


@pytest.mark.parametrize(
    ("result", "own", "charged"),
    [
        (ok(tokens_in=7, tokens_out=3), False, 44),
        (ok(tokens_in=7, tokens_out=None), False, 3_000),
        (ok(tokens_in=7, tokens_out=3, cost_usd=0.5), True, 0),
        (outcome("permanent", status=300), False, 0),
        (outcome("permanent", status=299), False, 3_000),
        (outcome("permanent", completion=dataclasses.replace(bad().completion, tokens_in=None), status=400), False, 3_000),
        (outcome("permanent"), False, 3_000),
    ],
)
def test_a_call_costs_what_its_tokens_cost(store, result, own, charged):
    """Each token at its own price; a machine of one's own sends no bill; a refusal costs nothing unless an answer came."""
    ask(wrap(store, Script([result]), pace=manners(own_machine=own), prices=dataclasses.replace(PRICES, usd_per_million_in=2.0)))
    assert round(store.ledger.spent_usd * 1e6) == charged


def test_the_most_that_a_call_can_cost_takes_the_dearest_way_in(store):
    """A million tokens of each kind: the bound is exact, and what is set aside for it is the request's own."""

    class Large(Script):
        def worst_case_tokens(self, request):
            return Bound(tokens_in=3_000_000 if request.id == "r1" else 0, tokens_out=2_000_000)

    prices = Prices(usd_per_million_in=1.0, usd_per_million_out=0.25, usd_per_million_dearest=1.5)
    assert PRICES.usd_per_million_dearest == 0.0
    held = []

    def answer(asked, sample, recorded):
        held.append(store.ledger.counts().held_usd)
        return ok()

    ask(wrap(store, Large(answer), prices=prices), 1)
    ask(wrap(store, Large(answer), prices=dataclasses.replace(prices, usd_per_million_dearest=0.0)), 2)
    assert held == [5.0, 0.5]


def test_prices_are_counted_in_the_millionth_and_said_where_they_are_none():
    """Down for what is allowed; the noise of a binary fraction is not a millionth, a thousandth of one is."""
    assert said(lambda: to_micro(-0.1)) == (StoreError, "-0.1 is not a sum of money", "mend prices and budget_usd in [teacher]")
    assert (to_micro(0.0000019, up=False), to_micro(0.0000011)) == (1, 2)
    assert (to_micro(1.0000000004), to_micro(1.000000001), to_micro(0.0)) == (1_000_000, 1_000_001, 0)


def test_an_answer_is_asked_for_by_its_number(store):
    """`one` buys the answer with that number, of a free teacher too."""
    script = Script(lambda r, s, recorded: ok(f"answer {s} {recorded}"))
    teacher = wrap(store, script)
    assert asyncio.run(teacher.one(request(3), 2)).text == "answer 2 None"
    assert script.calls == [("r3", 2)]
    assert ask(teacher, 3, n=3)[2].text == "answer 2 None"
    assert asyncio.run(wrap(store, Script(script.answer, free=True)).one(request(3), 1)).text == "answer 1 None"


def test_labels_of_an_earlier_version_are_found(store):
    """The key of an answer is part of the file format: with another one everything would be bought again."""
    assert label_key(PIN, "out", request(1)) == label_key(PIN, "out", request(1), 0) == "89c0bf9b4839fe8fb0f596f0097953f09619e8a0fdb6cc57bc760f79159edc6b"
    assert wrap(store, Script([])).key_of(request(1), 0) == label_key(PIN, "", request(1), 0)


def test_a_teacher_that_limps_is_left_alone_and_says_what_is_bought(store):
    """Over half of a hundred calls failing for half a minute; refusals for the rate are no failures."""
    now = [0.0]

    async def sleep(seconds):
        now[0] += seconds

    calls = iter(range(10_000))

    def go(status):
        answers = Script(lambda *_: ok() if next(calls) % 3 == 0 else transient(f"HTTP {status}", status))
        teacher = wrap(store, answers, pace=Manners(sleep=sleep, clock=lambda: now[0]))
        for i in range(status * 1_000, status * 1_000 + 60):
            ask(teacher, i)

    go(429)
    kind, what, todo = said(lambda: go(503))
    counts = store.ledger.counts()
    assert kind is TeacherError
    assert what.startswith("the teacher 'm-1' limps: ")
    assert what.endswith(f"; {counts.labels:,} labels are kept and ${counts.spent_usd:.2f} is spent")
    assert todo == "run again later: it goes on where it stopped"


def test_what_the_account_allows_is_the_pace(store):
    """Sixty requests, or so many tokens, a minute: one call a second."""
    for allowed in ({"requests_per_minute": 60.0}, {"tokens_per_minute": 60.0 * 510}):
        now, naps = [0.0], []

        async def sleep(seconds, now=now, naps=naps):
            naps.append(seconds)
            now[0] += seconds

        teacher = wrap(store, Script(lambda *_: ok()), pace=Manners(sleep=sleep, clock=lambda now=now: now[0], **allowed))
        for i in range(4):
            ask(teacher, 100 * len(allowed) + i + (10 if "tokens_per_minute" in allowed else 0))
        assert now[0] > 1.9


def test_a_call_that_breaks_leaves_nobody_waiting(store):
    """A part that raises: the exception goes up, its reservation stays set aside, and the next call that doesn't fit is told so at once."""
    store.ledger.open_run("run-2", cap_usd=0.003)

    def answer(*_):
        raise RuntimeError("broken part")

    teacher = wrap(store, Script(answer))
    with pytest.raises(RuntimeError, match="broken part"):
        ask(teacher, 1)
    assert store.ledger.counts().held_usd == 0.002

    async def told():
        await asyncio.wait_for(teacher.sample(request(2), n=1), timeout=5)

    with pytest.raises(BudgetExceeded):
        asyncio.run(told())
