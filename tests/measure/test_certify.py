"""Certified thresholds are over their bar no more often than stated, in worlds where naive choices are often over."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overproof.errors import MeasureError
from overproof.evidence import Certificate, SlicePlan
from overproof.measure import certify as ct
from overproof.measure.intervals import cp_upper, figure, min_rows, p_pass

BAR, DELTA = 0.05, 0.1


def beta_scores(a, b):
    return lambda rng, n: rng.beta(a, b, n)


def pocket_scores(rng, n):
    return np.where(rng.random(n) < 0.02, rng.uniform(0.985, 1.0, n), rng.beta(6, 1, n) * 0.985)


WORLDS = {
    "calibrated": (beta_scores(6, 1), lambda s: 1 - s),
    "overconfident": (beta_scores(9, 0.7), lambda s: np.clip(0.025 + 1.3 * (1 - s), 0, 1)),
    "pocket": (pocket_scores, lambda s: np.where(s >= 0.985, 0.6, 1 - s)),
    "at the bar": (beta_scores(6, 1), lambda s: np.full_like(s, 0.0505)),
    "good": (beta_scores(9, 0.6), lambda s: 0.01 + 0.5 * (1 - s) ** 1.2),
}


def drawn(world, rng, n):
    scores_of, error_of = WORLDS[world]
    scores = scores_of(rng, n)
    return scores, rng.random(n) < error_of(scores)


class Truth:
    """True error among kept, and true share kept, at any threshold."""

    def __init__(self, world):
        scores_of, error_of = WORLDS[world]
        self.scores = np.sort(scores_of(np.random.default_rng(99), 2_000_000))[::-1]
        self.risk = np.cumsum(error_of(self.scores)) / np.arange(1, self.scores.size + 1)

    def at(self, threshold):
        kept = int(np.searchsorted(-self.scores, -threshold, side="right"))
        return (self.risk[kept - 1] if kept else 0.0), kept / self.scores.size


TRUTHS = {world: Truth(world) for world in WORLDS}


def limit(delta, trials):
    """What a Monte-Carlo estimate of a rate of at most delta may show."""
    return delta + 3 * math.sqrt(delta * (1 - delta) / trials)


def naive_threshold(scores, wrong, grid):
    """What people do: the loosest threshold whose observed error is within the bar."""
    fits = [
        t for t, (k, m) in zip(grid, ct.grid_counts(scores, wrong, grid), strict=True) if m and k <= BAR * m
    ]
    return fits[-1] if fits else None


def trials_of(world, n, trials, seed, *, start=None):
    """Violations and kept share of our method and of the naive one."""
    rng = np.random.default_rng(seed)
    over = naive_over = nothing = kept = 0.0
    for _ in range(trials):
        plan = ct.plan_slice("other", *drawn(world, rng, 2 * n), alpha=BAR, weight=1.0, n_sealed=n)
        plan = plan if start is None else replace(plan, start=start)
        scores, wrong = drawn(world, rng, n)
        done = ct.certify_slices([plan], {"other": scores}, {"other": wrong}, DELTA)[0]
        if done.threshold is None:
            nothing += 1
        else:
            risk, share = TRUTHS[world].at(done.threshold)
            over += risk > BAR
            kept += share
        naive = naive_threshold(scores, wrong, plan.grid)
        naive_over += naive is not None and TRUTHS[world].at(naive)[0] > BAR
    return {
        "over": over / trials,
        "kept": kept / trials,
        "nothing": nothing / trials,
        "naive": naive_over / trials,
    }


@pytest.mark.parametrize(
    ("world", "n", "naive_at_least", "kept_at_least"),
    [
        ("calibrated", 2000, 0.3, 0.35),
        ("overconfident", 2000, 0.3, 0.15),
        ("pocket", 300, 0.3, 0.0),
        ("at the bar", 1000, 0.6, 0.0),
        ("good", 500, 0.0, 0.9),
    ],
)
def test_a_certified_threshold_is_over_its_bar_at_most_as_often_as_stated(
    world, n, naive_at_least, kept_at_least
):
    """Budget 10%: ours stays within it and keeps a useful share; the observed-error choice is over in most worlds."""
    trials = 250
    got = trials_of(world, n, trials, seed=7)
    assert got["over"] <= limit(DELTA, trials), got
    assert got["naive"] >= naive_at_least, got
    assert got["kept"] >= kept_at_least, got


def test_the_planned_start_is_what_makes_certification_possible():
    """Overconfident student, n=5,000: from the planned start little is lost; from the strictest point most runs fail."""
    assert trials_of("overconfident", 5000, 100, seed=3)["nothing"] <= 0.2
    assert trials_of("overconfident", 5000, 100, seed=3, start=0)["nothing"] >= 0.4


def test_eight_slices_just_over_the_bar_together_stay_within_the_budget():
    """Any certified slice is a false one; jointly at most delta. With full delta each, and naively, it is far more."""
    rng = np.random.default_rng(5)
    names = [f"s{i}" for i in range(8)]
    weights = ct.split_delta(dict.fromkeys(names, 0.125), dict.fromkeys(names, 0.9))
    trials, ours, each, naive = 100, 0, 0, 0
    for _ in range(trials):
        plans, scores, wrong = [], {}, {}
        for name in names:
            plans.append(
                ct.plan_slice(
                    name, *drawn("at the bar", rng, 800), alpha=BAR, weight=weights[name], n_sealed=400
                )
            )
            scores[name], wrong[name] = drawn("at the bar", rng, 400)
        ours += any(c.threshold is not None for c in ct.certify_slices(plans, scores, wrong, DELTA))
        counts = {p.slice: ct.grid_counts(scores[p.slice], wrong[p.slice], p.grid) for p in plans}
        each += any(ct.walk(counts[p.slice], BAR, DELTA, p.start) is not None for p in plans)
        naive += any(naive_threshold(scores[p.slice], wrong[p.slice], p.grid) is not None for p in plans)
    assert ours / trials <= limit(DELTA, trials)
    assert each / trials > 0.25
    assert naive / trials > 0.9


def mixed_slices(seed=12):
    """Four slices of different worlds with plans and sealed rows."""
    rng = np.random.default_rng(seed)
    chosen = {"a": "good", "b": "calibrated", "c": "at the bar", "d": "overconfident"}
    weights = ct.split_delta(dict.fromkeys(chosen, 0.25), {"a": 1.0, "b": 0.4, "c": 0.1, "d": 0.2})
    plans, scores, wrong = [], {}, {}
    for name, world in chosen.items():
        plans.append(
            ct.plan_slice(name, *drawn(world, rng, 3000), alpha=BAR, weight=weights[name], n_sealed=1500)
        )
        scores[name], wrong[name] = drawn(world, rng, 1500)
    return plans, scores, wrong


def test_the_outcome_does_not_depend_on_the_order_of_slices_or_rows():
    """Permuted slices and rows give the same certificate of each slice."""
    plans, scores, wrong = mixed_slices()
    first = ct.certify_slices(plans, scores, wrong, 0.05)
    order = {name: np.random.default_rng(1).permutation(values.size) for name, values in scores.items()}
    again = ct.certify_slices(
        plans[::-1],
        {name: scores[name][order[name]] for name in scores},
        {name: wrong[name][order[name]] for name in wrong},
        0.05,
    )
    assert again[::-1] == first
    assert {c.verdict for c in first} >= {"pass", "undecided"}


def test_a_certificate_keeps_its_bound_within_its_bar():
    """Every certified slice shows counts whose bound is within alpha at its own delta; others keep nothing."""
    plans, scores, wrong = mixed_slices()
    for done in ct.certify_slices(plans, scores, wrong, 0.05):
        if done.verdict == "pass":
            kept = scores[done.slice] >= done.threshold
            assert (done.kept, done.wrong) == (int(kept.sum()), int(wrong[done.slice][kept].sum()))
            assert done.upper == cp_upper(done.wrong, done.kept, done.delta) <= done.alpha
            assert done.keep_share == figure(done.kept, done.n, metric="kept")
        else:
            assert (done.threshold, done.kept, done.wrong, done.upper) == (None, 0, 0, 1.0)
            assert done.keep_share.value == 0.0


def plan_of(name, weight, *, start=0, grid=(0.5, -1.0), dev_error=0.0):
    return SlicePlan(
        slice=name,
        alpha=BAR,
        weight=weight,
        grid=grid,
        start=start,
        dev_n=1000,
        dev_keep=1.0,
        dev_error=dev_error,
    )


def test_a_settled_slice_hands_its_share_of_delta_on():
    """70 clean rows miss at half the budget and pass once the other slice, certified in full, hands its half on."""
    clean = {"big": [0.9] * 500, "small": [0.9] * 70}
    right = {name: [False] * len(rows) for name, rows in clean.items()}
    assert min_rows(BAR, 0.025) > 70 > min_rows(BAR, 0.05)
    plans = [plan_of("small", 0.5), plan_of("big", 0.5)]
    small, big = ct.certify_slices(plans, clean, right, 0.05)
    assert (big.verdict, big.delta) == ("pass", 0.025)
    assert (small.verdict, small.delta) == ("pass", 0.05)
    spoiled = right | {"big": [False] * 400 + [True] * 100}
    small, big = ct.certify_slices(plans, clean, spoiled, 0.05)
    assert (small.verdict, small.delta, big.verdict) == ("undecided", 0.025, "fail")


def test_a_slice_without_enough_rows_is_undecided_and_names_the_rows():
    """Thirty clean rows can't certify 5% at 5%; no rows at all neither; a wrong start fails without a number."""
    plans = [plan_of("few", 0.4), plan_of("none", 0.3), plan_of("bad", 0.3, dev_error=0.3)]
    few, none, bad = ct.certify_slices(
        plans,
        {"few": [0.9] * 30, "bad": [0.9] * 300},
        {"few": [False] * 30, "bad": [False] * 200 + [True] * 100},
        0.05,
    )
    assert (few.verdict, few.threshold, few.kept) == ("undecided", None, 0)
    assert few.rows_needed + 30 >= min_rows(BAR, 0.02)
    assert (none.verdict, none.n, none.upper) == ("undecided", 0, 1.0)
    assert none.rows_needed >= min_rows(BAR, 0.015)
    assert (bad.verdict, bad.rows_needed) == ("fail", None)


