"""Shadow looks can't hurt: a student that hangs, crashes or eats memory costs its own request and nothing else."""

import asyncio
import os
import signal
import threading
import time

import pytest
from tests.serve.packing import pack

from overproof.serve.pool import Pool
from overproof.serve.shadow import Shadow, look_after
from overproof.students.bundle import load_bundle

HERE = "tests.serve.odd_students"


class Heard:
    """Gathers what was said, and waits for so much of it."""

    def __init__(self):
        self.said, self._more = {}, threading.Condition()

    def then(self, name):
        def hear(answer, fault):
            with self._more:
                assert name not in self.said, "told twice"
                self.said[name] = (answer.reason if answer else None, fault)
                self._more.notify_all()

        return hear

    def wait(self, n):
        with self._more:
            assert self._more.wait_for(lambda: len(self.said) >= n, timeout=60), self.said


@pytest.fixture
def shadow():
    made = []

    def make(name, **options):
        made.append(Shadow("nowhere", load=f"{HERE}:{name}", **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
        assert one.state == "closed"


def offer(shadow, heard, *texts):
    return [shadow.offer(text, {"text": text}, {}, heard.then(text)) for text in texts]


def test_a_real_release_answers_in_the_shadow_as_in_process(tmp_path):
    """The other process gives exactly the answers of the bundle."""
    digest = pack(tmp_path / "b")
    bundle, got, done = load_bundle(tmp_path / "b"), {}, threading.Event()
    texts = ["where is my parcel", "refund me", "gibberish"]
    shadow = Shadow(tmp_path / "b", manifest_sha256=digest)

    def then(text):
        def hear(answer, fault):
            got[text] = (answer, fault)
            if len(got) == len(texts):
                done.set()

        return hear

    for text in texts:
        assert shadow.offer(text, {"text": text}, {"tier": "plus"}, then(text))
    assert done.wait(60)
    assert got == {text: (bundle.answer({"text": text}, {"tier": "plus"}), "") for text in texts}
    assert (shadow.answered, shadow.dropped, shadow.state) == (3, 0, "running")
    shadow.close()


FAULTY = [("hangs", "deadline", "hang"), ("crashes", "student_error", "crash"), ("eats", "student_error", "crash")]


@pytest.mark.parametrize(("name", "fault", "kind"), FAULTY)
def test_a_student_that_goes_wrong_costs_its_own_request_only(shadow, name, fault, kind):
    """It is killed and started again; its neighbours are answered; the loop turns on and no offer waits."""
    one, heard = shadow(name, timeout_s=0.5 if name == "hangs" else 20, memory_mb=256), Heard()

    async def work():
        turns = 0
        before = threading.get_ident()
        assert all(offer(one, heard, "a", "now", "b", "c"))
        while len(heard.said) < 4:
            turns += 1
            await asyncio.sleep(0)
        assert threading.get_ident() == before
        return turns

    turns = asyncio.run(asyncio.wait_for(work(), 90))
    assert heard.said == {"a": ("a", ""), "b": ("b", ""), "c": ("c", ""), "now": (None, fault)}
    assert one.faults[kind] >= 1
    assert turns > 100
    if name != "hangs":
        assert "SIG" in one.why or "exit code" in one.why
    offer(one, heard, "later")
    heard.wait(5)
    assert heard.said["later"] == ("later", "")


@pytest.mark.parametrize("name", ["raises", "foreign"])
def test_a_student_that_says_nonsense_is_a_fault_without_a_restart(shadow, name):
    """An exception, a foreign label or an impossible confidence is that request's student_error; the process stays."""
    one, heard = shadow(name), Heard()
    offer(one, heard, "a", "now", "b")
    heard.wait(3)
    assert heard.said == {"a": ("a", ""), "now": (None, "student_error"), "b": ("b", "")}
    assert not one.faults


def test_what_does_not_fit_the_queue_is_dropped_and_counted(shadow):
    """The queue is bounded: offers beyond it say no, are counted, and nobody is told twice or never."""
    one, heard = shadow("hangs", queue_rows=5, timeout_s=30), Heard()
    taken = offer(one, heard, "a")
    heard.wait(1)
    taken += offer(one, heard, "now")
    while one._rows:
        time.sleep(0.001)
    more = offer(one, heard, *map(str, range(9)))
    assert more == [True] * 5 + [False] * 4
    assert (one.dropped, one.offered) == (4, 11)
    one.close()
    heard.wait(7)
    assert {fault for text, (_, fault) in heard.said.items() if text != "a"} == {"busy"}
    assert not one.offer("late", {"text": "late"}, {}, heard.then("late"))


def test_its_silence_is_seen(shadow):
    """Silent only where requests came and none was answered; a release that never loads is silent and says why."""
    one, heard = shadow("sane"), Heard()
    assert not one.silent(time.monotonic() + 1e6)
    offer(one, heard, "a")
    heard.wait(1)
    assert one.fired_at is not None
    assert not one.silent(time.monotonic() + 1e6)
    broken = shadow("never")
    offer(broken, heard, "b")
    assert not broken.silent(time.monotonic())
    assert broken.silent(time.monotonic() + 31)
    while not broken.faults["start"]:
        time.sleep(0.005)
    assert "does not load" in broken.why
    assert broken.fired_at is None


def test_it_runs_before_anybody_asks_and_again_after_it_died(shadow):
    """The first offer finds it running; killed while nobody asks, it is started again after its pause, and nobody is told a fault."""
    one, heard = shadow("sane"), Heard()
    while one.state != "running":
        time.sleep(0.005)
    first = one._child.pid
    assert one.offered == 0
    os.kill(first, signal.SIGKILL)
    while one.state != "running" or one._child.pid == first:
        time.sleep(0.005)
    assert (one.faults["crash"], one.why, one.offered) == (1, "crash: SIGKILL", 0)
    os.kill(one._child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, one._child.pid, os.WEXITED | os.WNOWAIT)
    offer(one, heard, "a", "b")  # at once, before anybody has noticed
    heard.wait(2)
    assert heard.said == {"a": ("a", ""), "b": ("b", "")}


def test_a_student_that_does_not_load_is_tried_again_and_ended_at_once(shadow):
    """With nobody asking: the fault is counted and said, tries go on with pauses, and closing in the middle leaves no process."""
    broken = shadow("never")
    while broken.faults["start"] < 2:
        time.sleep(0.005)
    assert "does not load" in broken.why
    slow = shadow("slow_to_load")
    while slow._child is None:
        time.sleep(0.001)
    child = slow._child
    slow.close()
    assert (slow.state, child.poll() is not None) == ("closed", True)


def test_the_process_is_nice_and_sees_no_secret(shadow, monkeypatch):
    """No key of ours reaches the student's process, and it runs at low priority."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    one, heard = shadow("peeks"), Heard()
    offer(one, heard, "a")
    heard.wait(1)
    assert heard.said["a"][0] == f"[]{min(19, os.nice(0) + 10)}"


def test_whoever_listens_may_fail(shadow):
    """An exception in the callback ends neither the thread nor the looks that follow."""
    one, heard = shadow("sane"), Heard()
    one.offer("a", {"text": "a"}, {}, lambda answer, fault: 1 / 0)
    offer(one, heard, "b")
    heard.wait(1)


def test_a_look_after_the_answer_takes_the_idle_pool_and_else_the_shadow(shadow, tmp_path):
    """An idle pool looks itself; without one, or while it works, the shadow does; without either nobody."""
    pack(tmp_path / "b")
    bundle = load_bundle(tmp_path / "b")
    gate, heard = threading.Event(), Heard()

    class Slow:
        card, batching = bundle.card, bundle.batching

        def answers(self, requests):
            if requests[0].text == "slow":
                gate.wait(20)
            return bundle.answers(requests)

    pool, one = Pool(Slow(), workers=1, in_line_s=0), shadow("sane")

    async def work():
        while not pool.idle:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert look_after(pool, one, "p", ({"text": "pool"}, {}), heard.then("p"), deadline_s=5)
        while "p" not in heard.said:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        busy = asyncio.ensure_future(pool.look({"text": "slow"}, {}, deadline_s=20))
        while pool.idle:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert look_after(pool, one, "s", ({"text": "shadow"}, {}), heard.then("s"), deadline_s=5)
        assert not look_after(pool, None, "n", ({"text": "nobody"}, {}), heard.then("n"), deadline_s=5)
        while "s" not in heard.said:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        gate.set()
        await busy

    asyncio.run(asyncio.wait_for(work(), 60))
    assert heard.said["s"] == ("shadow", "")
    assert heard.said["p"][0].startswith("confidence")
    assert set(heard.said) == {"p", "s"}
    assert pool.close()
