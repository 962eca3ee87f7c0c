"""The student in process: every request gets the student's own answer or a fault, whatever the student does."""

import asyncio
import math
import threading
import time
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serve.packing import LABELS, ROWS, pack

from overproof.data import Request
from overproof.evidence import Calibrator, ScopeRule
from overproof.serve.breaker import IN_A_ROW, Breaker, Trailing
from overproof.serve.pool import Pool
from overproof.students.bundle import load_bundle
from overproof.students.runtimes import RUNTIMES, why_not
from overproof.students.seen import Batching

TEXTS = [text for _, text in ROWS] + ["zzz", "", "merci", "where is my invoice, " * 30]
TIERS = [{}, {"tier": "plus"}, {"language": "fr"}]


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "linear"
    pack(folder)
    return load_bundle(folder)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "encoder"
    pack(folder, "encoder", scope=(ScopeRule(score="nearest_10", threshold=0.6),))
    return load_bundle(folder, streams=2)


def exported(name, root):
    if why_not(RUNTIMES[name]):
        pytest.skip(why_not(RUNTIMES[name]))
    pack(root / name, "encoder", runtime=name)
    return load_bundle(root / name, streams=2)


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    return exported("onnx-blocks8", tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def openvino(tmp_path_factory):
    return exported("openvino-int8", tmp_path_factory.mktemp("bundles"))


def alike(one, other, within):
    """The same answer, its confidence but for the last digits; the reason's figures follow the confidence."""
    if within == 0:
        return one == other
    plain = [replace(answer, confidence=0.0, reason="") for answer in (one, other)]
    return plain[0] == plain[1] and abs(one.confidence - other.confidence) <= within


ASKED = st.lists(st.tuples(st.sampled_from(TEXTS), st.sampled_from(TIERS)), max_size=40)


@pytest.mark.parametrize(("name", "within"), [("linear", 0), ("encoder", 1e-5), ("blocks", 0), ("openvino", 0)])
def test_a_batch_is_answered_as_one_by_one(name, within, request):
    """`answers` gives what `answer` gives for each, for linear and encoder students; rounded ones to the last bit."""
    bundle = request.getfixturevalue(name)
    singles = {(text, repr(tier)): bundle.answer({"text": text}, tier) for text in TEXTS for tier in TIERS}

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(ASKED)
    def check(asked):
        found = bundle.answers([Request(id="", fields={"text": text}, attributes=tier) for text, tier in asked])
        assert len(found) == len(asked)
        for (text, tier), got in zip(asked, found, strict=True):
            assert alike(got, singles[text, repr(tier)], within), (text, got)

    check()


@pytest.mark.parametrize("method", ["temperature", "venn-abers"])
def test_a_row_that_stands_on_an_edge_is_routed_as_alone(tmp_path, method):
    """With the threshold, or a step of the table, exactly where a request's own confidence is, a batch decides as the request alone does."""
    folder = tmp_path / "plain"
    pack(folder, "encoder")
    plain = load_bundle(folder)
    texts = TEXTS[:12]
    edges = [plain.answer({"text": text}).confidence for text in texts]
    for at, edge in enumerate(edges):
        card = plain.card
        if method == "temperature":
            bar = replace(card.thresholds[-1], threshold=edge)
            card = replace(card, thresholds=(*card.thresholds[:-1], bar))
        else:
            steps = tuple(sorted(set(edges)))
            jumps = Calibrator(method="venn-abers", stated=steps, observed=tuple(i / (2 * len(steps) + 1) for i in range(2 * len(steps) + 1)))
            card = replace(card, confidence=replace(card.confidence, everywhere=jumps))
        bundle = type(plain)(card, plain._student)
        group = [Request(id="", fields={"text": text}) for text in [*texts, "where is my invoice, " * 20]]
        found = bundle.answers(group)
        alone = bundle.answer({"text": texts[at]})
        assert (found[at].route, found[at].guess) == (alone.route, alone.guess)
        assert found[at].confidence == alone.confidence


class Odd:
    """A bundle whose answers a test makes."""

    def __init__(self, bundle, answers, batching=None):
        self.card, self.answers, self.batching = bundle.card, answers, batching or Batching(together=8, padding=0.2)
        self.groups = []

    def sizes(self, requests):
        return [len(one.text) for one in requests]


def run(work):
    return asyncio.run(asyncio.wait_for(work, 30))


async def until(what):
    for _ in range(20_000):
        if what():
            return
        await asyncio.sleep(0.001)
    raise TimeoutError


async def ask(pool, texts, deadline_s=5.0):
    return await asyncio.gather(*(pool.look({"text": text}, {}, deadline_s=deadline_s) for text in texts))


@pytest.mark.parametrize("in_line_s", [0.0, 10.0])
@pytest.mark.parametrize("name", ["linear", "encoder", "blocks", "openvino"])
def test_every_request_gets_its_own_answer(name, in_line_s, request):
    """Two hundred requests at once, in line or by workers: each gets what the bundle says to it, none is lost."""
    bundle = request.getfixturevalue(name)
    pool = Pool(bundle, workers=2, in_line_s=in_line_s)
    texts = (TEXTS * 10)[:200]
    pool.service_s = 1e-6  # the queue's bound has a test of its own
    found = run(ask(pool, texts, 25.0))
    assert [look.fault for look in found] == [""] * len(texts)
    for text, look in zip(texts, found, strict=True):
        assert alike(look.answer, bundle.answer({"text": text}), 1e-5)
    assert pool.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(1, 60), max_size=32), padding=st.sampled_from([0.0, 0.1, 0.25]))