def test_a_confidence_that_is_not_a_number_is_never_kept():
    """Not even by the threshold that keeps everything."""
    counts = ct.grid_counts([0.9, math.nan, 0.1], [False, True, False], (0.5, -1.0))
    assert counts == ((0, 1), (0, 2))
    done = ct.certify_slices(
        [plan_of("s", 1.0)], {"s": [0.9] * 200 + [math.nan] * 50}, {"s": [False] * 200 + [True] * 50}, 0.05
    )[0]
    assert (done.n, done.kept, done.wrong, done.threshold) == (250, 200, 0, -1.0)


SCORES = st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0, math.nan]), max_size=60)


@given(SCORES, st.integers(1, 60))
def test_a_grid_falls_strictly_and_ends_with_what_keeps_everything(reference, points):
    """Each point keeps at least its share of the reference, and no point more than a rounding over it."""
    grid = ct.grid_of(reference, points=points)
    assert grid[-1] == -1.0
    assert all(a > b for a, b in itertools.pairwise(grid))
    real = [s for s in reference if not math.isnan(s)]
    assert set(grid[:-1]) <= set(real)
    for share in range(1, points if real else 1):
        target = share / points
        assert any(sum(s >= t for s in real) >= target * len(real) - 1e-9 for t in grid)
        strictest = max(t for t in grid if sum(s >= t for s in real) >= target * len(real) - 1e-9)
        assert sum(s > strictest for s in real) <= target * len(real) + 1e-9


