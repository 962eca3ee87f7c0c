"""One reading: the same numbers row by row as in a block, and each rule does what it says."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overproof.errors import MeasureError
from overproof.evidence import Calibrator, Confidence, ScopeRule, SliceCalibrator
from overproof.measure.calibration import SLICE_ROWS, log_loss
from overproof.measure.calibrators import calibrated, choose_calibrator, fit_calibrator, slice_calibrator
from overproof.measure.reading import column_of, read_scores, stated_confidence
from overproof.measure.scope import auroc, auroc_interval, scope_scores, scope_threshold


def world(n: int, *, temperature: float = 1.0, seed: int = 0, k: int = 5):
    """Logits whose labels are drawn at a temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2.5, (n, k))
    chance = np.exp(logits / temperature)
    chance /= chance.sum(axis=1, keepdims=True)
    return logits, (rng.random(n)[:, None] > chance.cumsum(axis=1)).sum(axis=1).clip(0, k - 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30), st.sampled_from(["temperature", "platt", "head", "isotonic", "venn-abers"]))
def test_a_row_alone_reads_like_in_a_block(seed, k, method) -> None:
    """Server and evaluation get the same confidence and the same route, to the last digit kept."""
    rng = np.random.default_rng(seed)
    logits, mine = rng.normal(0, 3, (40, k)), rng.random(40)
    calibrator = {
        "temperature": Calibrator(method="temperature", temperature=float(rng.uniform(0.3, 4))),
        "platt": Calibrator(method="platt", inputs=("log_odds",), mean=(0.2,), scale=(1.5,), weight=(0.9, 0.1)),
        "head": Calibrator(method="head", inputs=("log_odds", "mine"), mean=(0.2, 0.5), scale=(1.5, 0.3), weight=(0.9, -0.4, 0.1)),
        "isotonic": Calibrator(method="isotonic", stated=(0.1, 0.5, 0.9), observed=(0.2, 0.4, 0.95)),
        "venn-abers": Calibrator(method="venn-abers", stated=(0.1, 0.5), observed=(0.2, 0.4, 0.5, 0.7, 0.9)),
    }[method]
    own = SliceCalibrator(slice="a", calibrator=Calibrator(method="temperature", temperature=2.0))
    how = Confidence(everywhere=calibrator, own=(own,), scope=(ScopeRule(score="mine", threshold=0.8), ScopeRule(score="energy", threshold=-3.0)))
    names = ["a" if i % 3 else "other" for i in range(40)]
    block = read_scores(how, logits, slices=names, columns={"mine": mine})
    for i in range(40):
        alone = read_scores(how, logits[i : i + 1], slices=[names[i]], columns={"mine": mine[i : i + 1]})
        assert alone.confidence[0] == pytest.approx(block.confidence[i], abs=1e-11)
        assert alone.foreign[0] == block.foreign[i]
    assert ((block.confidence >= 0) & (block.confidence <= 1)).all()


def test_every_rule_routes_by_itself_and_own_slices_are_read_by_their_own() -> None:
    """A row is foreign iff one of the rules says so; a slice's own temperature reads that slice alone."""
    logits, mine = np.array([[3.0, 0.0], [3.0, 0.0], [0.1, 0.0]]), np.array([0.1, 0.9, 0.1])
    plain = Confidence(everywhere=Calibrator(method="temperature"))
    how = dataclasses.replace(plain, scope=(ScopeRule(score="mine", threshold=0.5), ScopeRule(score="max_logit", threshold=-1.0)))
    assert read_scores(how, logits, columns={"mine": mine}).foreign.tolist() == [False, True, True]
    assert not read_scores(plain, logits).foreign.any()
    own = dataclasses.replace(plain, own=(SliceCalibrator(slice="a", calibrator=Calibrator(method="temperature", temperature=3.0)),))
    found = read_scores(own, logits, slices=["a", "other", "other"]).confidence
    assert found[0] == pytest.approx(1 / (1 + np.exp(-1)))
    assert found[1] == pytest.approx(1 / (1 + np.exp(-3)))
    with pytest.raises(MeasureError, match="own calibrator"):
        read_scores(own, logits)


def test_a_column_that_is_not_there_is_refused() -> None:
    """A student without the score that a rule asks for is never read as if it were in scope."""
    how = Confidence(everywhere=Calibrator(method="temperature"), scope=(ScopeRule(score="nearest_1", threshold=1.0),))
    for columns in ({}, {"nearest_1": np.array([np.nan])}, {"nearest_1": np.zeros(2)}):
        with pytest.raises(MeasureError, match="nearest_1"):
            read_scores(how, np.zeros((1, 3)), columns=columns)


@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic", "venn-abers", "head"])
def test_the_fit_and_the_server_share_the_numbers(method) -> None:
    """`calibrated`, which chooses the calibrator, is what the server computes."""
    logits, target = world(1_200, temperature=2.0)
    features = {name: column_of(name, logits, {}) for name in ("log_odds", "energy")}
    fitted = fit_calibrator(method, logits, target, features=features)
    np.testing.assert_allclose(calibrated(fitted, logits, features=features), stated_confidence(fitted, logits, {}), atol=1e-12)


