"""Rules of the filter, suspicion among them, from the project file to the verdict on each rule."""

import json
import shutil

import pytest
from click.testing import CliRunner

from overproof.ablation import ablate, cheapest
from overproof.cli import main
from overproof.desk import open_desk
from overproof.errors import DataError, ProjectError
from overproof.pipeline import distil, runs_of, status
from overproof.project import load_project
from overproof.store.project_store import open_store

CHECKS = '''
def no_marked_rows(request, label):
    """Rows of a source whose answers are known to be bad."""
    return "zq" not in request.text


def no_guides(request, label):
    """A rule that does harm: one label is no longer learned."""
    return label != "how to" or request.text.split()[0] in ("the", "zq")


def odd_ones(request, label):
    """A rule that drops a few rows for no reason."""
    return len(request.text) % 23 != 0
'''


def call(root, *args, given=""):
    return CliRunner().invoke(main, [*args, "--project", str(root)], input=given)


def went(root, *overrides, to="filter"):
    with open_store(root) as store:
        result = distil(store, load_project(root, overrides=overrides), to=to)
        return result, {name: a.value for name, a in result.artifacts.items() if name in ("labels", "suspicion", "filtered", "summary")}


def add(root, text):
    path = root / "overproof.toml"
    path.write_text(path.read_text() + text)


@pytest.fixture(scope="module")
def filtered(tmp_path_factory, maker):
    """900 rows; of the training rows every third carries a word and the next label's answer."""
    found, labels = maker.rows(900), list(maker.labels)
    for i, row in enumerate(found[:400]):
        if i % 3 == 0:
            row["text"] = f"zq {row['text']}"
            row["output"] = labels[(labels.index(row["truth"]) + 1) % 3].upper()
    root = maker.project(tmp_path_factory.mktemp("filtered") / "noisy", found)
    went(root)
    return root


@pytest.fixture
def noisy(filtered, tmp_path):
    """It went to the filter."""
    return shutil.copytree(filtered, tmp_path / "noisy")


def test_rules_that_help_hurt_or_do_nothing_are_told_apart_and_nothing_is_changed(noisy) -> None:
    """One good, one harmful, one idle rule; a second call does no work; no sealed row is read, no run recorded."""
    (noisy / "checks_of_ablation.py").write_text(CHECKS)
    for name in ("no_marked_rows", "no_guides", "odd_ones"):
        add(noisy, f'\n[[verify]]\nuse = "checks_of_ablation:{name}"\n')
    early = call(noisy, "ablate")
    assert early.exit_code == 2
    assert "overproof run --to filter" in early.output
    went(noisy)
    project = load_project(noisy)
    events = []
    with open_store(noisy) as store:
        before = {e.step: e.digest for e in status(store, project) if e.action == "reuse"}
        found = ablate(store, project, student="linear.v1", on_event=events.append)
        after = {e.step: e.digest for e in status(store, project)}
        assert len(before) > 5
        assert {step: after[step] for step in before} == before
        assert runs_of(store) == []
    verdicts = {e.rule.rpartition(":")[2]: e for e in found.effects}
    assert verdicts["no_marked_rows"].verdict == "helps"
    assert verdicts["no_guides"].verdict == "hurts"
    assert verdicts["odd_ones"].verdict == "can't tell"
    assert {e.metric for e in found.effects} == {"accuracy"}
    assert {e.n for e in found.effects} == {180}
    assert all(e.delta == pytest.approx(0.05 / len(found.effects)) for e in found.effects)
    assert "suspicion.v1" in verdicts  # tried though the project doesn't use it
    assert not {e.step for e in events} & {"take_test", "predict-test", "teach", "unseal", "evaluate"}
    again = []
    with open_store(noisy) as store:
        assert ablate(store, project, student="linear.v1", on_event=again.append) == found
    assert {e.action for e in again} == {"reuse"}


def test_the_verb_prints_a_table_and_the_same_as_json(noisy) -> None:
    """The cheapest student of the file, unless another is named; an unknown one is suggested."""
    project = load_project(noisy)
    assert cheapest(project).name == "small"
    body = json.loads(CliRunner().invoke(main, ["ablate", "--project", str(noisy), "--json"]).stdout)
    assert body["ablation"]["student"] == "small"
    (effect,) = body["ablation"]["effects"]
    assert effect["rule"] == "suspicion.v1"
    assert effect["low"] <= effect["gain"] <= effect["high"]
    done = call(noisy, "ablate", "--student", "linear.v1")
    assert done.exit_code == 0, done.output
    assert "linear.v1 with and without each rule" in done.output
    assert "Did you mean 'linear.v1'?" in call(noisy, "ablate", "--student", "linear.v2").output
    with pytest.raises(DataError):
        cheapest(project, "nobody")


