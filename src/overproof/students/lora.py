"""LoRA on a small causal model: only the answer's tokens are learned, in batches of like length."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from overproof.errors import DataError, MissingExtra
from overproof.progress import track
from overproof.students.checkpoints import Checkpoint, copy_into, restore, state_of
from overproof.students.gguf_export import TARGETS, Quant
from overproof.students.settings import number

Precision = Literal["auto", "bf16", "fp32"]
MEND = "mend `training` in the student's table"
POOL = 8  # batches that are sorted by length together: like lengths, and still another order in each epoch
LEAST_HELD_OUT, MOST_HELD_OUT = 8, 128  # rows; fewer rows than twice the least are all learned from


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """How the adapters are learned."""

    rank: int = 16
    """Of each adapter."""
    alpha: int = 32
    """An adapter's output is scaled by alpha / rank."""
    targets: tuple[str, ...] = TARGETS
    """Linear layers that get an adapter."""
    rate: float = 1e-3
    """Largest learning rate; it rises over the first twentieth of the steps and falls to zero over the rest."""
    epochs: int = 3
    batch: int = 8
    """Rows of one step; they are passed through in parts of at most `tokens`, gradients accumulated."""
    tokens: int = 1024
    """Tokens of one pass, padding included."""
    held_out: float = 0.1
    """Share of the training rows on which the epochs are compared; the best one is kept."""
    patience: int = 1
    """Epochs without gain on the held-out rows after which training ends."""
    precision: Precision = "auto"
    """Of the frozen weights: "auto" is bf16 on a GPU that computes in it, fp32 elsewhere: on processors it doesn't pay."""
    device: str = "auto"
    """"auto" takes CUDA, then MPS, then the processor."""
    quant: Quant = "q8_0"
    """How the changed tensors are stored: "q8_0" or "f16"."""

    def __post_init__(self) -> None:
        bounds = {"rank": (1, 512), "alpha": (1, 10**4), "rate": (1e-7, 1), "epochs": (1, 100), "batch": (1, 4096), "tokens": (16, 10**7),
                  "held_out": (0, 0.5), "patience": (1, 100)}  # fmt: skip
        for name, (least, most) in bounds.items():
            value = number(f"training.{name}", getattr(self, name), least=least, most=most)
            if name not in ("rate", "held_out") and not isinstance(value, int):
                raise DataError(f"training.{name} is {value!r}, expected a whole number", next_action=MEND)
        strange = set(self.targets) - set(TARGETS)
        if strange or not self.targets or self.precision not in get_args(Precision) or self.quant not in get_args(Quant):
            raise DataError(
                f"training: targets {list(self.targets)!r}, precision {self.precision!r}, quant {self.quant!r}; expected some of "
                f"{', '.join(TARGETS)}; {', '.join(get_args(Precision))}; {', '.join(get_args(Quant))}", next_action=MEND)  # fmt: skip


def training_of(given: Mapping[str, Any]) -> Training:
    """
    The options of `training` in a student's table.

    Args:
        given: some of `Training`'s fields.

    Returns: all of them.
    Raises: DataError for an unknown key or a value out of range.
    """
    known = [field.name for field in fields(Training)]
    strange = sorted(set(given) - set(known))
    if strange:
        raise DataError(f"training has no key {strange[0]!r}; its keys are {', '.join(known)}", next_action=MEND)
    read: dict[str, Any] = {key: tuple(value) if key == "targets" else value for key, value in given.items()}
    return Training(**read)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One training row in tokens."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    """With the token that ends it."""
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """What training came to."""

    deltas: Mapping[str, NDArray[np.float32]]
    """Module name to what is added to its weight, shape (out, in)."""
    facts: Mapping[str, Any]
    """Rows, steps, losses, precision and device: what the student's folder says about its training."""
    logprobs: Callable[[Sequence[int], Sequence[int]], NDArray[np.float64]]
    """The tuned model's log-probabilities of an answer's tokens after a prompt, shape (answer,)."""
    resumed_at: int = 0
    """Step at which an earlier, killed training was taken up; 0 for none."""


