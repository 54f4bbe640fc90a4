"""Streamed second moments of latents: all that closed-form translators, R² and CKA need, in one pass and constant memory.

Tokens are rows: a latent X^(i) of N images and T tokens is n = N·T rows of width D.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PairMoments:
    """Sums over n tokens of a source x and a target y, both of width D, in float64.

    ``dtype`` is that of the latents: what is below its rounding is noise, and maps are deployed in it.
    """

    count: int
    sum_x: Tensor  # (D,)   Σ x
    sum_y: Tensor  # (D,)   Σ y
    xx: Tensor  # (D, D)    Σ xᵀx
    xy: Tensor  # (D, D)    Σ xᵀy
    yy: Tensor  # (D, D)    Σ yᵀy
    dtype: torch.dtype = torch.float32

    def residual(self, weight: Tensor) -> float:
        """Σ ‖y − x W‖² for a map ``weight`` W (D, D): tr yy − 2 tr Wᵀxy + tr Wᵀ xx W."""
        w = weight.to(self.xx)
        return (self.yy.trace() - 2 * (w * self.xy).sum() + (w * (self.xx @ w)).sum()).item()

    def r2(self, weight: Tensor) -> float:
        """1 − Σ ‖y − x W‖² / Σ ‖y − mean y‖², over all tokens and dimensions; negative where W is worse than a constant."""
        variation = (self.yy.trace() - self.sum_y.square().sum() / self.count).item()
        return 1 - self.residual(weight) / variation if variation > 0 else float("nan")


class Moments:
    """Sums for the pairs of layers that are asked for, added up batch by batch in float64.

    Memory is one D × D matrix for each pair and each layer, whatever the number of images.
    """

    def __init__(self, pairs: Iterable[tuple[int, int]]) -> None:
        self.pairs = sorted(set(pairs))
        self.layers = sorted({layer for pair in self.pairs for layer in pair})
        self.count = 0
        self.total: dict[int, Tensor] = {}  # layer -> (D,)
        self.product: dict[tuple[int, int], Tensor] = {}  # (layer, layer) -> (D, D)
        self.dtype = torch.float32

    def update(self, latents: Mapping[int, Tensor]) -> None:
        """Add the latents (N, T, D) of one batch, by layer."""
        rows = {layer: _rows(latents[layer]) for layer in self.layers}  # (n, D)
        for layer, x in rows.items():
            self._add(self.total, layer, x.sum(0))
        for i, j in [*((layer, layer) for layer in self.layers), *self.pairs]:
            self._add(self.product, (i, j), rows[i].T @ rows[j])
        if self.layers:
            self.count += len(rows[self.layers[0]])
            self.dtype = latents[self.layers[0]].dtype

    @staticmethod
    def _add(sums: dict, key: object, value: Tensor) -> None:
        sums[key] = sums[key].add_(value) if key in sums else value

    def pair(self, source: int, target: int) -> PairMoments:
        """The sums for X^(source) as x and X^(target) as y, on the CPU."""
        xx, xy, yy = (self.product[key].cpu() for key in ((source, source), (source, target), (target, target)))
        return PairMoments(self.count, self.total[source].cpu(), self.total[target].cpu(), xx, xy, yy, self.dtype)


def _rows(latent: Tensor) -> Tensor:
    """(N, T, D) -> (N·T, D) in float64, on the CPU where the device has none."""
    return (latent.cpu() if latent.device.type == "mps" else latent).double().flatten(0, 1)