def test_a_pass_is_padded_by_less_than_its_share(linear, lengths, padding):
    """Every request is in exactly one group, and no group holds more padding, or more requests, than the student admits."""
    pool = Pool.__new__(Pool)
    pool.bundle, pool.batching = Odd(linear, None), Batching(together=8, padding=padding)
    groups = pool._groups([Request(id="", fields={"text": "x" * n}) for n in lengths])
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        sizes = [lengths[i] for i in group]
        assert 1 - sum(sizes) / (max(sizes) * len(sizes)) <= padding + 1e-12
        assert len(group) <= 8


def test_what_waits_goes_together(linear):
    """While the worker is busy requests gather, and then go in one pass of like lengths."""
    gate, passes = threading.Event(), []

    def answers(requests):
        if requests[0].text == "first":
            gate.wait(20)
        passes.append([one.text for one in requests])
        return linear.answers(requests)

    pool = Pool(Odd(linear, answers, Batching(together=32, padding=0.2)), workers=1, in_line_s=0)

    async def work():
        first = asyncio.ensure_future(pool.look({"text": "first"}, {}, deadline_s=20))
        await until(lambda: not (pool.waiting or pool._idle))
        passes.clear()
        pool.service_s = 1e-6
        rest = asyncio.ensure_future(ask(pool, ["abc", "x" * 50, "abd", "y" * 48, "abe"], 20.0))
        await asyncio.sleep(0)
        await until(lambda: pool.waiting == 5)
        gate.set()
        return [await first, *await rest]

    assert all(look.fault == "" for look in run(work()))
    assert passes == [["first"], ["x" * 50, "y" * 48], ["abc", "abd", "abe"]]
    assert pool.close()


def test_a_machine_where_batches_say_something_else_asks_one_by_one(linear):
    """If the self-test's rows get another confidence in a batch, the pool asks one request at a time."""

    def answers(requests):
        moved = 0.01 if len(requests) > 1 else 0.0
        return [replace(one, confidence=min(1.0, one.confidence + moved)) for one in linear.answers(requests)]

    assert Pool(Odd(linear, answers), workers=1).batching.together == 1
    assert Pool(Odd(linear, linear.answers), workers=1).batching.together == 8


BAD = {
    "raises": lambda answer: 1 / 0,
    "nan": lambda answer: replace(answer, confidence=math.nan),
    "over one": lambda answer: replace(answer, confidence=1.0021),
    "foreign label": lambda answer: replace(answer, guess="sales", value="sales", route="student"),
    "foreign guess": lambda answer: replace(answer, guess="sales", value=None, route="teacher"),
    "none": lambda answer: replace(answer, guess=None, value=None, route="student"),
    "value for the teacher": lambda answer: replace(answer, guess=LABELS[0], value=LABELS[0], route="teacher"),
    "no answer": lambda answer: None,
}


