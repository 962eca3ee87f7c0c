"""The same encoder as `bert_onnx` writes, in torch: all that is trained lies in one flat tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from overproof.errors import DataError
from overproof.students.bert_onnx import BertConfig, Pooling, Weights

if TYPE_CHECKING:
    import torch

NAMES = ("embeddings.position_embeddings.weight", "embeddings.token_type_embeddings.weight")
NORM = "embeddings.LayerNorm"
WORDS = "embeddings.word_embeddings.weight"
# Inner name to the layers of the file that it joins; query, key and value side by side are one product.
PARTS: Mapping[str, tuple[str, ...]] = {
    "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "out": ("attention.output.dense",),
    "norm1": ("attention.output.LayerNorm",),
    "wide": ("intermediate.dense",),
    "narrow": ("output.dense",),
    "norm2": ("output.LayerNorm",),
}
MASKED = -1e9  # as in the graph


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Where each trained tensor lies in the flat one."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def sizes(self) -> list[int]:
        """Numbers of each tensor."""
        return [math.prod(shape) for shape in self.shapes]


class TorchBert:
    """
    An encoder whose upper layers, or all of them, are trained.

    Only the word rows that the training texts use take part: the others would get no gradient, and half of a small
    encoder's numbers are word rows.

    Args:
        config: the encoder's shape.
        tensors: its weights, see `bert_onnx.read_weights`.
        used: ids of the tokens that occur, ascending.
        layers: how many layers from the top are trained; all of them and the embeddings where it is `config.layers`
            and `whole` is true.
        whole: whether embeddings are trained.
    """

    def __init__(
        self, config: BertConfig, tensors: Weights, *, used: NDArray[np.int64], layers: int, whole: bool
    ) -> None:
        self.config, self.used = config, used
        self.first = config.layers - layers
        self.whole = whole
        arrays = dict(_inner(config, tensors, used))
        trained = [
            name for name in arrays if (whole if name.startswith("e.") else int(name.split(".")[0]) >= self.first)
        ]
        self.layout = Layout(names=tuple(trained), shapes=tuple(arrays[name].shape for name in trained))
        self._start = {name: arrays[name] for name in trained}
        self._frozen = {name: value for name, value in arrays.items() if name not in self._start}

    def flat(self) -> NDArray[np.float32]:
        """The trained numbers as the file has them."""
        return np.concatenate([self._start[name].ravel() for name in self.layout.names])

    def frozen(self, device: str) -> dict[str, torch.Tensor]:
        """The tensors that stay, on a device."""
        import torch

        return {name: torch.from_numpy(value).to(device) for name, value in self._frozen.items()}

    def views(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """The trained tensors by name; one split, whose gradient is one concatenation."""
        pieces = flat.split(self.layout.sizes)  # type: ignore[no-untyped-call]
        return {n: piece.view(s) for n, s, piece in zip(self.layout.names, self.layout.shapes, pieces, strict=True)}

    def hidden(
        self, p: Mapping[str, torch.Tensor], ids: torch.Tensor, mask: torch.Tensor, *, dropout: float
    ) -> torch.Tensor:
        """
        The last layer's states.

        Args:
            p: trained and frozen tensors by name.
            ids: places in `used`, shape (n, length).
            mask: shape (n, length), bool.
            dropout: share of states that is zeroed after each block; 0 when it answers.

        Returns: shape (n, length, hidden).
        """
        import torch
        from torch.nn import functional as f

        eps, width = self.config.layer_norm_eps, (self.config.hidden,)
        bias = torch.zeros(mask.shape, dtype=p["e.words"].dtype, device=mask.device)
        bias = bias.masked_fill(~mask, MASKED)[:, None, None, :]
        x = f.embedding(ids, p["e.words"]) + p["e.places"][: ids.shape[1]] + p["e.types"][0]
        x = f.dropout(f.layer_norm(x, width, p["e.norm.w"], p["e.norm.b"], eps), dropout, training=dropout > 0)
        for at in range(self.config.layers):
            # Nothing under the lowest trained layer needs a gradient; autograd finds that out by itself.
            q, k, v = f.linear(x, p[f"{at}.qkv.w"], p[f"{at}.qkv.b"]).view(*x.shape[:2], 3, self.config.heads, -1).unbind(2)
            mixed = f.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=bias)
            y = f.linear(mixed.transpose(1, 2).reshape(x.shape), p[f"{at}.out.w"], p[f"{at}.out.b"])
            x = x + f.dropout(y, dropout, training=dropout > 0)
            x = f.layer_norm(x, width, p[f"{at}.norm1.w"], p[f"{at}.norm1.b"], eps)
            y = f.gelu(f.linear(x, p[f"{at}.wide.w"], p[f"{at}.wide.b"]))
            y = f.linear(y, p[f"{at}.narrow.w"], p[f"{at}.narrow.b"])
            x = x + f.dropout(y, dropout, training=dropout > 0)
            x = f.layer_norm(x, width, p[f"{at}.norm2.w"], p[f"{at}.norm2.b"], eps)
        return x

    def write_back(self, tensors: Weights, flat: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """
        The encoder's tensors with the trained ones in place.

        Args:
            tensors: as the file has them.
            flat: trained numbers, as `flat` orders them.

        Returns: a new mapping under the file's names.
        """
        found = dict(tensors)
        pieces = np.split(flat, np.cumsum(self.layout.sizes)[:-1])
        for name, shape, piece in zip(self.layout.names, self.layout.shapes, pieces, strict=True):
            value = piece.reshape(shape)
            if name == "e.words":
                words = tensors[WORDS].copy()
                words[self.used] = value
                found[WORDS] = words
            elif name in ("e.places", "e.types"):
                found[NAMES[name == "e.types"]] = value
            elif name.startswith("e.norm"):
                found[f"{NORM}.{_suffix(name)}"] = value
            else:
                at, part, _ = name.split(".")
                for joined, one in zip(PARTS[part], np.split(value, len(PARTS[part])), strict=True):
                    found[f"encoder.layer.{at}.{joined}.{_suffix(name)}"] = np.ascontiguousarray(one)
        return found


def pool(x: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """
    Token states to one float32 row a text, as the graph does it.

    Args:
        x: shape (n, length, hidden).
        mask: shape (n, length), bool.
        pooling: see `bert_onnx.build`.

    Returns: shape (n, hidden), or twice as wide with the maxima.
    """
    import torch
    from torch.nn import functional as f

    x, column = x.float(), mask[:, :, None]
    unit = f.normalize((x * column).sum(1) / column.sum(1), dim=1)
    if pooling == "mean":
        return unit
    return torch.cat([unit, x.masked_fill(~column, MASKED).amax(1)], dim=1)


def _suffix(name: str) -> str:
    return "weight" if name.endswith(".w") else "bias"


def _inner(config: BertConfig, tensors: Weights, used: NDArray[np.int64]) -> Any:
    def take(name: str) -> NDArray[np.float32]:
        if name not in tensors:
            raise DataError(
                f"the encoder's weights have no tensor {name!r}",
                next_action="check that model.safetensors and config.json belong to one BERT encoder",
            )
        return np.asarray(tensors[name])

    yield "e.words", take(WORDS)[used]
    yield "e.places", take(NAMES[0])
    yield "e.types", take(NAMES[1])
    yield "e.norm.w", take(f"{NORM}.weight")
    yield "e.norm.b", take(f"{NORM}.bias")
    for at in range(config.layers):
        for part, sources in PARTS.items():
            for end, kind in (("w", "weight"), ("b", "bias")):
                yield f"{at}.{part}.{end}", np.concatenate([take(f"encoder.layer.{at}.{s}.{kind}") for s in sources])
