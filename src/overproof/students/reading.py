"""Texts as rows of numbers, without fitting a student: what is learned from reviewed rows stands on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Reading = Literal["encoder", "ngrams"]
NGRAM_COLUMNS = 256
MAX_TERMS = 50_000


def read_texts(texts: Sequence[str], *, reading: Reading, options: Mapping[str, Any], seed: int = 0) -> NDArray[np.float32]:
    """
    One row of numbers for each text.

    Args:
        texts: at least two.
        reading: "encoder" as encoder.v1 reads, frozen; "ngrams" for word and character n-grams reduced to few columns.
        options: of encoder.v1: `model`, `weights`, `sha256`, `max_tokens`; empty for n-grams.
        seed: of the reduction.

    Returns: shape (n, d).
    Raises: MissingExtra where the encoder's packages are not installed; DataError where its weights can't be found.
    """
    return _encoded(texts, options) if reading == "encoder" else _reduced(texts, seed)


def _encoded(texts: Sequence[str], options: Mapping[str, Any]) -> NDArray[np.float32]:
    from overproof.students import bert_onnx
    from overproof.students.embedding import TOKENIZER, Tokens, embed
    from overproof.students.encoder import POOLING, EncoderStudent
    from overproof.students.weights import locate

    known = {k: v for k, v in options.items() if k in ("model", "weights", "sha256", "max_tokens")}
    settings = EncoderStudent(labels=("a", "b"), **known).options
    files = locate(settings["model"], settings["weights"], sha256=settings["sha256"])
    config = bert_onnx.read_config(files.folder / "config.json")
    graph = bert_onnx.build(config, bert_onnx.read_weights(files.folder / "model.safetensors"), pooling=POOLING)
    tokens = Tokens(files.folder / TOKENIZER, max_tokens=min(settings["max_tokens"], config.max_positions), pad=config.pad_token_id)
    return embed(tokens, graph.SerializeToString(deterministic=True), texts, width=bert_onnx.width_of(config, POOLING))


def _reduced(texts: Sequence[str], seed: int) -> NDArray[np.float32]:
    from sklearn.decomposition import TruncatedSVD

    from overproof.students.ngrams import Shape, learn

    shapes = (Shape(analyzer="word", low=1, high=2), Shape(analyzer="char_wb", low=3, high=4))
    table = learn(texts, shapes, min_df=1, max_terms=MAX_TERMS)
    matrix = table.matrix(texts)
    columns = min(NGRAM_COLUMNS, min(matrix.shape) - 1)
    if columns < 1:
        return np.asarray(matrix.todense(), dtype=np.float32)
    found = TruncatedSVD(n_components=columns, random_state=seed, n_iter=3).fit_transform(matrix)
    return np.asarray(found, dtype=np.float32)
