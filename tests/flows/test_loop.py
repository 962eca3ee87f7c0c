"""`overproof demo --loop`, once round and small: serve, log, watch, alarm, re-run, a better student where the world changed."""

import json
from pathlib import Path

import pytest
from tests import northlane

from overproof.cli.door import Door
from overproof.cli.loop import MODEL, loop
from overproof.errors import DataError
from overproof.evidence import Figure
from overproof.project import load_project
from overproof.steps.before_after import Message, compare, weeks_of
from overproof.store.project_store import open_store


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    folder, code = northlane.walked(tmp_path_factory)
    return folder, code, json.loads((folder / "dossier" / "watch.json").read_text(encoding="utf-8"))


def test_a_walk_round_the_loop_ends_with_a_better_student_where_the_world_changed(walked) -> None:
    """The watch names what changed, few answers are bought, and the successor knows the new product better on later messages."""
    folder, code, told = walked
    assert code == 0
    assert told["alarmed"]
    assert told["challenger"] not in ("", told["champion"])
    named = {(a["slice"], a["signal"]) for a in told["alarms"]}
    assert ("spanish", "slice_share") in named or any(signal == "vocabulary" for _, signal in named), named
    rows = {r["slice"]: r for r in told["rows"]}
    assert rows[""]["n"] == sum(rows[name]["n"] for name in ("english", "spanish", "german and french")) > 100
    mug = rows["about the new mug"]
    assert mug["only_after"] > mug["only_before"]
    assert rows[""]["only_after"] > rows[""]["only_before"]
    assert 0 < (told["labelled"] + told["audited"]) * 3 <= told["all_rows"]
    assert "about the new mug" in (folder / "dossier" / "watch.html").read_text(encoding="utf-8")


def test_the_gateway_wrote_what_it_served_and_the_successor_serves(walked) -> None:
    """Rows lie on the messages' own days, under the release that answered; alarms rest on the same rows."""
    folder, _, told = walked
    project = load_project(folder / "overproof.toml")
    with open_store(folder) as store:
        served = [r for r in store.traffic.read() if r.served is not None]
        state = store.rollouts.current(project.task.name)
        audits = store.watching.audits(told["champion"])
    assert len(served) == 600
    assert {r.served.task for r in served} == {project.task.name}
    assert {r.served.release for r in served} == {told["champion"], told["challenger"]}
    assert min(r.request.at for r in served)[:10] == "2025-11-18"
    assert state.release_id == told["challenger"]
    by_student = {r.request.id for r in served if r.served.route == "student" and r.served.release == told["champion"]}
    assert audits
    assert {a.request_id for a in audits} <= by_student
    assert {r.completion.model for r in served if r.served.route == "teacher"} == {MODEL}


def test_the_loop_starts_in_an_empty_folder_only(tmp_path) -> None:
    """A folder with something in it is left alone."""
    (tmp_path / "thesis.tex").write_text("do not lose me")
    with pytest.raises(DataError, match="not empty"):
        loop(Door(project=Path(), overrides=(), as_json=False, debug=True), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def message(truth="a", before="a", after="a", *, fresh=True, slices=("s",), week="2025-11-17", kept=False):
    return Message(week=week, truth=truth, slices=slices, before=before, before_kept=kept, after=after, after_kept=kept, fresh=fresh)


def test_only_messages_that_neither_student_could_learn_from_are_compared() -> None:
    """An older message counts for nobody in the table, and in the weeks for the first student alone."""
    rows = [message(before="b")] * 3 + [message(before="b", after="b", fresh=False, week="2025-11-10")] * 50
    (whole, one) = compare(rows, ["s"])
    assert (whole.n, one.n) == (3, 3)
    assert (one.before.good, one.after.good, one.only_after, one.only_before) == (0, 3, 3, 0)
    early, late = weeks_of(rows)
    assert early.after is None
    assert isinstance(late.after, Figure)
    assert (early.before.n, late.after.n) == (50, 3)


def test_a_difference_is_told_only_where_it_is_shown_for_all_lines_together() -> None:
    """Six of six mended is shown alone and not among twenty lines; a slice without a message says nothing."""
    rows = [message(before="b")] * 6
    assert compare(rows, [])[0].word == "better"
    many = compare(rows, [f"x{i}" for i in range(19)])
    assert many[0].low < compare(rows, [])[0].low
    assert many[1].n == 0
    assert many[1].difference is None
    assert many[1].word == "no difference shown"
    assert compare([message(after="b")] * 12, [])[0].word == "worse"
