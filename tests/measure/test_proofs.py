"""A short version of the table of proofs: each promise holds, and the naive method beside it is seen to fail."""

import re
import xml.etree.ElementTree as ET

import pytest
from benchmarks.proof import bounds, certify, ledger, paired, prove
from benchmarks.proof.figure import marks, picture
from benchmarks.proof.rows import ProofRow, counted, reached, span
from benchmarks.proof.worlds import AT_THE_BAR, CALIBRATED, OVERCONFIDENT, POCKET, truth

SEED = 5


def naive_of(row):
    """The largest share that the naive method shows."""
    return max(float(share) for share in re.findall(r"([\d.]+) %", row.naive))


@pytest.mark.parametrize(
    ("row", "naive_at_least"),
    [
        (lambda: certify.eight_slices(40, SEED), 90),
        (lambda: certify.all_or_nothing(60, SEED), 15),
        (lambda: ledger.candidates(1000, SEED), 60),
        (lambda: ledger.retry(250, SEED), 20),
        (lambda: paired.at_the_margin(600, SEED, n=100, rate_c=0.002), 20),
        (lambda: paired.chosen(300, SEED, n=1000), 14),
        (lambda: paired.baseline(600, SEED), 30),
        (lambda: bounds.sessions(300, SEED), 15),
        (lambda: bounds.teacher_labels(400, SEED, teacher_wrong=0.05, student_wrong=0.045), 95),
    ],
    ids=["eight", "path", "candidates", "retry", "margin", "fresh rows", "baseline", "sessions", "teacher"],
)
def test_the_promise_holds_where_the_naive_method_breaks(row, naive_at_least):
    """The row says that it holds, and its naive figure is as bad as it should be."""
    got = row()
    assert got.holds, got
    assert naive_of(got) >= naive_at_least


def test_a_start_planned_on_other_rows_keeps_more_than_the_strictest():
    """At 1,000 rows of a calibrated student: about .29 against .22, of .51 that could be kept."""
    got = certify.cell(CALIBRATED, 1000, 300, SEED)
    assert got.keep >= 0.27
    assert got.keep > got.keep_strict + 0.04
    assert truth(CALIBRATED).oracle(0.05).keep == pytest.approx(0.505, abs=0.01)


def test_the_worlds_are_what_they_are_said_to_be():
    """Nothing can be kept in the pocket, half of the overconfident traffic can, and next to nothing at the bar."""
    assert truth(POCKET).oracle(0.05).keep < 0.02
    assert truth(OVERCONFIDENT).oracle(0.05).keep == pytest.approx(0.52, abs=0.02)
    assert truth(AT_THE_BAR).at(-1.0).error == pytest.approx(0.0505)


def test_the_primitives_equal_independent_implementations():
    """SciPy's distributions, exact fractions, full enumeration and MAPIE: no gap above 1e-9, and never a larger p-value."""
    row = bounds.primitives(150, SEED)
    assert row.holds, row


def test_mapie_is_exact_or_more_cautious_than_we_are():
    """Its p-value is ours or, where a float is rounded up, that of one more error; both walks end at one threshold."""
    below, equal, walks = bounds.mapie_cells(25, SEED)
    assert below <= 1e-9
    assert 0.8 < equal < 1.0
    assert walks == 25


def row_of(**changes):
    values = {
        "claim": "a | b, n = 3",
        "naive": "36–61 % and 92.5 % at the bar",
        "reach": "≤ 10 %",
        "measured": "7.7 % (154 of 2,000; 95 %: 6.6–9.0 %)",
        "holds": True,
        "n_trials": 2000,
    }
    return ProofRow(**values | changes)


def test_the_page_and_the_plot_show_every_row():
    """A broken row is not hidden; a bar in a claim does not break the table; rows without a level are not plotted."""
    rows = [row_of(), row_of(holds=False, n_trials=50), row_of(reach="within 1e-9", naive="–")]
    page = prove.page(rows, 2000, 1)
    lines = [line for line in page.splitlines() if line.startswith("| ")][1:]
    assert len(lines) == 3
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 7 for line in lines)
    assert "**NO**" in lines[1]
    first, *others = marks(rows)
    assert (first.naive_low, first.naive_high, first.ours, first.level) == (36.0, 92.5, 7.7, 10.0)
    assert len(others) == 1
    assert ET.fromstring(picture(rows)).tag.endswith("svg")


def test_a_module_with_rows_is_found_and_the_others_are_not():
    """Discovery goes by what a module has, so a new proof needs no registration."""
    assert {"certify", "ledger", "paired", "bounds"} <= set(prove.modules())
    assert not {"rows", "worlds", "figure", "prove"} & set(prove.modules())
    assert prove.modules("nothing of that name") == []


def test_a_full_run_must_show_the_level_itself():
    """Three standard errors are allowed to a short run only."""
    assert reached(0.13, 0.10, 200)
    assert not reached(0.13, 0.10, 2000)
    assert counted(154, 2000).startswith("7.7 % (154 of 2,000; 95 %: 6.6–9.0 %")
    assert (span([0.361, 0.61]), span([0.5, 0.5])) == ("36–61 %", "50 %")
