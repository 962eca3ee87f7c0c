"""A tiny causal model as a GGUF file: random weights, a byte vocabulary with a few merges, a chat template."""

import gguf
import numpy as np

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ġ t", "i n", "e r", "o r", 'Ġ "', '" :', "a n", "u l", "n ul", "nul l"]


def byte_marks():
    """The visible character that stands for each byte in byte-level vocabularies."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in seen]
    return [chr(byte) for byte in seen] + [chr(256 + at) for at in range(len(rest))]


def write_tiny(path, *, arch="llama", width=64, layers=2, heads=4, kv_heads=2, hidden=96, context=2048, seed=0):
    """Write the file; the same arguments give the same bytes."""
    chance = np.random.default_rng(seed)
    tokens = [*CONTROL, *byte_marks()]
    tokens += [merge.replace(" ", "") for merge in MERGES]
    writer = gguf.GGUFWriter(path, arch)
    writer.add_name("tiny")
    writer.add_vocab_size(len(tokens))
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    if arch == "llama":
        writer.add_rope_dimension_count(width // heads)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm" if arch == "llama" else "qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(CONTROL) + [1] * (len(tokens) - len(CONTROL)))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE)

    def add(name, *shape, scale=0.1):
        writer.add_tensor(name, (chance.normal(size=shape) * scale).astype(np.float32))

    add("token_embd.weight", len(tokens), width, scale=0.5)
    side = width // heads * kv_heads
    for at in range(layers):
        writer.add_tensor(f"blk.{at}.attn_norm.weight", np.ones(width, dtype=np.float32))
        writer.add_tensor(f"blk.{at}.ffn_norm.weight", np.ones(width, dtype=np.float32))
        for name, out, into in [
            ("attn_q", width, width), ("attn_k", side, width), ("attn_v", side, width), ("attn_output", width, width),
            ("ffn_gate", hidden, width), ("ffn_up", hidden, width), ("ffn_down", width, hidden),
        ]:  # fmt: skip
            add(f"blk.{at}.{name}.weight", out, into)
            if arch == "qwen2" and name in ("attn_q", "attn_k", "attn_v"):
                add(f"blk.{at}.{name}.bias", out)
    writer.add_tensor("output_norm.weight", np.ones(width, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
