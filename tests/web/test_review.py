"""The review desk as people use it: by keyboard, blind unless they choose, two at a time, and the next run uses each word."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from playwright.sync_api import expect
from tests.flows.conftest import LINEAR, Maker, make_project, rows
from tests.flows.test_written import FIELDS, documents
from tests.northlane import copied
from tests.web.conftest import Site, apart, get

from overproof.cli.intake import take
from overproof.desk import open_desk
from overproof.pipeline import distil
from overproof.project import load_project
from overproof.store.project_store import open_store
from overproof.store.reviews import Review
from overproof.web.desk_table import Tables
from overproof.web.place import Place
from overproof.web.review_model import read_review


def run(root, *, to=None):
    """A run over the project as it is."""
    with open_store(root) as store:
        return apart(lambda: distil(store, load_project(root), to=to))


def token_of(site, task):
    return re.search('name="overproof-token" content="([^"]+)"', get(f"{site.url}/ui/{task}/review")[2]).group(1)


def post(site, task, what, **body):
    status, _, text = get(f"{site.url}/ui/{task}/review/{what}", headers={"x-overproof-token": token_of(site, task)}, body=body)
    return status, json.loads(text)


def asked(site, task, **query):
    parts = "&".join(f"{k}={v}" for k, v in query.items())
    return json.loads(get(f"{site.url}/ui/{task}/review/rows?{parts}")[2])


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A small project after one run, which had too few rows to prove anything, so that it ended in a refusal."""
    root = make_project(tmp_path_factory.mktemp("desk") / "easy", rows(260))
    file = root / "overproof.toml"
    file.write_text(file.read_text().replace("budgets = [1.0]", "budgets = []"))
    verdict = run(root).verdict
    assert type(verdict).__name__ == "Refusal"
    return root


@pytest.fixture(scope="module")
def desk_site(template, tmp_path_factory):
    root = copied(template, tmp_path_factory.mktemp("site") / "easy")
    running = Site(root)
    yield running, root
    running.stop()


def page_of(root):
    place = Place(load_project(root / "overproof.toml"))
    try:
        return read_review(place, Tables(place))
    finally:
        place.close()


def settle_by_truth(root, n, *, queue="audit", reviewer="Ana"):
    """Words of somebody who knows the log's own truth, on the first rows of the draw."""
    truth = {row["text"]: row["truth"] for row in rows(260)}
    with open_store(root) as store:
        desk = open_desk(store, load_project(root))
        for row in desk.queue(queue, "train", reviewer)[:n]:
            desk.keep(row, truth[row.text], reviewer)


def test_a_project_without_rows_says_what_to_run(tmp_path):
    """Nothing to review is no failure, and no figure stands where nothing is known."""
    root = tmp_path / "bare"
    make_project(root, rows(20))
    found = page_of(root)
    assert "overproof run --to filter" in found.next_action
    assert (found.curve, found.labels, found.effect, found.drawn) == ((), (), None, 0)
    running = Site(root)
    try:
        status, _, text = get(f"{running.url}/ui/easy/review")
        assert status == 200
        assert "overproof run --to filter" in text
        assert get(f"{running.url}/ui/easy/review/rows?queue=audit&rows=train")[0] == 503
    finally:
        running.stop()


def test_the_walked_project_is_reviewed_over_its_last_runs_rows(project_folder, site):
    """A gateway's log grows with each call: the desk asks for rows of the last run and says so."""
    found = page_of(project_folder)
    assert found.behind
    assert found.problem == ""
    assert found.errors.overall.n > 0  # its log has true labels of its own
    status, _, text = get(f"{site.url}/ui/northlane-inbox/review")
    assert status == 200
    assert f"rows of run {found.behind}" in text
    assert len(text) < 60_000


