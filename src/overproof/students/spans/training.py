"""Fine-tuning an encoder to score candidates; the only file of span.v1 that needs torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overproof.errors import DataError, MissingExtra
from overproof.progress import track
from overproof.students.checkpoints import Checkpoint, copy_into, restore, state_of
from overproof.students.spans.candidates import KINDS, SEEN, Goal, Kind, Plan, Tables
from overproof.students.spans.pages import Page, windows_of

NEVER = -1e4  # a log-score that no softmax notices
HEAD_RATE = 10.0  # the new head learns so many times faster than the encoder
SEEN_RATE = 250.0  # and the few weights of what is seen of a candidate, which start from nothing and are wanted at 1 to 5
CLIP = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One page that is learned from."""

    page: Page
    tables: Tables
    goal: Goal
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """How long and how fast is learned."""

    epochs: int
    batch: int
    rate: float
    seed: int
    size: int
    """Most tokens in a window."""
    first: int
    last: int
    pad: int
    marks: Mapping[int, int]
    """Token ids that stand for line ends and gaps, and the ids whose embeddings they start from."""
    frozen: int = 2
    """So many of the lowest layers, and the embeddings, stay as they are: the time of their gradients is saved."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """What training leaves."""

    weights: Mapping[str, NDArray[np.float32]]
    """The encoder's tensors, by the names of its own file."""
    head: NDArray[np.float32]
    """Shape (columns, hidden)."""
    bias: NDArray[np.float32]
    """Shape (columns,)."""
    seen: NDArray[np.float32]
    """Shape (roles, SEEN)."""
    losses: tuple[float, ...]
    """Mean loss of each epoch."""
    checks: tuple[float, ...]
    """Share of fields right on the held-out rows after each epoch; empty without such rows."""
    best: int
    """The epoch whose weights these are, from 1."""
    probes: tuple[NDArray[np.float64], ...] = ()
    """Token scores of the pages that were asked for, as the kept weights give them."""
    read: int = 0
    """Rows that were learned from, over all epochs."""
    unfound: tuple[int, ...] = ()
    """Of these, for each field, those whose value no candidate says."""
    resumed_at: int = 0
    """Steps that an earlier, killed training had done; 0 for none."""


def _torch() -> Any:
    try:
        import torch
        import transformers  # noqa: F401 - the encoder is built by it
    except ImportError as error:
        raise MissingExtra("span.v1", extra="finetune") from error
    return torch


