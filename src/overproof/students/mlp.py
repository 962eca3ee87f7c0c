"""A head with one layer between, trained on features that stay as they are: most of what fine-tuning brings, in a minute."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overproof.data import TrainSet
from overproof.errors import MissingExtra
from overproof.progress import track
from overproof.students import ABSENT_LOGIT
from overproof.students.bert_onnx import Head
from overproof.students.finetune import row_losses, soft_targets
from overproof.students.logistic import targets, weights

# Chosen on held-out training rows of Banking77: benchmarks/students/heads.py.
UNITS = 1024
EPOCHS = 12
LEAST_STEPS = 1000  # few rows are gone through more often
BATCH = 64
RATE = 5e-4
DROPOUT = 0.5
DECAY = 0.05
SMOOTHING = 0.1
WARM_UP = 50  # steps


def fit_mlp(features: NDArray[np.float32], train: TrainSet, *, seed: int, units: int = UNITS) -> Head:
    """
    Train a head with one GELU layer.

    Args:
        features: shape (n, d).
        train: the rows, in the same order.
        seed: of the first weights, the data order and dropout; the same seed gives the same head on the same machine.
        units: of the layer between.

    Returns: the head, on the features as they come; logits of labels with training rows sum to 0, those of the others
        are `ABSENT_LOGIT`.
    Raises: MissingExtra without torch; DataError, see `logistic.targets` and `logistic.weights`.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtra('encoder.v1 with head = "mlp"', extra="finetune") from error
    columns = np.unique(targets(train))
    centre, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = torch.nn.Sequential(
            torch.nn.Dropout(DROPOUT), torch.nn.Linear(features.shape[1], units), torch.nn.GELU(),
            torch.nn.Dropout(DROPOUT), torch.nn.Linear(units, len(columns)),
        )  # fmt: skip
        x = torch.from_numpy((features - centre) / spread)
        q = torch.from_numpy(soft_targets(train, smoothing=SMOOTHING))
        weight = torch.from_numpy(weights(train).astype(np.float32))
        epochs = -(-max(EPOCHS * len(x), LEAST_STEPS * BATCH) // len(x))
        steps = epochs * -(-len(x) // BATCH)
        optimiser = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
        for step, rows in enumerate(track(_batches(len(x), epochs, seed), "training the head", total=steps)):
            for group in optimiser.param_groups:
                group["lr"] = RATE * min(1.0, (step + 1) / WARM_UP) * (1.0 - step / steps)
            at = torch.from_numpy(rows)
            optimiser.zero_grad()
            loss: Any = (weight[at] * row_losses(net(x[at]), q[at], "cross_entropy")).mean()
            loss.backward()
            optimiser.step()
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    inner, outer = ((state[f"{at}.weight"], state[f"{at}.bias"]) for at in (1, 4))
    inner_weight = inner[0] / spread
    k = len(train.labels)
    found = Head(
        weight=np.zeros((k, units), dtype=np.float32),
        bias=np.full(k, ABSENT_LOGIT, dtype=np.float32),
        inner_weight=np.ascontiguousarray(inner_weight, dtype=np.float32),
        inner_bias=(inner[1] - inner_weight @ centre).astype(np.float32),
    )
    found.weight[columns] = outer[0] - outer[0].mean(axis=0)  # softmax doesn't see the mean, and ABSENT_LOGIT relies on it
    found.bias[columns] = outer[1] - outer[1].mean()
    return found


def _batches(n: int, epochs: int, seed: int) -> Iterator[NDArray[np.int64]]:
    for epoch in range(epochs):
        order = np.random.default_rng([seed, 3, epoch]).permutation(n)
        for start in range(0, n, BATCH):
            yield order[start : start + BATCH]


def answer(head: Head, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """
    What a head says, as the graph says it; to compare the two.

    Args:
        head: with a layer between.
        features: shape (n, d).

    Returns: shape (n, k).
    """
    from scipy.special import ndtr

    assert head.inner_weight is not None
    assert head.inner_bias is not None
    wide = features @ head.inner_weight.T + head.inner_bias
    return np.asarray((wide * ndtr(wide)) @ head.weight.T + head.bias, dtype=np.float32)
