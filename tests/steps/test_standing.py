"""Every way to serve side by side: what isn't known concludes nothing, and "never" is an answer."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overproof.evidence import PromptSearch, Span, Trial
from overproof.measure.intervals import figure
from overproof.steps.dossier import DossierRecipe, page
from overproof.steps.evaluate import served_cost_usd_per_1000
from overproof.steps.gate import GateRecipe, gate
from overproof.steps.optimise import Optimised
from overproof.steps.prompting import Prompting
from overproof.steps.standing import WeighRecipe, payback, slice_columns, weigh

RECIPE = WeighRecipe(requests_per_month=90_000.0, cpu_usd_per_hour=0.05, training_s=7200.0, review_usd=80.0, other_usd=5.0)
SPAN = st.floats(-1e6, 1e6)


@pytest.fixture(scope="module")
def evidence(tmp_path_factory, make_world):
    world = make_world(tmp_path_factory.mktemp("standing"))
    return world.evidence(world.report())


def paid(evidence, **pin):
    """A teacher that was paid for the labels."""
    return replace(evidence.data, pin=replace(evidence.data.pin, **({"use": "openai.v1"} | pin)))


def row(found, name):
    return next(r for r in found.rows if r.name == name)


def with_candidate(report, name, **more):
    return replace(report, candidates=tuple(replace(c, **more) if c.name == name else c for c in report.candidates))


def test_the_served_student_is_priced_with_its_interval_and_pays_back(evidence) -> None:
    """Once = labels + reviews + training + other; a month's saving and the pay-back follow from the kept share's ends."""
    found = weigh(evidence.report, paid(evidence), (), RECIPE)
    served, kept = found.rows[0], next(c for c in evidence.report.candidates if c.name == "large").slices[0].kept
    assert (served.name, served.kind) == ("large as served", "student")
    assert served.usd_per_1000 == pytest.approx(served_cost_usd_per_1000(evidence.report))
    assert found.once.usd == pytest.approx(12.5 + 80 + 5 + 2 * 0.05)
    assert served.saved_per_month.low == pytest.approx(90 * (2.0 - 0.01 - (1 - kept.low) * 2.0))
    assert served.payback_months.value == pytest.approx(found.once.usd / served.saved_per_month.value)
    assert served.payback_months.low < served.payback_months.value < served.payback_months.high
    assert "pays back in" in found.words[0]
    assert row(found, "teacher").usd_per_month.value == pytest.approx(180.0)
    assert row(found, "teacher").saved_per_month.value is None
    assert row(found, "small").saved_per_month.value is None


def test_answers_that_the_traffic_brought_are_not_paid_for_again(evidence) -> None:
    """A recorded teacher's answers were bought by the product, whatever the log says that they cost."""
    found = weigh(evidence.report, evidence.data, (), RECIPE)
    assert found.once.labels_usd == 0
    assert "traffic brought" in found.words[0]


@pytest.mark.parametrize(("volume", "price", "lacking"), [(None, 2.0, "volume"), (90_000.0, 0.0, "teacher's price")])
def test_without_volume_or_price_nothing_is_said_about_pay_back(evidence, volume, price, lacking) -> None:
    """Not known is not never, and not zero."""
    report = with_candidate(evidence.report, "teacher", cost_usd_per_1000=price)
    found = weigh(report, evidence.data, (), replace(RECIPE, requests_per_month=volume))
    assert found.rows[0].saved_per_month == found.rows[0].payback_months == Span(value=None, low=None, high=None)
    assert f"isn't known, for want of the {lacking}" in found.words[0]


def test_a_student_that_costs_more_than_the_teacher_never_pays_back(evidence) -> None:
    """The words say never, and by how much it loses."""
    found = weigh(with_candidate(evidence.report, "large", cost_usd_per_1000=9.0), evidence.data, (), RECIPE)
    assert found.rows[0].saved_per_month.high < 0
    assert found.rows[0].payback_months == Span(value=None, low=None, high=None)
    assert "never pays back" in found.words[0]