@given(SCORES, st.data())
def test_counts_are_those_of_looking_at_every_row(scores, data):
    """Equal to brute force, ties included, and counts of two halves add."""
    wrong = data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    grid = ct.grid_of(data.draw(SCORES), points=7)
    counts = ct.grid_counts(scores, wrong, grid)
    rows = list(zip(scores, wrong, strict=True))
    assert counts == tuple((sum(w for s, w in rows if s >= t), sum(s >= t for s in scores)) for t in grid)
    half = len(scores) // 2
    parts = zip(
        ct.grid_counts(scores[:half], wrong[:half], grid),
        ct.grid_counts(scores[half:], wrong[half:], grid),
        strict=True,
    )
    assert counts == tuple((a + c, b + d) for (a, b), (c, d) in parts)


def test_the_start_is_where_the_sealed_rows_are_most_likely_to_pass():
    """The least p-value at the sealed set's size; the strictest where equal; nothing kept counts as hopeless."""
    counts = ((0, 0), (0, 10), (2, 300), (9, 500), (90, 900))
    values = [p_pass(round(k / 2), round(m / 2), BAR) for k, m in counts]
    assert ct.plan_start(counts, BAR, factor=0.5) == values.index(min(values)) == 2
    assert ct.plan_start(((0, 10), (0, 10)), BAR, factor=1.0) == 0