def open_base(path: Path, *, training: Training) -> Any:
    """
    A GGUF model in torch, its weights dequantised and frozen.

    Args:
        path: the file.
        training: names precision and device.

    Returns: the transformers model.
    Raises: DataError for a file that transformers can't read; MissingExtra.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise MissingExtra("causal.v1", extra="finetune,local") from error
    device = training.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    precision = training.precision
    if precision == "auto":
        # With AVX512-BF16 a step of a 135M model takes 1.6 times the processor time that fp32 takes (900 tokens, one thread).
        precision = "bf16" if device == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    with _quiet(transformers):
        try:
            model = transformers.AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=dtype, local_files_only=True)
        except (OSError, ValueError, KeyError, NotImplementedError) as error:
            raise DataError(f"{path.name} can't be read by transformers: {error}", next_action="take another GGUF file of the base, for example F16") from error
    found: Any = model
    return found.requires_grad_(requires_grad=False).to(device)


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No bars and warnings of the library: progress is ours."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its GGUF reader asks nobody before it draws a bar
            yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def tune(base: Any, rows: Sequence[Row], *, training: Training, seed: int, checkpoint: Checkpoint | None = None) -> Tuned:
    """
    Learn adapters and keep those of the best epoch.

    Args:
        base: what `open_base` gave; it carries the adapters afterwards.
        rows: at least one.
        training: how.
        seed: of the first adapters, the held-out rows and the order.
        checkpoint: where a kill leaves its state; None keeps none.

    Returns: the adapters as differences of weights, and the losses.
    """
    held, learned = _split(rows, share=training.held_out, seed=seed)
    run = _Tuning(base, held, training=training, seed=seed)
    resumed_at = run.learn(learned, checkpoint)
    model, at = run.model, run.at
    facts = {
        "rows": len(learned), "held_out": len(held), "steps": at["step"], "kept_step": at["best_step"] if held else at["step"],
        "losses_held_out": [round(loss, 6) for loss in at["losses"]], "loss_first_step": round(at["first"], 6), "loss_last_step": round(at["last"], 6),
        "precision": str(base.dtype).rpartition(".")[2], "device": base.device.type, "training": asdict(training),
    }  # fmt: skip
    return Tuned(
        deltas=_deltas(model), facts=facts, resumed_at=resumed_at,
        logprobs=lambda prompt, answer: _logprobs(model, Row(prompt=tuple(prompt), answer=tuple(answer))),
    )  # fmt: skip


class _Tuning:
    """One training; its steps draw nothing from chance, since the order is given by the seed and nothing is dropped."""

    def __init__(self, base: Any, held: Sequence[Row], *, training: Training, seed: int) -> None:
        import peft
        import torch

        self.held, self.training, self.seed = held, training, seed
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            config = peft.LoraConfig(r=training.rank, lora_alpha=training.alpha, target_modules=list(training.targets))
            self.model: Any = peft.inject_adapter_in_model(config, base)
        self.weights = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        for value in self.weights.values():
            value.data = value.data.float()  # adapters learn in full precision whatever the base has
        self.optimiser = torch.optim.AdamW(self.weights.values(), lr=training.rate, weight_decay=0.0)
        self.best = self._copy()
        self.at: dict[str, Any] = {"step": 0, "best_step": 0, "losses": [], "first": 0.0, "last": 0.0}

    def learn(self, rows: Sequence[Row], checkpoint: Checkpoint | None) -> int:
        """Take up what a kill has left, and go on to the end; returns the step that it went on from."""
        import torch

        training, at = self.training, self.at
        if kept := checkpoint.load() if checkpoint else None:
            arrays, facts = kept
            restore(self.weights, self.optimiser, arrays)
            copy_into(self.best, arrays, "best")
            at |= facts
        elif self.held:
            at["losses"] = [_loss_of(self.model, self.held, training)]
        resumed_at = int(at["step"])
        steps = math.ceil(len(rows) / training.batch) * training.epochs
        for group in self.optimiser.param_groups:
            group["initial_lr"] = group["lr"]
        plan = torch.optim.lr_scheduler.LambdaLR(self.optimiser, lambda step: _rate(step, steps), last_epoch=resumed_at - 1)
        batches = itertools.islice(_batches(rows, training=training, seed=self.seed), resumed_at, None)
        for batch in track(batches, "tuning a causal model", total=steps - resumed_at):
            if self._done():
                break
            at["last"] = _step(self.model, batch, training)
            at["first"] = at["last"] if at["step"] == 0 else at["first"]
            torch.nn.utils.clip_grad_norm_(self.weights.values(), 1.0)
            self.optimiser.step()
            plan.step()
            self.optimiser.zero_grad()
            at["step"] += 1
            epoch_end = at["step"] % (steps // training.epochs) == 0
            if epoch_end and self.held:
                self._judge()
            if checkpoint and checkpoint.due(epoch_end=epoch_end):
                state = state_of(self.weights, self.optimiser)
                checkpoint.save(state | {f"best.{name}": value.cpu().numpy() for name, value in self.best.items()}, at)
        if self.held:
            for name, value in self.weights.items():
                value.data = self.best[name]
        return resumed_at

    def _copy(self) -> dict[str, Any]:
        return {name: value.detach().clone() for name, value in self.weights.items()}

    def _judge(self) -> None:
        losses = self.at["losses"]
        losses.append(_loss_of(self.model, self.held, self.training))
        if losses[-1] < min(losses[:-1]):
            self.best, self.at["best_step"] = self._copy(), self.at["step"]

    def _done(self) -> bool:
        losses = self.at["losses"]
        return bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= self.training.patience


def _split(rows: Sequence[Row], *, share: float, seed: int) -> tuple[list[Row], list[Row]]:
    order = list(rows)
    random.Random(f"held out {seed}").shuffle(order)  # noqa: S311 - a split, no secret
    n = min(MOST_HELD_OUT, max(LEAST_HELD_OUT, round(share * len(rows)))) if share and len(rows) >= 2 * LEAST_HELD_OUT else 0
    return order[:n], order[n:]


def _rate(step: int, steps: int) -> float:
    warm = max(1, steps // 20)
    return min((step + 1) / warm, max(0.0, (steps - step) / max(1, steps - warm + 1)))


def _batches(rows: Sequence[Row], *, training: Training, seed: int) -> Iterator[list[Row]]:
    """One step's rows at a time, of like length, in an order that the seed gives."""
    chance = random.Random(f"order {seed}")  # noqa: S311 - an order, no secret
    for _ in range(training.epochs):
        order = list(rows)
        chance.shuffle(order)
        found = []
        for start in range(0, len(order), POOL * training.batch):
            pool = sorted(order[start : start + POOL * training.batch], key=_length)
            found += [pool[at : at + training.batch] for at in range(0, len(pool), training.batch)]
        chance.shuffle(found)
        yield from found


