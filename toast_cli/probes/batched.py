"""Probes that are trained in steps, all plans together as one batched problem.

Shapes: N images, P plans, B images of a minibatch, F features, H hidden units, C classes.
"""

import math
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toast_cli.layers import dense
from toast_cli.probes.allowed import check
from toast_cli.probes.base import Advance, Probe
from toast_cli.probes.judged import Judged, of_logits
from toast_cli.runs.features import Features


class BatchedProbe(Probe):
    """A probe trained with Adam on the cross-entropy of minibatches; the weights of the last epoch are used.

    ``seed`` decides initial weights, shuffling and dropout, which are the same for every plan. Adam works element by
    element and the loss is a sum over plans, so training them together equals training them one at a time.

    Learned:
        weights_: the parameters of all plans, each with P first.
    """

    def __init__(
        self, learning_rate: float = 1e-2, epochs: int = 5, batch_size: int = 256, weight_decay: float = 0.0
    ) -> None:
        check(learning_rate=learning_rate, epochs=epochs, batch_size=batch_size, weight_decay=weight_decay)
        self.learning_rate, self.epochs, self.batch_size, self.weight_decay = (
            learning_rate,
            epochs,
            batch_size,
            weight_decay,
        )

    gives_probabilities = True

    def on_share(self, share: float) -> Self:
        longer = super().on_share(share)
        longer.epochs = math.ceil(self.epochs / share)
        return longer

    def fit(
        self, features: Features, labels: np.ndarray, classes: int, seed: int, advance: Advance = lambda images: None
    ) -> Self:
        n, plans, width = features.shape
        generator = torch.Generator().manual_seed(seed)
        first = self.initial(width, classes, generator)
        self.weights_ = [nn.Parameter(value.repeat(plans, 1, 1).to(self.device)) for value in first]
        optimizer = torch.optim.Adam(self.weights_, lr=self.learning_rate, weight_decay=self.weight_decay)
        for _ in range(self.epochs):
            order = torch.randperm(n, generator=generator).numpy()
            for batch in (order[start : start + self.batch_size] for start in range(0, n, self.batch_size)):
                logits = self.logits(self._input(features[batch]), generator)  # (P, B, C)
                target = torch.from_numpy(labels[batch]).to(self.device).expand(plans, -1)  # (P, B)
                loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="sum") / len(batch)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                advance(len(batch))
        return self

    def predict(self, features: Features) -> np.ndarray:
        return self.judge(features).classes

    @torch.no_grad()
    def judge(self, features: Features, keep: bool = False) -> Judged:
        starts = range(0, len(features), 1024)
        return of_logits((self.logits(self._input(features[i : i + 1024])) for i in starts), keep)

    def _input(self, features: np.ndarray) -> Tensor:
        """(B, P, F) -> (P, B, F), on the device."""
        return torch.from_numpy(np.ascontiguousarray(features.swapaxes(0, 1))).to(self.device)

    def initial(self, width: int, classes: int, generator: torch.Generator) -> list[Tensor]:
        """The parameters that every plan begins with, each a matrix such as W (F, C) or b (1, C)."""
        raise NotImplementedError

    def logits(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(P, B, F) -> (P, B, C); with a ``generator``, as in training."""
        raise NotImplementedError


class LinearProbe(BatchedProbe):
    """The paper's probe: logits = x W + b on raw features.

    Learned:
        weights_: W (P, F, C), b (P, 1, C).
    """

    name = "linear"

    def initial(self, width: int, classes: int, generator: torch.Generator) -> list[Tensor]:
        """W (F, C) and b (1, C)."""
        return _dense(width, classes, generator)

    def logits(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(P, B, F) -> (P, B, C)."""
        weight, bias = self.weights_
        return torch.baddbmm(bias, x, weight)

    def to_module(self, plan: int) -> nn.Linear:
        return dense(*(value[plan].detach().cpu() for value in self.weights_))


class MlpProbe(BatchedProbe):
    """Linear F -> F, LayerNorm, SiLU, dropout, Linear F -> C.

    Learned:
        weights_: W₁ (P, F, H), b₁ (P, 1, H), LayerNorm's scale and shift (P, 1, H), W₂ (P, H, C), b₂ (P, 1, C); H = F.
    """

    name = "mlp"

    def __init__(
        self,
        learning_rate: float = 1e-3,
        epochs: int = 50,
        batch_size: int = 256,
        weight_decay: float = 1e-5,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(learning_rate, epochs, batch_size, weight_decay)
        check(dropout=dropout)
        self.dropout = dropout

    def initial(self, width: int, classes: int, generator: torch.Generator) -> list[Tensor]:
        """W₁ (F, H), b₁ (1, H), LayerNorm's scale and shift (1, H), W₂ (H, C), b₂ (1, C)."""
        norm = [torch.ones(1, width), torch.zeros(1, width)]
        return [*_dense(width, width, generator), *norm, *_dense(width, classes, generator)]

    def logits(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(P, B, F) -> (P, B, C); with dropout if there is a ``generator``."""
        weight1, bias1, scale, shift, weight2, bias2 = self.weights_
        hidden = torch.baddbmm(bias1, x, weight1)  # (P, B, H)
        hidden = F.silu(F.layer_norm(hidden, hidden.shape[-1:]) * scale + shift)
        if generator is not None:
            kept = torch.rand(hidden.shape[1:], generator=generator) >= self.dropout  # (B, H): the same for every plan
            hidden = hidden * (kept.to(hidden) / (1 - self.dropout))
        return torch.baddbmm(bias2, hidden, weight2)

    def to_module(self, plan: int) -> nn.Module:
        weight1, bias1, scale, shift, weight2, bias2 = (value[plan].detach().cpu() for value in self.weights_)
        norm = nn.LayerNorm(scale.shape[-1])
        norm.load_state_dict({"weight": scale[0], "bias": shift[0]})
        return nn.Sequential(dense(weight1, bias1), norm, nn.SiLU(), dense(weight2, bias2))


def _dense(width: int, out: int, generator: torch.Generator) -> list[Tensor]:
    """Weight (width, out) and bias (1, out), as ``nn.Linear`` draws them: uniform in ±1/√width."""
    bound = width**-0.5
    weight = torch.empty(out, width).uniform_(-bound, bound, generator=generator).T
    return [weight.contiguous(), torch.empty(1, out).uniform_(-bound, bound, generator=generator)]
