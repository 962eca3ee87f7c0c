"""What the bundle serves is what was certified, row by row; foreign text goes to the teacher."""

import dataclasses
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

import overproof
from overproof.data import CalibrationSet, Example, Request, TestSet, TrainSet
from overproof.errors import OverproofError
from overproof.steps.calibrate import CalibrateRecipe, calibrate, reading_of, slice_names
from overproof.steps.evaluate import EvaluateRecipe, StudyRecipe, evaluate, study
from overproof.steps.pack import PackRecipe, pack
from overproof.steps.plan import PlanRecipe, make_plan
from overproof.steps.predict import PredictRecipe, predict_dev, predict_test
from overproof.steps.train import StudentRecipe, train
from overproof.students.bundle import Bundle, load_bundle, manifest_of
from overproof.students.files import write_json
from overproof.task import Bar, Slice

SLICES = (Slice(name="english", where=(("language", ("en",)),)), Slice(name="german", where=(("language", ("de",)),)))
BARS = (Bar(metric="fidelity", at_least=0.7),)
OTHER_LANGUAGES = (
    "Missä minun pakettini on?", "Chciałbym anulować zamówienie", "Ik wil graag mijn bestelling annuleren",
    "请问我的订单什么时候发货", "Где мой заказ", "Jag vill ha pengarna tillbaka", "A csomagom még nem érkezett meg",
    "Paketim nerede kaldı acaba", "Kje je moj paket?", "أين طلبي؟", "注文をキャンセルしたい", "Το δέμα μου δεν έφτασε",
    "Gdzie jest moja paczka?", "Balíček stále nedorazil", "Pakken min har ikke kommet ennå", "Pachetul meu nu a sosit",
)  # fmt: skip


def noise(n: int) -> list[str]:
    """Random letters, fingers rolled over a keyboard, and punctuation."""
    draw, rows = random.Random(0), ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    letters = [" ".join("".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(3, 10))) for _ in range(6)) for _ in range(n)]
    rolled = ["".join(draw.choice(rows)[i : i + 3] for i in draw.choices(range(6), k=8)) for _ in range(n)]
    signs = ["".join(draw.choices("0123456789!?#%&/()=+*-_;:.,<>", k=20)) for _ in range(n)]
    return letters + rolled + signs


