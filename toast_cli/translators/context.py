"""The closed form that sees the image as well as the token.

Shapes: D width, G groups; x is a row of X^(s), y of X^(e), m the mean of the patches of the same image in X^(s).
"""

import copy
import math
from collections.abc import Iterator, Sequence
from functools import reduce
from operator import add
from typing import Self

import torch
from torch import Tensor, nn

from toast_cli import layers
from toast_cli.layers import dense
from toast_cli.moments.pair import PairMoments
from toast_cli.moments.solvers import least_squares, ridge
from toast_cli.translators.allowed import check
from toast_cli.translators.base import ImageTranslator


class Context(ImageTranslator):
    """T(x, m) = x W_g + m V_g + b_g for the prefix tokens and for the patches, each group g with its own W, V and b.

    It starts from the affine map x W + b of all tokens. What that leaves, y − x W − b, is regressed on [x, m] in each group
    with an intercept and a penalty λ n Σ_d σ_d² ‖Δ_d‖², σ_d the standard deviation of dimension d of [x, m] and Δ (2D, D)
    the departure [W_g − W; V_g]. λ is the one in ``strengths``, or infinite (no departure: the affine map itself), with the
    smallest error on the held-out fit images, each group for itself; it is infinite if none are held out. All is then
    fitted to all fit images.

    Raises ToastError for ``strengths`` that are not a list of numbers above 0.

    Learned:
        weights_: W_g (G, D, D). contexts_: V_g (G, D, D). biases_: b_g (G, D). All in the precision of the latents.
        strengths_: λ of each group (G,). prefix_: how many prefix tokens there are; with 0 the patches are the only group.
    """

    name = "context"
    held_out = 0.2
    weights_: Tensor
    contexts_: Tensor
    biases_: Tensor
    strengths_: Tensor
    prefix_: int

    def __init__(self, strengths: list[float]) -> None:
        super().__init__()
        check(strengths=strengths)
        self.strengths = list(strengths)

    def fit(self, groups: Sequence[PairMoments], prefix: int) -> Self:
        return self._fit(groups, prefix, self._chosen(groups))

    def refitted(self, groups: Sequence[PairMoments], prefix: int) -> Self:
        return copy.copy(self)._fit(groups, prefix, self.strengths_.tolist())

    def error_on(self, groups: Sequence[PairMoments]) -> float:
        maps = torch.cat([self.weights_, self.contexts_], dim=1)  # (G, 2D, D)
        return sum(moments.residual_of(*each) for moments, *each in zip(groups, maps, self.biases_, strict=True))

    def _fit(self, groups: Sequence[PairMoments], prefix: int, chosen: Sequence[float]) -> Self:
        """The fit with λ of each group ``chosen``."""
        everything = [each if each.held_out is None else each + each.held_out for each in groups]
        weight, bias, rank = _affine(everything)
        fitted = [
            next(_departures(moments, weight, bias, [strength]))
            for moments, strength in zip(everything, chosen, strict=True)
        ]
        dtype, width = groups[0].dtype, len(bias)
        maps = torch.stack([each for each, _ in fitted]).to(dtype)  # (G, 2D, D)
        self.weights_, self.contexts_ = maps[:, :width].contiguous(), maps[:, width:].contiguous()
        self.biases_ = torch.stack([each for _, each in fitted]).to(dtype)
        self.strengths_, self.prefix_ = torch.tensor(chosen, dtype=torch.float64), prefix
        return self.scored(self.error_on(everything), reduce(add, everything).variation, rank)

    def _chosen(self, groups: Sequence[PairMoments]) -> list[float]:
        """λ for each group, by the error on held-out images of maps fitted to the others."""
        weight, bias, _ = _affine(groups)
        candidates = [math.inf, *self.strengths]
        chosen = []
        for moments in groups:
            unseen = moments.held_out
            if unseen is None:
                chosen.append(math.inf)
                continue
            errors = [unseen.residual_of(*each) for each in _departures(moments, weight, bias, candidates)]
            chosen.append(candidates[errors.index(min(errors))])
        return chosen

    def to_module(self) -> nn.Module:
        own = [dense(weight) for weight in self.weights_]
        context = [dense(weight, bias) for weight, bias in zip(self.contexts_, self.biases_, strict=True)]
        return layers.Context(self.prefix_, own, context)


def _affine(groups: Sequence[PairMoments]) -> tuple[Tensor, Tensor, int]:
    """W (D, D), b (D,) and the rank of the least-squares map x W + b over the tokens of all groups, without m."""
    tokens = reduce(add, [moments.leading(len(moments.sum_y)) for moments in groups])
    centred, (mean_x, mean_y) = tokens.centred(), tokens.means
    weight, rank = least_squares(centred.xx, centred.xy, tokens.dtype)
    return weight, mean_y - mean_x @ weight, rank


def _departures(
    moments: PairMoments, weight: Tensor, bias: Tensor, strengths: Sequence[float]
) -> Iterator[tuple[Tensor, Tensor]]:
    """[W_g; V_g] (2D, D) and b_g (D,) of one group for each λ, from the affine map ``weight`` (D, D) and ``bias`` (D,)."""
    base = torch.cat([weight, torch.zeros_like(weight)])
    (mean_x, mean_y), left = moments.means, moments.unexplained(base)
    finite = [strength for strength in strengths if strength < math.inf]
    departures = iter(ridge(left, finite) if finite else ())
    for strength in strengths:
        if strength == math.inf:
            yield base, bias
        else:
            joint = base + next(departures)
            yield joint, mean_y - mean_x @ joint
