"""The control plane under seeded chaos; `make bench-reliability` plays 10,000 seeds."""

import os
import re

import pytest
from benchmarks.reliability import control

from overproof.serve import evidence as tick
from overproof.serve import router
from overproof.serve.rollout import Decision, next_stage
from overproof.store.labels import LabelLedger
from overproof.store.local import Db
from overproof.store.rollout import Rollouts

SEEDS = int(os.environ.get("OVERPROOF_SEEDS", "10000"))


@pytest.mark.parametrize("n", [25, pytest.param(SEEDS, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])])
def test_no_seed_breaks_an_invariant(n):
    """Labels once and kept, money booked, promotions earned, stale holders shut out, no student that nobody released."""
    broken, seen = control.campaign(range(n))
    print(f"seeds 0 to {n - 1}: {dict(seen)}")
    assert broken == []
    for what in ("promotions to canary, held against the evidence", "stale runs woken", "runs killed in a call", "answered by the student"):
        assert seen[what] > 0, what


def test_a_seed_tells_the_same_story_again():
    """What a broken seed did can be looked at."""
    assert control.campaign(range(300, 303)) == control.campaign(range(300, 303))


def hasty(plan, state, evidence, now):
    """Promotes whenever it can."""
    after = next_stage(plan, state) if state.release_id else None
    return Decision(move="promote" if after else "hold", why="why not", to=after, evidence={"bars": []})


@pytest.mark.parametrize(
    ("place", "name", "spoilt", "word"),
    [
        (tick, "decide", hasty, "no evidence"),
        (Db, "check_fence", lambda self, connection: None, "taken over"),
        (LabelLedger, "get", lambda self, key: None, "paid for again|acknowledged and is None"),
        (router, "_in_arm", lambda now: True, "nobody has released"),
        (Rollouts, "add", lambda self, counts, **how: None, "the store counts"),
    ],
    ids=["promotes without evidence", "no fence", "forgets labels", "serves in shadow", "loses counts"],
)
def test_the_invariants_find_a_control_plane_that_is_broken(monkeypatch, place, name, spoilt, word):
    """Each promise taken out once is missed by name: the test can fail."""
    monkeypatch.setattr(place, name, spoilt)
    broken, _ = control.campaign(range(40), to_the_end=False)
    assert broken
    assert re.search(word, broken[0]), broken