def served(use: str, sizes: tuple[int, int, int], folder: Path, *, out_of_scope: str = "other", **options):
    """From the bundled inbox to a bundle through the steps themselves; labels are the queues."""
    text = (Path(overproof.__file__).parent / "inbox" / "messages.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    labels = tuple(sorted({row["queue"] for row in rows}))
    examples = [
        Example(request=Request(id=r["id"], fields={"text": r["text"]}, attributes={"language": r["language"]}), target=r["queue"])
        for r in rows
    ]
    a, b, c = np.cumsum(sizes)
    learn = TrainSet(examples=tuple(examples[:a]), labels=labels)
    dev = CalibrationSet(examples=tuple(examples[a:b]), labels=labels)
    sealed = TestSet(examples=tuple(examples[b:c]), labels=labels)
    for name in ("fit", "dev", "test", "pack"):
        (folder / name).mkdir()
    trained = train(learn, StudentRecipe(name="small", use=use, options=options), workdir=folder / "fit")
    costs = PredictRecipe(cost_usd_per_cpu_hour=0.05)
    seen, tested = predict_dev(trained, dev, costs, workdir=folder / "dev"), predict_test(trained, sealed, costs, workdir=folder / "test")
    calibration = calibrate(seen, dev, CalibrateRecipe(slices=SLICES, out_of_scope=out_of_scope, mixed_share=0.03))
    asked = PlanRecipe(bars=BARS, slices=SLICES, accuracy_when_confident=0.75, n_sealed=sizes[2], teacher="big")
    plan = make_plan((calibration,), (seen,), dev, asked)
    shown = study(plan, (calibration,), (seen,), dev, StudyRecipe(slices=SLICES))
    place = EvaluateRecipe(use_k=1, plan_hash="p", sealed_digest="s", bars=BARS, slices=SLICES, window=(None, None), expires="2030-01-01")
    report = evaluate(plan, shown, (tested,), sealed, place)
    packed = pack(trained, report, PackRecipe(task="inbox", input=("text",), slices=SLICES), workdir=folder / "pack")
    reading = reading_of(tested, sealed, plan.confidence, slices=slice_names(sealed, SLICES, {}))
    return report, load_bundle(packed.path), sealed, reading, packed.path


@pytest.fixture(scope="module")
def inbox(tmp_path_factory):
    return served("linear.v1", (1_200, 500, 500), tmp_path_factory.mktemp("inbox"))


def check_served(report, bundle, sealed, reading) -> set[str]:
    thresholds, causes = {s.slice: s.threshold for s in report.certificate.slices}, set()
    for i, example in enumerate(sealed.examples):
        answer = bundle.answer(example.request.fields, example.request.attributes)
        assert answer.confidence == pytest.approx(reading.confidence[i], abs=1e-9)
        assert answer.guess == sealed.labels[reading.answer[i]]
        threshold = thresholds.get(answer.slice)
        kept = threshold is not None and not reading.foreign[i] and reading.confidence[i] >= threshold
        assert (answer.route == "student") == kept == (answer.value is not None)
        assert (answer.cause == "mixed") == bool(reading.mixed[i]) == answer.reason.startswith("mixed")
        assert (answer.cause == "out_of_scope") == bool(reading.foreign[i] and not reading.mixed[i]) == answer.reason.startswith("out_of_scope")
        causes.add(answer.cause)
    return causes


def test_the_bundle_serves_the_certified_confidence_and_route(inbox) -> None:
    """On every sealed row, confidence to 1e-9, answer, slice and route are those that the certificate counted."""
    report, bundle, sealed, reading, _ = inbox
    assert check_served(report, bundle, sealed, reading) >= {"confident", "unsure", "out_of_scope", "mixed"}
    kept = sum(s.counts[s.grid.index(s.threshold)][1] for s in report.certificate.slices if s.threshold is not None)
    assert 0 < kept < len(sealed.examples)


def test_an_encoder_serves_the_certified_confidence_too(tmp_path) -> None:
    """Each row was read alone, as a server does: no padding moves a digit; unused training features stay at home."""
    report, bundle, sealed, reading, folder = served("encoder.v1", (120, 60, 40), tmp_path, max_tokens=16)
    check_served(report, bundle, sealed, reading)
    rules = [rule.score for rule in bundle.card.confidence.scope]
    assert (folder / "student" / "neighbours.npz").exists() == any(rule.startswith("nearest_") for rule in rules)


def test_noise_and_unknown_languages_go_to_the_teacher(inbox) -> None:
    """Before the route a tuned threshold let noise through; with it hardly any foreign text is answered by the student."""
    _, bundle, sealed, _, _ = inbox
    card = dataclasses.replace(bundle.card, confidence=dataclasses.replace(bundle.card.confidence, scope=()))
    before = Bundle(card, bundle._student, bundle._mixture)

    def to_teacher(which: Bundle, texts) -> float:
        return float(np.mean([which.answer({"text": text}, {"language": "en"}).route == "teacher" for text in texts]))

    for texts, least in ((noise(100), 0.98), (OTHER_LANGUAGES, 0.9)):
        assert to_teacher(before, texts) < 0.9
        assert to_teacher(bundle, texts) >= least
    own = [e.request for e in sealed.examples]
    routed = np.mean([bundle.answer(r.fields, r.attributes).cause == "out_of_scope" for r in own])
    assert routed <= 0.04


def test_words_of_another_queue_go_to_the_teacher_and_hardly_any_honest_message(inbox) -> None:
    """Stuffed three times over: of the answers that turn wrong at least 95 % are routed; without the rule far fewer are, and honest ones stay."""
    report, bundle, sealed, reading, folder = inbox
    off = dataclasses.replace(bundle.card, confidence=dataclasses.replace(bundle.card.confidence, mixed=()))
    draw, turned, through, before = random.Random(3), 0, 0, 0
    for i, example in enumerate(sealed.examples):
        honest = sealed.labels[reading.answer[i]]
        wrong = draw.choice([label for label in sealed.labels if label != honest]).replace("_", " ")
        stuffed = [Request(id="", fields={"text": f"{example.request.text} {' '.join([wrong] * 3)}"}, attributes=example.request.attributes)]
        answer = bundle.answers(stuffed)[0]
        if answer.guess != honest:
            turned += 1
            through += answer.route == "student"
            before += Bundle(off, bundle._student).answers(stuffed)[0].route == "student"
    assert turned > 50
    assert through <= 0.05 * turned < before
    chosen = report.candidates[0]
    assert chosen.mixed.good == int(reading.mixed.sum())
    assert 0 < chosen.mixed.value <= 0.04
    assert 0 < chosen.calibration.mixed.value <= 0.03
    assert (folder / "student" / "mixture.npz").exists()


@pytest.mark.parametrize("sealed_again", [False, True])
def test_a_bundle_whose_table_is_gone_or_changed_does_not_load(inbox, tmp_path, sealed_again) -> None:
    """One byte of the table, or the table taken out: refused, by the manifest and, where that was rewritten, by the rule that needs it."""
    folder = shutil.copytree(inbox[-1], tmp_path / "bundle")
    table = folder / "student" / "mixture.npz"
    if sealed_again:
        table.unlink()
        (folder / "manifest.json").unlink()
        write_json(folder / "manifest.json", manifest_of(folder))
    else:
        table.write_bytes(table.read_bytes()[:-1] + b"x")
    with pytest.raises(OverproofError, match="two_answers" if sealed_again else "mixture"):
        load_bundle(folder)


def test_many_requests_at_once_are_decided_as_one_by_one(inbox) -> None:
    """A value where the student answers, None where the teacher has to: unsure, uncertified and foreign rows alike."""
    _, bundle, sealed, _, _ = inbox
    own = [e.request for e in sealed.examples]
    foreign = [Request(id=f"n{i}", fields={"text": t}, attributes={"language": "en"}) for i, t in enumerate(noise(20))]
    answers = [bundle.answer(r.fields, r.attributes) for r in (*own, *foreign)]
    assert {a.cause for a in answers} >= {"confident", "unsure", "out_of_scope"}
    assert list(bundle.decide([*own, *foreign])) == [a.value for a in answers]
    tuned = dataclasses.replace(bundle.card, thresholds=tuple(dataclasses.replace(t, threshold=0.0) for t in bundle.card.thresholds))
    everything = Bundle(tuned, bundle._student, bundle._mixture)
    assert everything.decide(foreign).count(None) == sum(everything.answer(r.fields, r.attributes).route == "teacher" for r in foreign) > 50


def test_the_report_says_what_the_rules_stand_on(inbox) -> None:
    """Score, reason, rows of each kind and the share that is routed stand in the report; a figure has its n."""
    report, bundle, sealed, reading, _ = inbox
    chosen = report.candidates[0]
    scope = chosen.calibration.scope
    assert scope.inside + scope.outside == chosen.calibration.n == 500
    assert chosen.out_of_scope.n == len(sealed.examples)
    assert chosen.out_of_scope.good == int((reading.foreign & ~reading.mixed).sum())
    assert [r.score for r in bundle.card.confidence.scope] == [r.score for r in chosen.calibration.confidence.scope]
    assert [r.slice for r in chosen.reliability] == ["all", "english", "german", "other"]
    assert sum(r.ece.n for r in chosen.reliability[1:]) == chosen.reliability[0].ece.n
    for r in chosen.reliability:
        assert 0 <= r.ece.low <= r.ece.value <= r.ece.high <= 1


def test_the_rules_are_in_the_release_file_as_plain_numbers(inbox) -> None:
    """release.json carries calibrator, rules and thresholds; another number in it is another reading."""
    *_, folder = inbox
    raw = json.loads((folder / "release.json").read_text(encoding="utf-8"))
    assert raw["format"] == "overproof.bundle.v3"
    assert {rule["score"] for rule in raw["confidence"]["scope"]} >= {"unknown_share"}
    assert raw["confidence"]["everywhere"]["method"] == "temperature"
