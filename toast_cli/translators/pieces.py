"""Moments of a latent's tokens piece by piece, and of the mean of its patches: what the sums of any group are put together from.

A piece is the tokens between two cuts, such as the prefix tokens or the patches. For the mean m of an image's P patches
the products Σ_t x_tᵀ m over these patches are P mᵀm, so one row an image is enough; prefix tokens are few, and m is one more
latent beside them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

from torch import Tensor

from toast_cli.moments.pair import PairMoments
from toast_cli.moments.streamed import Layer, Moments

Latents = Mapping[Layer, Tensor]  # (N, T, D) each


@dataclass(frozen=True)
class Pair:
    """A source and a target; ``image``: whether the map between them sees the mean of the image's patches."""

    source: Layer
    target: Layer
    image: bool = False


@dataclass(frozen=True)
class _Mean:
    """The key of the mean of the patches of the latent ``layer``, (N, 1, D)."""

    layer: Layer

    def __str__(self) -> str:
        return str(self.layer)


def cut(groups: Iterable[slice]) -> list[slice]:
    """The pieces that every one of the ``groups`` is made of; the last may be open."""
    bounds = {bound for group in groups for bound in (group.start, group.stop)}
    inside = sorted(bound for bound in bounds if bound is not None)
    return [slice(*ends) for ends in zip(inside, [*inside[1:], None] if None in bounds else inside[1:], strict=False)]


class Pieces:
    """The moments of ``pairs`` of latents in each of the ``pieces`` of the tokens, the first ``prefix`` of which are no patches.

    If a map sees the image, no piece holds both prefix tokens and patches. ``within`` are the moments of all images where
    these are to be those of some of them, as for ``Moments``.
    """

    def __init__(
        self, pairs: Iterable[Pair], pieces: Sequence[slice], prefix: int, within: "Pieces | None" = None
    ) -> None:
        pairs = list(pairs)
        self.pieces, self.prefix = pieces, prefix
        plain = [(pair.source, pair.target) for pair in pairs]
        self.layers = list(dict.fromkeys(layer for ends in plain for layer in ends))
        seen = [pair for pair in pairs if pair.image]
        beside = [ends for p in seen for ends in ((p.source, _Mean(p.source)), (_Mean(p.source), p.target))]
        around: Sequence[Moments | None] = [None] * len(pieces) if within is None else within.moments
        self.moments: list[Moments] = [
            Moments(plain if self._of_patches(piece) else [*plain, *beside], within=whole)
            for piece, whole in zip(pieces, around, strict=True)
        ]
        means = ((_Mean(pair.source), _Mean(pair.target)) for pair in seen)
        self.means: Moments = Moments(means, within=None if within is None else within.means)

    def _of_patches(self, piece: slice) -> bool:
        return piece.start >= self.prefix

    @property
    def count(self) -> int:
        """How many rows of tokens were added."""
        return sum(moments.count for moments in self.moments)

    @property
    def matrices(self) -> int:
        """How many D × D matrices are in memory once sums are there, at most."""
        return sum(len(each.pairs) + 2 * len(each.layers) for each in (*self.moments, self.means))

    def update(self, latents: Latents) -> None:
        """Add the latents (N, T, D) of a batch. Raises FloatingPointError for values in the first that are not finite."""
        for moments, views in self._views(latents):
            moments.update(views)

    def choose_bases(self, latents: Latents) -> None:
        """Choose the bases for products from the latents (N, T, D) of a first batch, without adding it.

        Raises FloatingPointError for values that are not finite.
        """
        for moments, views in self._views(latents):
            moments.choose_bases(views)

    def _views(self, latents: Latents) -> Iterable[tuple[Moments, Latents]]:
        """The moments, each with what it adds up: (N, T', D) by layer for T' tokens, or (N, 1, D) for means."""
        means = {key: latents[key.layer][:, self.prefix :].mean(1, keepdim=True) for key in self.means.layers}
        for piece, moments in zip(self.pieces, self.moments, strict=True):
            own = {layer: latents[layer][:, piece] for layer in moments.layers if not isinstance(layer, _Mean)}
            size = next(iter(own.values())).shape[1]
            yield moments, {**own, **{key: means[key].expand(-1, size, -1) for key in moments.layers if key in means}}
        if self.means.layers:
            yield self.means, means

    def plain(self, group: slice, source: Layer, target: Layer) -> PairMoments:
        """The sums of x and y over the tokens of ``group``, which is made of whole pieces."""
        return reduce(add, [moments.pair(source, target) for moments in self._inside(group)])

    def joint(self, group: slice, source: Layer, target: Layer) -> PairMoments:
        """The sums of [x, m] (2D) and y over the tokens of ``group``, all of them prefix tokens or all patches."""
        tokens = self.plain(group, source, target)
        mean = _Mean(source)
        if not self._of_patches(group):
            inside = self._inside(group)
            cross = reduce(add, [moments.pair(source, mean).xy for moments in inside])
            return tokens.beside(reduce(add, [moments.pair(mean, target) for moments in inside]), cross)
        images = self.means.pair(mean, _Mean(target))
        patches = tokens.count // images.count
        each = {name: patches * getattr(images, name) for name in ("sum_x", "xx", "xy")}
        return tokens.beside(replace(images, **each), each["xx"])

    def _inside(self, group: slice) -> list[Moments]:
        """The moments of the pieces of a ``group``."""
        stop = float("inf") if group.stop is None else group.stop
        return [
            moments
            for piece, moments in zip(self.pieces, self.moments, strict=True)
            if group.start <= piece.start < stop
        ]
