"""Every registered generator through one suite."""

import pytest
from tests.students.bills import small_encoder

from overproof.registry import names, resolve
from overproof.students import Generated
from overproof.students.span import SpanGenerator
from overproof.testing_generators import TINY_RECORDS, generator_conformance, tiny_records

# Options that make a part quick to fit: the promises don't hang on quality.
QUICK = {"span.v1": {"rounds": 15, "views": 540, "rate": 2e-3, "frozen": 0}}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return small_encoder(tmp_path_factory.mktemp("encoder"))


def registered():
    found = {name: resolve("students", name) for name in names("students")}
    return {"span.v1": SpanGenerator} | {name: cls for name, cls in found.items() if name in QUICK}


@pytest.mark.parametrize("name", sorted(registered()))
def test_a_generator_keeps_its_promises(name, encoder, tmp_path):
    """Fitted on tens of rows it is deterministic, independent of its batch, canonical, data on disk, and learns."""
    cls = registered()[name]
    generator_conformance(
        lambda output: cls(output=output, seed=1, weights=encoder, **QUICK[name]), train=tiny_records(), workdir=tmp_path, least_right=0.8
    )


class Liar:
    """A generator with one broken promise at a time."""

    kind, parameters = "liar.v1", 3

    def __init__(self, how):
        self.how, self.output, self.calls = how, TINY_RECORDS, 0

    def fit(self, train, *, workdir):
        (workdir / ("model.pkl" if self.how == "pickle" else "model.json")).write_bytes(b"\x80\x04" if self.how == "bytes" else b"{}")

    def generate(self, requests):
        self.calls += 1
        value = '{"item": "x", "count": 1, "day": null}'
        if self.how == "form":
            value = '{"count": 1, "item": "x", "day": null}'
        score = {"nan": float("nan"), "batch": float(len(requests)), "random": float(id(self))}.get(self.how, 0.0)
        fields = {"strange": 0.0} if self.how == "field" else {}
        columns = {"only": 1.0} if self.how == "columns" and any(not r.text for r in requests) else {}
        many = requests[:-1] if self.how == "short" else requests
        return [Generated(value=value, score=score, columns=columns, fields=fields) for _ in many]

    @classmethod
    def load(cls, folder):
        return cls("")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("pickle", "files of"), ("bytes", "pickle"), ("form", "canonical"), ("nan", "finite"), ("batch", "depend"), ("random", "same rows"),
        ("field", "nothing else"), ("columns", "same columns"), ("short", "one answer"), ("lazy", "are right"),
    ],
)
def test_the_suite_catches_each_broken_promise(how, words, tmp_path):
    """A generator that breaks one promise is told which."""
    with pytest.raises(AssertionError, match=words):
        generator_conformance(lambda _: Liar(how), train=tiny_records(rows=4), workdir=tmp_path, least_right=0.5 if how == "lazy" else 0.0)


def test_the_suite_passes_what_keeps_them(tmp_path):
    """The same generator without a lie passes."""
    generator_conformance(lambda _: Liar(""), train=tiny_records(rows=4), workdir=tmp_path)
