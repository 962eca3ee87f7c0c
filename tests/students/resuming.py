"""Trainings that are killed and taken up again: the generators under test, and a process that trains one of them."""

import json
import sys
from pathlib import Path

from tests.students.bills import small_encoder
from tests.students.tiny_llama import write_tiny

from overproof.data import Example, Request, TrainSet
from overproof.outputs import Text, output_of
from overproof.progress import reporter
from overproof.students import checkpoints
from overproof.students.causal import CausalGenerator
from overproof.students.span import SpanGenerator

NUMBER = output_of({"fields": {"n": "number"}})
LAYOUTS = ("shop {} order {} town", "Rechnung {} aus Stadt {}", "{} factura de ciudad {}", "via roma negozio {} e {} numero")
SPAN = {"rounds": 4, "views": 160, "rate": 2e-3, "batch": 8, "frozen": 0, "held_out": 0.3}
CAUSAL = {"epochs": 4, "rate": 0.02, "batch": 4, "precision": "fp32", "quant": "f16", "held_out": 0.3, "patience": 9}


def base_of(kind, folder):
    """A tiny base with random weights; span.v1's has dropout, so that its training draws from chance."""
    if kind == "causal.v1":
        return f"folder:{write_tiny(folder / 'tiny.gguf')}"
    weights = small_encoder(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}))
    return weights


def rows_of(kind):
    """Numbers in texts of several layouts, so that some are held out, or questions and answers."""
    pairs = [(f"order {i} of {i % 5} parts", f"{i % 5} parts") for i in range(40)]
    if kind == "span.v1":
        pairs = [(LAYOUTS[i % 4].format(100 + i, 300 - i), f'{{"n": {100 + i}}}') for i in range(60)]
    output = NUMBER if kind == "span.v1" else Text()
    examples = tuple(Example(request=Request(id=text, fields={"text": text}), target=answer) for text, answer in pairs)
    return TrainSet(examples=examples, labels=(), output=output)


def make(kind, weights, **options):
    """The generator, not fitted."""
    if kind == "span.v1":
        return SpanGenerator(output=NUMBER, weights=weights, **{**SPAN, "seed": 3, **options})
    return CausalGenerator(output=Text(), weights=weights, max_tokens=256, **{"seed": 3, "training": CAUSAL, "max_new_tokens": 16, **options})


def steps_of(fit):
    """Training steps that a call runs, told by its progress; `tell` gets each."""
    done = []

    class Count:
        def start(self, what, total):
            return lambda n: done.extend([1] * n) if what.startswith(("training", "tuning")) and n > 0 else None

    token = reporter.set(Count())
    try:
        fit()
    finally:
        reporter.reset(token)
    return len(done)


class Tell:
    """Prints every step."""

    def __init__(self):
        self.done = 0

    def start(self, what, total):
        def advance(n):
            if what.startswith(("training", "tuning")) and n > 0:
                self.done += n
                print("step", self.done, flush=True)

        return advance


if __name__ == "__main__":
    checkpoints.EVERY_S = 0.0
    reporter.set(Tell())
    generator = make(sys.argv[1], sys.argv[2])
    generator.checkpoints = Path(sys.argv[3])
    generator.fit(rows_of(sys.argv[1]), workdir=Path(sys.argv[4]))