def test_a_slice_gets_its_own_temperature_only_where_that_is_shown_to_help() -> None:
    """A slice that is three times too sure gets its own; one like the rest, or too small, keeps the common one."""
    calm, calm_y = world(900, temperature=1.0, seed=1)
    wild, wild_y = world(450, temperature=4.0, seed=2)
    logits, target = np.vstack([calm, wild]), np.concatenate([calm_y, wild_y])
    common = fit_calibrator("temperature", logits, target)
    mask = np.arange(1_350) >= 900
    own = slice_calibrator(common, logits, target, mask)
    assert own is not None
    assert own.temperature == pytest.approx(4.0, rel=0.35)
    fresh, fresh_y = world(4_000, temperature=4.0, seed=3)
    right = (fresh.argmax(axis=1) == fresh_y).astype(int)
    loss = {c.temperature: log_loss(np.stack([1 - s, s], axis=1), right) for c in (own, common) for s in [calibrated(c, fresh)]}
    assert loss[own.temperature] < loss[common.temperature]
    assert slice_calibrator(common, logits, target, np.arange(1_350) >= 1_350 - SLICE_ROWS + 1) is None


def test_a_slice_like_the_rest_hardly_ever_gets_its_own() -> None:
    """Noise is no reason: a slice drawn from the same traffic keeps the common temperature four times out of five or more."""
    given_own = 0
    for seed in range(40):
        logits, target = world(1_000, temperature=1.5, seed=100 + seed)
        everywhere = fit_calibrator("temperature", logits, target)
        given_own += slice_calibrator(everywhere, logits, target, np.arange(1_000) < 350, seed=seed) is not None
    assert given_own <= 8


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(2, 60))
def test_an_auroc_lies_in_its_interval_which_never_closes(seed, own, foreign) -> None:
    """The interval holds the figure, turns with the sign of the score, and has a width even where the rows are apart."""
    rng = np.random.default_rng(seed)
    score = np.concatenate([rng.normal(0, 1, own), rng.normal(rng.uniform(0, 6), 1, foreign)])
    outside = np.arange(own + foreign) >= own
    found, turned = auroc_interval(score, outside), auroc_interval(-score, outside)
    assert found.value == pytest.approx(auroc(score, outside))
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0
    assert found.high - found.low > 0.01
    assert turned.low == pytest.approx(1 - found.high, abs=1e-6)


@pytest.mark.parametrize(("shift", "own", "foreign"), [(0.0, 40, 20), (1.5, 60, 25), (2.5, 250, 20)])
def test_the_interval_of_an_auroc_holds_the_truth_as_often_as_it_says(shift, own, foreign) -> None:
    """Two normal kinds of rows, 600 draws: the 95 % interval misses in no more than 8 %."""
    from statistics import NormalDist

    truth, rng, missed = NormalDist().cdf(shift / np.sqrt(2)), np.random.default_rng(5), 0
    outside = np.arange(own + foreign) >= own
    for _ in range(600):
        found = auroc_interval(np.concatenate([rng.normal(0, 1, own), rng.normal(shift, 1, foreign)]), outside)
        missed += not found.low <= truth <= found.high
    assert missed <= 48


def test_the_edge_lets_the_promised_share_of_own_rows_pass() -> None:
    """Over many draws, fresh rows of the task lie above the edge no more often than asked; with few rows, 1 in n + 1."""
    rng = np.random.default_rng(3)
    for n, share, most in ((400, 0.02, 0.02), (1_000, 0.01, 0.01), (30, 0.01, 1 / 31)):
        above = np.mean([float((rng.normal(size=50) > scope_threshold(rng.normal(size=n), share=share)).mean()) for _ in range(600)])
        assert above <= most * 1.25 + 0.001


def test_a_choice_above_a_thousand_rows_may_leave_temperature() -> None:
    """Where an out-of-scope score marks wrong answers, the head that reads it wins on held-out rows."""
    logits, target = world(3_000, temperature=1.0, seed=4)
    odd = np.random.default_rng(9).random(3_000) < 0.3
    target = np.where(odd, (target + 1) % 5, target)
    features = {"log_odds": column_of("log_odds", logits, {}), "unknown_share": odd.astype(float)}
    choice = choose_calibrator(logits, target, features=features)
    assert choice.calibrator.method == "head"
    assert choice.losses[0].log_loss < next(one.log_loss for one in choice.losses if one.method == "temperature")
    assert set(scope_scores(logits)) >= {"max_logit", "energy"}


def test_a_message_that_is_put_together_is_foreign_and_told_apart_from_one_of_another_task() -> None:
    """Either kind of rule sends a row away; as put together counts only what no out-of-scope rule sends."""
    rules = {"scope": (ScopeRule(score="far", threshold=0.5),), "mixed": (ScopeRule(score="two_answers", threshold=2.0), ScopeRule(score="repetition", threshold=1.0))}
    how = Confidence(everywhere=Calibrator(method="temperature"), **rules)
    columns = {"far": [0.0, 1.0, 1.0, 0.0, 0.0], "two_answers": [2.0, 0.0, 3.0, 2.1, 0.0], "repetition": [1.0, 0.0, 0.0, 0.0, 2.0]}
    read = read_scores(how, np.zeros((5, 2)), columns={name: np.array(column) for name, column in columns.items()})
    assert read.foreign.tolist() == [False, True, True, True, True]
    assert read.mixed.tolist() == [False, False, False, True, True]
    with pytest.raises(MeasureError, match="two_answers"):
        read_scores(how, np.zeros((5, 2)), columns={"far": np.zeros(5)})