@pytest.mark.parametrize("in_line_s", [0.0, 10.0])
@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_the_students_answer_is_a_fault_and_hurts_nobody_beside_it(linear, what, in_line_s):
    """A request whose answer is broken is a student_error; those in the same pass get their answers."""

    def answers(requests):
        return [BAD[what](one) if request.text == "bad" else one for request, one in zip(requests, linear.answers(requests), strict=True)]

    pool = Pool(Odd(linear, answers), workers=1, in_line_s=in_line_s)
    pool.service_s = 1e-6
    found = run(ask(pool, ["bad", "where is my parcel", "bad", "refund me"]))
    assert [look.fault for look in found] == ["student_error", "", "student_error", ""]
    assert [look.answer is None for look in found] == [True, False, True, False]
    assert pool.close()


def test_scores_that_are_no_numbers_are_a_fault(linear):
    """NaN out of the student itself, and probabilities that can't sum to one, never become an answer."""

    class Broken:
        labels = LABELS

        def __init__(self, value):
            self.value = value

        def logits(self, requests):
            import numpy as np

            found = np.zeros((len(requests), len(LABELS)), dtype=np.float32)
            found[:, 1] = self.value
            return found

    for value in (math.nan, math.inf, -math.inf):
        bundle = type(linear)(linear.card, Broken(0.0))
        pool = Pool(bundle, workers=1, in_line_s=0)
        bundle._student.value = value
        assert run(ask(pool, ["hello"]))[0].fault == "student_error"
        assert pool.close()


class Noted(Breaker):
    """A breaker for a student that remembers what it was told."""

    def __init__(self):
        super().__init__(Trailing(in_a_row=IN_A_ROW, last=50, faults=10), clock=time.monotonic)
        self.faults = []

    def record(self, ticket, *, fault):
        assert ticket
        self.faults.append(fault)
        super().record(ticket, fault=fault)


def test_a_student_that_hangs_is_given_up_and_the_pool_says_so(linear):
    """Every worker hung: looks end at their deadline, then at once as busy; healthy is False; close returns; it heals when they come back."""
    gate = threading.Event()

    def answers(requests):
        if any(one.text == "hang" for one in requests):
            gate.wait(30)
        return linear.answers(requests)

    breaker = Noted()
    pool = Pool(Odd(linear, answers), workers=2, in_line_s=0, hung_s=0.05, breaker=breaker)

    async def work():
        late = await ask(pool, ["hang", "hang"], 0.02)
        await until(lambda: not (pool.healthy))
        busy = await ask(pool, ["where is my parcel"] * 3, 0.05)
        ended = await asyncio.to_thread(pool.close, wait_s=0.05)
        gate.set()
        return late, busy, ended

    late, busy, ended = run(work())
    assert [look.fault for look in late] == ["deadline"] * 2
    assert [look.fault for look in busy] == ["busy"] * 3
    assert not ended
    assert breaker.faults == [True, True]
    assert pool.close()

    gate.clear()
    again = Pool(Odd(linear, answers), workers=1, in_line_s=0, hung_s=0.05)

    async def heal():
        await ask(again, ["hang"], 0.01)
        await until(lambda: not (again.healthy))
        gate.set()
        await until(lambda: again.healthy)
        return await ask(again, ["where is my parcel"])

    assert run(heal())[0].fault == ""
    assert again.close()


def test_a_student_that_once_holds_up_the_loop_is_asked_from_threads_for_good(linear):
    """The in-line call that took too long is a fault, as in a worker; after it the loop turns while the same student sleeps."""

    def answers(requests):
        if any(one.text == "sleep" for one in requests):
            time.sleep(0.2)
        return linear.answers(requests)

    breaker = Noted()
    pool = Pool(Odd(linear, answers), workers=1, in_line_s=10, breaker=breaker)

    async def work():
        assert pool.in_line({"text": "sleep"})
        first = await pool.look({"text": "sleep"}, {}, deadline_s=0.1)
        assert not pool.in_line({"text": "sleep"})
        assert not pool.in_line({"text": ""})
        turns, second = 0, asyncio.ensure_future(pool.look({"text": "sleep"}, {}, deadline_s=20))
        while not second.done():
            turns += 1
            await asyncio.sleep(0)
        return first, turns, await second

    first, turns, second = run(work())
    assert (first.answer, first.fault, first.latency_s > 0.1) == (None, "deadline", True)
    assert second.fault == ""
    assert turns > 100
    assert breaker.faults == [True, False]
    assert pool.close()


