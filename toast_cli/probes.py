"""Probes: what turns features into accuracy. All plans are trained together, as one batched problem.

Shapes: N images, P plans, F features, C classes.
"""

from collections.abc import Callable
from typing import Protocol, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toast_cli.errors import ToastError
from toast_cli.features import Features

Advance = Callable[[int], None]


class Probe(Protocol):
    """The contract: ``fit`` on train features, then ``predict`` classes for others, for each of P plans."""

    name: str
    epochs: int
    device: torch.device

    def fit(self, features: Features, labels: np.ndarray, classes: int, seed: int, advance: Advance = ...) -> Self: ...

    def predict(self, features: Features) -> np.ndarray: ...


class LinearProbe:
    """The paper's probe: logits = x W + b on raw features, cross-entropy, Adam, accuracy after the last epoch.

    ``seed`` decides initial weights (uniform in ±1/√F, as ``nn.Linear``) and shuffling; every plan sees the same
    minibatches. Adam works element by element and the loss is a sum over plans, so that training them together
    equals training one at a time.

    Learned:
        weight_: (P, F, C). bias_: (P, 1, C).
    """

    name = "linear"

    def __init__(self, learning_rate: float = 1e-2, epochs: int = 5, batch_size: int = 256) -> None:
        for key, value, kind in (
            ("epochs", epochs, int),
            ("batch_size", batch_size, int),
            ("learning_rate", learning_rate, float),
        ):
            if (
                isinstance(value, bool) or not isinstance(value, kind | int) or value <= 0
            ):  # now, not hours of encoding later
                raise ToastError(
                    f"probe.{key}={value} cannot be used: give a {'whole ' * (kind is int)}number above 0."
                )
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.device = torch.device("cpu")

    def fit(
        self, features: Features, labels: np.ndarray, classes: int, seed: int, advance: Advance = lambda images: None
    ) -> Self:
        """``features`` float32 (N, P, F), ``labels`` (N,); ``advance`` hears of every minibatch, N images an epoch."""
        n, plans, width = features.shape
        generator = torch.Generator().manual_seed(seed)
        self.weight_, self.bias_ = (
            nn.Parameter(value.repeat(plans, 1, 1).to(self.device)) for value in _initial(width, classes, generator)
        )
        optimizer = torch.optim.Adam([self.weight_, self.bias_], lr=self.learning_rate)
        for _ in range(self.epochs):
            for batch in torch.randperm(n, generator=generator).split(self.batch_size):
                logits = self._logits(features[batch.numpy()])  # (P, B, C)
                target = torch.from_numpy(labels[batch.numpy()]).to(self.device).expand(plans, -1)  # (P, B)
                loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="sum") / len(batch)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                advance(len(batch))
        return self

    @torch.no_grad()
    def predict(self, features: Features) -> np.ndarray:
        """float32 (N, P, F) -> class numbers (P, N)."""
        starts = range(0, len(features), 1024)
        return np.concatenate([self._logits(features[i : i + 1024]).argmax(-1).cpu().numpy() for i in starts], axis=1)

    def _logits(self, features: np.ndarray) -> Tensor:
        """(B, P, F) -> (P, B, C)."""
        x = torch.from_numpy(np.ascontiguousarray(features.swapaxes(0, 1))).to(self.device)
        return torch.baddbmm(self.bias_, x, self.weight_)


def _initial(width: int, classes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Weight (F, C) and bias (1, C), as ``nn.Linear`` draws them."""
    bound = width**-0.5
    weight = torch.empty(classes, width).uniform_(-bound, bound, generator=generator).T
    return weight.contiguous(), torch.empty(1, classes).uniform_(-bound, bound, generator=generator)
