"""A run's page: every row that fell away can be seen, and nothing is said where there is nothing."""

import json
import re
import shutil
from dataclasses import replace
from importlib.resources import files

import pytest
from tests.northlane import copied
from tests.web.conftest import Site, apart, get

from overproof.importers import ColumnMapping, read_file
from overproof.pipeline import distil
from overproof.project import load_project
from overproof.steps.dossier import plot_view
from overproof.web.place import Place
from overproof.web.run_model import ROWS_A_PAGE, chosen_run, read_left, read_run
from overproof.web.view import NotHere

WINDOW = ('columns = { gold = "queue", attributes = "channel,tier,language" }', 'columns = { gold = "queue", attributes = "channel,tier,language" }\nwindow = "150d"')
FEWER = ('split = "time" ', 'requests = 500\nsplit = "time" ')
SHORT = ('[[verify]]\nuse = "label_set.v1"', '[[verify]]\nuse = "regex.v1"\npattern = "^(?!order_status)"\n\n[[verify]]\nuse = "label_set.v1"')


@pytest.fixture(scope="module")
def leaky(northlane_folder, tmp_path_factory):
    """A project of its own after a run in which rows fell away at every step: an import, the window, the draw, the teacher, the filter."""
    folder, inbox = tmp_path_factory.mktemp("leaky") / "inbox", files("overproof") / "inbox"
    shutil.copytree(inbox, folder)
    text = (northlane_folder / "overproof.toml").read_text()
    text = re.sub(r'use = "openai.v1".*?provider', 'use = "recorded.v1"\npath = "answers.jsonl"\nprovider', text, flags=re.DOTALL)
    text = re.sub(r"(?m)^(repeat|concurrency|budget_usd|price_|options = ).*$", "", text)
    for old, new in (WINDOW, FEWER, SHORT):
        assert old in text
        text = text.replace(old, new, 1)
    (folder / "overproof.toml").write_text(text)
    rows = (folder / "messages.jsonl").read_text().splitlines()
    strange = [json.dumps(json.loads(row) | {"id": f"n{i}", "text": f"nobody answered this, {i} times over"}) for i, row in enumerate(rows[1500:1700:5])]
    (folder / "messages.jsonl").write_text("\n".join([*rows, *strange, *['{"id": "x1", "text"'] * 3]) + "\n")
    place = Place(load_project(folder / "overproof.toml"))
    mapping = ColumnMapping(fields=("text",), columns={"gold": "queue"}, attributes=("channel", "tier", "language"))
    place.store.traffic.append(read_file(folder / "messages.jsonl", mapping), "messages.jsonl")
    apart(distil, place.store, place.project)
    yield place
    place.close()


def test_the_funnel_counts_every_row_of_the_log_once(leaky):
    """What a step lets through and what it leaves out are together what it was given."""
    view = read_run(leaky)
    read, captured, prompts, answered, kept = view.passages
    assert read.lost == 3
    assert (captured.n + captured.lost, prompts.n + prompts.lost) == (read.n, captured.n)
    assert answered.n + answered.lost == prompts.n
    assert kept.n + kept.lost == answered.n
    assert kept.n == sum(view.kept.values())
    assert captured.lost
    assert prompts.lost
    assert answered.lost
    assert kept.lost


def test_each_reason_leads_to_its_rows(leaky):
    """Of every entry of the funnel each named row is of that entry: before the window, not drawn, of the unwanted label."""
    view = read_run(leaky)
    window, log = view.window, {one.request.id: one for one in leaky.store.traffic.read()}
    prompts = leaky.run().artifacts["prompts"].value
    chosen = {row.request.id for split in (prompts.train, prompts.calibration, prompts.test) for row in split}
    for passage in view.passages[1:]:
        for one in passage.left:
            found = read_left(leaky, "", passage.step, one.reason, split=one.split, by=one.by)
            assert len(found.rows) == min(one.n, ROWS_A_PAGE)
            assert all(row.text == log[row.id].request.text[:400] or row.text == log[row.id].request.text for row in found.rows)
            if passage.step == "capture":
                assert all(log[row.id].request.at < window[0] for row in found.rows)
            elif passage.step == "prompts":
                assert not chosen & {row.id for row in found.rows}
            elif passage.step == "teach":
                assert one.by == "teach"
                assert not any(row.label for row in found.rows)
            else:
                assert {row.label for row in found.rows} == {"order_status"}
    assert [row.text.strip() for row in read_left(leaky, "", "import", view.passages[0].left[0].reason).rows] == ['{"id": "x1", "text"'] * 3