class Model:
    """Encoder and heads, while they learn."""

    def __init__(self, folder: Path, plan: Plan, schedule: Schedule) -> None:
        torch = _torch()
        from transformers import BertConfig, BertModel

        from overproof.students.bert_onnx import read_weights

        self.torch, self.plan, self.schedule = torch, plan, schedule
        torch.manual_seed(schedule.seed)
        self.encoder: Any = BertModel(BertConfig.from_pretrained(str(folder)), add_pooling_layer=False)
        given = {name: torch.from_numpy(value) for name, value in read_weights(folder / "model.safetensors").items()}
        missing = self.encoder.load_state_dict(given, strict=False).missing_keys
        if missing:
            raise DataError(f"the encoder's weights have no tensor {missing[0]!r}", next_action="check that model.safetensors and config.json belong together")
        hidden = self.encoder.config.hidden_size
        self.head = torch.nn.Linear(hidden, plan.columns)
        torch.nn.init.normal_(self.head.weight, std=0.02)
        torch.nn.init.zeros_(self.head.bias)
        self.seen = torch.nn.Parameter(torch.zeros(len(plan.roles), SEEN))
        words = self.encoder.embeddings.word_embeddings.weight
        with torch.no_grad():
            for mark, like in schedule.marks.items():
                words[mark] = words[like]
        for part in (self.encoder.embeddings, *self.encoder.encoder.layer[: schedule.frozen]):
            part.requires_grad_(False)

    def fields(self, pages: Sequence[Page], tables: Sequence[Tables] | None) -> Any:
        """All scores of a batch: those of tokens in the pages' order, and of each kind's candidates."""
        torch, schedule = self.torch, self.schedule
        windows = windows_of(pages, first=schedule.first, last=schedule.last, size=schedule.size)
        length = max(len(row) for row in windows.rows)
        ids = np.full((len(windows.rows), length), schedule.pad, dtype=np.int64)
        mask = np.zeros_like(ids)
        for at, row in enumerate(windows.rows):
            ids[at, : len(row)], mask[at, : len(row)] = row, 1
        hidden = self.encoder(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).last_hidden_state
        scores = self.head(hidden)
        flat = torch.from_numpy(np.concatenate([w * length + p for w, p in windows.source]))
        tokens = scores.reshape(-1, scores.shape[-1])[flat]
        owner = torch.from_numpy(windows.page)
        whole = torch.zeros(len(pages), scores.shape[-1]).index_add(0, owner, scores[:, 0])
        whole = whole / torch.bincount(owner, minlength=len(pages))[:, None]
        return tokens, whole, {} if tables is None else self._kinds(tokens, pages, tables)

    def scores(self, pages: Sequence[Page]) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
        """Scores of each page's tokens and of each page as a whole, as decoding takes them."""
        with self.torch.no_grad():
            tokens, whole, _ = self.fields(pages, None)
        ends = np.cumsum([len(page.tokens) for page in pages])[:-1]
        return np.split(tokens.double().numpy(), ends), list(whole.double().numpy())

    def weights_seen(self) -> NDArray[np.float64]:
        """What is seen of a candidate, weighed."""
        found: NDArray[np.float64] = self.seen.detach().double().numpy()
        return found

    def _kinds(self, tokens: Any, pages: Sequence[Page], tables: Sequence[Tables]) -> dict[Kind, Any]:
        torch, n = self.torch, len(self.plan.roles)
        offsets = np.concatenate([[0], np.cumsum([len(page.tokens) for page in pages])])
        sums = torch.cat([torch.zeros(1, n), tokens[:, 2 * n : 3 * n].cumsum(0)])
        found = {}
        for kind in KINDS:
            roles = self.plan.of(kind)
            start = torch.from_numpy(np.concatenate([t[kind].start + o for t, o in zip(tables, offsets, strict=False)]))
            if not roles or not len(start):
                continue
            end = torch.from_numpy(np.concatenate([t[kind].end + o for t, o in zip(tables, offsets, strict=False)]))
            seen = torch.from_numpy(np.concatenate([t[kind].seen for t in tables]))
            at = torch.tensor(roles)
            mean = (sums[end + 1][:, at] - sums[start][:, at]) / (end + 1 - start)[:, None]
            found[kind] = tokens[start][:, at] + tokens[end][:, at + n] + mean + seen @ self.seen[at].T
        return found

    def loss(self, rows: Sequence[Row]) -> Any:
        """Mean over fields of the surprise at the target, all candidates that say it taken together."""
        torch, plan = self.torch, self.plan
        tokens, whole, kinds = self.fields([row.page for row in rows], [row.tables for row in rows])
        sizes = torch.tensor([len(row.page.tokens) for row in rows])
        owner = torch.repeat_interleave(torch.arange(len(rows)), sizes)
        n, total = len(plan.roles), torch.zeros(())
        weight = torch.tensor([row.weight for row in rows])
        fields = list(plan.output.fields)
        parts: dict[str, list[Any]] = {field.name: [] for field in fields}
        rights: dict[str, list[Any]] = {field.name: [] for field in fields}
        for kind, scores in kinds.items():
            page = torch.from_numpy(np.repeat(np.arange(len(rows)), [len(row.tables[kind].start) for row in rows]))
            right = torch.from_numpy(np.concatenate([row.goal.right[kind] for row in rows]))
            every = _gather(torch, scores, page, len(rows))
            good = _gather(torch, scores.masked_fill(~right, NEVER), page, len(rows))
            for column, place in enumerate(plan.of(kind)):
                parts[plan.roles[place].field].append(every[:, column])
                rights[plan.roles[place].field].append(good[:, column])
        for at, field in enumerate(fields):
            absent = whole[:, 3 * n + at] if field.optional else torch.full((len(rows),), NEVER)
            is_absent = torch.tensor([bool(row.goal.none[at]) for row in rows])
            counts = torch.tensor([bool(row.goal.counts[at]) for row in rows])
            if columns := list(plan.values_of(field.name).values()):
                values = _gather(torch, tokens[:, columns], owner, len(rows))
                picked = torch.tensor([int(row.goal.choice[at]) for row in rows])
                there = values.gather(1, picked.clamp(min=0)[:, None])[:, 0]
                parts[field.name] += list(values.unbind(1))
                rights[field.name].append(there.masked_fill(picked < 0, NEVER))
            every = torch.logsumexp(torch.stack([absent, *parts[field.name]]), 0)
            present = torch.stack([torch.full((len(rows),), NEVER), *rights[field.name]]).logsumexp(0)
            good = torch.where(is_absent, absent, present)
            total = total + ((every - good) * counts * weight).sum() / weight.sum()
        return total / len(fields)


