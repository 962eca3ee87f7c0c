"""Out-of-scope rules: chosen where the rows can tell, said where they can't."""

import numpy as np
import pytest

from overproof.steps.scope import choose_mixed, choose_scope
from overproof.steps.sheet import Sheet

LABELS = ("a", "b", "other")


def rows(foreign: int, own: int = 300, *, apart: float = 4.0, seed: int = 0):
    """Logits that are flat for foreign rows, and a column of noise beside them; all gold is known."""
    rng = np.random.default_rng(seed)
    outside = np.arange(own + foreign) >= own
    target = np.where(outside, 2, rng.integers(0, 2, own + foreign))
    logits = rng.normal(0, 0.5, (own + foreign, 3))
    sure = np.where(outside, 4.0 - apart, 4.0) + rng.normal(0, 0.5, own + foreign)
    logits[np.arange(own + foreign), rng.integers(0, 2, own + foreign)] += sure
    return logits, {"nearest_1": rng.random(own + foreign)}, Sheet(target=target, gold=target)


def test_the_score_that_tells_best_on_labelled_rows_is_chosen_with_its_interval() -> None:
    """With enough rows of the class a score of the logits beats a column of noise, and the interval leaves one half."""
    fit = choose_scope(*rows(60), LABELS, named="other", share=0.02)
    assert fit.rules[0].score != "nearest_1"
    assert (fit.inside, fit.outside) == (300, 60)
    assert fit.table[0].low > 0.9
    assert [one.auroc for one in fit.table] == sorted((one.auroc for one in fit.table), reverse=True)
    assert "Bonferroni over 6" in fit.table[0].method
    assert "largest AUROC" in fit.reason


@pytest.mark.parametrize(("foreign", "apart", "named", "why"), [
    (10, 4.0, "other", "10 calibration rows are labelled"),
    (60, 0.0, "other", "no score is shown to be better than chance"),
    (60, 4.0, "", "no label is named"),
])  # fmt: skip
def test_where_the_rows_can_not_tell_the_largest_logit_is_taken_and_said_so(foreign, apart, named, why) -> None:
    """Too few rows, no difference or no label: the default, with the reason, and no figure that would look like proof."""
    fit = choose_scope(*rows(foreign, apart=apart), LABELS, named=named, share=0.02)
    assert [rule.score for rule in fit.rules] == ["max_logit"]
    assert why in fit.reason


def test_a_measure_of_unknown_text_stands_guard_beside_the_chosen_score() -> None:
    """A student that knows how much of a text is unknown routes by that too, and both share what may be routed."""
    logits, _, sheet = rows(0)
    unknown = {"unknown_share": np.random.default_rng(1).random(300)}
    fit = choose_scope(logits, unknown, sheet, LABELS, named="", share=0.1)
    assert [rule.score for rule in fit.rules] == ["max_logit", "unknown_share"]
    routed = (-logits.max(axis=1) > fit.rules[0].threshold) | (unknown["unknown_share"] > fit.rules[1].threshold)
    assert 0.05 <= routed.mean() <= 0.1


def test_a_share_of_zero_turns_the_route_off() -> None:
    """No share, no rule and no report."""
    fit = choose_scope(*rows(60), LABELS, named="other", share=0.0)
    assert fit.rules == ()
    assert fit.report(np.zeros(3, dtype=bool)) is None


def test_rules_on_messages_put_together_share_what_may_be_routed() -> None:
    """Each has half of it, both together route no more, and other columns are no part of it; no share or no table, no rule."""
    rng = np.random.default_rng(2)
    columns = {"two_answers": rng.gamma(2, 2, 1_000), "repetition": rng.integers(0, 4, 1_000).astype(float), "nearest_1": rng.random(1_000)}
    rules = choose_mixed(columns, 0.04)
    assert [rule.score for rule in rules] == ["two_answers", "repetition"]
    routed = [columns[rule.score] > rule.threshold for rule in rules]
    assert 0.015 <= routed[0].mean() <= 0.02
    assert routed[1].mean() == 0.0  # a quarter of the rows share the largest count
    assert (routed[0] | routed[1]).mean() <= 0.04
    assert choose_mixed(columns, 0.0) == choose_mixed({"nearest_1": columns["nearest_1"]}, 0.04) == ()
