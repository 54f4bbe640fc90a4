"""From batches of latents to fitted maps in closed form: what ``toast run`` and ``toast_cli.compress`` share.

Moments are kept for each group of tokens, and images that a translator wants held out are added up separately.
"""

import copy
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import torch

from toast_cli.moments.pair import PairMoments
from toast_cli.moments.streamed import Layer
from toast_cli.translators.base import ClosedForm, FittedMap, ImageTranslator, Translator
from toast_cli.translators.by_token import groups_of, joined
from toast_cli.translators.pieces import Latents, Pair, Pieces, cut

GroupSums = list[
    tuple[PairMoments, PairMoments]
]  # for each group of tokens: the sums over images kept and over those held out


@dataclass(frozen=True)
class Wanted:
    """A map to be fitted: from X^(``source``) to X^(``target``) by a copy of ``translator``."""

    source: Layer
    target: Layer
    translator: ClosedForm

    @property
    def pair(self) -> Pair:
        return Pair(self.source, self.target, isinstance(self.translator, ImageTranslator))


def held_apart(numbers: np.ndarray, share: float) -> np.ndarray:
    """Which of the images with these ``numbers`` (N,) are held out, as booleans (N,): one in 1 / ``share``, evenly spread."""
    return np.floor((numbers + 1) * share) > np.floor(numbers * share)


class Sums:
    """The sums that the maps ``wanted`` are fitted to; the largest share of images that a translator asks for is kept apart.

    Latents have T ``tokens``, or any number if it is None; the first ``prefix`` are class and register tokens.
    """

    def __init__(self, wanted: Iterable[Wanted], prefix: int, tokens: int | None) -> None:
        wanted = list(wanted)
        self.prefix, self.tokens = prefix, tokens
        self.held_out = max((each.translator.held_out for each in wanted), default=0.0)
        pairs = dict.fromkeys(each.pair for each in wanted)
        pieces = cut(group for each in wanted for group in self._groups(each.translator))
        self.kept, self.apart = Pieces(pairs, pieces, prefix), Pieces(pairs, pieces, prefix)

    def _groups(self, translator: ClosedForm) -> list[slice]:
        return groups_of(translator.tokens, self.prefix, self.tokens)

    @property
    def matrices(self) -> int:
        """How many D × D matrices are in memory once sums are there, at most."""
        return self.kept.matrices + (self.apart.matrices if self.held_out else 0)

    def update(self, images: np.ndarray, latents: Latents) -> None:
        """Add the latents (N, T, D) of the images with these numbers (N,).

        Raises FloatingPointError for values that are not finite.
        """
        self._each(images, latents, Pieces.update)

    def choose_bases(self, images: np.ndarray, latents: Latents) -> None:
        """Choose the bases for products from the latents (N, T, D) of a first batch of images (N,), without adding it.

        Raises FloatingPointError for values that are not finite.
        """
        self._each(images, latents, Pieces.choose_bases)

    def _each(self, images: np.ndarray, latents: Latents, use: Callable[[Pieces, Latents], None]) -> None:
        held_out = held_apart(images, self.held_out)
        for which, sums in ((~held_out, self.kept), (held_out, self.apart)):
            if which.any():
                chosen = slice(None) if which.all() else torch.from_numpy(which)
                use(sums, {layer: latents[layer][chosen] for layer in sums.layers})

    def of(self, wanted: Wanted, width: int) -> GroupSums:
        """The sums that one map is fitted to, for latents of width D = ``width``."""
        return [
            (_sums(self.kept, group, wanted, width), _sums(self.apart, group, wanted, width))
            for group in self._groups(wanted.translator)
        ]

    def fitted(self, translator: ClosedForm, parts: GroupSums) -> FittedMap:
        """A copy of ``translator`` fitted to the sums of each group of tokens, as one map."""
        own = copy.deepcopy(translator)
        groups = [_for(translator, kept, held_out) for kept, held_out in parts]
        if isinstance(own, ImageTranslator):
            return own.fit(groups, self.prefix)
        if not isinstance(own, Translator):
            raise TypeError(f"{translator.name}: a closed form is a Translator or an ImageTranslator")
        fitted = [copy.deepcopy(own).fit(moments) for moments in groups]
        if len(groups) == 1:
            return fitted[0]
        everything = reduce(operator.add, (pair for part in parts for pair in part if pair.count))
        return joined(fitted, self._groups(translator), everything.variation)


def _sums(sums: Pieces, group: slice, wanted: Wanted, width: int) -> PairMoments:
    """The sums of a ``group`` of tokens; without images they are zeros."""
    source, target, image = wanted.source, wanted.target, wanted.pair.image
    if not sums.count:
        return PairMoments.empty(width, 2 * width if image else width)
    return sums.joint(group, source, target) if image else sums.plain(group, source, target)


def _for(translator: ClosedForm, kept: PairMoments, held_out: PairMoments) -> PairMoments:
    """The sums over the images kept, with those held out as ``held_out``; over all images if ``translator`` needs none."""
    if not held_out.count or not kept.count:
        return kept if kept.count else held_out
    return replace(kept, held_out=held_out) if translator.held_out else kept + held_out