def test_doing_nothing_is_said_first_where_it_is_enough(evidence) -> None:
    """A baseline at the bars and at equal cost is named with its role in verdict, words and page."""
    served = served_cost_usd_per_1000(evidence.report)
    report = with_candidate(evidence.report, "majority", clears_bars="pass", role="quantised teacher", cost_usd_per_1000=served)
    report = replace(report, cheaper="majority")
    found = weigh(report, evidence.data, (), RECIPE)
    assert found.words[0].startswith("doing nothing is enough: majority (quantised teacher) clears every bar at")
    whole = replace(evidence, report=report, standing=found)
    verdict = gate(whole, GateRecipe(task="t", owner="Dana Ruiz", deputy="Sam Ito", review_every_days=90, today="2026-02-10"))
    assert verdict.headline == "Don't distil: majority (quantised teacher) clears every bar and costs no more than large as served."
    text = page(whole, verdict, DossierRecipe(today="2026-02-10", version="0"))
    assert text.index("Doing nothing is enough") < text.index("Every way to serve", text.index("Doing nothing is enough"))
    assert "quantised teacher" in text


def test_a_dearer_baseline_at_the_bars_is_told_with_both_prices(evidence) -> None:
    """It is no reason not to distil, and nobody has to find it in a table."""
    report = with_candidate(evidence.report, "majority", clears_bars="pass", role="cheaper model", cost_usd_per_1000=1.9)
    found = weigh(report, evidence.data, (), RECIPE)
    assert "clears every bar too, at 1.9 USD per 1,000, 171.00 a month, against" in found.words[0]


def test_a_baseline_without_a_measured_price_is_never_called_cheaper(world) -> None:
    """A cost of 0 for want of a figure is no low cost: a perfect endpoint without prices doesn't end the distilling."""
    candidates = {"large": {"error": 0.06}, "free?": {"kind": "baseline", "error": 0.0, "cost": 0.0}}

    class Unpriced(type(world)):
        def scores(self, name, rows, **options):
            found = super().scores(name, rows, **options)
            return replace(found, cost_n=0) if name == "free?" else found

    report = Unpriced(world.root).report(candidates=candidates)
    assert next(c for c in report.candidates if c.name == "free?").clears_bars == "pass"
    assert report.cheaper is None
    assert row(weigh(report, world.evidence(report).data, (), RECIPE), "free?").usd_per_1000 is None
    assert world.report(candidates=candidates).cheaper == "free?"


def test_a_search_and_its_cost_stand_with_the_baseline(evidence) -> None:
    """What was spent on the prompt is what the baseline costs once."""
    trial = Trial(name="plain", agreement=figure(3, 10, metric="fidelity"), calls=10, cost_usd=0.5, out_after=None)
    search = PromptSearch(name="majority", chosen="plain", trials=(trial,), calls=10, cap=12, cost_usd=0.5, n_shown=5, n_scored=10, p=None)
    made = Optimised(prompting=Prompting(text="x"), search=search)
    found = weigh(evidence.report, evidence.data, (made,), RECIPE)
    assert row(found, "majority").once_usd == 0.5
    assert found.words[-1].startswith("majority: 1 prompts tried with 10 of 12 questions for 0.5000 USD")
    text = page(replace(evidence, standing=found), gate(evidence, GateRecipe(task="t", owner="", deputy="", review_every_days=9, today="2026-02-10")), DossierRecipe(today="2026-02-10", version="0"))
    assert "Prompts tried for majority" in text


def test_slices_stand_side_by_side_for_every_candidate(evidence) -> None:
    """All traffic first, every declared slice, the teacher by its accuracy; labels are left out."""
    found = dict(slice_columns(evidence.report))
    assert next(iter(found)) == "all"
    assert "business" in found
    assert set(found["all"]) == {"small", "large", "majority", "teacher"}
    assert found["all"]["teacher"].metric == "accuracy"
    assert all(f.n > 0 and f.low <= f.value <= f.high for f in found["business"].values())


@given(st.floats(0, 1e6), st.lists(SPAN, min_size=3, max_size=3))
def test_pay_back_is_ordered_and_never_where_nothing_is_saved(once: float, ends: list[float]) -> None:
    """Months times saving is the sum; the shortest comes from the largest saving; less than a millionth of a dollar is never."""
    low, value, high = sorted(ends)
    found = payback(once, Span(value=value, low=low, high=high))
    for months, saved in ((found.low, high), (found.value, value), (found.high, low)):
        assert (months is None) == (saved < 1e-6)
        if months is not None:
            assert months * saved == pytest.approx(once)
    known = [m for m in (found.low, found.value, found.high) if m is not None]
    assert known == sorted(known)
