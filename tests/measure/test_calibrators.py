"""Calibrators are honest on rows that they have not seen, and temperature wins where rows are few."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from overproof.errors import MeasureError
from overproof.measure import calibration as cal
from overproof.measure import calibrators as cs


def student(rng, n, k=6, temperature=2.0):
    """Logits of an overconfident student."""
    logits = rng.normal(0, 3, (n, k))
    chance = softmax(logits / temperature, axis=1)
    return logits, (chance.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)


def surprise(stated, logits, target):
    right = (logits.argmax(axis=1) == target).astype(int)
    return cal.log_loss(np.stack([1 - stated, stated], axis=1), right)


@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic", "venn-abers", "head"])
def test_every_method_is_honest_on_new_rows_where_the_raw_student_is_not(method):
    """4,000 rows to fit, 20,000 to look at: the gap falls below two points from over fifteen."""
    rng = np.random.default_rng(0)
    logits, target = student(rng, 4000)
    fresh, truth = student(rng, 20000)
    features = {"lead": np.diff(np.sort(logits, axis=1)[:, -2:])[:, 0]}
    asked = {"lead": np.diff(np.sort(fresh, axis=1)[:, -2:])[:, 0]}
    fitted = cs.fit_calibrator(method, logits, target, features=features)
    stated = cs.calibrated(fitted, fresh, features=asked)
    right = fresh.argmax(axis=1) == truth
    raw = cal.probabilities(fresh, 1.0).max(axis=1)
    assert cal.expected_calibration_error(stated, right) < (0.05 if method == "head" else 0.02)
    assert cal.expected_calibration_error(raw, right) > 0.15
    assert surprise(stated, fresh, truth) < surprise(raw, fresh, truth) - 0.1
    assert fitted.n == 4000
    assert json.loads(json.dumps(asdict(fitted)))["method"] == method


def test_with_a_hundred_rows_temperature_beats_isotonic_and_isotonic_is_refused():
    """The refused fit, done all the same, is far more surprised on new rows."""
    rng = np.random.default_rng(1)
    losses = {"temperature": [], "isotonic": [], "platt": []}
    for _ in range(20):
        logits, target = student(rng, 100)
        fresh, truth = student(rng, 2000)
        for method in ("temperature", "platt"):
            fitted = cs.fit_calibrator(method, logits, target)
            losses[method].append(surprise(cs.calibrated(fitted, fresh), fresh, truth))
        with pytest.raises(MeasureError, match="1000 rows"):
            cs.fit_calibrator("isotonic", logits, target)
        raw, right = cal.probabilities(logits, 1.0).max(axis=1), logits.argmax(axis=1) == target
        ten = cs._fit_isotonic(np.repeat(raw, 10), np.repeat(right, 10))
        losses["isotonic"].append(surprise(cs.calibrated(ten, fresh), fresh, truth))
    mean = {method: np.mean(values) for method, values in losses.items()}
    assert mean["temperature"] < mean["isotonic"] - 0.02
    assert mean["temperature"] <= mean["platt"] + 0.002


@pytest.mark.parametrize("n", [60, 3000])
def test_the_head_is_the_logistic_regression_of_scikit_learn(n):
    """Same ridge on standardised columns; a smoothed target is a row that counts for both answers."""
    rng = np.random.default_rng(2)
    table = rng.normal(3, 5, (n, 3))
    right = rng.random(n) < 1 / (1 + np.exp(-(0.4 * (table[:, 0] - 3) - 0.2 * (table[:, 1] - 3))))
    logits = np.where(right[:, None], [[1.0, 0.0]], [[0.0, 1.0]])
    fitted = cs.fit_calibrator("head", logits, np.zeros(n, int), features={f"f{i}": table[:, i] for i in range(3)})
    good = right.sum()
    target = np.where(right, (good + 1) / (good + 2), 1 / (n - good + 2))
    scaled = (table - table.mean(axis=0)) / table.std(axis=0)
    oracle = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(
        np.concatenate([scaled, scaled]), np.repeat([True, False], n), np.concatenate([target, 1 - target])
    )
    assert fitted.weight == pytest.approx([*oracle.coef_[0], oracle.intercept_[0]], abs=1e-4)
    assert fitted.inputs == ("f0", "f1", "f2")


def test_methods_are_compared_on_rows_that_they_have_not_seen():
    """Three hundred columns of noise fit the rows that they were fitted on best, and lose."""
    rng = np.random.default_rng(8)
    logits, target = student(rng, 1200)
    noise = {f"n{i}": rng.normal(0, 1, 1200) for i in range(300)}
    chosen = cs.choose_calibrator(logits, target, features=noise)
    assert chosen.losses[-1].method == "head"
    seen = cs.calibrated(cs.fit_calibrator("head", logits, target, features=noise), logits, features=noise)
    assert surprise(seen, logits, target) < chosen.losses[0].log_loss


def test_a_head_finds_what_the_logits_hide_and_is_chosen_only_then():
    """A feature that marks wrong answers wins; pure noise leaves temperature or Platt in place."""
    rng = np.random.default_rng(3)
    logits, target = student(rng, 3000)
    wrong = logits.argmax(axis=1) != target
    tell = {"tell": wrong + rng.normal(0, 0.5, 3000), "level": logits.max(axis=1)}
    chosen = cs.choose_calibrator(logits, target, features=tell)
    assert chosen.calibrator.method == "head"
    assert chosen.calibrator.n == 3000
    assert chosen.held_out == 1000
    assert chosen.losses[0].method == "head"
    assert {loss.method for loss in chosen.losses} == {"temperature", "platt", "head", "isotonic", "venn-abers"}
    noise = {"noise": rng.normal(0, 1, 3000)}
    assert cs.choose_calibrator(logits, target, features=noise).calibrator.method != "head"
    assert cs.choose_calibrator(logits, target, features=tell) == chosen


def test_below_a_thousand_rows_nothing_is_compared():
    """Temperature it is, at 999; at 1,000 the comparison is made."""
    logits, target = student(np.random.default_rng(4), 1000)
    few = cs.choose_calibrator(logits[:999], target[:999])
    assert few.calibrator.method == "temperature"
    assert few.losses == ()
    assert len(cs.choose_calibrator(logits, target).losses) == 2


@pytest.mark.parametrize("answer", [0, 1])
def test_rows_that_are_all_right_or_all_wrong_give_no_certainty(answer):
    """Smoothed targets: 50 right rows state at most 51/52."""
    logits, target = np.tile([4.0, 0.0], (50, 1)), np.full(50, answer)
    for method in ("platt", "head"):
        fitted = cs.fit_calibrator(method, logits, target, features={"x": np.ones(50)})
        stated = cs.calibrated(fitted, logits, features={"x": np.ones(50)})
        assert stated == pytest.approx(np.full(50, 1 / 52 if answer else 51 / 52), abs=1e-3)


def test_features_that_miss_or_hold_no_number_are_refused():
    """By name, at fit and at use; an unknown method names the known ones."""
    logits, target = student(np.random.default_rng(5), 50)
    fitted = cs.fit_calibrator("head", logits, target, features={"x": np.arange(50.0)})
    with pytest.raises(MeasureError, match="'x'"):
        cs.calibrated(fitted, logits, features={"y": np.arange(50.0)})
    with pytest.raises(MeasureError, match="'x'"):
        cs.calibrated(fitted, logits, features={"x": np.full(50, np.nan)})
    with pytest.raises(MeasureError, match="features"):
        cs.fit_calibrator("head", logits, target)
    with pytest.raises(MeasureError, match="beta") as told:
        cs.fit_calibrator("beta", logits, target)
    assert "temperature" in told.value.next_action


def test_an_answers_tokens_give_their_mean_least_sum_and_count():
    """Probabilities instead of logarithms, and empty answers, are refused."""
    found = cs.sequence_features([[-1.0, -3.0], [-0.5]])
    assert {name: column.tolist() for name, column in found.items()} == {
        "mean": [-2.0, -0.5], "least": [-3.0, -0.5], "sum": [-4.0, -0.5], "tokens": [2.0, 1.0],
    }
    for bad in ([[0.9]], [[]], [[float("nan")]]):
        with pytest.raises(MeasureError):
            cs.sequence_features(bad)
