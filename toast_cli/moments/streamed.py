"""Moments streamed over batches of latents, in one pass and constant memory.

Tokens are rows: a latent X^(i) of N images and T tokens is n = N·T rows of width D.

Products are taken batch by batch in the precision of the latents, and added up in float64. After early blocks, the
variances of a latent's directions span nine orders of magnitude, more than fp32 products can resolve. There, rows are
first moved to a basis in which they are close to white, z = (x − μ) A, with μ and A from a part of the first batch. Any
invertible A is right; this one keeps rounding errors small compared with every direction. Sums are moved back in float64.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from toast_cli.moments.pair import PairMoments
from toast_cli.moments.products import inner
from toast_cli.plans import place_of

Layer = Any  # the key of a latent: i for X^(i), or anything else hashable
ROWS_FOR_A_BASIS = 4  # times D
# Rows are whitened if, for some dimension, the dimensions before it leave less than this share of its variance unexplained:
# at 1e-3, fp32 products change maps by about 1e-5, and the change grows with the inverse of the share.
_UNEXPLAINED = 1e-3


@dataclass(frozen=True)
class _Basis:
    """z = (x − mean) A and back, x = z A⁻¹ + mean; A is 1 if fp32 products of centred rows are good enough.

    With too few rows to estimate the directions, A is 1, and the mean and all products are in float64.
    """

    mean: Tensor  # (D,), in the precision of the latents or in float64
    into: Tensor | None  # A (D, D), in the same precision
    back: Tensor | None  # A⁻¹ (D, D), float64, on the CPU

    @classmethod
    def of(cls, rows: Tensor) -> "_Basis":
        """The basis for rows (N, D): A = S R⁻¹ for their correlations S C S = RᵀR, with a lift by the rounding of the rows."""
        width = rows.shape[1]
        x = _on_cpu(rows[:: max(len(rows) // (ROWS_FOR_A_BASIS * width), 1)]).double()
        if len(x) < ROWS_FOR_A_BASIS * width:
            return cls(x.mean(0), None, None)
        mean = x.mean(0).to(rows)
        x = x - mean.to(x)
        covariance = (x.T @ x / len(x)).cpu()
        scale = torch.where(covariance.diagonal() > 0, covariance.diagonal(), 1.0).rsqrt()  # (D,)
        lift = width * max(torch.finfo(rows.dtype).eps ** 2, 1e-14)
        factor = torch.linalg.cholesky(scale[:, None] * covariance * scale + lift * torch.eye(width)).T  # R
        if factor.diagonal().square().min() > _UNEXPLAINED:
            return cls(mean, None, None)
        into = scale[:, None] * torch.linalg.solve_triangular(factor, torch.eye(width).to(factor), upper=True)
        into = into.to(rows.dtype)
        return cls(mean, into.to(rows.device), torch.linalg.inv(into.double()))

    def __call__(self, rows: Tensor) -> Tensor:
        """(n, D) -> (n, D)."""
        centred = rows.to(self.mean.device) - self.mean
        return centred if self.into is None else centred @ self.into


class Moments:
    """Sums for the given pairs of layers, added up batch by batch in float64.

    Memory is one D × D matrix for each pair and at most four for each layer, whatever the number of images. ``within``
    are the moments of all images where these are to be those of some of them: both then use the same bases.
    """

    def __init__(self, pairs: Iterable[tuple[Layer, Layer]], within: "Moments | None" = None) -> None:
        self.pairs = list(dict.fromkeys(pairs))
        self.layers = list(dict.fromkeys(layer for pair in self.pairs for layer in pair))
        self.count = 0
        self.dtype = torch.float32
        self._basis: dict[Layer, _Basis] = {} if within is None else within._basis
        self._total: dict[Layer, Tensor] = {}  # layer -> Σ z (D,)
        self._product: dict[tuple[Layer, Layer], Tensor] = {}  # (layer, layer) -> Σ zᵀz (D, D)
        self._square: dict[Layer, Tensor] = {}  # layer -> Σ xᵀx (D, D), kept once computed

    def choose_bases(self, latents: Mapping[Layer, Tensor]) -> None:
        """Choose the bases from the latents (N, T, D) of a first batch, without adding it.

        Raises FloatingPointError for values that are not finite.
        """
        for layer in self.layers:
            if layer not in self._basis:
                _require_finite(latents[layer].sum(), layer)
                self._basis[layer] = _Basis.of(latents[layer].flatten(0, 1))

    def update(self, latents: Mapping[Layer, Tensor]) -> None:
        """Add the latents (N, T, D) of one batch, by layer.

        Raises FloatingPointError for values in the first batch that are not finite. Later ones are found in the sums: looking
        at every batch would make a GPU wait.
        """
        self.choose_bases(latents)
        rows = {}  # layer -> (n, D)
        for layer in self.layers:
            rows[layer] = self._basis[layer](latents[layer].flatten(0, 1))
            self._add(self._total, layer, rows[layer].sum(0))
        for i, j in dict.fromkeys([*((layer, layer) for layer in self.layers), *self.pairs]):
            self._add(self._product, (i, j), inner(rows[i], rows[j]))
        self._square.clear()
        if self.layers:
            self.count += len(rows[self.layers[0]])
            self.dtype = latents[self.layers[0]].dtype

    @staticmethod
    def _add(sums: dict, key: object, value: Tensor) -> None:
        value = _on_cpu(value)
        sums[key] = sums[key].add_(value) if key in sums else value.double()

    def pair(self, source: Layer, target: Layer) -> PairMoments:
        """The sums for X^(source) as x and X^(target) as y, on the CPU. Raises FloatingPointError if they are not finite."""
        for layer in (source, target):
            _require_finite(self._total[layer], layer)
            if layer not in self._square:
                self._square[layer] = self._moment(layer, layer)
        xx, xy, yy = self._square[source], self._moment(source, target), self._square[target]
        return PairMoments(self.count, self._sum(source), self._sum(target), xx, xy, yy, self.dtype)

    def _sum(self, layer: Layer) -> Tensor:
        """Σ x = Σ z A⁻¹ + n μ (D,)."""
        basis, total = self._basis[layer], self._total[layer].cpu()
        return (total if basis.back is None else total @ basis.back) + self.count * basis.mean.cpu()

    def _moment(self, source: Layer, target: Layer) -> Tensor:
        """Σ xᵀy = A⁻ᵀ (Σ zᵀz') A'⁻¹ + μᵀ Σ y + (Σ x)ᵀ μ' − n μᵀμ' (D, D)."""
        one, other = self._basis[source], self._basis[target]
        product = self._product[source, target].cpu()
        product = product if one.back is None else one.back.T @ product
        product = product if other.back is None else product @ other.back
        mean, mean_y = one.mean.cpu().double(), other.mean.cpu().double()
        return (
            product + torch.outer(mean, self._sum(target)) + torch.outer(self._sum(source) - self.count * mean, mean_y)
        )


def _require_finite(value: Tensor, layer: Layer) -> None:
    if not torch.isfinite(value).all():
        raise FloatingPointError(f"the latents {place_of(layer)}")


def _on_cpu(value: Tensor) -> Tensor:
    """The value on the CPU if its device has no float64."""
    return value.cpu() if value.device.type == "mps" else value
