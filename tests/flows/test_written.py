"""Records and texts down the whole offline road: a store on disk, an importer, a replayed teacher, a generator that learns."""

import importlib
import json
import random
import shutil
from pathlib import Path

import pytest
from tests.flows.conftest import LINEAR
from tests.flows.walked import report_of, run

from overproof import registry
from overproof.cli.intake import take
from overproof.errors import ProjectError
from overproof.evidence import Refusal, Release
from overproof.project import load_project
from overproof.store.project_store import open_store
from overproof.students.bundle import load_bundle

FIELDS = '{ fields = { order = "text", total = "number?", currency = ["EUR", "USD", "?"] } }'
TEXT = "{ text = { same_at = 0.8 } }"
THINGS = ["red teapot", "garden chair", "wool blanket", "desk lamp", "travel mug"]


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory):
    """cue.v1 as a package that is installed: a module and the metadata that names it."""
    site = tmp_path_factory.mktemp("site")
    shutil.copy(Path(__file__).with_name("cues.py"), site / "cue_student.py")
    (site / "cue-1.0.dist-info").mkdir()
    (site / "cue-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: cue\nVersion: 1.0\n")
    (site / "cue-1.0.dist-info" / "entry_points.txt").write_text("[overproof.students]\ncue.v1 = cue_student:CueStudent\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        importlib.invalidate_caches()
        registry._points.cache_clear()
        yield
    registry._points.cache_clear()


def documents(count: int, *, gold: bool = True) -> list[dict]:
    """Orders in changing words; the teacher errs on the total of one in forty, and every tenth row says none."""
    draw, found = random.Random(5), []
    noise = ["please", "kindly", "today", "again", "thanks", "hello", "soon", "team", "still", "waiting", "maybe", "call"]
    for i in range(count):
        order, total = f"{draw.choice('ABCDEFG')}{draw.randrange(10_000, 99_999)}", draw.randrange(100, 99_999) / 100
        truth = {"order": order, "total": total, "currency": draw.choice(["EUR", "USD"])} if draw.random() > 0.1 else {"order": order}
        said = {**truth, "total": total + 1} if "total" in truth and draw.random() < 0.025 else truth
        parts = [["order", order]] + ([["total", f"{total:.2f}"], ["in", truth["currency"]]] if "total" in truth else [])
        parts += [[word] for word in draw.sample(noise, 6)]
        draw.shuffle(parts)
        row = {
            "id": f"d{i}", "ts": f"2026-02-{1 + i * 27 // count:02d}T{i % 24:02d}:{i % 60:02d}:00Z", "text": " ".join(word for part in parts for word in part),
            "tier": draw.choice(["pro", "free"]), "output": said, "finish_reason": "stop", "latency_s": 1.5, "cost_usd": 0.004,
        }  # fmt: skip
        found.append({**row, "truth": truth} if gold else row)
    return found


def wishes(count: int) -> list[dict]:
    """Requests for a thing, answered in one sentence; the true answer words it slightly otherwise."""
    draw, found = random.Random(7), []
    for i, row in enumerate(documents(count)):
        thing = draw.choice(THINGS).replace(" ", "-")
        words = row["text"].split()
        words[draw.randrange(len(words)) :] = ["want", thing, *draw.sample(["red", "teapot", "soon", f"number{i}"], 2)]
        row |= {"text": " ".join(words), "output": f"The customer wants a {thing}.", "truth": f"The customer wants one {thing}."}
        found.append(row)
    return found


def written(make, root: Path, output: str, rows: list[dict], bars: str) -> Path:
    """The folder's project with another output kind, cue.v1 in two sizes and these bars."""
    make.project(root)
    shutil.rmtree(root / ".overproof", ignore_errors=True)
    text = (root / "overproof.toml").read_text()
    head, rest = text.split("output = ", 1)
    text = head + "output = " + output + "\n" + rest.split("\n", 1)[1]
    text = text.replace(LINEAR, 'use = "cue.v1"\nname = "cues"').replace('use = "ngram.v1"\nname = "small"', 'use = "cue.v1"\nname = "ten-cues"\ncues = 10')
    text = text.replace("[bars]\nfidelity = 0.9\naccuracy = 0.85\n", bars)
    if not any("truth" in row for row in rows):
        text = text.replace('columns = { gold = "truth" }', "")
    (root / "overproof.toml").write_text(text)
    terms = (root / "terms.toml").read_text()
    (root / "terms.toml").write_text(terms.replace('student_kind = "classifier"', 'student_kind = "generative"'))
    log = make.write_log(root / "log2.jsonl", rows)
    with open_store(root) as store:
        take(store, load_project(root), [log])
    return root


BARS = "[bars]\nfidelity = 0.9\naccuracy = 0.85\nfield_f1 = 0.9\n[bars.fields]\norder = 0.95\n"


def test_records_go_from_the_log_to_a_release_that_answers_in_records(make, tmp_path) -> None:
    """Where the generator learns the task the bundle writes records; a field bar that is missed refuses though whole records pass."""
    root = written(make, tmp_path / "orders", FIELDS, documents(900), BARS)
    result = run(root)
    assert isinstance(result.verdict, Release), result.verdict
    report = report_of(result)
    assert {one.metric: one.verdict for one in report.written.judged} == {"field_f1": "pass", "f1 order": "pass"}
    served = next(s for s in report.written.scores if (s.who, s.against) == ("served", "gold"))
    assert [f.name for f in served.records.fields] == ["order", "total", "currency"]
    assert served.records.f1.n == served.records.exact.n > 100
    assert report.weak_labels == ()
    assert {s.kind for c in report.candidates for s in c.slices} <= {"all", "attribute", "novelty"}
    assert {c.name for c in report.candidates} == {"cues", "ten-cues", "majority.v1", "nearest.v1", "teacher"}
    bundle = load_bundle(result.verdict.bundle.path)
    test = result.artifacts["labels"].value.test.examples
    answers = [bundle.answer(dict(e.request.fields), dict(e.request.attributes)) for e in test]
    kept = [(a.value, e.target) for a, e in zip(answers, test, strict=True) if a.route == "student"]
    assert len(kept) > len(test) / 2
    assert sum(json.loads(a) == json.loads(b) for a, b in kept) / len(kept) > 0.9
    page = result.dossier_path.read_text(encoding="utf-8")
    assert "Within the answers" in page
    assert "<td>currency</td>" in page
    assert "Confidence in single fields" in page
    assert [one.field for one in bundle.card.confidence.fields] == ["order", "total", "currency"]
    assert [one.read.slice for one in report.written.fields] == ["order", "total", "currency"]
    assert all(one.read.brier <= one.raw.brier + 0.02 for one in report.written.fields)
    assert set(answers[0].fields) == {"order", "total", "currency"}
    again = run(root, "bars.fields.total=0.999")
    assert isinstance(again.verdict, Refusal)
    assert [f.outcome for f in again.verdict.findings if f.id == "R01"].count("pass") == 2  # the other two field bars hold
    assert "R01" in {f.id for f in again.verdict.findings if f.outcome not in ("pass", "waived")}


def test_sizes_of_generators_are_compared_by_whole_records(make, tmp_path) -> None:
    """Half the orders stand after another word: a generator of one cue errs on them, on its own rows too, and no data will mend it."""
    rows = [row | {"text": row["text"].replace("order ", "parcel ")} if i % 2 else row for i, row in enumerate(documents(500))]
    root = written(make, tmp_path / "sizes", FIELDS, rows, BARS)
    path = root / "overproof.toml"
    text = path.read_text().replace('use = "cue.v1"\nname = "cues"', 'use = "cue.v1"\nname = "one-cue"\ncues = 1')
    path.write_text(text.replace("seeds = 1\nbudgets = [1.0]", "seeds = 2\nrows = 100"))
    result = run(root)
    sizing = result.artifacts["evidence"].value.sizing
    sizes = {one.name: one for one in sizing.sizes.sizes}
    assert set(sizes) == {"one-cue", "ten-cues"}
    assert sizes["one-cue"].error.n == sizes["ten-cues"].error.n == sizing.sizes.n == 100
    assert [b.share for b in sizes["ten-cues"].budgets] == [0.25, 0.5, 1.0]
    assert 0.35 < sizes["one-cue"].error.value < 0.65
    assert 0.35 < sizes["one-cue"].train_error.value < 0.65
    assert sizes["ten-cues"].error.value < 0.15
    assert sizes["ten-cues"].seeds.random is False
    [pair] = sizing.sizes.pairs
    assert (pair.first, pair.second, pair.better) == ("ten-cues", "one-cue", True)
    small = next(v for v in sizing.students if v.name == "one-cue")
    assert (small.limit, small.too_small) == ("capacity", True)
    assert "Learning curve of" in result.dossier_path.read_text(encoding="utf-8")
    assert next(f for f in result.verdict.findings if f.id == "S01").outcome in ("pass", "fail")


def test_without_true_records_a_field_bar_is_not_proven(make, tmp_path) -> None:
    """No gold, no field figure against it: the check is not run, which never passes."""
    root = written(make, tmp_path / "bare", FIELDS, documents(300, gold=False), "[bars]\nfidelity = 0.9\nfield_f1 = 0.5\n")
    result = run(root)
    assert isinstance(result.verdict, Refusal)
    [found] = [f for f in result.verdict.findings if f.id == "R01"]
    assert (found.outcome, found.value) == ("not-run", None)


def test_texts_go_the_same_road_and_count_as_the_same_in_like_words(make, tmp_path) -> None:
    """A student that copies the teacher's sentence is right by a true answer in slightly other words, and similarity is judged."""
    bars = "[bars]\nfidelity = 0.9\naccuracy = 0.85\nsimilarity = 0.8\n"
    result = run(written(make, tmp_path / "wishes", TEXT, wishes(700), bars))
    report = report_of(result)
    whole = next(c for c in report.candidates if c.name == report.chosen).slices[0]
    assert whole.accuracy.value > 0.9
    [one] = report.written.judged
    assert (one.metric, one.verdict) == ("similarity", "pass")
    assert 0.8 < one.estimate.value < 1.0
    assert isinstance(result.verdict, Refusal)  # few things are asked for, and the nearest row's answer names them as well
    assert "N02" in {f.id for f in result.verdict.findings if f.outcome not in ("pass", "waived")}
    assert "ROUGE-L" in result.dossier_path.read_text(encoding="utf-8")


@pytest.mark.parametrize(("more", "words"), [
    ('[[verify]]\nuse = "label_set.v1"', "label_set.v1: answers are no labels"),
    ('[[verify]]\nuse = "suspicion.v1"', "suspicion.v1: it compares labels"),
    ('[[student]]\nuse = "linear.v1"', "linear.v1 gives no fields; for fields there are span.v1"),
    ('[[slice]]\nname = "x"\nwhere = { label = "y" }', "a task of fields has no labels"),
    ('[fairness]\ngroups = ["tier"]\nselected = ["x"]', "selected names labels"),
    ('[fairness]\nswaps = "built-in"', "swaps compares labels"),
    ('[judge]\nuse = "recorded.v1"\nmodel = "m-2026-01-01"\npath = "log.jsonl"', "it judges labels and texts, not fields"),
    ("[bars.fields]\nvat = 0.9", "no field 'vat'; there are order, total, currency"),
])  # fmt: skip
def test_what_only_labels_have_is_refused_by_name_before_anything_runs(make, tmp_path, more, words) -> None:
    """A setting that needs labels is a mistake of the file, in a sentence that says what to do instead."""
    make.project(tmp_path / "p")
    path = tmp_path / "p" / "overproof.toml"
    head, rest = path.read_text().split("output = ", 1)
    text = head + "output = " + FIELDS + "\n" + rest.split("\n", 1)[1].replace(LINEAR, 'use = "cue.v1"').replace('"ngram.v1"', '"nearest.v1"')
    path.write_text(text)
    load_project(tmp_path / "p")
    path.write_text(text + "\n" + more + "\n")
    with pytest.raises(ProjectError, match=words):
        load_project(tmp_path / "p")