def test_ten_rows_by_keyboard_and_the_next_run_uses_them(page, desk_site):
    """Keys choose, undo takes back, and the next run has exactly these words as targets and as truth; nothing else is done again."""
    site, root = desk_site
    labels = list(load_project(root).task.output.labels)
    page.goto(f"{site.url}/ui/easy/review")
    page.wait_for_selector("#row:not([hidden])")
    page.keyboard.press("1")
    assert "name" in page.locator("#failed").inner_text()  # nobody has said who they are
    page.keyboard.type("Ana")
    page.keyboard.press("Enter")
    page.wait_for_selector("#row:not([hidden])")
    said = {}
    for i in range(10):
        text = page.locator("#text").inner_text()
        page.keyboard.press(str(i % 3 + 1))
        expect(page.locator("#place")).to_contain_text(f"{i + 1} said now")
        said[text] = labels[i % 3]
    page.keyboard.press("u")
    expect(page.locator("#said")).to_contain_text("Taken back")
    text = page.locator("#text").inner_text()
    assert said[text] == labels[0]
    page.keyboard.press("2")
    expect(page.locator("#place")).to_contain_text("10 said now")
    said[text] = labels[1]
    page.keyboard.press("k")
    assert f"you said {labels[1]}" in page.locator("#before").inner_text()
    done = subprocess.run([sys.executable, "-m", "overproof.cli", "run", "--to", "filter", "--project", str(root)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = run(root, to="filter")
    with open_store(root) as store:
        words = store.reviews.live().rows
    used = {e.request.text: e for e in result.artifacts["labels"].value.train.examples if e.label_from == "review-audit"}
    assert {text: e.target for text, e in used.items()} == {text: e.gold for text, e in used.items()} == said
    assert {e.action for e in result.events if e.step in ("capture", "promptset", "teach", "filter")} == {"reuse"}
    assert {(w.blind, w.reviewer, w.seconds is not None) for w in words} == {(True, "Ana", True)}
    assert page_of(root).fresh == 10


def test_a_failed_word_stays_on_its_row(page, desk_site):
    """Where the server is away, the row stays, what went wrong is said, and the next key works again."""
    site, _ = desk_site
    page.goto(f"{site.url}/ui/easy/review?rows=calibration")
    page.wait_for_selector("#row:not([hidden])")
    page.locator("#reviewer").fill("Bo")
    page.locator("#reviewer").press("Enter")
    page.wait_for_selector("#row:not([hidden])")
    text = page.locator("#text").inner_text()
    page.route("**/review/word", lambda route: route.abort())
    page.keyboard.press("1")
    expect(page.locator("#failed")).to_contain_text("Nothing was changed")
    assert page.locator("#text").inner_text() == text
    page.unroute("**/review/word")
    page.keyboard.press("1")
    expect(page.locator("#place")).to_contain_text("1 said now")
    assert page.locator("#failed").inner_text() == ""


def test_two_people_differ_and_a_third_ends_it(page, desk_site):
    """A second person is asked the same rows; a conflict is listed with both words, and one key decides it."""
    site, _ = desk_site
    digest = asked(site, "easy", queue="audit", rows="sealed", reviewer="Ana")["rows"][0]["digest"]
    for who, label in (("Ana", "how to"), ("Bo", "bug report")):
        assert asked(site, "easy", queue="audit", rows="sealed", reviewer=who)["rows"][0]["digest"] == digest
        status, found = post(site, "easy", "word", queue="audit", rows="sealed", reviewer=who, digest=digest, label=label)
        assert (status, found["kept"], found["blind"]) == (200, label, True)
    assert found["conflicts"] == 1
    page.goto(f"{site.url}/ui/easy/review?queue=conflicts")
    page.locator("#why", has_text="Ana: how to · Bo: bug report").wait_for()
    page.locator("#reviewer").fill("Cy")
    page.locator("#reviewer").press("Enter")
    page.locator("#labels button", has_text="how to").click()
    expect(page.locator("#empty")).to_be_visible()
    _, _, text = get(f"{site.url}/ui/easy/review")
    assert re.search(r'data-live="conflicts">0<', text)
    assert "agree on" in text


def test_the_audit_queue_never_gives_the_teachers_answer_away(desk_site):
    """Whatever is asked for; and a row that was not asked can't be reviewed as if chance had chosen it."""
    site, root = desk_site
    for rows_ in ("train", "calibration", "sealed"):
        found = asked(site, "easy", queue="audit", rows=rows_, reviewer="Dee", shown=1)
        assert {(one["said"], one["why"]) for one in found["rows"]} == {("", "")}
    with open_store(root) as store:
        far = open_desk(store, load_project(root)).queue("audit", "train", "Dee")
    assert post(site, "easy", "word", queue="audit", rows="sealed", reviewer="Dee", digest=far[0].digest, label="how to")[0] == 409
    assert post(site, "easy", "word", queue="audit", rows="train", reviewer="Dee", digest="0" * 64, label="how to")[0] == 409
    assert post(site, "easy", "word", queue="audit", rows="train", reviewer="Dee", digest=far[0].digest, label="how two")[0] == 409
    assert post(site, "easy", "word", queue="fix", rows="sealed", reviewer="Dee", digest=far[0].digest, label="how to")[0] == 409
    assert post(site, "easy", "undo", queue="audit", rows="train", reviewer="Dee", digest="0" * 64)[0] == 409


def test_the_fix_queue_opens_after_fifty_words_and_remembers_whom_it_showed_an_answer(template, tmp_path):
    """Each row says why it is asked; a word said with the teacher's answer in sight is kept as not blind, whatever the browser says."""
    root = copied(template, tmp_path / "easy")
    running = Site(root)
    try:
        assert "of at least 50 words" in asked(running, "easy", queue="fix", rows="train", reviewer="Ana")["problem"]
        settle_by_truth(root, 70)
        for _ in range(200):
            found = asked(running, "easy", queue="fix", rows="train", reviewer="Ana")
            if found["rows"] or not found["working"]:
                break
        hidden = found["rows"]
        assert hidden, found
        assert all("reviewed" in one["why"] and not one["said"] for one in hidden), hidden
        first, second = hidden[:2]
        assert post(running, "easy", "word", queue="fix", rows="train", reviewer="Ana", digest=first["digest"], label="how to")[1]["blind"] is True
        shown = asked(running, "easy", queue="fix", rows="train", reviewer="Ana", shown=1)["rows"]
        assert all(one["said"] for one in shown)
        assert shown[0]["digest"] == second["digest"]
        assert post(running, "easy", "word", queue="fix", rows="train", reviewer="Ana", digest=second["digest"], label="how to")[1]["blind"] is False
    finally:
        running.stop()
    with open_store(root) as store:
        assert [(w.queue, w.blind) for w in store.reviews.live().rows[-2:]] == [("fix", True), ("fix", False)]
    found = page_of(root)
    assert (found.drawn, found.picked) == (70, 2)
    assert found.curve[-1].rows == 70
    assert found.curve[-1].wrong.n == 70
    assert found.people[0].shown == 1


def test_the_effect_on_the_student_is_shown_on_the_same_sealed_rows(template, tmp_path):
    """After a run with reviews: both runs' figures with interval and n, and what the words changed; before it, nothing is claimed."""
    root = copied(template, tmp_path / "easy")
    assert page_of(root).effect is None
    with open_store(root) as store:
        desk = open_desk(store, load_project(root))
        desk.add([Review(digest=r.digest, request_id=r.request_id, label="how to", reviewer="Ana", queue="audit") for r in desk.queue("audit", "train", "Ana")[:30]])
    run(root)
    effect = page_of(root).effect
    assert effect.rows == effect.figures[0][1].n == effect.figures[0][2].n > 0
    assert effect.figures[0][1] != effect.figures[0][2]  # thirty rows that all say one thing do the student no good
    assert effect.changed["train: reviewed, corrected"] + effect.changed["train: reviewed, confirmed"] == 30


@pytest.mark.parametrize(("form", "name"), [("argilla", "argilla.json"), ("label-studio", "label-studio.json"), ("jsonl", "jsonl.jsonl")])
def test_a_queue_goes_out_as_a_file(desk_site, form, name):
    """As a download that no browser shows, without any model's answer."""
    site, _ = desk_site
    status, headers, text = get(f"{site.url}/ui/easy/review/export?queue=audit&rows=train&form={form}&n=5")
    assert status == 200
    assert name in headers["content-disposition"]
    assert text.count("overproof_digest" if form != "jsonl" else '"digest"') == 5
    assert "guess" not in text.replace('"guess": ""', "")
    assert "<Choice value=" in get(f"{site.url}/ui/easy/review/export?form=label-studio-config")[2]


def test_a_file_of_label_studio_comes_in_by_the_page(page, desk_site, tmp_path):
    """What is taken and what is not is said in words."""
    site, _ = desk_site
    tasks = json.loads(get(f"{site.url}/ui/easy/review/export?queue=audit&rows=calibration&form=label-studio&n=3&reviewer=eve@example.com")[2])
    for i, task in enumerate(tasks):
        result = [{"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": ["how to"]}}]
        task["annotations"] = [{"id": i, "completed_by": {"id": 7, "email": "eve@example.com"}, "result": result, "was_cancelled": i == 1, "lead_time": 2.5}]
    tasks[2]["data"]["text"] += " "
    file = tmp_path / "export.json"
    file.write_text(json.dumps(tasks))
    page.goto(f"{site.url}/ui/easy/review?rows=calibration")
    page.locator("#file").set_input_files(file)
    page.get_by_role("button", name="Import").click()
    expect(page.locator("#said")).to_contain_text("1 words read, 1 of them new")
    text = page.locator("#said").inner_text()
    assert "1 not taken: skipped by the annotator" in text
    assert "1 not taken: the row changed, or is not of this project" in text




@pytest.fixture(scope="module")
def records_site(tmp_path_factory):
    """The desk of a task of records."""
    root = make_project(tmp_path_factory.mktemp("records") / "orders", rows(5))
    shutil.rmtree(root / ".overproof")
    file, terms = root / "overproof.toml", root / "terms.toml"
    head, rest = file.read_text().split("output = ", 1)
    rest = rest.split("\n", 1)[1].replace(LINEAR, 'use = "span.v1"').replace('[[student]]\nuse = "ngram.v1"\nname = "small"\n', "")
    file.write_text(f"{head}output = {FIELDS}\n{rest}")
    terms.write_text(terms.read_text().replace('student_kind = "classifier"', 'student_kind = "extractor"'))
    with open_store(root) as store:
        take(store, load_project(root), [Maker.write_log(root / "orders.jsonl", documents(60))])
    run(root, to="filter")
    running = Site(root)
    yield running, root
    running.stop()


def test_records_are_reviewed_in_a_form(page, records_site):
    """Fields instead of labels; what is no record is refused in words and stays on its row; there is no fix queue of records."""
    site, root = records_site
    page.goto(f"{site.url}/ui/easy/review")
    page.locator("#reviewer").fill("Ana")
    page.locator("#reviewer").press("Enter")
    page.wait_for_selector("#row:not([hidden])")
    page.locator("#field-1").fill("A12345")
    page.locator("#field-2").fill("twelve")
    page.locator("#field-2").press("Enter")
    expect(page.locator("#failed")).to_contain_text("total")
    assert page.locator("#field-1").input_value() == "A12345"
    page.locator("#field-2").fill("12.50")
    page.locator("#field-3").select_option("EUR")
    page.locator("#field-3").press("Enter")
    page.locator("#answer button").click()
    expect(page.locator("#place")).to_contain_text("1 said now")
    with open_store(root) as store:
        assert [json.loads(w.label) for w in store.reviews.live().rows] == [{"order": "A12345", "total": 12.5, "currency": "EUR"}]
    assert get(f"{site.url}/ui/easy/review/rows?queue=fix&rows=train")[0] == 503
