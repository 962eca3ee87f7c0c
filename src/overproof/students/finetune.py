"""Training an encoder together with its head: bucketed by length, stopped on held-out rows, resumed after a kill."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from overproof.data import TrainSet
from overproof.errors import DataError, MissingExtra
from overproof.progress import track
from overproof.students import ABSENT_LOGIT
from overproof.students.bert_onnx import BertConfig, Head, Pooling, Weights, width_of
from overproof.students.checkpoints import Checkpoint
from overproof.students.logistic import LinearMap, fit_logistic, targets, weights
from overproof.students.settings import number
from overproof.students.team import Team
from overproof.students.torch_bert import TorchBert, pool

if TYPE_CHECKING:
    import torch

ROUND = 8  # lengths go up to multiples of this: each new shape costs the library a preparation
BUCKET = 50  # batches whose rows are sorted by length together: little padding, and still a shuffle
LEAST_HELD = 20  # fewer held-out rows say nothing: then none are held out and every epoch is run
WARM_UP = 0.1  # share of the steps in which the rate rises
CLIP = 1.0
DECAY = 0.01
GENERALISED = 0.7  # exponent of Zhang & Sabuncu 2018, their own value
HEAD_TOLERANCE = 1e-3  # the first head is only where training starts; at 1e-2 it is still points worse
CHECKED = 32  # rows whose logits are compared with the graph's
PAYS = 1.15  # bfloat16 has to be so many times faster: it is the less exact one, and clocks are not exact either
LOSSES = ("cross_entropy", "generalised")
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """How an encoder is trained."""

    layers: str = "full"
    """"full", or "top:N" for the N upper layers."""
    epochs: int = 8
    """The most; the rate falls to 0 over them."""
    rate: float = 1e-4
    """Largest step size of the encoder."""
    head_rate: float = 1e-3
    """Largest step size of the head."""
    batch: int = 32
    """Rows of a step."""
    smoothing: float = 0.1
    """Share of each target that is spread over all labels."""
    loss: str = "cross_entropy"
    """"cross_entropy", or "generalised" (Zhang & Sabuncu 2018), which listens less to labels that look wrong."""
    dropout: float = 0.1
    """Share of states that is zeroed while it learns."""
    average: float = 0.0
    """Decay of a running mean of the weights, which is what is kept; 0 keeps the last ones."""
    held_out: float = 0.1
    """Share of the training rows that only say when to stop; 0 runs every epoch on all rows."""
    patience: int = 2
    """Epochs without a better held-out score after which it stops; the best weights are kept."""
    precision: str = "auto"
    """"float32", "bfloat16", or "auto": bfloat16 where the device computes in it."""
    processes: int = 1
    """That share each batch, see `distributed`; sums over more of them differ in the last digits."""


_RANGES: Mapping[str, tuple[float, float]] = {
    "epochs": (1, 1000),
    "rate": (1e-8, 1.0),
    "head_rate": (1e-8, 1.0),
    "batch": (1, 4096),
    "smoothing": (0.0, 0.9),
    "dropout": (0.0, 0.9),
    "average": (0.0, 0.99999),
    "held_out": (0.0, 0.5),
    "patience": (1, 1000),
    "processes": (1, 1024),
}


def read_tuning(tune: str | Mapping[str, Any], *, layers: int | None = None) -> Tuning | None:
    """
    The option `tune` of an encoder student.

    Args:
        tune: "frozen", "full", "top:N", or a table with `layers` and further fields of `Tuning`.
        layers: how many the encoder has, where that is known.

    Returns: how to train; None for "frozen".
    Raises: DataError.
    """
    if tune == "frozen":
        return None
    table = {"layers": tune} if isinstance(tune, str) else dict(tune)
    known = sorted(Tuning.__dataclass_fields__)
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise DataError(
            f"student option 'tune': no field {unknown[0]!r}; it has {', '.join(known)}",
            next_action="mend tune in the student's table",
        )
    found = Tuning(**table)
    for name, (least, most) in _RANGES.items():
        number(name, getattr(found, name), least=least, most=most)
    if type(found.processes) is not int or found.processes > found.batch:
        raise DataError(
            f"student option 'processes': got {found.processes!r}, expected a whole number of at most `batch`, {found.batch}",
            next_action="mend tune in the student's table",
        )
    choices = {"loss": LOSSES, "precision": PRECISIONS}
    for name, allowed in choices.items():
        if getattr(found, name) not in allowed:
            raise DataError(
                f"student option {name!r}: got {getattr(found, name)!r}, expected one of {', '.join(allowed)}",
                next_action="mend tune in the student's table",
            )
    top = re.fullmatch(r"top:([1-9]\d*)", str(found.layers))
    if found.layers != "full" and (not top or (layers is not None and int(top[1]) > layers)):
        has = f" of this encoder's {layers}" if layers is not None else ""
        raise DataError(
            f"student option 'tune': got {found.layers!r}, expected frozen, full or top:N with N{has} layers",
            next_action="mend tune in the student's table",
        )
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """An encoder and its head after training."""

    tensors: dict[str, NDArray[np.float32]]
    """Under the names of the encoder's file."""
    head: Head
    """On the embedding as it comes."""
    facts: dict[str, Any]
    """Steps, epochs, device, number format, held-out agreement: what the student's folder says of it."""
    check: NDArray[np.float32]
    """Logits of the first rows in float32, to compare the graph with."""
    resumed_at: int
    """Step at which an earlier, killed training was taken up; 0 for none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """The training rows as the encoder reads them."""

    ids: tuple[NDArray[np.int64], ...]
    """Token ids of each row, special tokens included."""


def finetune(
    config: BertConfig,
    tensors: Weights,
    tokens: Tokens,
    train: TrainSet,
    tuning: Tuning,
    *,
    seed: int,
    pooling: Pooling,
    checkpoint: Checkpoint | None = None,
) -> Tuned:
    """
    Train an encoder and its head.

    Args:
        config: the encoder's shape.
        tensors: its weights.
        tokens: the rows' tokens, in the order of the rows.
        train: the rows.
        tuning: how; with `processes` above 1 this is one of them, and torch's process group is there.
        seed: of the held-out rows, the data order and dropout; the same seed on the same machine gives the same bytes.
        pooling: how token states become one row.
        checkpoint: where a kill leaves its state; None keeps none.

    Returns: the trained weights; a label without rows keeps `ABSENT_LOGIT`.
    Raises: DataError; MissingExtra without torch.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtra("encoder.v1 with tune", extra="finetune") from error
    state = torch.random.get_rng_state()
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        return _Training(config, tensors, tokens, train, tuning, seed=seed, pooling=pooling).run(checkpoint)
    finally:  # a caller's own random numbers and switches are none of our business
        torch.use_deterministic_algorithms(deterministic)
        torch.random.set_rng_state(state)


