"""Ridge regression of what a layer's output still misses on what goes into it, as strong as held-out images support.

Shapes: F width of the layer's input h, D width of its output.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toast_cli.moments.pair import PairMoments
from toast_cli.moments.solvers import ridge

# In units of a standardised input's variance. Late layers need the strongest, the first after a map the weakest.
STRENGTHS = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4)


@dataclass(frozen=True)
class Refit:
    """What is to be added to a layer: h ``weight`` (F, D) + ``bias`` (D,), in float64.

    ``strength`` is the penalty; infinite, and all numbers 0, if nothing helps on held-out images. ``left`` is the share of
    the held-out error that stays.
    """

    weight: Tensor
    bias: Tensor
    strength: float
    left: float


def refit(kept: PairMoments, held_out: PairMoments, intercept: bool) -> Refit:
    """The regression of y (D) on x (F), from sums over images ``kept`` and ``held_out``; without ``intercept`` b is 0.

    Strengths are tried from the strongest on for as long as the held-out error falls; the best is then fitted to all images. With
    nothing held out, or no weights that help, nothing is added.
    """
    if not intercept:
        kept, held_out = _without_means(kept), _without_means(held_out)
    nothing = Refit(torch.zeros_like(kept.xy), torch.zeros_like(kept.sum_y), float("inf"), 1.0)
    before = held_out.yy.trace().item()
    if not kept.count or not held_out.count or before <= 0:
        return nothing
    unseen = held_out.around(*kept.means)
    best, strength = before, float("inf")
    for candidate in STRENGTHS:
        error = unseen.residual(ridge(kept, [candidate])[0])
        if error >= best:
            break
        best, strength = error, candidate
    if strength == float("inf"):
        return nothing
    everything = kept + held_out
    weight = ridge(everything, [strength])[0]
    mean_x, mean_y = everything.means
    return Refit(weight, mean_y - mean_x @ weight, strength, best / before)


def _without_means(moments: PairMoments) -> PairMoments:
    """Sums whose means are 0, so that regression on them goes through the origin."""
    return replace(moments, sum_x=torch.zeros_like(moments.sum_x), sum_y=torch.zeros_like(moments.sum_y))