def _length(row: Row) -> int:
    return len(row.prompt) + len(row.answer)


def _parts(rows: Sequence[Row], most: int) -> Iterator[list[Row]]:
    """Rows in groups whose padded size is at most so many tokens, or of one row."""
    part: list[Row] = []
    for row in sorted(rows, key=_length):
        if part and (len(part) + 1) * _length(row) > most:
            yield part
            part = []
        part.append(row)
    if part:
        yield part


def _answer_losses(model: Any, rows: Sequence[Row]) -> tuple[Any, Any]:
    """Negative log-probability and weight of every answer token of some rows; the vocabulary is read at answers only."""
    import torch

    width = max(map(_length, rows))
    ids = torch.zeros((len(rows), width), dtype=torch.long)  # padding stands right of what is read, and nothing looks right
    where: list[int] = []
    wanted: list[int] = []
    weights: list[float] = []
    for at, row in enumerate(rows):
        both = row.prompt + row.answer
        ids[at, : len(both)] = torch.tensor(both)
        where += [at * width + place for place in range(len(row.prompt) - 1, len(both) - 1)]
        wanted += row.answer
        weights += [row.weight] * len(row.answer)
    hidden = model.model(input_ids=ids.to(model.device), use_cache=False)[0]
    logits = model.lm_head(hidden.reshape(-1, hidden.shape[-1])[torch.tensor(where, device=model.device)]).float()
    losses = torch.nn.functional.cross_entropy(logits, torch.tensor(wanted, device=model.device), reduction="none")
    return losses, torch.tensor(weights, device=model.device)


def _step(model: Any, batch: Sequence[Row], training: Training) -> float:
    """Gradients of one step, part by part; returns the mean loss of an answer token."""
    total = sum(row.weight * len(row.answer) for row in batch)
    found = 0.0
    for part in _parts(batch, training.tokens):
        losses, weights = _answer_losses(model, part)
        loss = (losses * weights).sum() / total
        loss.backward()
        found += float(loss.detach())
    return found


def _loss_of(model: Any, rows: Sequence[Row], training: Training) -> float:
    import torch

    with torch.inference_mode():
        parts = [_answer_losses(model, part) for part in _parts(rows, training.tokens)]
    return sum(float((losses * weights).sum()) for losses, weights in parts) / sum(float(weights.sum()) for _, weights in parts)


def _logprobs(model: Any, row: Row) -> NDArray[np.float64]:
    import torch

    with torch.inference_mode():
        return np.asarray(-_answer_losses(model, [row])[0].cpu().numpy(), dtype=np.float64)


def _deltas(model: Any) -> dict[str, NDArray[np.float32]]:
    found = {}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            delta = module.lora_B["default"].weight @ module.lora_A["default"].weight * module.scaling["default"]
            found[name] = delta.detach().float().cpu().numpy()
    return found
