"""The translators that are fitted in closed form from moments, one class each.

Shapes: D width; x is a row of X^(s), y of X^(e); sums Σ are over the tokens of the fit images.
"""

import copy
from typing import Self

import torch
from torch import Tensor, nn

from toast_cli import layers
from toast_cli.layers import dense
from toast_cli.moments.pair import PairMoments
from toast_cli.moments.solvers import gelsy, least_squares, ridge
from toast_cli.translators.allowed import check
from toast_cli.translators.base import Translator


class Identity(Translator):
    """T(x) = x: the blocks are removed and nothing takes their place."""

    name = "identity"

    def fit(self, moments: PairMoments) -> Self:
        width = len(moments.sum_x)
        return self.scored(moments.residual(torch.eye(width)), moments.variation, width)

    def as_affine(self, width: int) -> tuple[Tensor, Tensor]:
        return torch.eye(width), torch.zeros(width)

    def to_module(self) -> nn.Module:
        return nn.Identity()


class Shift(Translator):
    """T(x) = x + b, b = mean y − mean x: the least-squares map among those that fold into the bias of the block before.

    Learned:
        bias_: b (D,), in the precision of the latents.
    """

    name = "shift"
    bias_: Tensor

    def fit(self, moments: PairMoments) -> Self:
        mean_x, mean_y = moments.means
        self.bias_ = (mean_y - mean_x).to(moments.dtype)
        width = len(self.bias_)
        return self.scored(moments.centred().residual(torch.eye(width)), moments.variation, width)

    def as_affine(self, width: int) -> tuple[Tensor, Tensor]:
        return torch.eye(width), self.bias_

    def to_module(self) -> nn.Module:
        return layers.Shift(self.bias_)


class Linear(Translator):
    """T(x) = x W, W = argmin Σ ‖y − x W‖²; no bias.

    ``solver="gelsy"`` gives what ``torch.linalg.lstsq`` computes on CPUs by default, see ``gelsy``. Raises ToastError for an
    unknown solver.

    Learned:
        weight_: W (D, D), in the precision of the latents.
    """

    name = "linear"
    weight_: Tensor

    def __init__(self, tokens: str = "shared", solver: str = "exact") -> None:
        super().__init__(tokens)
        check(solver=solver)
        self.solver = solver

    def fit(self, moments: PairMoments) -> Self:
        weight, rank = (
            least_squares(moments.xx, moments.xy, moments.dtype) if self.solver == "exact" else gelsy(moments)
        )
        self.weight_ = weight.to(moments.dtype).contiguous()
        return self.scored(moments.residual(self.weight_), moments.variation, rank)

    def as_affine(self, width: int) -> tuple[Tensor, Tensor]:
        return self.weight_, torch.zeros(width)

    def to_module(self) -> nn.Module:
        return dense(self.weight_)


class Affine(Translator):
    """T(x) = x W + b, W and b = argmin Σ ‖y − x W − b‖².

    Learned:
        weight_: W (D, D). bias_: b (D,).
    """

    name = "affine"
    weight_: Tensor
    bias_: Tensor

    def fit(self, moments: PairMoments) -> Self:
        centred = moments.centred()
        weight, rank = least_squares(centred.xx, centred.xy, moments.dtype)
        return self._deploy(weight, moments, rank)

    def _deploy(self, weight: Tensor, moments: PairMoments, rank: int) -> Self:
        """Keep W (D, D) in the precision of the latents, with the matching bias b = mean y − mean x W."""
        centred, (mean_x, mean_y) = moments.centred(), moments.means
        self.weight_ = weight.to(moments.dtype).contiguous()
        self.bias_ = (mean_y - mean_x @ self.weight_.double()).to(moments.dtype)
        return self.scored(centred.residual(self.weight_), moments.variation, rank)

    def as_affine(self, width: int) -> tuple[Tensor, Tensor]:
        return self.weight_, self.bias_

    def to_module(self) -> nn.Module:
        return dense(self.weight_, self.bias_)


