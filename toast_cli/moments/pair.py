"""Second moments of a pair of latents, from which every closed form, R² and CKA are computed.

Tokens are rows: a latent X^(i) of N images and T tokens is n = N·T rows of width D.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class PairMoments:
    """Sums over n tokens of a source x and a target y, both of width D, in float64.

    ``dtype`` is that of the latents: anything below its rounding is noise, and maps are deployed in it. ``held_out`` are the
    sums over images kept apart from these, for a translator that chooses a setting by them; None if there are none.
    """

    count: float  # n, or the sum of the tokens' weights
    sum_x: Tensor  # (D,)   Σ x
    sum_y: Tensor  # (D,)   Σ y
    xx: Tensor  # (D, D)    Σ xᵀx
    xy: Tensor  # (D, D)    Σ xᵀy
    yy: Tensor  # (D, D)    Σ yᵀy
    dtype: torch.dtype = torch.float32
    held_out: "PairMoments | None" = None

    @classmethod
    def empty(cls, width: int) -> "PairMoments":
        """The sums over no tokens, for latents of width D = ``width``."""
        vector, matrix = (torch.zeros(shape, dtype=torch.float64) for shape in ((width,), (width, width)))
        return cls(0, vector, vector, matrix, matrix, matrix)

    def __add__(self, other: "PairMoments") -> "PairMoments":
        """The sums over the tokens of both, without held-out ones."""
        return self._with(other, operator.add)

    def __sub__(self, other: "PairMoments") -> "PairMoments":
        """The sums over the tokens that are not among those of ``other``, which are some of these."""
        return self._with(other, operator.sub)

    def _with(self, other: "PairMoments", combine: Callable[[Any, Any], Any]) -> "PairMoments":
        names = ("count", "sum_x", "sum_y", "xx", "xy", "yy")
        return PairMoments(
            **{name: combine(getattr(self, name), getattr(other, name)) for name in names}, dtype=self.dtype
        )

    @property
    def swapped(self) -> "PairMoments":
        """The same sums with x and y exchanged."""
        return PairMoments(self.count, self.sum_y, self.sum_x, self.yy, self.xy.T, self.xx, self.dtype)

    @property
    def means(self) -> tuple[Tensor, Tensor]:
        """Mean x (D,) and mean y (D,)."""
        return self.sum_x / self.count, self.sum_y / self.count

    @property
    def variation(self) -> float:
        """Σ ‖y − mean y‖²."""
        return (self.yy.trace() - self.sum_y.square().sum() / self.count).item()

    def around(self, x: Tensor, y: Tensor) -> "PairMoments":
        """The sums of x − ``x`` and y − ``y`` for constants (D,)."""
        sum_x, sum_y = self.sum_x - self.count * x, self.sum_y - self.count * y
        xx = self.xx - torch.outer(x, self.sum_x) - torch.outer(sum_x, x)
        xy = self.xy - torch.outer(x, self.sum_y) - torch.outer(sum_x, y)
        yy = self.yy - torch.outer(y, self.sum_y) - torch.outer(sum_y, y)
        return PairMoments(self.count, sum_x, sum_y, xx, xy, yy, self.dtype)

    def centred(self) -> "PairMoments":
        """The sums of x − mean x and y − mean y."""
        return self.around(*self.means)

    def residual(self, weight: Tensor) -> float:
        """Σ ‖y − x W‖² for a map ``weight`` W (D, D): tr yy − 2 tr Wᵀxy + tr Wᵀ xx W."""
        w = weight.to(self.xx)
        return (self.yy.trace() - 2 * (w * self.xy).sum() + (w * (self.xx @ w)).sum()).item()

    def r2(self, weight: Tensor) -> float:
        """1 − Σ ‖y − x W‖² / Σ ‖y − mean y‖² for W (D, D), over all tokens and dimensions; below 0 if a constant is better."""
        return r2(self.residual(weight), self.variation)

    def cka(self) -> float:
        """Linear CKA, ‖x̄ᵀȳ‖²_F / (‖x̄ᵀx̄‖_F ‖ȳᵀȳ‖_F) of centred rows (Kornblith et al., 2019, arXiv:1905.00414)."""
        centred = self.centred()
        return (centred.xy.square().sum() / (centred.xx.norm() * centred.yy.norm())).item()


def r2(error: float, variation: float) -> float:
    """1 − error / variation; NaN if nothing varies."""
    return 1 - error / variation if variation > 0 else float("nan")
