"""The evaluation's page: the explorer's table says what the certificate's counts say, and rows shown are never sealed ones."""

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
from tests.web.conftest import get

from overproof.evidence import SliceCalibrator
from overproof.measure.intervals import cp_interval, cp_upper
from overproof.project import load_project
from overproof.steps.dossier import amount
from overproof.steps.evaluate import served_cost_usd_per_1000
from overproof.web.evaluation_model import answered, chosen_rows
from overproof.web.explorer import EVERYWHERE, MOST_STEPS, explorer_of, table_of, volume_of
from overproof.web.place import Place


@pytest.fixture(scope="module")
def place(project_folder):
    """The walked project."""
    found = Place(load_project(project_folder / "overproof.toml"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def run(place):
    """Its newest run."""
    return place.run()


@pytest.fixture(scope="module")
def explorer(run):
    """Of its certificate."""
    return explorer_of(run.artifacts["report"].value, run.artifacts["plan"].value)


def test_a_slices_stops_are_the_certificates_counts(explorer, run):
    """Kept, wrong, share and bound at each planned threshold, each from its counts alone; nothing else is said to be certified."""
    certificate = run.artifacts["report"].value.certificate
    for part in certificate.slices:
        move = next(one for one in explorer.moves if one.name == part.slice)
        assert [(s.wrong, s.kept) for s in move.stops] == [(0, 0), *part.counts]
        for stop in move.stops:
            ends = cp_interval(stop.kept, part.n) if part.n else None
            assert ends is None or (stop.share.low, stop.share.high) == (ends.low, ends.high)
            assert stop.upper is None or stop.upper == cp_upper(stop.wrong, stop.kept, part.delta or certificate.delta_spent)
        stated = [(s.threshold, s.certified) for s in move.stops if s.certified is not None]
        assert stated == ([] if part.threshold is None else [(part.threshold, part.alpha)])
        assert move.stops[move.planned].threshold == part.threshold


def test_where_nothing_is_moved_all_traffic_is_what_the_certificate_keeps(explorer, run):
    """Each view's planned stop has the same share of all traffic: the certificate's kept rows over all of its rows."""
    parts = run.artifacts["report"].value.certificate.slices
    kept, n = sum(part.kept for part in parts), sum(part.n for part in parts)
    for move in explorer.moves:
        assert move.stops[move.planned].total.value == pytest.approx(kept / n)
    assert explorer.moves[0].name == EVERYWHERE
    assert explorer.moves[0].stops[-1].kept == sum(part.counts[-1][1] for part in parts)


def test_loosening_keeps_more_and_costs_less(explorer):
    """Along every view the share never falls, and the month's cost never rises; its interval holds it."""
    for move in explorer.moves:
        assert len(move.stops) <= MOST_STEPS + 2
        costs = [explorer.month(stop, 10_000.0) for stop in move.stops]
        for (before, after), (dear, cheap) in zip(pairwise(move.stops), pairwise(costs), strict=True):
            assert after.kept >= before.kept
            assert cheap.value <= dear.value
            assert cheap.low <= cheap.value <= cheap.high
    alone = explorer.month(None, 10_000.0)
    assert explorer.month(explorer.moves[0].stops[0], 10_000.0).value == pytest.approx(alone.value + 10 * explorer.student_usd)


def test_the_cost_is_the_dossiers_where_as_much_is_kept(explorer, run):
    """One formula for what serving costs: the student reads all, the teacher answers the rest."""
    report = run.artifacts["report"].value
    chosen = next(c for c in report.candidates if c.name == report.chosen)
    kept = chosen.slices[0].kept.value
    stop = replace(explorer.moves[0].stops[0], total=replace(explorer.moves[0].stops[0].total, value=kept))
    assert explorer.month(stop, 1000.0).value == pytest.approx(served_cost_usd_per_1000(report))


def test_rows_that_were_drawn_beyond_their_share_do_not_count_as_traffic(run):
    """With boosted slices the share of all traffic is weighted by the calibration rows, and its interval holds every slice's."""
    report, plan = run.artifacts["report"].value, run.artifacts["plan"].value
    found = explorer_of(report, plan, boosted={"safety reports": 5})
    weights = {one.slice: one.dev_n for one in plan.slices}
    wanted = sum(weights[p.slice] / sum(weights.values()) * (p.kept / p.n if p.n else 0.0) for p in report.certificate.slices)
    total = found.moves[0].stops[found.moves[0].planned].total
    assert total.value == pytest.approx(wanted)
    assert total.low < total.value < total.high


def test_without_a_certified_threshold_the_plan_keeps_nothing(run):
    """A refusal's certificate: the explorer starts where the teacher answers all, and certifies no place."""
    report, plan = run.artifacts["report"].value, run.artifacts["plan"].value
    bare = tuple(replace(one, threshold=None, kept=0, wrong=0, upper=1.0, verdict="undecided") for one in report.certificate.slices)
    found = explorer_of(replace(report, certificate=replace(report.certificate, slices=bare)), plan)
    assert all(move.planned == 0 and not any(stop.certified for stop in move.stops) for move in found.moves)
    assert found.moves[0].stops[0].upper is None


def test_rows_shown_are_calibration_rows_alone(place, run):
    """Every row that differs is shown once, none is sealed, and the counts of the grid are all rows."""
    labelled = run.artifacts["labels"].value
    report = run.artifacts["report"].value
    found = answered(place, run, report.chosen)
    assert found.whole
    ids = [one.id for one in found.differing]
    assert len(ids) == len(set(ids)) == found.n - sum(n for (t, s), n in found.counts.items() if t == s)
    assert set(ids) <= {e.request.id for e in labelled.calibration.examples}
    assert not set(ids) & {e.request.id for e in labelled.test.examples}
    assert sum(found.counts.values()) == found.n == len(labelled.calibration.examples)
    listed = {d.request_id: (d.teacher, d.student, d.gold, d.confidence) for d in report.disagreements}
    shown = {one.id: (one.teacher, one.student, one.gold, one.confidence) for one in found.differing}
    assert listed.items() <= shown.items()


def test_who_is_right_is_what_the_true_label_says(place, run):
    """And not known where there is none."""
    for one in answered(place, run, run.artifacts["report"].value.chosen).differing:
        assert (one.right == "unknown") is (one.gold is None)
        if one.gold is not None:
            assert one.right == ("teacher" if one.gold == one.teacher else "student" if one.gold == one.student else "neither")


def test_a_pairs_number_leads_to_just_as_many_rows(place, run):
    """Filtered by the pair, the list is what the grid counts; by a slice, only its rows."""
    found = answered(place, run, run.artifacts["report"].value.chosen)
    for pair in found.pairs:
        assert len(chosen_rows(found, teacher=pair.teacher, student=pair.student, where="", right="", text="")) == pair.share.good
    by_slice = Counter(one.slice for one in found.differing)
    assert {name: len(chosen_rows(found, teacher="", student="", where=name, right="", text="")) for name in by_slice} == by_slice


def test_a_baseline_has_answers_of_its_own_and_the_teacher_has_none(place, run):
    """What was not kept is said to be missing, never taken from another candidate."""
    assert answered(place, run, "majority.v1").counts != answered(place, run, run.artifacts["report"].value.chosen).counts
    assert {student for _, student in answered(place, run, "majority.v1").counts} != {"order_status", "complaint"}
    assert answered(place, run, "teacher") is None


def test_after_slices_were_cut_otherwise_nothing_is_read_by_them(place, run):
    """No row is called one of today's slices; where a slice's own calibrator read the confidence, only the report's own list is shown."""
    report, plan = run.artifacts["report"].value, run.artifacts["plan"].value
    other = Place(replace(place.project, slices=()))
    found = answered(other, run, report.chosen)
    assert (found.whole, found.slices, {one.slice for one in found.differing}) == (True, (), {""})
    own = replace(plan.confidence, own=(SliceCalibrator(slice="english", calibrator=plan.confidence.everywhere),))
    changed = replace(run, artifacts={**run.artifacts, "plan": SimpleNamespace(value=replace(plan, confidence=own))})
    found = answered(other, changed, report.chosen)
    other.close()
    assert not found.whole
    assert len(found.differing) == len(report.disagreements)


def test_the_volume_is_that_of_the_logs_last_days(place):
    """Counted by time, and said with its end."""
    times = sorted(one.request.at for one in place.store.traffic.read())
    found = volume_of(place, None)
    assert times[-1][:10] in found.words
    assert 0 < found.requests <= len(times)


def test_the_thresholds_come_as_json(site, explorer):
    """What the page's script gets is the read model."""
    status, headers, text = get(f"{site.url}/ui/northlane-inbox/evaluation/thresholds")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(text) == json.loads(json.dumps(table_of(explorer)))


def test_without_a_script_the_form_shows_the_same(site, explorer):
    """A step of the address is answered by the server."""
    move = explorer.moves[0]
    at = len(move.stops) // 2
    _, _, text = get(f"{site.url}/ui/northlane-inbox/evaluation?step={at}&volume=50000")
    assert f"{100 * move.stops[at].total.value:.1f}%" in text
    assert f"{amount(explorer.month(move.stops[at], 50_000.0).value)} USD" in text


def test_the_threshold_moves_by_keyboard(page, site, explorer):
    """Arrow keys move it; share, bound, word and cost are the read model's at every step, and only the plan's own place is certified."""
    page.goto(f"{site.url}/ui/northlane-inbox/evaluation")
    page.locator("#x-show").wait_for(state="hidden")
    page.locator("#x-volume").fill("50000")

    def agrees(move, at):
        stop = move.stops[at]
        assert page.locator("#x-total").inner_text() == f"{100 * stop.total.value:.1f}%"
        assert page.locator("#x-cost").inner_text() == f"{amount(explorer.month(stop, 50_000.0).value)} USD"
        assert page.locator("#x-word").inner_text().startswith("✓ certified") is (stop.certified is not None)
        assert stop.upper is None or page.locator("#x-upper").inner_text() == f"≤ {100 * stop.upper:.2f}%"

    everywhere = explorer.moves[0]
    agrees(everywhere, everywhere.planned)
    page.locator("#x-step").focus()
    for step in range(1, 6):
        page.keyboard.press("ArrowRight")
        agrees(everywhere, everywhere.planned + step)
    page.keyboard.press("Home")
    agrees(everywhere, 0)
    page.keyboard.press("End")
    agrees(everywhere, len(everywhere.stops) - 1)
    english = next(one for one in explorer.moves if one.name == "english")
    page.locator("#x-move").select_option("english")
    agrees(english, english.planned)
    page.locator("#x-step").focus()
    page.keyboard.press("ArrowLeft")
    agrees(english, english.planned - 1)
    assert "certified" in page.locator("#x-step").get_attribute("aria-valuetext")


def test_a_number_of_the_grid_leads_to_its_rows(page, site):
    """In the browser: from a confused pair to as many messages, side by side."""
    page.goto(f"{site.url}/ui/northlane-inbox/evaluation")
    link = page.locator("#confusion tbody tr").first.get_by_role("link")
    wanted = int(link.inner_text())
    link.click()
    assert page.locator("#disagreements tbody tr").count() == wanted
    assert page.url.endswith("#disagreements")


def test_pages_stay_small(site):
    """Under half a megabyte, whatever the candidate."""
    for query in ("", "?candidate=ngram.v1", "?candidate=teacher", "?run=r1"):
        assert len(get(f"{site.url}/ui/northlane-inbox/evaluation{query}")[2]) < 400_000
        assert len(get(f"{site.url}/ui/northlane-inbox/run{query}")[2]) < 400_000
