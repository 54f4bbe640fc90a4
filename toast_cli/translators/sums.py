"""From batches of latents to fitted maps in closed form: what ``toast run`` and ``toast_cli.compress`` share.

Moments are kept for each group of tokens, and images that a translator wants held out are added up separately.
"""

import copy
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import torch

from toast_cli.moments.pair import PairMoments, r2
from toast_cli.moments.streamed import Layer
from toast_cli.translators.base import ClosedForm, FittedMap, ImageTranslator, Translator
from toast_cli.translators.by_token import groups_of, joined
from toast_cli.translators.pieces import Latents, Pair, Pieces, cut

# The share of the images that fitted maps are scored on, unless a translator asks for another, and by which healing chooses.
HELD_OUT = 0.2


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

    def for_fit(self, translator: ClosedForm) -> PairMoments:
        """What ``translator`` is fitted to: all images, or those kept with those held out as ``held_out`` if it wants some."""
        apart = translator.held_out and not self.among and self.seen.count and self.held_out.count
        return replace(self.seen, held_out=self.held_out) if apart else self.everything


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

    If that is 0 and the maps will be ``scored``, the moments of a fifth of the images are kept beside those of all. Latents
    have T ``tokens``, or any number if it is None; the first ``prefix`` are class and register tokens.
    """

    def __init__(self, wanted: Iterable[Wanted], prefix: int, tokens: int | None, scored: bool = False) -> None:
        wanted = list(wanted)
        self.prefix, self.tokens, self.scored = prefix, tokens, scored
        held_out = max((each.translator.held_out for each in wanted), default=0.0)
        self.among = scored and not held_out
        self.held_out = HELD_OUT if self.among else held_out
        pairs = dict.fromkeys(each.pair for each in wanted)
        pieces = cut(group for each in wanted for group in self._groups(each.translator))
        self.seen = Pieces(pairs, pieces, prefix)
        self.apart = Pieces(pairs, pieces, prefix, within=self.seen if self.among else None)

    def _groups(self, translator: ClosedForm) -> list[slice]:
        return groups_of(translator.tokens, self.prefix, self.tokens)

    @property
    def matrices(self) -> int:
        """How many D × D matrices are in memory once sums are there, at most."""
        return self.seen.matrices + (self.apart.matrices if self.held_out else 0)

    def update(self, images: np.ndarray, latents: Latents) -> None:
        """Add the latents (N, T, D) of the images with these numbers (N,).

        Raises FloatingPointError for values that are not finite, those after the first batch only when sums are asked for.
        """
        self._each(images, latents, Pieces.update)

    def choose_bases(self, images: np.ndarray, latents: Latents) -> None:
        """Choose the bases for products from the latents (N, T, D) of a first batch of images (N,), without adding it.

        Raises FloatingPointError for values that are not finite.
        """
        self._each(images, latents, Pieces.choose_bases)

    def _each(self, images: np.ndarray, latents: Latents, use: Callable[[Pieces, Latents], None]) -> None:
        apart = held_apart(images, self.held_out)
        seen = np.ones_like(apart) if self.among else ~apart
        for which, sums in (
            (seen, self.seen),
            (apart, self.apart),
        ):  # those held out last: they may need the bases of all
            if which.any():
                chosen = slice(None) if which.all() else _numbers(which, latents)
                use(sums, {layer: latents[layer][chosen] for layer in sums.layers})

    def of(self, wanted: Wanted, width: int) -> list[GroupSums]:
        """The sums that one map is fitted to, for latents of width D = ``width``: one for each group of tokens.

        Raises FloatingPointError if they are not finite.
        """
        return [
            GroupSums(_sums(self.seen, group, wanted, width), _sums(self.apart, group, wanted, width), self.among)
            for group in self._groups(wanted.translator)
        ]

    def fitted(self, translator: ClosedForm, parts: Sequence[GroupSums]) -> FittedMap:
        """A copy of ``translator`` fitted to the sums of each group of tokens, as one map; with its held-out R² if scored."""
        own = copy.deepcopy(translator)
        groups = [part.for_fit(translator) for part in parts]
        if isinstance(own, ImageTranslator):
            own.fit(groups, self.prefix)
            own.held_out_r2_ = self._score(parts, lambda: self._image_error(own, parts))
            return own
        if not isinstance(own, Translator):
            raise TypeError(f"{translator.name}: a closed form is a Translator or an ImageTranslator")
        fitted = [copy.deepcopy(own).fit(moments) for moments in groups]
        whole: FittedMap = fitted[0]
        if len(groups) > 1:
            everything = reduce(operator.add, (part.everything for part in parts))
            whole = joined(fitted, self._groups(translator), everything.variation)
        whole.held_out_r2_ = self._score(parts, lambda: _error(fitted, parts))
        return whole

    def _image_error(self, fitted: ImageTranslator, parts: Sequence[GroupSums]) -> float:
        """Σ ‖y − T(x, m)‖² on the images held out, of a map like ``fitted`` but fitted to the other images alone."""
        again = fitted.refitted([part.kept for part in parts], self.prefix)
        return again.error_on([part.held_out for part in parts])

    def _score(self, parts: Sequence[GroupSums], error: Callable[[], float | None]) -> float | None:
        """R² on the images held out, of maps like those fitted but fitted to the other images alone.

        None if it is not wanted, if there are no images of either kind, if nothing varies, or if moments do not tell the
        ``error`` of such a map.
        """
        if not self.scored or not all(0 < part.held_out.count < part.everything.count for part in parts):
            return None
        found = error()
        variation = reduce(operator.add, (part.held_out for part in parts)).variation
        return None if found is None or math.isnan(score := r2(found, variation)) else score


def _numbers(which: np.ndarray, latents: Latents) -> torch.Tensor:
    """The numbers (K,) of the images that the mask ``which`` (N,) picks, on the device of the ``latents``, sent there without
    waiting. With the mask itself, a GPU would have to say how many they are, and so finish all its work first."""
    device = next(iter(latents.values())).device
    return torch.from_numpy(np.flatnonzero(which)).to(device, non_blocking=True)


def _error(fitted: Sequence[Translator], parts: Sequence[GroupSums]) -> float | None:
    """Σ ‖y − T(x)‖² on the images held out, of maps like those ``fitted`` but fitted to the other images alone."""
    total = 0.0
    for translator, part in zip(fitted, parts, strict=True):
        if translator.as_affine(len(part.held_out.sum_x)) is None:
            return None
        total += translator.refitted(part.kept).error_on(part.held_out)
    return total


def _sums(sums: Pieces, group: slice, wanted: Wanted, width: int) -> PairMoments:
    """The sums of a ``group`` of tokens; without images they are zeros."""
    source, target, image = wanted.source, wanted.target, wanted.pair.image
    if not sums.count:
        return PairMoments.empty(width, 2 * width if image else width)
    return sums.joint(group, source, target) if image else sums.plain(group, source, target)
