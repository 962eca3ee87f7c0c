"""span.v1: records are learned, served without torch, and its files are trusted in nothing."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from tests.students.bills import OUTPUT, TINY, bills, small_encoder

from overproof.data import Example, Request, TrainSet
from overproof.errors import DataError
from overproof.outputs import Text
from overproof.students.span import SpanGenerator
from overproof.students.spans.candidates import direct_roles
from overproof.students.spans.decoding import SUREST, log_odds


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return small_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def fitted(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("span")
    generator = SpanGenerator(output=OUTPUT, seed=3, weights=weights, **TINY)
    generator.fit(bills(48), workdir=folder)
    return generator, folder


def requests(n=100, start=48):
    return [example.request for example in bills(n).examples[start:]]


def test_it_learns_fields_that_new_texts_hold(fitted):
    """On bills it hasn't seen nine in ten fields are right, computed due dates too, and each field has its own log-odds."""
    generator, _ = fitted
    rows = bills(100).examples[48:]
    said = generator.generate([row.request for row in rows])
    right = np.array([OUTPUT.compare(one.value, row.target) for one, row in zip(said, rows, strict=True)])
    assert right.mean() >= 0.9
    computed = [at for at, row in enumerate(rows) if "Net" in row.request.text]
    assert right[computed, 2].mean() >= 0.8
    assert all(set(one.fields) == {field.name for field in OUTPUT.fields} for one in said)
    assert all(set(one.columns) == {"least", "mean", "cut"} for one in said)
    assert all(one.score <= min(one.fields.values()) + 1e-9 for one in said)


def test_one_long_text_is_read_to_its_end(fitted):
    """A bill behind a thousand words, over many windows, is still found, and nothing is cut."""
    generator, _ = fitted
    text = "lorem ipsum dolor\n" * 300 + requests()[1].text
    said = generator.generate([Request(id="long", fields={"text": text})])[0]
    assert said.columns["cut"] == 0
    assert any(OUTPUT.values(said.value)[name] == OUTPUT.values(bills(100).examples[49].target)[name] for name in ("number", "total"))


def test_a_text_without_what_is_required_has_no_answer(fitted):
    """Where a required field has no candidate the value is None and the score the lowest."""
    said = fitted[0].generate([Request(id="1", fields={"text": "hello"})])[0]
    assert (said.value, said.score) == (None, -SUREST)


def test_serving_imports_no_torch(fitted):
    """The folder alone answers, in a process in which torch, transformers and onnx can't be imported."""
    _, folder = fitted
    code = (
        "import sys\nfor name in ('torch','transformers','onnx','safetensors','sklearn'): sys.modules[name] = None\n"
        "from pathlib import Path\nfrom overproof.data import Request\nfrom overproof.students.span import SpanGenerator\n"
        f"print(SpanGenerator.load(Path({str(folder)!r})).generate([Request(id='1', fields={{'text': {requests()[0].text!r}}})])[0].value)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == fitted[0].generate(requests()[:1])[0].value


@pytest.mark.parametrize("change", ["options", "output", "days", "named", "size", "kind", "normaliser", "seen", "pickle", "graph", "tokenizer", "missing"])
def test_files_that_were_changed_are_refused(fitted, tmp_path, change):
    """Any file that doesn't belong to the others is a DataError, never a crash or an answer."""
    folder = tmp_path / "copy"
    shutil.copytree(fitted[1], folder)
    settings = json.loads((folder / "student.json").read_text())
    match change:
        case "options":
            settings["options"]["evil"] = 1
        case "output":
            settings["output"] = ["fields", settings["output"][1][:-1]]
        case "days":
            settings["facts"]["days"] = [["due", "number"]]
        case "named":
            settings["facts"]["named"] = [["number", 3]]
        case "size":
            settings["facts"]["size"] = "96"
        case "kind" | "normaliser":
            settings[change] = "other"
        case "seen":
            np.savez(folder / "heads.npz", seen=np.zeros((1, 2), dtype=np.float32))
        case "pickle":
            np.savez(folder / "heads.npz", seen=np.array([{}], dtype=object))
        case "graph":
            raw = (folder / "model.onnx").read_bytes()
            (folder / "model.onnx").write_bytes(raw[: len(raw) // 2])
        case "tokenizer":
            (folder / "tokenizer.json").write_text("{}")
        case _:
            (folder / "heads.npz").unlink()
    (folder / "student.json").write_text(json.dumps(settings))
    with pytest.raises(DataError):
        SpanGenerator.load(folder)


def test_what_it_cannot_do_is_said():
    """Text outputs, unknown options and numbers out of range are refused before any work."""
    with pytest.raises(DataError, match="records"):
        SpanGenerator(output=Text())
    with pytest.raises(DataError, match="no option 'depth'"):
        SpanGenerator(output=OUTPUT, depth=3)
    with pytest.raises(DataError, match="rate"):
        SpanGenerator(output=OUTPUT, rate=0)
    with pytest.raises(DataError, match="not fitted"):
        SpanGenerator(output=OUTPUT).generate([])


def test_a_round_is_judged_on_rows_that_are_held_out(weights, tmp_path):
    """With several layouts some are held out, each round is judged on them, and the best round is the one that is kept."""
    kinds = ["shop {} order from town", "Rechnung {} aus Stadt", "factura {} de ciudad", "numero {} via roma negozio"]
    rows = [(kinds[i % 4].format(100 + i), str(100 + i)) for i in range(60)]
    from overproof.outputs import output_of

    output = output_of({"fields": {"n": "number"}})
    examples = tuple(Example(request=Request(id=str(i), fields={"text": text}), target=output.parse(f'{{"n": {n}}}')) for i, (text, n) in enumerate(rows))
    generator = SpanGenerator(output=output, weights=weights, held_out=0.3, rounds=2, views=80, rate=1e-3)
    generator.fit(TrainSet(examples=examples, labels=(), output=output), workdir=tmp_path)
    facts = generator.facts
    assert (facts["held_out"], facts["judged"], len(facts["checks"])) == (15, 15, 2)
    assert facts["round"] == 2 - (facts["checks"][0] > facts["checks"][1])
    assert facts["unfound"] == {"n": 0}
    assert len(direct_roles(output)) == 1


def test_a_name_that_the_text_does_not_write_is_learned(weights, tmp_path):
    """A maker that rows call by another word is answered in the rows' own name; one that the text writes is still found there."""
    from overproof.outputs import output_of

    output = output_of({"fields": {"maker": "text"}})
    called = {"bimmer": "Bayerische Werke", "beetle": "Volk & Co", "Trabant": "Trabant"}
    rows = [(f"my {word} number {i} is broken", name) for i in range(18) for word, name in called.items()]
    examples = tuple(Example(request=Request(id=str(i), fields={"text": text}), target=output.write({"maker": name})) for i, (text, name) in enumerate(rows))
    generator = SpanGenerator(output=output, weights=weights, held_out=0, rounds=8, views=400, rate=2e-3, frozen=0)
    generator.fit(TrainSet(examples=examples, labels=(), output=output), workdir=tmp_path)
    said = generator.generate([Request(id="1", fields={"text": f"my {word} number 99 is broken"}) for word in called])
    assert [output.values(one.value)["maker"] for one in said] == list(called.values())
    assert generator.facts["named"] == [["maker", "Bayerische Werke"], ["maker", "Volk & Co"]]


def test_log_odds_stay_finite():
    """Certainty is 30, its opposite -30, even odds 0."""
    assert [log_odds(p) for p in (0.0, 0.5, 1.0)] == [-SUREST, 0.0, SUREST]