def test_suspicion_marks_by_default_and_drops_where_asked(noisy) -> None:
    """Marking leaves the rows' bytes alone; dropping keeps the books; calibration and sealed rows never change."""
    plain, _ = went(noisy)
    add(noisy, '\n[[verify]]\nuse = "suspicion.v1"\n')
    marking, kept = went(noisy)
    assert marking.artifacts["labels"].digest == plain.artifacts["labels"].digest
    assert 0 < len(kept["suspicion"].marks) <= 0.2 * kept["suspicion"].of
    assert not kept["suspicion"].dropped
    _, less = went(noisy, "verify.1.drop=true")
    gone = {d.request.digest for d in less["labels"].dropped if d.by == "suspicion.v1"}
    assert gone == {m.digest for m in less["suspicion"].marks}
    assert len(less["labels"].train.examples) + len(gone) == len(kept["labels"].train.examples)
    assert less["labels"].calibration == kept["labels"].calibration
    assert less["labels"].test == kept["labels"].test
    counts = less["summary"].counts
    assert sum(n for name, n in counts.items() if name.startswith("train: ")) == len(kept["labels"].train.examples)
    assert any("suspicion.v1 dropped" in line for line in less["summary"].filter_lines)
    with open_store(noisy) as store:
        used = ablate(store, load_project(noisy, overrides=["verify.1.drop=true"]), student="linear.v1")
        spare = ablate(store, load_project(noisy), student="linear.v1")
    # putting the rows back ends at the same two sets of rows as leaving them out, the right way round
    (used,), (spare,) = used.effects, spare.effects
    assert (used.rule, used.rows, used.gain) == (spare.rule, spare.rows, spare.gain) == ("suspicion.v1", len(gone), used.gain)
    assert (used.only_with_wrong, used.only_without_wrong) == (spare.only_with_wrong, spare.only_without_wrong)
    assert used.only_with_wrong != used.only_without_wrong


def test_a_mistake_in_the_suspicion_table_is_told_when_the_file_is_read(easy) -> None:
    """Unknown and impossible options, and a second table."""
    add(easy, '\n[[verify]]\nuse = "suspicion.v1"\nfold = 3\n[[verify]]\nuse = "suspicion.v1"\nat_most = 2.0\n')
    with pytest.raises(ProjectError) as caught:
        load_project(easy)
    said = "\n".join(caught.value.problems)
    assert "is there twice" in said
    assert "fold" in said


def test_page_terminal_and_show_say_what_was_marked_and_no_message_leaves_with_the_facts(noisy) -> None:
    """The dossier's section and its JSON, the run's story, `show filter` with and without --json."""
    add(noisy, '\n[[verify]]\nuse = "suspicion.v1"\n')
    story = call(noisy, "run")
    assert "suspicion.v1 marked" in story.output
    page = (noisy / "dossier" / "index.html").read_text()
    assert "What the filter did" in page
    section = page.partition('id="filter"')[2].partition("</section>")[0]
    assert "suspicion.v1 marked" in section
    facts = json.loads((noisy / "dossier" / "dossier.json").read_text())
    assert "suspicion.v1 marked" in facts["evidence"]["data"]["filter_lines"][-1]
    body = json.loads(call(noisy, "show", "filter", "--json").stdout)
    texts = [m["text"] for m in body["suspicion"]["marks"]]
    assert texts
    assert not any(text in json.dumps(facts) for text in texts)
    assert texts[0][:30] in call(noisy, "show", "filter").output


def test_mending_is_judged_by_gold_and_marked_rows_count_double_in_the_fix_queue(noisy) -> None:
    """Reviews by the truth of the log; the queue moves towards marked rows, and holds the same rows."""
    add(noisy, '\n[[verify]]\nuse = "suspicion.v1"\nat_most = 0.1\n')
    went(noisy)
    project = load_project(noisy)
    with open_store(noisy) as store:
        desk = open_desk(store, project)
        truth = {e.request.digest: e.gold for e in desk._filtered.value.train.examples}
        for row in desk.queue("audit", "train", "Ana")[:80]:
            desk.keep(row, truth[row.digest], "Ana")
    went(noisy)
    with open_store(noisy) as store:
        desk = open_desk(store, project)
        marked = {m.digest for m in desk._marks.value.marks}
        order = [r.digest for r in desk.queue("fix", "train", "Ana")]
        desk._marks = None
        plain = [r.digest for r in desk.queue("fix", "train", "Ana")]
        assert sorted(order) == sorted(plain)
        open_marks = marked & set(plain)
        assert open_marks
        assert sum(order.index(d) for d in open_marks) < sum(plain.index(d) for d in open_marks)
        found = {e.rule: e for e in ablate(store, project, student="linear.v1").effects}
    assert found["mend"].rows > 0
    assert found["mend"].metric == "accuracy"
