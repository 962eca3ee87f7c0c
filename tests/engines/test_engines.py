import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overproof.data import Completion, Outcome, Request
from overproof.engines import cut, engine_of
from overproof.errors import DataError, StoreError


def square(shared, shard):
    return [shared + value * value for value in shard]


def die_once(shared, shard):
    """Kills its own process on the first call for shard 1."""
    mark = Path(shared) / f"been-{shard}"
    if shard == 1 and not mark.exists():
        mark.write_text("here")
        os.kill(os.getpid(), signal.SIGKILL)
    return shard, os.getpid()


def die_always(_, shard):
    if shard == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return shard


def refuse(_, shard):
    raise DataError(f"shard {shard} is bad", next_action="mend it")


class Counting:
    """A teacher that writes down every call, and dies with its process where it is told to."""

    free = True

    def __init__(self, given):
        self.folder = Path(given["folder"])

    async def attempt(self, request, *, sample_index, recorded=None):
        (self.folder / f"call-{request.id}-{time.time_ns()}").write_text(str(os.getpid()))
        if request.id == "bad" and len(list(self.folder.glob("call-bad-*"))) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        done = Completion(text=request.text, value="billing", model="m")
        return Outcome(kind="ok", completion=done, reason="", http_status=200, retry_after_s=None, fingerprint=None, request_id=None)

    def worst_case_tokens(self, request):
        return len(request.text)

    async def close(self):
        pass


@pytest.fixture(scope="module")
def ray_engine():
    pytest.importorskip("ray")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    engine = engine_of("ray", workers=2, address="")
    yield engine
    engine.close()


@given(st.lists(st.integers()), st.integers(1, 9))
def test_shards_joined_are_the_rows(rows, shards):
    """Every row is in one shard, in order, and sizes differ by one at most."""
    parts = cut(rows, shards)
    assert [row for part in parts for row in part] == rows
    assert len(parts) == min(shards, len(rows))
    assert not parts or max(map(len, parts)) - min(map(len, parts)) <= 1


def test_both_engines_give_the_same_in_the_same_order(ray_engine):
    """Real Ray with two processes against a loop."""
    shards = cut(list(range(50)), 7)
    local = list(engine_of("local", workers=1, address="").each(square, shards, shared=3, what="squares"))
    assert list(ray_engine.each(square, shards, shared=3, what="squares")) == local
    assert list(ray_engine.each(square, [], what="nothing")) == []


@pytest.mark.parametrize(("failures", "address"), [(2, ""), (3, ""), (1, "10.0.0.1:6379")])
def test_a_start_that_fails_on_a_busy_machine_is_tried_again_and_a_cluster_is_asked_once(monkeypatch, failures, address):
    """Ray's own limit is 30 seconds; what doesn't come up is said in our words."""
    ray = pytest.importorskip("ray")
    tried = []

    def start(**asked):
        tried.append(asked["address"])
        if len(tried) <= failures:
            raise Exception("the current node timed out during startup")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", start)
    engine = engine_of("ray", workers=2, address=address)
    if failures == 2:
        engine._ray()
    else:
        with pytest.raises(StoreError, match=f"Ray can't be .*{address}: the current node timed out"):
            engine._ray()
    assert tried == ([address] if address else ["local"] * 3)


def test_a_worker_that_dies_changes_nothing(ray_engine, tmp_path):
    """A shard whose process is killed is run again elsewhere; one that always kills it ends in an error that says so."""
    found = list(ray_engine.each(die_once, [0, 1, 2, 3], shared=str(tmp_path), what="dying"))
    assert [shard for shard, _ in found] == [0, 1, 2, 3]
    assert (tmp_path / "been-1").exists()
    assert os.getpid() not in {pid for _, pid in found}
    with pytest.raises(StoreError, match="died 4 times"):
        list(ray_engine.each(die_always, [0, 1], what="dying"))


def test_an_error_of_a_shard_comes_back_as_itself(ray_engine):
    """What a function raises keeps its class and its next action."""
    with pytest.raises(DataError, match="is bad") as caught:
        list(ray_engine.each(refuse, [7], what="refusing"))
    assert caught.value.next_action == "mend it"


def test_a_lost_call_is_a_transient_failure_and_is_made_again(ray_engine, tmp_path):
    """The worker that dies in a call takes that call with it, which the ledger's retry then makes once more; nothing else is asked twice."""
    spread = ray_engine.caller(Counting, {"folder": str(tmp_path)})
    names = [f"r{i}" for i in range(8)] + ["bad"]

    async def ask(name):
        request = Request(id=name, fields={"text": name})
        tries = []
        while not tries or tries[-1].kind == "transient":
            tries.append(await spread.attempt(request, sample_index=0))
            await asyncio.sleep(0.2 * (tries[-1].kind == "transient"))
        return tries

    async def ask_all():
        first = await asyncio.gather(*(ask(name) for name in names[:8]))
        return [*first, await ask("bad")]

    tried = asyncio.run(ask_all())
    assert [tries[-1].completion.text for tries in tried] == names
    assert tried[-1][0].kind == "transient"
    assert "lost" in tried[-1][0].reason
    calls = [path.name.split("-")[1] for path in tmp_path.glob("call-*")]
    assert {name: calls.count(name) for name in set(calls)} == {**dict.fromkeys(names[:8], 1), "bad": 2}
    assert len({path.read_text() for path in tmp_path.glob("call-*")} - {str(os.getpid())}) >= 2
    assert spread.worst_case_tokens(Request(id="x", fields={"text": "four"})) == 4
    asyncio.run(spread.close())
