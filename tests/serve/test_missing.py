"""Evidence that goes missing while a release proves itself: whole gateways, a real store, a clock that the test moves."""

import time

import apsw
import pytest
from tests.serve.gateways import SURE, running, until
from tests.serve.packing import pack

from overproof.data import ALL
from overproof.store.project_store import open_store

SERVE = 'promote = "by-evidence"\nhold_deadline = "2h"'
HOUR = 3_600.0
LOST = {
    "rows are gone": "DELETE FROM stage_count",
    "counts that can't be": "UPDATE stage_count SET disagreed = compared + 1",
    "negative counts": "UPDATE stage_count SET compared = -compared",
    "no number": "UPDATE stage_count SET newest = 9e999",
    "the watch's holds can't be read": "ALTER TABLE held_rollout RENAME TO gone",
    "the table can't be read": "ALTER TABLE stage_count RENAME TO gone",
}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "b"
    pack(folder)
    return folder


def spoil(folder, sql):
    """As a broken disk, or a hand, would."""
    connection = apsw.Connection(str(folder / ".overproof" / "project.db"))
    connection.set_busy_timeout(5_000)
    connection.execute(sql)
    connection.close()


def asked(one, n):
    """So many calls of both certified slices."""
    got = one.asks([(SURE[i % len(SURE)], {}, {"metadata": {"tier": "plus" if i % 2 else "free"}}) for i in range(n)])
    assert {answer.status for answer in got} == {200}


def looked(one):
    """What the next look comes to."""
    one.station.tick.last, one.station.trouble = None, ""
    until(lambda: one.station.tick.last or one.station.trouble)
    return one.station.tick.last.move if one.station.tick.last else "trouble"


@pytest.mark.parametrize("how", [*(pytest.param(how, marks=pytest.mark.slow) for how in ("nothing", "nobody compares", *list(LOST)[:-1])), "the table can't be read"])
def test_a_canary_without_evidence_is_held_and_then_goes_back(tmp_path, packed, how):
    """Whatever is wrong with the evidence, nothing is promoted on it, and the teacher has all requests once the hold is over; with it, the same canary goes on."""
    ahead = [0.0]
    with running(tmp_path, packed, stage="canary", serve=SERVE, clock=lambda: time.time() + ahead[0]) as one:
        if how == "nobody compares":
            one.station.compared = lambda *_, **__: None
        n = 60 if how in ("the table can't be read", "nobody compares") else 1_500
        asked(one, n)
        with open_store(one.folder) as store:
            epoch = store.rollouts.current("routing").epoch
            until(lambda: sum(part.requests for part in store.rollouts.counts(epoch).get(ALL, ())) == n)
            if how in LOST:
                spoil(one.folder, LOST[how])
            ahead[0] += 1.1 * HOUR
            if how == "nothing":
                until(lambda: store.rollouts.current("routing").stage == "full")
                return
            assert [looked(one) for _ in range(2)] == ["trouble" if how.endswith("read") else "hold"] * 2
            assert store.rollouts.current("routing").stage == "canary"
            asked(one, 4)
            ahead[0] += 2.1 * HOUR
            until(lambda: store.rollouts.current("routing").stage == "teacher-only")
            history = store.rollouts.history("routing")
            assert [move.stage for move in history] == ["canary", "teacher-only"]
            assert history[-1].by == "gateway"
            until(lambda: one.station.live.current.position.release is None)
            asked(one, 4)
