"""From batches of latents to fitted maps in closed form: what ``toast run`` and ``toast_cli.compress`` share.

Moments are kept for each group of tokens, and images that a translator wants held out are added up separately.
"""

import copy
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from toast_cli.moments.pair import PairMoments, r2
from toast_cli.moments.streamed import Layer, Moments
from toast_cli.translators.base import FittedMap, Translator
from toast_cli.translators.by_token import joined

Latents = Mapping[Layer, Tensor]  # (N, T, D) each
HELD_OUT = 0.2  # the share of the images that fitted maps are scored on, unless a translator asks for another


@dataclass(frozen=True)
class GroupSums:
    """The sums for one group of tokens, over the images ``seen`` and over those ``held_out``.

    ``among``: the images held out are among those seen too. What maps are fitted to is then added up as if none were held
    out, so that the maps are the same, bit for bit.
    """

    seen: PairMoments
    held_out: PairMoments
    among: bool

    @property
    def everything(self) -> PairMoments:
        """Over all images, which are some at least."""
        if self.among or not self.held_out.count or not self.seen.count:
            return self.seen if self.seen.count else self.held_out
        return self.seen + self.held_out

    @property
    def kept(self) -> PairMoments:
        """Over the images that are not held out."""
        return self.seen - self.held_out if self.among else self.seen


def held_apart(numbers: np.ndarray, share: float) -> np.ndarray:
    """Which of the images with these ``numbers`` (N,) are held out, as booleans (N,): one in 1 / ``share``, evenly spread."""
    return np.floor((numbers + 1) * share) > np.floor(numbers * share)


class Sums:
    """Moments of pairs of latents for each of the ``groups`` of tokens; a share ``held_out`` of the images is kept apart.

    If that is 0 and the maps will be ``scored``, the moments of a fifth of the images are kept beside those of all.
    """

    def __init__(
        self, pairs: Iterable[tuple[Layer, Layer]], groups: Sequence[slice], held_out: float, scored: bool = False
    ) -> None:
        pairs = list(pairs)
        self.groups, self.among = groups, scored and not held_out
        self.held_out = HELD_OUT if self.among else held_out
        self.moments = []  # for each group: of the images seen, of those held out
        for _ in groups:
            seen = Moments(pairs)
            self.moments.append((seen, Moments(pairs, within=seen if self.among else None)))

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
        seen = np.ones_like(apart) if self.among else ~apart
        for which, kind in ((seen, 0), (apart, 1)):  # those held out last: they may need the bases of all
            if not which.any():
                continue
            chosen = slice(None) if which.all() else torch.from_numpy(which)
            for group, moments in zip(self.groups, self.moments, strict=True):
                use(moments[kind], {layer: latents[layer][chosen][:, group] for layer in moments[kind].layers})

    def of(self, source: Layer, target: Layer, width: int) -> list[GroupSums]:
        """The sums of X^(source) and X^(target), both of width D = ``width``, for each group of tokens."""
        return [
            GroupSums(_pair(seen, source, target, width), _pair(held_out, source, target, width), self.among)
            for seen, held_out in self.moments
        ]


def _pair(moments: Moments, source: Layer, target: Layer, width: int) -> PairMoments:
    return moments.pair(source, target) if moments.count else PairMoments.empty(width)


def fit_parts(
    translator: Translator, parts: Sequence[GroupSums], groups: Sequence[slice], scored: bool = False
) -> FittedMap:
    """A copy of ``translator`` fitted to each group of tokens, as one map; if ``scored``, with its held-out R²."""
    fitted = [copy.deepcopy(translator).fit(_for(translator, part)) for part in parts]
    whole: FittedMap = fitted[0]
    if len(groups) > 1:
        everything = reduce(operator.add, (part.everything for part in parts))
        whole = joined(fitted, groups, everything.variation)
    if scored:
        whole.held_out_r2_ = _held_out_r2(fitted, parts)
    return whole


def _for(translator: Translator, part: GroupSums) -> PairMoments:
    """The sums to fit to: over all images, or over those kept with those held out as ``held_out`` if they are asked for."""
    apart = translator.held_out and not part.among and part.seen.count and part.held_out.count
    return replace(part.seen, held_out=part.held_out) if apart else part.everything


def _held_out_r2(fitted: Sequence[Translator], parts: Sequence[GroupSums]) -> float | None:
    """R² on the images held out, of maps like those ``fitted`` but fitted to the other images alone.

    None if there are no images of either kind, if nothing varies, or if moments do not tell the error of such a map.
    """
    error = 0.0
    for translator, part in zip(fitted, parts, strict=True):
        affine = translator.as_affine(len(part.held_out.sum_x)) is not None
        if not affine or not 0 < part.held_out.count < part.everything.count:
            return None
        error += translator.refitted(part.kept).error_on(part.held_out)
    score = r2(error, reduce(operator.add, (part.held_out for part in parts)).variation)
    return None if math.isnan(score) else score