def _gather(torch: Any, scores: Any, page: Any, pages: int) -> Any:
    """Log of the sum of exponentials over each page's rows, column by column; shape (pages, columns)."""
    top = torch.full((pages, scores.shape[1]), NEVER).scatter_reduce(0, page[:, None].expand_as(scores), scores.detach(), "amax")
    sums = torch.zeros(pages, scores.shape[1]).index_add(0, page, (scores - top[page]).exp())
    return top + sums.clamp(min=1e-30).log()


def train(
    rows: Callable[[int], Sequence[Row]], *, folder: Path, plan: Plan, schedule: Schedule,
    check: Callable[[Model], float] | None = None, probes: Sequence[Page] = (), checkpoint: Checkpoint | None = None,
) -> Fitted:
    """
    Fine-tune encoder and head.

    Args:
        rows: what each epoch learns from, the same number every time.
        folder: the encoder's files.
        plan: the roles.
        schedule: how.
        check: judges the model after each epoch, higher is better; the best epoch is kept.
        probes: pages whose token scores are wanted with the weights.
        checkpoint: where a kill leaves its state; None keeps none.

    Returns: the weights.
    Raises: MissingExtra without torch and transformers.
    """
    model = Model(folder, plan, schedule)
    training = _Training(model, rows, check, checkpoint)
    resumed_at, at = training.run(), training.at
    shown = tuple(model.scores([page])[0][0] for page in probes)
    return Fitted(
        **_state(model), probes=shown, losses=tuple(at["losses"]), checks=tuple(at["checks"]), best=at["best"], read=at["read"],
        unfound=tuple(at["unfound"]), resumed_at=resumed_at,
    )  # fmt: skip