def test_the_walk_stops_at_the_first_point_that_fails():
    """A later point that would pass by itself is not reached."""
    counts = ((0, 100), (20, 150), (0, 400))
    assert p_pass(*counts[2], BAR) <= 0.05
    assert ct.walk(counts, BAR, 0.05, 0) == 0
    assert ct.walk(counts, BAR, 0.05, 1) is None


@pytest.mark.parametrize("world", ["calibrated", "overconfident", "at the bar"])
@pytest.mark.parametrize("n", [200, 1000])
def test_a_budget_certificate_is_over_budget_at_most_as_often_as_stated(world, n):
    """Kept-and-wrong over all requests within 3%: at most 10% of runs are over; the point estimate far more."""
    rng = np.random.default_rng(21)
    grid = ct.grid_of(drawn(world, rng, 20_000)[0])
    budget, trials, over, naive = 0.03, 250, 0, 0
    true = [risk * share for risk, share in map(TRUTHS[world].at, grid)]
    for _ in range(trials):
        scores, wrong = drawn(world, rng, n)
        done = ct.certify_budget(scores, wrong, grid, budget=budget, delta=DELTA)
        over += done.threshold is not None and true[grid.index(done.threshold)] > budget
        fits = [i for i, (k, _) in enumerate(ct.grid_counts(scores, wrong, grid)) if k <= budget * n]
        naive += bool(fits) and true[fits[-1]] > budget
    assert over / trials <= limit(DELTA, trials)
    assert naive / trials > 0.25


def test_a_budget_grows_what_is_kept_and_refuses_without_rows():
    """More budget or more risk never keeps less; no rows certify nothing."""
    scores, wrong = drawn("calibrated", np.random.default_rng(2), 1500)
    grid = ct.grid_of(drawn("calibrated", np.random.default_rng(3), 5000)[0])
    kept = [
        ct.certify_budget(scores, wrong, grid, budget=b, delta=0.05).kept for b in (0.01, 0.02, 0.05, 0.2)
    ]
    assert kept == sorted(kept)
    assert kept[-1] > kept[0]
    loose = [ct.certify_budget(scores, wrong, grid, budget=0.02, delta=d).kept for d in (0.001, 0.05, 0.3)]
    assert loose == sorted(loose)
    nothing = ct.certify_budget([], [], grid, budget=0.05, delta=0.05)
    assert (nothing.threshold, nothing.verdict, nothing.kept) == (None, "undecided", 0)


@given(
    st.dictionaries(st.text(max_size=3), st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8),
)
def test_weights_share_delta_out_without_exceeding_it(parts):
    """They sum to 1, and a slice that would move nothing still gets a fifth of an equal share."""
    weights = ct.split_delta({k: a for k, (a, _) in parts.items()}, {k: b for k, (_, b) in parts.items()})
    assert list(weights) == list(parts)
    assert math.fsum(weights.values()) == pytest.approx(1.0, abs=1e-12)
    assert min(weights.values()) >= 0.2 / len(parts) - 1e-12


def test_all_uses_of_one_sealed_set_together_spend_at_most_delta():
    """The sum over k stays below delta; and twenty candidates at the bar rarely get one false pass between them."""
    assert math.fsum(ct.ledger_delta(0.05, k) for k in range(1, 20_000)) < 0.05
    rng = np.random.default_rng(4)
    wrong = rng.binomial(1000, BAR, size=(2000, 20))
    p = np.vectorize(lambda k: p_pass(int(k), 1000, BAR))(wrong)
    with_ledger = (p <= [ct.ledger_delta(DELTA, k) for k in range(1, 21)]).any(axis=1).mean()
    assert with_ledger <= limit(DELTA, 2000)
    assert (p <= DELTA).any(axis=1).mean() > 0.7