def device_of() -> str:
    """Where torch computes here: "cuda", "mps" or "cpu"."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def dtype_of(precision: str, device: str) -> torch.dtype:
    """
    The number format of products; the weights that are learned stay float32.

    Args:
        precision: see `Tuning.precision`.
        device: see `device_of`.

    Returns: bfloat16 where asked for and, with "auto", where the device has units for it; on a processor it is then
        still measured against float32.
    """
    import torch

    if device == "cuda":
        able = torch.cuda.is_bf16_supported()
    else:
        able = device == "cpu" and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())  # noqa: SLF001 - no public name yet
    return torch.bfloat16 if precision == "bfloat16" or (precision == "auto" and able) else torch.float32


def soft_targets(train: TrainSet, *, smoothing: float) -> NDArray[np.float32]:
    """
    What each row teaches: the share of the teacher's samples that gave the target, the rest over the other labels.

    Args:
        train: the rows.
        smoothing: share that is spread over all labels that have rows.

    Returns: shape (n, number of labels that have rows), rows sum to 1.
    """
    columns, y = np.unique(targets(train), return_inverse=True)
    k = len(columns)
    sure = np.array([e.agreement if e.samples > 1 else 1.0 for e in train.examples])
    found = np.repeat(((1.0 - sure) / (k - 1))[:, None], k, axis=1)
    found[np.arange(len(y)), y] = sure
    return np.asarray((1.0 - smoothing) * found + smoothing / k, dtype=np.float32)


def hold_out(train: TrainSet, *, share: float, seed: int) -> NDArray[np.bool_]:
    """
    Rows that only say when to stop; each label keeps a row that teaches.

    Args:
        train: the rows.
        share: of them.
        seed: of the draw.

    Returns: shape (n,), true for held-out rows; none where they would be under 20.
    """
    y = targets(train)
    order = np.random.default_rng([seed, 1]).permutation(len(y))
    _, first = np.unique(y[order], return_index=True)
    free = np.delete(order, first)
    count = min(round(share * len(y)), len(free))
    found = np.zeros(len(y), dtype=bool)
    if count >= LEAST_HELD:
        found[free[:count]] = True
    return found


def batches(lengths: NDArray[np.int64], *, size: int, key: Sequence[int] | None) -> list[NDArray[np.int64]]:
    """
    Rows of each step: alike in length within a batch, shuffled between epochs.

    Args:
        lengths: tokens of each row.
        size: rows of a batch.
        key: of the shuffle; None keeps one order, longest first.

    Returns: places of rows, each once.
    """
    if key is None:
        order, chunk = np.arange(len(lengths)), max(1, len(lengths))
    else:
        generator = np.random.default_rng(list(key))
        order, chunk = generator.permutation(len(lengths)), BUCKET * size
    found = []
    for start in range(0, len(order), chunk):
        part = order[start : start + chunk]
        part = part[np.argsort(-lengths[part], kind="stable")]
        found += [part[at : at + size] for at in range(0, len(part), size)]
    return found if key is None else [found[i] for i in generator.permutation(len(found))]


def row_losses(logits: torch.Tensor, q: torch.Tensor, loss: str) -> torch.Tensor:
    """
    What each row costs.

    Args:
        logits: shape (n, k).
        q: shape (n, k), what each row teaches.
        loss: see `Tuning.loss`.

    Returns: shape (n,).
    """
    import torch

    spoken = torch.log_softmax(logits, dim=1)
    if loss == "generalised":
        spoken = (torch.exp(GENERALISED * spoken) - 1.0) / GENERALISED
    return -(q * spoken).sum(1)


class _Training:
    def __init__(
        self,
        config: BertConfig,
        tensors: Weights,
        tokens: Tokens,
        train: TrainSet,
        tuning: Tuning,
        *,
        seed: int,
        pooling: Pooling,
    ) -> None:
        import torch

        self.config, self.tensors, self.train, self.tuning = config, tensors, train, tuning
        self.seed, self.pooling = seed, pooling
        used = np.unique(np.concatenate(tokens.ids))
        self.ids = [np.searchsorted(used, row) for row in tokens.ids]
        self.lengths = np.array([len(row) for row in self.ids], dtype=np.int64)
        whole = tuning.layers == "full"
        layers = config.layers if whole else int(tuning.layers.removeprefix("top:"))
        self.bert = TorchBert(config, tensors, used=used, layers=layers, whole=whole)
        self.team = Team(tuning.processes)
        self.device = device_of() if self.team.size == 1 else device_of().replace("mps", "cpu")  # no sums over processes there
        self.dtype = dtype_of(tuning.precision, self.device)
        self.columns, self.y = np.unique(targets(train), return_inverse=True)
        self.q = torch.from_numpy(soft_targets(train, smoothing=tuning.smoothing)).to(self.device)
        self.weight = torch.from_numpy(weights(train).astype(np.float32)).to(self.device)
        self.frozen = self.bert.frozen(self.device)
        self.held = hold_out(train, share=tuning.held_out, seed=seed)
        self.rows = np.flatnonzero(~self.held)

    def run(self, checkpoint: Checkpoint | None) -> Tuned:
        kept = checkpoint.load() if checkpoint else None
        self.team.agree(-1 if kept is None else kept[1]["step"])
        if kept is None:
            self._start()
        else:
            self._restore(*kept)
        resumed_at = self.at["step"]
        self._agree()
        per_epoch = -(-len(self.rows) // self.tuning.batch)
        total = per_epoch * self.tuning.epochs
        for _ in track(self._steps(per_epoch, total), "training the encoder", total=total - resumed_at):
            if checkpoint is not None and self.team.rank == 0 and checkpoint.due():
                checkpoint.save(*self._state())
        return self._result(resumed_at, per_epoch)

    def _start(self) -> None:
        import torch

        flat = torch.from_numpy(self.bert.flat()).to(self.device)
        if self.tuning.precision == "auto":
            if self.device == "cpu" and self.dtype != torch.float32 and self.team.rank == 0:
                self.dtype = self._faster(flat)
            short = self.team.led(np.array([self.dtype == torch.bfloat16], dtype=np.float32))
            self.dtype = torch.bfloat16 if short[0] else torch.float32
        embedded = self._embed(flat, self.rows, self.dtype)
        centre, spread = embedded.mean(axis=0), embedded.std(axis=0) + 1e-6
        numbers = np.empty((len(self.columns), embedded.shape[1] + 1), dtype=np.float32)
        if self.team.rank == 0:
            part = replace(self.train, examples=tuple(self.train.examples[i] for i in self.rows))
            head = fit_logistic((embedded - centre) / spread, part, c=0.03, tolerance=HEAD_TOLERANCE)
            numbers[:, :-1], numbers[:, -1] = head.weight[self.columns], head.bias[self.columns]
        self.scale = {n: self.team.led(v.astype(np.float32)) for n, v in (("centre", centre), ("spread", spread))}
        self._use({"body": flat, "head": torch.from_numpy(self.team.led(numbers)).to(self.device)})
        self.at: dict[str, Any] = {"dtype": str(self.dtype), "step": 0, "bad": 0, "best_epoch": 0, "best": [-1.0, 0.0]}
        self.average = {name: value.detach().clone() for name, value in self.learned.items()} if self.tuning.average else {}
        self.best: dict[str, torch.Tensor] = {}

    def _faster(self, flat: torch.Tensor) -> torch.dtype:
        """The format in which a step takes less processor time, measured twice after one step of warming up."""
        import torch

        rows, taken = self.rows[: self.tuning.batch], {}
        for dtype in (torch.bfloat16, torch.float32):
            spent: list[float] = []
            for _ in range(3):
                body, began = flat.clone().requires_grad_(), time.process_time()  # not the wall's: others compute as well
                self._embedding(self._tensors(body, dtype), rows, self.tuning.dropout).sum().backward()  # type: ignore[no-untyped-call]
                spent.append(time.process_time() - began)
            taken[dtype] = min(spent[1:])
        return torch.bfloat16 if taken[torch.bfloat16] * PAYS < taken[torch.float32] else torch.float32

    def _use(self, learned: Mapping[str, torch.Tensor]) -> None:
        import torch

        self.learned = {name: value.requires_grad_() for name, value in learned.items()}
        self._centre, self._spread = (torch.from_numpy(self.scale[n]).to(self.device) for n in ("centre", "spread"))
        rates = {"body": self.tuning.rate, "head": self.tuning.head_rate}
        groups = [{"params": [value], "lr": rates[name], "peak": rates[name]} for name, value in self.learned.items()]
        self.optimiser = torch.optim.AdamW(groups, weight_decay=DECAY, fused=self.device != "mps")

    def _steps(self, per_epoch: int, total: int) -> Iterator[int]:
        import torch

        order: list[NDArray[np.int64]] = []
        while self.at["step"] < total and self.at["bad"] < self.tuning.patience:
            epoch, place = divmod(self.at["step"], per_epoch)
            if not order or place == 0:
                order = batches(self.lengths[self.rows], size=self.tuning.batch, key=(self.seed, 2, epoch))
            # Seeded by step, so that a training that was taken up again drops the same states; other states in each process.
            torch.manual_seed(self.seed * 1_000_003 + self.at["step"] + self.team.rank * 2**48)
            self._step(self.rows[order[place]], self.at["step"] / total)
            self.at["step"] += 1
            if place == per_epoch - 1:
                self._agree()
                if self.held.any():
                    self._judge(epoch)
            yield self.at["step"]

    def _step(self, rows: NDArray[np.int64], done: float) -> None:
        import torch

        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * min(1.0, (done + 1e-3) / WARM_UP) * (1.0 - done)
        self.optimiser.zero_grad(set_to_none=True)
        mine = self.team.share(rows)
        if len(mine):
            logits = self._logits(self.learned, mine, dropout=self.tuning.dropout, dtype=self.dtype)
            at = torch.from_numpy(mine).to(self.device)
            losses = self.weight[at] * row_losses(logits, self.q[at], self.tuning.loss)
            (losses.sum() / len(rows)).backward()  # type: ignore[no-untyped-call] # of all rows: the sum over processes is the batch's mean
        if self.team.size > 1:
            for value in self.learned.values():
                value.grad = torch.zeros_like(value) if value.grad is None else value.grad
                self.team.add(value.grad)
        torch.nn.utils.clip_grad_norm_(list(self.learned.values()), CLIP)
        self.optimiser.step()
        with torch.no_grad():
            for name, value in self.average.items():
                # The mean starts short, so that it forgets the weights of the first steps.
                keep = min(self.tuning.average, (1 + self.at["step"]) / (10 + self.at["step"]))
                value.lerp_(self.learned[name], 1.0 - keep)

    def _agree(self) -> None:
        if self.team.size > 1:
            self.team.agree(*(float(value.detach().double().sum()) for value in self.learned.values()))

    def _tensors(self, flat: torch.Tensor, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        return {**{n: v.to(dtype) for n, v in self.frozen.items()}, **self.bert.views(flat.to(dtype))}

    def _batch(self, rows: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        length = min(-(-int(self.lengths[rows].max()) // ROUND) * ROUND, self.config.max_positions)
        ids, mask = np.zeros((len(rows), length), dtype=np.int64), np.zeros((len(rows), length), dtype=bool)
        for at, row in enumerate(rows):
            ids[at, : self.lengths[row]] = self.ids[row]
            mask[at, : self.lengths[row]] = True
        return torch.from_numpy(ids).to(self.device), torch.from_numpy(mask).to(self.device)

    def _embedding(self, p: Mapping[str, torch.Tensor], rows: NDArray[np.int64], dropout: float) -> torch.Tensor:
        ids, mask = self._batch(rows)
        return pool(self.bert.hidden(p, ids, mask, dropout=dropout), mask, self.pooling)

    def _logits(
        self, learned: Mapping[str, torch.Tensor], rows: NDArray[np.int64], *, dropout: float, dtype: torch.dtype
    ) -> torch.Tensor:
        x = self._embedding(self._tensors(learned["body"], dtype), rows, dropout)
        return (x - self._centre) / self._spread @ learned["head"][:, :-1].T + learned["head"][:, -1]

    def _embed(self, flat: torch.Tensor, rows: NDArray[np.int64], dtype: torch.dtype) -> NDArray[np.float64]:
        import torch

        found = np.zeros((len(rows), width_of(self.config, self.pooling)))
        with torch.no_grad():
            p = self._tensors(flat, dtype)
            mine = self.team.share(np.arange(len(rows)))
            order = batches(self.lengths[rows[mine]], size=64, key=None)
            for places in track(order, "reading with the encoder", total=len(order)):
                found[mine[places]] = self._embedding(p, rows[mine[places]], 0.0).cpu().numpy()
        return self.team.total(found)  # each row is one process's, and zero in the others

    def _judge(self, epoch: int) -> None:
        """Held-out agreement, and the loss where that ties."""
        import torch

        held, now = self.team.share(np.flatnonzero(self.held)), self.average or self.learned
        sums, whole = np.zeros(2), self.weight.cpu().numpy()
        weight = whole[held]
        with torch.no_grad():
            for places in batches(self.lengths[held], size=64, key=None):
                spoken = torch.log_softmax(self._logits(now, held[places], dropout=0.0, dtype=self.dtype), dim=1).cpu().numpy()
                y = self.y[held[places]]
                sums += weight[places] @ (spoken.argmax(axis=1) == y), weight[places] @ spoken[np.arange(len(y)), y]
        score = (self.team.total(sums) / float(whole[self.held].sum())).tolist()
        if score > self.at["best"]:
            self.at |= {"best": score, "best_epoch": epoch + 1, "bad": 0}
            self.best = {name: value.detach().clone() for name, value in now.items()}
        else:
            self.at["bad"] += 1

    def _state(self) -> tuple[dict[str, NDArray[np.float32]], dict[str, Any]]:
        arrays = dict(self.scale)
        for kind, group in (("learned", self.learned), ("average", self.average), ("best", self.best)):
            arrays |= {f"{kind}.{name}": value.detach().cpu().numpy() for name, value in group.items()}
        for name, value in self.learned.items():
            moments = self.optimiser.state[value]
            arrays |= {f"{m}.{name}": moments[m].cpu().numpy() for m in ("exp_avg", "exp_avg_sq")}
        return arrays, self.at

    def _restore(self, arrays: Mapping[str, NDArray[np.float32]], at: dict[str, Any]) -> None:
        import torch

        def group(kind: str) -> dict[str, torch.Tensor]:
            found = {n: arrays[f"{kind}.{n}"] for n in ("body", "head") if f"{kind}.{n}" in arrays}
            return {n: torch.from_numpy(value.copy()).to(self.device) for n, value in found.items()}

        self.scale = {name: arrays[name] for name in ("centre", "spread")}
        self._use(group("learned"))
        self.average, self.best, self.at = group("average"), group("best"), at
        self.dtype = torch.bfloat16 if at["dtype"] == "torch.bfloat16" else torch.float32
        first, second = group("exp_avg"), group("exp_avg_sq")
        for name, value in self.learned.items():
            step = torch.tensor(float(at["step"]), device=self.device if self.device == "cuda" else "cpu")
            self.optimiser.state[value] = {"step": step, "exp_avg": first[name], "exp_avg_sq": second[name]}

    def _result(self, resumed_at: int, per_epoch: int) -> Tuned:
        import torch

        kept = self.best or self.average or self.learned
        with torch.no_grad():
            inside = self._logits(kept, np.arange(min(CHECKED, len(self.ids))), dropout=0.0, dtype=torch.float32)
        body, numbers = (kept[name].detach().cpu().numpy() for name in ("body", "head"))
        check = np.full((len(inside), len(self.train.labels)), ABSENT_LOGIT, dtype=np.float32)
        check[:, self.columns] = (inside - inside.mean(dim=1, keepdim=True)).cpu().numpy()
        inner = numbers.astype(np.float64)
        inner -= inner.mean(axis=0)  # softmax doesn't see it, and ABSENT_LOGIT relies on it
        k, d = len(self.train.labels), inner.shape[1] - 1
        whole = LinearMap.absent(k, d)
        whole.weight[self.columns] = inner[:, :-1] / self.scale["spread"]
        whole.bias[self.columns] = inner[:, -1] - whole.weight[self.columns] @ self.scale["centre"]
        facts: dict[str, Any] = {
            "steps": self.at["step"],
            "epochs": self.at["step"] // per_epoch,
            "device": self.device,
            "precision": str(self.dtype).removeprefix("torch."),
            "held_out_rows": int(self.held.sum()),
            **({"processes": self.team.size} if self.team.size > 1 else {}),
        }
        if self.best:
            facts |= {"best_epoch": self.at["best_epoch"], "held_out_agreement": round(self.at["best"][0], 6)}
        head = Head(weight=whole.weight.astype(np.float32), bias=whole.bias.astype(np.float32))
        trained = self.bert.write_back(self.tensors, body)
        return Tuned(tensors=trained, head=head, facts=facts, check=check, resumed_at=resumed_at)
