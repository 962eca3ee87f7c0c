"""A tuned model as one GGUF file: the base's file with the tuned tensors in place of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from overproof.errors import DataError, MissingExtra

Quant = Literal["q8_0", "f16"]
# Architecture to: are the rows of q and k stored in llama.cpp's order of rotary halves? These are checked by tests.
ARCHITECTURES = {"llama": True, "qwen2": False}
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
TARGETS = tuple(name.partition(".")[2] for name in NAMES)
NORMAL, CONTROL = 1, 3  # token types
DROPPED = ("tokenizer.chat_template", "general.file_type", "general.architecture")


class Base:
    """
    A base model's GGUF file.

    Args:
        path: the file.

    Raises: DataError for another architecture, or a file that is none; MissingExtra.
    """

    def __init__(self, path: Path) -> None:
        try:
            import gguf
        except ImportError as error:
            raise MissingExtra("causal.v1", extra="finetune,local") from error
        try:
            self._reader: Any = gguf.GGUFReader(path)
        except (OSError, ValueError, IndexError, KeyError) as error:
            raise DataError(f"{path.name} is no GGUF file: {error}", next_action="name a GGUF file in `weights`") from error
        self.architecture = str(self._value("general.architecture", ""))
        if self.architecture not in ARCHITECTURES:
            raise DataError(
                f"{path.name} has architecture {self.architecture!r}, expected one of {', '.join(ARCHITECTURES)}",
                next_action="take a base of one of these, for example SmolLM2 or Qwen2.5",
            )
        self.context = int(self._value(f"{self.architecture}.context_length", 0))
        self.parameters = sum(int(tensor.n_elements) for tensor in self._reader.tensors)

    def _value(self, key: str, default: Any) -> Any:
        field = self._reader.get_field(key)
        return default if field is None else field.contents()

    def control(self) -> tuple[str, ...]:
        """
        Texts that the tokenizer reads as control tokens.

        Returns: longest first.
        """
        types = self._value("tokenizer.ggml.token_type", [])
        field = self._reader.get_field("tokenizer.ggml.tokens")
        found = [bytes(field.parts[field.data[at]]).decode() for at, kind in enumerate(types) if kind == CONTROL]
        return tuple(sorted((text for text in found if text), key=lambda text: (-len(text), text)))

    def write(self, path: Path, *, deltas: Mapping[str, NDArray[np.float32]], quant: Quant) -> None:
        """
        Write the tuned model.

        Args:
            path: the new file.
            deltas: module name, as transformers has it, to what is added to its weight, shape (out, in).
            quant: how the changed tensors are stored; all others keep the base's bytes.

        Raises: DataError for a module that the base doesn't have.
        """
        import gguf

        kind = gguf.GGMLQuantizationType.Q8_0 if quant == "q8_0" else gguf.GGMLQuantizationType.F16
        changed = {_tensor_name(name): delta for name, delta in deltas.items()}
        strange = set(changed) - {tensor.name for tensor in self._reader.tensors}
        if strange:
            raise DataError(f"the base has no tensor {min(strange)!r}", next_action=f"take `targets` out of {', '.join(TARGETS)}")
        writer: Any = gguf.GGUFWriter(path, self.architecture)
        for field in self._reader.fields.values():
            if not field.name.startswith("GGUF.") and field.name not in DROPPED:
                inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
                writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
        writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if quant == "q8_0" else gguf.LlamaFileType.MOSTLY_F16)
        for tensor in self._reader.tensors:
            data, stored = tensor.data, tensor.tensor_type
            if tensor.name in changed:
                delta = self._ordered(tensor.name, changed[tensor.name])
                weight = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(delta.shape)
                stored = kind if delta.shape[1] % 32 == 0 else gguf.GGMLQuantizationType.F16  # blocks are of 32
                data = gguf.quantize((weight + delta).astype(np.float32), stored)
            writer.add_tensor(tensor.name, data, raw_dtype=stored)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def _ordered(self, name: str, delta: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows of q and k in llama.cpp's order: it turns neighbouring pairs, transformers the two halves of a head."""
        part = name.split(".")[2]
        if not ARCHITECTURES[self.architecture] or part not in ("attn_q", "attn_k"):
            return delta
        heads = int(self._value(f"{self.architecture}.attention.head_count", 1))
        if part == "attn_k":
            heads = int(self._value(f"{self.architecture}.attention.head_count_kv", heads))
        return delta.reshape(heads, 2, delta.shape[0] // heads // 2, delta.shape[1]).swapaxes(1, 2).reshape(delta.shape)


def _tensor_name(module: str) -> str:
    """"model.layers.3.self_attn.q_proj" is "blk.3.attn_q.weight"."""
    layer, _, rest = module.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{NAMES.get(rest, rest)}.weight"