class _Training:
    def __init__(
        self, model: Model, rows: Callable[[int], Sequence[Row]], check: Callable[[Model], float] | None, checkpoint: Checkpoint | None
    ) -> None:
        self.model, self.rows, self.check, self.checkpoint = model, rows, check, checkpoint
        rate, torch = model.schedule.rate, model.torch
        slow = {f"encoder.{name}": p for name, p in model.encoder.named_parameters() if p.requires_grad}
        head = {f"head.{name}": p for name, p in model.head.named_parameters()}
        self.learned = {**slow, **head, "seen": model.seen}
        groups = [
            {"params": [*slow.values()], "lr": rate}, {"params": [*head.values()], "lr": rate * HEAD_RATE},
            {"params": [model.seen], "lr": min(0.05, rate * SEEN_RATE)},
        ]  # fmt: skip
        self.optimizer = torch.optim.AdamW([{**group, "initial_lr": group["lr"]} for group in groups], weight_decay=0.01)
        self.rng = np.random.default_rng(model.schedule.seed)
        self.best: dict[str, Any] = {}
        # `chance` is the state of `rng` before the epoch's order is drawn, so that it is drawn again
        self.at: dict[str, Any] = {
            "epoch": 0, "place": 0, "spent": 0.0, "losses": [], "checks": [], "best": 0, "read": 0, "unfound": [0] * len(model.plan.output.fields),
            "chance": self.rng.bit_generator.state,
        }  # fmt: skip

    def run(self) -> int:
        """Learn to the end, and leave the best weights in the model; returns the steps that were done already."""
        torch, schedule, at = self.model.torch, self.model.schedule, self.at
        self._resume()
        now = self.rows(min(at["epoch"], schedule.epochs - 1))
        each = -(-len(now) // schedule.batch)
        steps, done = max(1, schedule.epochs * each), int(at["epoch"]) * each + int(at["place"])
        warm = max(1, steps // 10)
        self.plan_rate = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min((step + 1) / warm, max(0.0, (steps - step) / max(1, steps - warm))), last_epoch=done - 1
        )
        while at["epoch"] < schedule.epochs:
            self._epoch(now)
            if self.checkpoint and self.checkpoint.due(epoch_end=True):
                self._save(self.checkpoint)
            if at["epoch"] < schedule.epochs:
                now = self.rows(at["epoch"])
        copy_into(self.learned, {f"best.{name}": value.numpy() for name, value in self.best.items()}, "best")
        self.model.encoder.eval()
        return done

    def _epoch(self, now: Sequence[Row]) -> None:
        model, at = self.model, self.at
        model.encoder.train()
        batches = _batches(now, model.schedule.batch, self.rng)[at["place"] :]
        for batch in track(batches, f"training, round {at['epoch'] + 1} of {model.schedule.epochs}", total=len(batches)):
            loss = model.loss([now[i] for i in batch])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            model.torch.nn.utils.clip_grad_norm_([*self.learned.values()], CLIP)
            self.optimizer.step()
            self.plan_rate.step()
            at["spent"] += float(loss.detach()) * len(batch)
            at["place"] += 1
            if self.checkpoint and self.checkpoint.due():
                self._save(self.checkpoint)
        at["losses"].append(at["spent"] / len(now))
        unfound = [count + sum(not row.goal.counts[i] for row in now) for i, count in enumerate(at["unfound"])]
        at |= {"epoch": at["epoch"] + 1, "place": 0, "spent": 0.0, "read": at["read"] + len(now), "unfound": unfound}
        at["chance"] = self.rng.bit_generator.state
        model.encoder.eval()
        if self.check is not None:
            at["checks"].append(self.check(model))
        if self.check is None or at["checks"][-1] >= max(at["checks"]):
            at["best"], self.best = at["epoch"], {name: value.detach().clone() for name, value in self.learned.items()}

    def _save(self, checkpoint: Checkpoint) -> None:
        best = {f"best.{name}": value.numpy() for name, value in self.best.items()}
        dropout = {"dropout": self.model.torch.get_rng_state().numpy()}
        checkpoint.save({**state_of(self.learned, self.optimizer), **best, **dropout}, self.at)

    def _resume(self) -> None:
        kept = self.checkpoint.load() if self.checkpoint else None
        if kept is None:
            return
        arrays, facts = kept
        restore(self.learned, self.optimizer, arrays)
        self.best = {name: value.detach().clone() for name, value in self.learned.items()} if facts["best"] else {}
        copy_into(self.best, arrays, "best")
        self.model.torch.set_rng_state(self.model.torch.from_numpy(arrays["dropout"].copy()))
        self.rng.bit_generator.state = facts["chance"]
        self.at |= facts


def _state(model: Model) -> dict[str, Any]:
    weights = {name: value.detach().float().numpy().copy() for name, value in model.encoder.state_dict().items() if value.is_floating_point()}
    return {
        "weights": weights, "head": model.head.weight.detach().numpy().copy(), "bias": model.head.bias.detach().numpy().copy(),
        "seen": model.seen.detach().numpy().copy(),
    }  # fmt: skip


def _batches(rows: Sequence[Row], size: int, rng: np.random.Generator) -> list[list[int]]:
    """Rows of like length together, in an order that chance gives: little padding, and no drift from short to long."""
    noisy = [len(row.page.tokens) * float(rng.uniform(0.85, 1.15)) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: noisy[i])
    batches = [order[at : at + size] for at in range(0, len(order), size)]
    rng.shuffle(batches)
    return batches
