"""Waivers on record: sound ones alone, three at most, never the same twice, and they survive the process."""

import pytest

from overproof.errors import DataError
from overproof.evidence.waivers import Waiver
from overproof.store.project_store import open_store
from overproof.store.waivers import give_waiver, waivers_of


def waiver(check: str = "G07", **more) -> Waiver:
    given = {
        "check": check, "plan": "p" * 64, "by": "Dana Ruiz", "second": "Sam Ito", "given": "2026-02-10", "until": "2026-03-01",
        "reason": "The second size is being trained; this pilot serves one team.", "control": "Dana reads every answer each evening.",
    }  # fmt: skip
    return Waiver(**(given | more))


def test_a_waiver_is_found_again_until_its_day_and_then_has_run_out(tmp_path) -> None:
    """From another opening of the store, for its own plan alone, in a chain that verifies."""
    with open_store(tmp_path) as store:
        give_waiver(store.decisions, waiver())
    with open_store(tmp_path) as store:
        last, after, other = (
            waivers_of(store.decisions, plan, today=day)
            for plan, day in (("p" * 64, "2026-03-01"), ("p" * 64, "2026-03-02"), ("q" * 64, "2026-03-01"))
        )
        assert store.decisions.verify() == 1
    assert (last.live, last.ran_out) == ((waiver(),), ())
    assert (after.live, after.ran_out) == ((), (waiver(),))
    assert (other.live, other.ran_out) == ((), ())


def test_an_unsound_one_a_second_one_and_a_fourth_one_are_refused(tmp_path) -> None:
    """Each says why, and nothing is written."""
    with open_store(tmp_path) as store:
        with pytest.raises(DataError, match="two persons"):
            give_waiver(store.decisions, waiver(second="dana ruiz"))
        give_waiver(store.decisions, waiver())
        with pytest.raises(DataError, match="was waived for this plan"):
            give_waiver(store.decisions, waiver(given="2026-03-02", until="2026-03-20"))
        for check in ("G04", "G06"):
            give_waiver(store.decisions, waiver(check))
        with pytest.raises(DataError, match="3 waivers are in force"):
            give_waiver(store.decisions, waiver("G05"))
        give_waiver(store.decisions, waiver("G05", given="2026-03-02", until="2026-03-20"))
        give_waiver(store.decisions, waiver("G05", plan="q" * 64))
        assert store.decisions.verify() == 5