def whole(slices, delta=0.05):
    return Certificate(
        plan_hash="p",
        sealed_digest="s",
        label_kind="teacher:m",
        use_k=1,
        delta_spent=delta,
        slices=slices,
        assumptions=(),
        window=(None, None),
        expires="2030-01-01",
    )


def test_a_certificate_can_be_rebuilt_from_its_counts():
    """Nothing but the counts is needed, and an honest certificate shows no difference."""
    plans, scores, wrong = mixed_slices()
    assert ct.recompute(whole(ct.certify_slices(plans, scores, wrong, 0.05))) == ()


@pytest.mark.parametrize(
    "forged",
    [
        lambda c: replace(c, upper=c.upper / 2),
        lambda c: replace(c, threshold=-1.0),
        lambda c: replace(c, wrong=0),
        lambda c: replace(c, kept=c.kept + 1),
        lambda c: replace(c, delta=c.delta / 2),
        lambda c: replace(c, verdict="fail"),
        lambda c: replace(c, alpha=c.alpha / 4),
        lambda c: replace(c, start=len(c.grid) - 1),
        lambda c: replace(c, weight=1.0),
        lambda c: replace(c, keep_share=replace(c.keep_share, low=0.99)),
        lambda c: replace(c, keep_share=replace(c.keep_share, good=1)),
        lambda c: replace(c, counts=c.counts[:-1]),
        lambda c: replace(c, counts=c.counts[::-1]),
        lambda c: replace(c, n=c.n - 1),
        lambda c: replace(c, n=5),
    ],
)
def test_a_forged_certificate_is_found_out(forged):
    """Any number that its counts don't give is named."""
    plans, scores, wrong = mixed_slices()
    honest = ct.certify_slices(plans, scores, wrong, 0.05)
    at = next(
        i for i, part in enumerate(honest) if part.verdict == "pass" and part.threshold != -1.0 and part.wrong
    )
    told = (*honest[:at], forged(honest[at]), *honest[at + 1 :])
    assert ct.recompute(whole(told))


def test_an_undecided_slice_told_as_a_pass_is_found_out():
    """The forgery that would matter most."""
    plans, scores, wrong = mixed_slices()
    honest = ct.certify_slices(plans, scores, wrong, 0.05)
    told = tuple(
        replace(c, verdict="pass", threshold=-1.0) if c.verdict == "undecided" else c for c in honest
    )
    assert told != honest
    assert ct.recompute(whole(told))
    assert ct.recompute(whole(honest, delta=0.2))


@pytest.mark.parametrize(
    "call",
    [
        lambda: ct.grid_of([1.2]),
        lambda: ct.grid_of([0.2], points=0),
        lambda: ct.grid_counts([0.5], [True, False], (-1.0,)),
        lambda: ct.grid_counts([0.5], [True], (-1.0, 0.5)),
        lambda: ct.grid_counts([0.5], [True], ()),
        lambda: ct.plan_start((), 0.05, factor=1.0),
        lambda: ct.plan_start(((0, 1),), 0.05, factor=0.0),
        lambda: ct.walk(((0, 1),), 0.05, 0.05, 1),
        lambda: ct.certify_slices([], {}, {}, 0.05),
        lambda: ct.certify_slices([plan_of("a", 1.0), plan_of("a", 0.0)], {}, {}, 0.05),
        lambda: ct.certify_slices([plan_of("a", 0.5)], {}, {}, 0.05),
        lambda: ct.certify_slices([plan_of("a", 1.0)], {"b": [0.5]}, {"b": [True]}, 0.05),
        lambda: ct.certify_slices([plan_of("a", 1.0)], {"a": [0.5]}, {}, 0.05),
        lambda: ct.certify_slices([plan_of("a", 1.0)], {}, {}, 5.0),
        lambda: ct.certify_budget([0.5], [True], (-1.0,), budget=5, delta=0.05),
        lambda: ct.split_delta({}, {}),
        lambda: ct.split_delta({"a": 1.0}, {"b": 1.0}),
        lambda: ct.ledger_delta(0.05, 0),
        lambda: ct.ledger_delta(1.0, 1),
    ],
)
def test_a_certificate_is_refused_on_input_that_does_not_belong_together(call):
    """Unplanned slices, grids that don't fall, percentages: an error that says what to do, never a bound."""
    with pytest.raises(MeasureError) as caught:
        call()
    assert caught.value.next_action