def test_pages_of_rows_neither_repeat_nor_skip(leaky):
    """All pages of a reason together are its named rows, each once."""
    view = read_run(leaky)
    most = max(view.passages[1].left, key=lambda one: one.n)
    ids, page = [], 1
    while True:
        found = read_left(leaky, "", "capture", most.reason, split=most.split, page=page)
        ids += [row.id for row in found.rows]
        if not found.more:
            break
        page += 1
    assert len(ids) == len(set(ids)) == found.listed


def test_an_unknown_run_or_reason_is_said(leaky):
    """No page is made up for them."""
    with pytest.raises(NotHere):
        chosen_run(leaky, "r99")
    with pytest.raises(NotHere):
        read_left(leaky, "", "capture", "never heard of")


def test_a_run_from_before_rows_were_named_still_counts_them(leaky):
    """Without its account the counts are the same, taken from what the steps left."""
    from overproof.web.run_model import account_of

    run = leaky.run()
    older = replace(run, artifacts={name: value for name, value in run.artifacts.items() if name != "account"})
    assert account_of(older) == account_of(run)


def test_without_a_run_the_page_says_what_to_do(tmp_path, northlane_folder):
    """A folder with a project file alone: no figures, the next command, and no failure."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    for name in ("overproof.toml", "prompt.md", "terms"):
        source = northlane_folder / name
        copied(source, folder / name) if source.is_dir() else (folder / name).write_bytes(source.read_bytes())
    running = Site(folder)
    try:
        for page in ("run", "evaluation"):
            status, _, text = get(f"{running.url}/ui/northlane-inbox/{page}")
            assert status == 200
            assert "overproof" in text.split('class="empty"')[1].split("</code>")[0]
            assert "%" not in text.split("<main")[1].split("</main>")[0]
        assert get(f"{running.url}/ui/northlane-inbox/evaluation/thresholds")[0] == 404
        assert get(f"{running.url}/ui/northlane-inbox/run/rows?step=capture&reason=x")[0] == 404
    finally:
        running.stop()


def test_a_reader_goes_from_the_funnel_to_the_rows_and_back(page, leaky):
    """In the browser: the number that fell away, its rows with text and reason, the way back."""
    running = Site(leaky.root)
    try:
        page.goto(f"{running.url}/ui/northlane-inbox/run")
        assert "Refus" in page.locator(".verdict").inner_text() or "Release" in page.locator(".verdict").inner_text()
        row = page.locator("#funnel tbody tr", has_text="before the window")
        count = int(row.locator("td.n").inner_text().replace(",", ""))
        assert count > ROWS_A_PAGE
        row.get_by_role("link").click()
        assert "before the window" in page.locator("h1").inner_text()
        assert page.locator("tbody tr").count() == ROWS_A_PAGE
        first = page.locator("tbody th").first.inner_text()
        page.get_by_role("link", name="further rows").click()
        assert page.locator("tbody th").first.inner_text() != first
        page.locator("main a", has_text="← run").click()
        assert page.locator("#funnel").is_visible()
    finally:
        running.stop()


def test_what_has_no_price_is_not_drawn_as_cheap(leaky):
    """A recording costs nothing that is known: the teacher stands in the table, and not at the cheap end of the plot."""
    report = read_run(leaky).report
    assert not next(c for c in report.candidates if c.kind == "teacher").cost_usd_per_1000
    names = {point["name"] for point in plot_view(report)["points"]}
    assert names == {c.name for c in report.candidates if c.kind != "teacher"}
