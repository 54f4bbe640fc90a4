"""From batches of latents to fitted maps in closed form: what ``toast run`` and ``toast_cli.compress`` share.

Moments are kept for each group of tokens, and images that a translator wants held out are added up separately.
"""

import copy
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from toast_cli.moments.pair import PairMoments
from toast_cli.moments.streamed import Layer, Moments
from toast_cli.translators.base import FittedMap, Translator
from toast_cli.translators.by_token import joined

Latents = Mapping[Layer, Tensor]  # (N, T, D) each
GroupSums = list[
    tuple[PairMoments, PairMoments]
]  # for each group of tokens: the sums over images kept and over those held out


def held_apart(numbers: np.ndarray, share: float) -> np.ndarray:
    """Which of the images with these ``numbers`` (N,) are held out, as booleans (N,): one in 1 / ``share``, evenly spread."""
    return np.floor((numbers + 1) * share) > np.floor(numbers * share)


class Sums:
    """Moments of pairs of latents for each of the ``groups`` of tokens; a share ``held_out`` of the images is kept apart."""

    def __init__(self, pairs: Iterable[tuple[Layer, Layer]], groups: Sequence[slice], held_out: float) -> None:
        pairs = list(pairs)
        self.groups, self.held_out = groups, held_out
        self.moments = [(Moments(pairs), Moments(pairs)) for _ in groups]  # kept, held out

    def update(self, images: np.ndarray, latents: Latents) -> None:
        """Add the latents (N, T, D) of the images with these numbers (N,).

        Raises FloatingPointError for values that are not finite.
        """
        self._each(images, latents, Moments.update)

    def choose_bases(self, images: np.ndarray, latents: Latents) -> None:
        """Choose the bases for products from the latents (N, T, D) of a first batch of images (N,), without adding it.

        Raises FloatingPointError for values that are not finite.
        """
        self._each(images, latents, Moments.choose_bases)

    def _each(self, images: np.ndarray, latents: Latents, use: Callable[[Moments, Latents], None]) -> None:
        apart = held_apart(images, self.held_out)
        for which, kind in ((~apart, 0), (apart, 1)):
            if not which.any():
                continue
            chosen = slice(None) if which.all() else torch.from_numpy(which)
            for group, moments in zip(self.groups, self.moments, strict=True):
                use(moments[kind], {layer: latents[layer][chosen][:, group] for layer in moments[kind].layers})

    def of(self, source: Layer, target: Layer, width: int) -> GroupSums:
        """The sums of X^(source) and X^(target), both of width D = ``width``."""
        return [
            (_pair(kept, source, target, width), _pair(held_out, source, target, width))
            for kept, held_out in self.moments
        ]


def _pair(moments: Moments, source: Layer, target: Layer, width: int) -> PairMoments:
    return moments.pair(source, target) if moments.count else PairMoments.empty(width)


def fit_parts(translator: Translator, parts: GroupSums, groups: Sequence[slice]) -> FittedMap:
    """A copy of ``translator`` fitted to each group of tokens, as one map."""
    fitted = [copy.deepcopy(translator).fit(_for(translator, kept, held_out)) for kept, held_out in parts]
    if len(groups) == 1:
        return fitted[0]
    everything = reduce(operator.add, (pair for part in parts for pair in part if pair.count))
    return joined(fitted, groups, everything.variation)


def _for(translator: Translator, kept: PairMoments, held_out: PairMoments) -> PairMoments:
    """The sums over the images kept, with those held out as ``held_out``; over all images if ``translator`` needs none."""
    if not held_out.count or not kept.count:
        return kept if kept.count else held_out
    return replace(kept, held_out=held_out) if translator.held_out else kept + held_out
