"""Swapped terms: pairs differ in a term alone, a biased student is caught, and a steady one passes with rows enough."""

import json
from dataclasses import replace

import pytest

from overproof.data import CalibrationSet, Example, Request, TrainSet
from overproof.errors import DataError
from overproof.evidence import Calibrator, Confidence
from overproof.steps.flips import FlipRecipe, SwapList, flip_answers, measure_flips, pairs_of, read_swaps
from overproof.steps.pack import PackRecipe, pack
from overproof.steps.train import StudentRecipe, train
from overproof.students.bundle import load_bundle

NAMES = SwapList(name="names", groups={"women": ("Anna", "Laura", "Emma"), "men": ("Peter", "Stefan", "Carlos")},
                 frame="My name is {term}.")
LABELS = ("billing", "bug", "how-to", "refund", "safety", "other")
WORDS = {"billing": "invoice charged", "bug": "crash error", "how-to": "explain configure", "refund": "money return",
         "safety": "smoke burning", "other": "hello there"}


def asked(i, text, **more):
    return Example(request=Request(id=f"q{i}", fields={"body": text}, **more), target="bug")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory, make_world):
    """Two packed students that keep everything: one answers by the words, one by the name."""
    root = tmp_path_factory.mktemp("flips")
    report = make_world(root).report()
    whole = replace(report.certificate.slices[-1], slice="other", threshold=-1.0)
    report = replace(report, certificate=replace(report.certificate, slices=(whole,)))
    # the world's out-of-scope edges were fitted on another student's scores, and would send every row to the teacher
    plain = Confidence(everywhere=Calibrator(method="temperature"))
    unrouted = [replace(c, calibration=c.calibration and replace(c.calibration, confidence=plain)) for c in report.candidates]
    report = replace(report, candidates=tuple(unrouted))
    found = {}
    for kind in ("steady", "biased"):
        texts = []
        for i, (label, words) in enumerate(list(WORDS.items()) * 12):
            name = [*NAMES.groups["women"], *NAMES.groups["men"]][i // 6 % 6]
            target = label if kind == "steady" else ("billing" if name in NAMES.groups["women"] else "bug")
            texts.append((f"My name is {name}. {words} {i}", target))
        rows = [Example(request=Request(id=f"t{i}", fields={"body": t}), target=y) for i, (t, y) in enumerate(texts)]
        folder = root / kind
        (folder / "train").mkdir(parents=True)
        (folder / "pack").mkdir()
        fitted = train(TrainSet(examples=tuple(rows), labels=LABELS), StudentRecipe(name="large", use="linear.v1"),
                       workdir=folder / "train")
        found[kind] = pack(fitted, report, PackRecipe(task="t", input=("body",)), workdir=folder / "pack")
    return found


def calibration(n):
    words = list(WORDS.values())
    return CalibrationSet(examples=tuple(asked(i, f"{words[i % 6]} number {i}") for i in range(n)), labels=LABELS)


def test_a_student_that_answers_by_the_name_fails_and_its_counts_are_those_of_the_bundle(bundles):
    """Each pair is asked as a server asks; two names of one group change nothing, so the term itself is to blame."""
    rows, recipe = calibration(60), FlipRecipe(lists=(NAMES,), at_most=0.05)
    one = measure_flips(bundles["biased"], rows, recipe).lists[0]
    bundle = load_bundle(bundles["biased"].path)
    by_hash = list(pairs_of(NAMES, [e.request for e in rows.examples], salt=recipe.salt, most=1000))
    plain = sum(bundle.answer(p.left.fields).value != bundle.answer(p.right.fields).value for p in by_hash)
    assert (one.pairs, one.changed, one.rerouted, one.to_teacher) == (60, plain, 0, 0)
    assert one.changed > 40
    assert one.verdict == "fail"
    assert one.certain.beyond_noise
    answer = flip_answers(measure_flips(bundles["biased"], rows, recipe))[0]
    assert answer.outcome == "fail"
    assert "placebo" in answer.reason


def test_a_steady_student_passes_with_rows_enough_and_is_undecided_with_one_fewer(bundles):
    """No flip of 59 certifies 5 % at 95 %; no flip of 58 doesn't, and the answer says how many it takes."""
    for n, outcome in ((59, "pass"), (58, "not-run")):
        report = measure_flips(bundles["steady"], calibration(n), FlipRecipe(lists=(NAMES,), at_most=0.05))
        assert report.lists[0].changed == report.lists[0].rerouted == 0
        answer = flip_answers(report)[0]
        assert answer.outcome == outcome
        assert n == 59 or "at least 59 pairs" in answer.todo


def with_threshold(folder, tmp_path, threshold):
    """The same bundle with another threshold, its manifest made again."""
    import shutil

    from overproof.students.bundle import manifest_of
    from overproof.students.files import write_json

    copy = tmp_path / f"bundle{threshold}"
    shutil.copytree(folder.path, copy)
    card = json.loads((copy / "release.json").read_text())
    card["slices"][-1]["threshold"] = threshold
    (copy / "release.json").unlink()
    (copy / "manifest.json").unlink()
    write_json(copy / "release.json", card)
    write_json(copy / "manifest.json", manifest_of(copy))
    return replace(folder, path=copy)


def test_a_changed_route_blocks_a_pass_and_proves_no_fail(bundles, tmp_path):
    """What the teacher would answer on one side was not asked: neither verdict may rest on it."""
    bundle = load_bundle(bundles["biased"].path)
    rows = calibration(60)
    requests = [e.request for e in rows.examples]
    sides = [r for p in pairs_of(NAMES, requests, salt="flips", most=1000) for r in (p.left, p.right)]
    middle = sorted(bundle.answer(r.fields).confidence for r in sides)[60]
    cut = with_threshold(bundles["biased"], tmp_path, middle)
    one = measure_flips(cut, rows, FlipRecipe(lists=(NAMES,), at_most=0.95)).lists[0]
    assert one.rerouted > 0
    assert one.cautious.flips.n - one.cautious.flips.good == one.changed + one.rerouted
    assert one.certain.flips.n - one.certain.flips.good == one.changed
    none = measure_flips(with_threshold(bundles["biased"], tmp_path, None), rows, FlipRecipe(lists=(NAMES,))).lists[0]
    assert (none.changed, none.rerouted, none.to_teacher) == (0, 0, 60)


def test_pairs_differ_in_the_term_alone_and_a_placebo_stays_in_its_group():
    """In the text's own place where it stands there, whole words only; framed alike elsewhere."""
    group = {t: g for g, terms in NAMES.groups.items() for t in terms}
    requests = [asked(1, "Anna and Annabel wrote to Anna.").request, asked(2, "where is my parcel").request]
    for placebo in (False, True):
        own, framed = pairs_of(NAMES, requests, salt="s", most=10, placebo=placebo)
        other = own.right.fields["body"].split()[0]
        assert own.in_place
        assert own.left == requests[0]
        assert own.right.fields["body"] == f"{other} and Annabel wrote to {other}."
        assert (group[other] == "women") is placebo
        assert other != "Anna"
        words = [p.fields["body"].split()[3].rstrip(".") for p in (framed.left, framed.right)]
        assert framed.left.fields["body"].replace(words[0], words[1]) == framed.right.fields["body"]
        assert (group[words[0]] == group[words[1]]) is placebo
    assert list(pairs_of(NAMES, requests, salt="s", most=10)) == list(pairs_of(NAMES, requests, salt="s", most=10))
    assert len(list(pairs_of(NAMES, requests, salt="s", most=1))) == 1
    assert [p.in_place for p in pairs_of(replace(NAMES, frame=""), requests, salt="s", most=10)] == [True]


def test_rows_of_one_session_make_one_pair_and_a_list_that_meets_no_text_is_refused(bundles):
    """Messages of one person are not independent; and no pairs are no pass."""
    examples = tuple(asked(i, f"crash error {i}", session="one") for i in range(9))
    rows = CalibrationSet(examples=(*examples, asked(10, "invoice charged")), labels=LABELS)
    assert measure_flips(bundles["steady"], rows, FlipRecipe(lists=(NAMES,))).lists[0].pairs == 2
    with pytest.raises(DataError, match="frame"):
        measure_flips(bundles["steady"], rows, FlipRecipe(lists=(replace(NAMES, frame=""),)))


def test_the_teachers_flips_count_only_where_it_answered_both_sides(bundles):
    """The traffic itself holds both versions of some texts; elsewhere the teacher is not guessed."""
    bare = SwapList(name="two", groups={"a": ("Anna",), "b": ("Peter",)})
    rows = CalibrationSet(examples=(asked(1, "Anna crash error"), asked(2, "Peter crash error"), asked(3, "Anna smoke")),
                          labels=LABELS)
    one = measure_flips(bundles["steady"], rows, FlipRecipe(lists=(bare,))).lists[0]
    assert (one.pairs, one.against_teacher.n) == (3, 2)
    assert one.cautious.placebo is None
    assert measure_flips(bundles["steady"], calibration(5), FlipRecipe(lists=(NAMES,))).lists[0].against_teacher is None


def test_the_built_in_lists_are_whole_and_a_broken_file_says_where(tmp_path):
    """Every list has two groups or more, a frame and a source; each fault of a user's file is named."""
    lists = read_swaps(None)
    assert len(lists) == 5
    assert all(len(one.groups) >= 2 and "{term}" in one.frame and one.source for one in lists)
    assert all(len(terms) >= 2 for one in lists for terms in one.groups.values())
    sound = {"name": "x", "groups": {"a": ["Anna"], "b": ["Peter"]}, "frame": "I am {term}."}
    file = tmp_path / "swaps.json"
    broken = [[], {"lists": []}, {"lists": [sound, sound]}, {"lists": [{**sound, "frame": "I am."}]},
              {"lists": [{**sound, "groups": {"a": ["Anna"]}}]}, {"lists": [{**sound, "groups": {"a": ["x"], "b": ["x"]}}]},
              {"lists": [{**sound, "groups": {"a": ["x"], "b": [" "]}}]}, {"lists": [{"name": "x"}]}]  # fmt: skip
    for raw in broken:
        file.write_text(json.dumps(raw))
        with pytest.raises(DataError, match=r"swaps\.json"):
            read_swaps(file)
    file.write_text(json.dumps({"lists": [sound]}))
    assert read_swaps(file)[0].groups == {"a": ("Anna",), "b": ("Peter",)}
    with pytest.raises(DataError, match=r"gone\.json"):
        read_swaps(tmp_path / "gone.json")
