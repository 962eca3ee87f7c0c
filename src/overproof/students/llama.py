"""A GGUF model in process: one slot, greedy, with each token's log-probability. Needs no torch."""

from __future__ import annotations

import mmap
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from overproof.errors import DataError, MissingExtra
from overproof.students.files import AGAIN

MAX_GGUF_BYTES = 4 * 2**30  # what a whole bundle may have
# A GGUF file is tensors, vocabulary and settings. A chat template is the one text in it that an engine would run; ours has none.
TEMPLATE = b"tokenizer.chat_template"
FLOOR = -100.0  # of a log-probability: the engine writes the lowest float where a float32 chance is zero


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What a model wrote after one prompt."""

    text: str
    tokens: tuple[int, ...] = ()
    pieces: tuple[int, ...] = ()
    """Bytes that each token adds to the text."""
    logprobs: tuple[float, ...] = ()
    """Natural, of each token among all tokens, grammar or not; at most 0."""
    prompt_tokens: int = 0
    end: Literal["stop", "cut", "overlong"] = "stop"
    """cut: the answer reached its limit; overlong: the prompt doesn't fit the context, and nothing was written."""


def engine() -> Any:
    """
    The binding of llama.cpp.

    Returns: the module.
    Raises: MissingExtra.
    """
    try:
        import xllamacpp
    except ImportError as error:
        raise MissingExtra("causal.v1", extra="local") from error
    return xllamacpp


def check_gguf(path: Path) -> None:
    """
    Look at a model file before an engine does.

    Args:
        path: the file.

    Raises: DataError for a file that is no GGUF, is too large, or carries a chat template.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if size > MAX_GGUF_BYTES or size < 24 or file.read(4) != b"GGUF":
                raise DataError(f"{path.name} with {size} bytes is no GGUF file of at most {MAX_GGUF_BYTES}", next_action=AGAIN)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                if data.find(TEMPLATE) >= 0:
                    raise DataError(f"{path.name} carries a chat template, which a released student never does", next_action=AGAIN)
    except OSError as error:
        raise DataError(f"{path.name} can't be read: {error}", next_action=AGAIN) from error


class Llama:
    """
    A model that llama.cpp runs in this process.

    One slot and no prompt cache: what was asked before or is asked beside must not reach the bits of an answer.

    Args:
        path: the GGUF file.
        context: most tokens of prompt and answer together.
        threads: processor threads; one is the fastest where cores are shared.
    """

    def __init__(self, path: Path, *, context: int, threads: int = 1) -> None:
        xllamacpp = engine()
        check_gguf(path)
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.warmup, params.verbosity = context, 1, False, -1
        params.cache_prompt, params.cache_ram_mib, params.ctx_shift, params.fit_params = False, 0, False, False
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        # The engine also listens on a free loopback port. Nobody is told the key.
        params.api_keys, params.endpoint_slots, params.endpoint_props, params.ui = [secrets.token_hex(32)], False, False, False
        try:
            self._server: Any = xllamacpp.Server(params)
        except Exception as error:  # the binding raises bare exceptions
            raise DataError(f"{path.name} can't be loaded by llama.cpp: {error}", next_action=AGAIN) from error

    def write(self, prompt: Sequence[int | str], *, most: int, grammar: str = "") -> Written:
        """
        Answer one prompt, always with the likeliest token that the grammar admits.

        Args:
            prompt: token ids, and texts between them that are tokenised as they are.
            most: most tokens of the answer.
            grammar: GBNF; empty admits everything.

        Returns: what was written.
        Raises: DataError where the engine fails.
        """
        asked: dict[str, Any] = {
            "prompt": list(prompt), "n_predict": most, "samplers": ["top_k"], "top_k": 1, "temperature": 0.0, "seed": 0,
            "n_probs": 1, "cache_prompt": False, "stream": False,
        }  # fmt: skip
        if grammar:
            asked["grammar"] = grammar
        found = self._server.handle_completions(asked)
        error = found.get("error")
        if error and error.get("type") == "exceed_context_size_error":
            return Written(text="", prompt_tokens=int(error.get("n_prompt_tokens", 0)), end="overlong")
        if error or not found.get("choices"):
            raise DataError(f"llama.cpp: {str(error or found)[:300]}", next_action="report this with the version of xllamacpp")
        choice = found["choices"][0]
        content = (choice.get("logprobs") or {}).get("content") or []
        if any(one["logprob"] is None for one in content):
            raise DataError("llama.cpp: the model's scores are no numbers", next_action="lower `training.rate`, then train again: its weights are too large")
        return Written(
            text=choice["text"],
            tokens=tuple(int(one["id"]) for one in content),
            pieces=tuple(len(one["bytes"]) for one in content),
            logprobs=tuple(min(0.0, max(FLOOR, float(one["logprob"]))) for one in content),
            prompt_tokens=int(found["usage"]["prompt_tokens"]),
            end="stop" if choice["finish_reason"] == "stop" else "cut",
        )