class Ridge(Affine):
    """T(x) = x W + b, W = argmin Σ ‖y − x W − b‖² + λ n Σ_d σ_d² ‖W_d‖², σ_d the standard deviation of dimension d of x.

    The penalty is on standardised dimensions, so that a few massive activations do not set its scale. λ is the one in
    ``strengths`` with the smallest error on the held-out fit images, or the first if none are held out; W is then fitted to
    all fit images. Raises ToastError for ``strengths`` that are not a list of numbers above 0.

    Learned:
        weight_: W (D, D). bias_: b (D,). strength_: λ.
    """

    name = "ridge"
    held_out = 0.2
    strength_: float

    def __init__(self, strengths: list[float], tokens: str = "shared") -> None:
        super().__init__(tokens)
        check(strengths=strengths)
        self.strengths = list(strengths)

    def fit(self, moments: PairMoments) -> Self:
        self.strength_, held_out = self.strengths[0], moments.held_out
        if held_out is not None and len(self.strengths) > 1:
            unseen = held_out.around(*moments.means)
            errors = [unseen.residual(weight) for weight in ridge(moments, self.strengths)]
            self.strength_ = self.strengths[errors.index(min(errors))]
        everything = moments if held_out is None else moments + held_out
        weight = next(iter(ridge(everything, [self.strength_])))
        return self._deploy(weight, everything, len(weight))

    def refitted(self, moments: PairMoments) -> Self:
        again = copy.copy(self)
        again.strengths = [self.strength_]
        return again.fit(moments)


class Orthogonal(Translator):
    """T(x) = x R, R = argmin Σ ‖y − x R‖² among orthogonal R: R = U Vᵀ for xy = U S Vᵀ (Schönemann, 1966).

    Learned:
        weight_: R (D, D), in the precision of the latents.
    """

    name = "orthogonal"
    weight_: Tensor

    def fit(self, moments: PairMoments) -> Self:
        u, _, v = torch.linalg.svd(moments.xy)
        self.weight_ = (u @ v).to(moments.dtype).contiguous()
        return self.scored(moments.residual(self.weight_), moments.variation, len(u))

    def as_affine(self, width: int) -> tuple[Tensor, Tensor]:
        return self.weight_, torch.zeros(width)

    def to_module(self) -> nn.Module:
        return dense(self.weight_)


class LowRank(Translator):
    """T(x) = x A B + b with A (D, k), B (k, D): least squares among maps of rank k (reduced-rank regression, Izenman, 1975).

    The product A B is W B'ᵀ B', where W is the affine map's and the rows of B' (k, D) are the leading principal directions
    of its predictions. It is the best map of its rank, unlike W with its smallest singular values cut off.

    Args:
        rank: k from 1 to D, or a share below 1 of the predictions' variance, which the fewest directions possible hold.

    Raises ToastError for any other ``rank``.

    Learned:
        down_: A (D, k). up_: B (k, D). bias_: b (D,).
    """

    name = "lowrank"
    down_: Tensor
    up_: Tensor
    bias_: Tensor

    def __init__(self, rank: int | float, tokens: str = "shared") -> None:
        super().__init__(tokens)
        check(rank=rank)
        self.rank = rank

    def fit(self, moments: PairMoments) -> Self:
        centred, (mean_x, mean_y) = moments.centred(), moments.means
        weight, rank = least_squares(centred.xx, centred.xy, moments.dtype)
        values, vectors = torch.linalg.eigh(weight.T @ centred.xx @ weight)  # of the predictions, ascending
        wanted = self.rank if isinstance(self.rank, int) else _fewest(values.flip(0).clamp(min=0), self.rank)
        leading = vectors[:, -min(wanted, rank) :]  # (D, k)
        self.down_ = (weight @ leading).to(moments.dtype).contiguous()
        self.up_ = leading.T.to(moments.dtype).contiguous()
        product = self.down_.double() @ self.up_.double()
        self.bias_ = (mean_y - mean_x @ product).to(moments.dtype)
        return self.scored(centred.residual(product), moments.variation, leading.shape[1])

    def as_affine(self, width: int) -> tuple[Tensor, Tensor]:
        return self.down_.double() @ self.up_.double(), self.bias_

    def to_module(self) -> nn.Module:
        return nn.Sequential(dense(self.down_), dense(self.up_, self.bias_))


def _fewest(values: Tensor, share: float) -> int:
    """How many of the descending ``values`` (D,) add up to ``share`` of their sum."""
    held = values.cumsum(0) / values.sum().clamp(min=1e-300)
    return int((held < share).sum().item()) + 1