def test_a_queue_that_would_take_too_long_is_refused_at_once(linear):
    """With a measured service time of 10 ms and a deadline of 50 ms, the sixth that waits is busy and not queued."""
    gate = threading.Event()

    def answers(requests):
        gate.wait(30)
        return linear.answers(requests)

    gate.set()
    pool = Pool(Odd(linear, answers, Batching()), workers=1, in_line_s=0, hung_s=30)
    gate.clear()
    pool.service_s = 0.01

    async def work():
        looks = [asyncio.ensure_future(pool.look({"text": "a"}, {}, deadline_s=20 if i == 0 else 0.05)) for i in range(1)]
        await until(lambda: not (pool.waiting or pool._idle))
        looks += [asyncio.ensure_future(pool.look({"text": str(i)}, {}, deadline_s=0.05)) for i in range(12)]
        await asyncio.sleep(0)
        waiting = pool.waiting
        busy = [await look for look in looks[7:]]
        late = [await look for look in looks[1:7]]
        gate.set()
        return waiting, busy, late, await looks[0]

    waiting, busy, late, first = run(work())
    assert waiting == 6
    assert {look.fault for look in busy} == {"busy"}
    assert {look.fault for look in late} == {"deadline"}
    assert first.fault == ""
    assert pool.close()


def test_an_open_breaker_keeps_the_student_from_being_asked(linear):
    """Faults open it, and then nobody asks; every look that was let in is recorded once, by what came of it."""
    asked = []

    def answers(requests):
        asked.extend(request.text for request in requests)
        return [None if request.text == "bad" else one for request, one in zip(requests, linear.answers(requests), strict=True)]

    breaker = Noted()
    pool = Pool(Odd(linear, answers), workers=1, in_line_s=0, breaker=breaker)

    async def work():
        return [(await ask(pool, [text]))[0].fault for text in ["bad", "where is my parcel", *["bad"] * IN_A_ROW, "refund me"]]

    assert run(work()) == ["student_error", "", *["student_error"] * IN_A_ROW, "busy"]
    assert (breaker.state, breaker.opened) == ("open", 1)
    assert breaker.faults == [True, False, *[True] * IN_A_ROW]
    assert "refund me" not in asked
    assert pool.close()


def test_a_caller_who_leaves_costs_nobody_anything(linear):
    """A cancelled look is recorded like any other and its neighbours are answered."""
    breaker = Noted()
    pool = Pool(linear, workers=1, in_line_s=0, breaker=breaker)

    async def work():
        left = asyncio.ensure_future(pool.look({"text": "a"}, {}, deadline_s=5))
        stays = asyncio.ensure_future(pool.look({"text": "where is my parcel"}, {}, deadline_s=5))
        await asyncio.sleep(0)
        left.cancel()
        look = await stays
        await until(lambda: len(breaker.faults) == 2)
        return look

    assert run(work()).fault == ""
    assert breaker.faults == [False, False]
    assert pool.close()


def test_closing_finishes_what_waits(linear):
    """Whatever was accepted before `close` is answered; what comes after it is busy."""
    pool = Pool(linear, workers=2, in_line_s=0)
    pool.service_s = 1e-6

    async def work():
        before = [asyncio.ensure_future(pool.look({"text": text}, {}, deadline_s=20)) for text in TEXTS]
        await asyncio.sleep(0)
        assert await asyncio.to_thread(pool.close)
        return [await look for look in before], await ask(pool, ["late"])

    before, after = run(work())
    assert {look.fault for look in before} == {""}
    assert after[0].fault == "busy"
    assert not pool.healthy
