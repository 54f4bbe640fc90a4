"""Second moments of a pair of latents, from which every closed form, R² and CKA are computed.

Tokens are rows: a latent X^(i) of N images and T tokens is n = N·T rows of width D. A source that holds more than a token
has width E.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class PairMoments:
    """Sums over n tokens of a source x and a target y in float64. Both are of width D, unless x was put together (``beside``).

    ``dtype`` is that of the latents: anything below its rounding is noise, and maps are deployed in it. ``held_out`` are the
    sums over images kept apart from these, for a translator that chooses a setting by them; None if there are none.
    """

    count: float  # n, or the sum of the tokens' weights
    sum_x: Tensor  # (E,)   Σ x
    sum_y: Tensor  # (D,)   Σ y
    xx: Tensor  # (E, E)    Σ xᵀx
    xy: Tensor  # (E, D)    Σ xᵀy
    yy: Tensor  # (D, D)    Σ yᵀy
    dtype: torch.dtype = torch.float32
    held_out: "PairMoments | None" = None

    @classmethod
    def empty(cls, width: int, source: int | None = None) -> "PairMoments":
        """The sums over no tokens, for a target of width D = ``width`` and a source of width E = ``source``, D if None."""
        other = width if source is None else source
        x, y, xx, xy, yy = (
            torch.zeros(shape, dtype=torch.float64)
            for shape in ((other,), (width,), (other, other), (other, width), (width, width))
        )
        return cls(0, x, y, xx, xy, yy)

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

    def beside(self, other: "PairMoments", cross: Tensor) -> "PairMoments":
        """The sums for the source [x, m] and the target y.

        Args:
            other: those of m (n, K) and the same y, row by row with x.
            cross: Σ xᵀm (E, K).
        """
        xx = torch.cat([torch.cat([self.xx, cross], 1), torch.cat([cross.T, other.xx], 1)])
        sum_x, xy = torch.cat([self.sum_x, other.sum_x]), torch.cat([self.xy, other.xy])
        return PairMoments(self.count, sum_x, self.sum_y, xx, xy, self.yy, self.dtype)

    def leading(self, width: int) -> "PairMoments":
        """The sums for the first ``width`` dimensions of x, without held-out ones."""
        xx, xy = self.xx[:width, :width], self.xy[:width]
        return PairMoments(self.count, self.sum_x[:width], self.sum_y, xx, xy, self.yy, self.dtype)

    def unexplained(self, weight: Tensor) -> "PairMoments":
        """The sums of x and y − x W for a map ``weight`` W (E, D), without held-out ones."""
        w = weight.to(self.xx)
        explained = self.xx @ w
        mixed = w.T @ self.xy  # (D, D)
        yy = self.yy - mixed - mixed.T + w.T @ explained
        return PairMoments(
            self.count, self.sum_x, self.sum_y - self.sum_x @ w, self.xx, self.xy - explained, yy, self.dtype
        )

    @property
    def swapped(self) -> "PairMoments":
        """The same sums with x and y exchanged."""
        return PairMoments(self.count, self.sum_y, self.sum_x, self.yy, self.xy.T, self.xx, self.dtype)

    @property
    def means(self) -> tuple[Tensor, Tensor]:
        """Mean x (E,) and mean y (D,)."""
        return self.sum_x / self.count, self.sum_y / self.count

    @property
    def variation(self) -> float:
        """Σ ‖y − mean y‖²."""
        return (self.yy.trace() - self.sum_y.square().sum() / self.count).item()

    def around(self, x: Tensor, y: Tensor) -> "PairMoments":
        """The sums of x − ``x`` and y − ``y`` for constants (E,) and (D,)."""
        sum_x, sum_y = self.sum_x - self.count * x, self.sum_y - self.count * y
        xx = self.xx - torch.outer(x, self.sum_x) - torch.outer(sum_x, x)
        xy = self.xy - torch.outer(x, self.sum_y) - torch.outer(sum_x, y)
        yy = self.yy - torch.outer(y, self.sum_y) - torch.outer(sum_y, y)
        return PairMoments(self.count, sum_x, sum_y, xx, xy, yy, self.dtype)

    def centred(self) -> "PairMoments":
        """The sums of x − mean x and y − mean y."""
        return self.around(*self.means)

    def residual(self, weight: Tensor) -> float:
        """Σ ‖y − x W‖² for a map ``weight`` W (E, D): tr yy − 2 tr Wᵀxy + tr Wᵀ xx W."""
        w = weight.to(self.xx)
        return (self.yy.trace() - 2 * (w * self.xy).sum() + (w * (self.xx @ w)).sum()).item()

    def residual_of(self, weight: Tensor, bias: Tensor) -> float:
        """Σ ‖y − x W − b‖² for W (E, D) and b (D,): what varies is summed apart from the mean, which may be far larger."""
        mean_x, mean_y = self.means
        off = mean_y - mean_x @ weight.to(mean_x) - bias.to(mean_y)  # (D,)
        return self.centred().residual(weight) + self.count * off.square().sum().item()

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
