"""How alike the latents of a model's blocks are, and its last latent and those of its shortened versions.

The rows of all measures are tokens: a latent of N images and T tokens is n = N·T rows of width D.
"""

from collections.abc import Iterable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from toast_cli.moments import Moments, PairMoments
from toast_cli.rows import MEASURES
from toast_cli.translators import Linear


class Alike:
    """Moments and cosines of pairs of latents, added up batch by batch."""

    def __init__(self, pairs: Iterable[tuple[int, int]]) -> None:
        self.moments = Moments(pairs)
        self._cosine = torch.zeros(len(self.moments.pairs), dtype=torch.float64)

    def update(self, latents: Mapping[int, Tensor]) -> None:
        """Add the latents (N, T, D) of one batch, by layer."""
        self.moments.update(latents)
        unit = {layer: F.normalize(latents[layer].flatten(0, 1), dim=1) for layer in self.moments.layers}  # (n, D)
        sums = [(unit[i] * unit[j]).sum() for i, j in self.moments.pairs]
        self._cosine += torch.stack(sums).cpu().double()

    def pairs(self) -> Iterator[tuple[int, int, PairMoments, float]]:
        """Source, target, their moments and their mean cosine."""
        for (i, j), cosine in zip(self.moments.pairs, self._cosine.tolist(), strict=True):
            yield i, j, self.moments.pair(i, j), cosine / self.moments.count


def of_blocks(alike: Alike) -> Iterator[tuple[str, int, int, float]]:
    """(measure, source, target, value) for all ordered pairs of layers, each with itself too."""
    for layer in alike.moments.layers:
        for measure in MEASURES:
            yield measure, layer, layer, 0.0 if measure == "mse" else 1.0
    for i, j, pair, cosine in alike.pairs():
        shared = {"cka": pair.cka(), "cosine": cosine, "mse": mse(pair)}
        for source, target, way in ((i, j, pair), (j, i, pair.swapped)):
            for measure, value in {**shared, "r2": Linear().fit(way).r2_}.items():
                yield measure, source, target, value


def of_plan(pair: PairMoments, cosine: float) -> dict[str, float]:
    """Every measure between the untouched model's last latent (x) and a plan's (y)."""
    width = len(pair.sum_x)
    r2 = pair.swapped.r2(torch.eye(width))
    return {"cka": pair.cka(), "cosine": cosine, "mse": mse(pair), "r2": r2}


def mse(pair: PairMoments) -> float:
    """(tr xx + tr yy − 2 tr xy) / (n D)."""
    width = len(pair.sum_x)
    return pair.residual(torch.eye(width)) / (pair.count * width)
