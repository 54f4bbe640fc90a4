"""Healing: follow shortened models block by block, and refit the last layers of each block to what it receives there.

Behind a map, a block gets inputs that it has never seen. What its output then misses, the original's latent minus the
shortened model's, is regressed on the hidden layer of each of its branches by ridge and added to that branch's last
layer. Plans share the blocks that they have in common, as in the walk.

Latents are kept meanwhile: whole ones where a plan's first map begins, a sample of tokens as targets.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from toast_cli.machine.team import ALONE, Team
from toast_cli.models.backbone import Backbone, Extras
from toast_cli.models.branches import Branch, branches_of
from toast_cli.moments.weighted import WeightedSums
from toast_cli.plans import Half, HealedBlock, Map, Point, Variant
from toast_cli.runs.latents import HeldLatents, Latents
from toast_cli.stages.originals import Originals, branch_ends
from toast_cli.stages.walk import Node, build_trie
from toast_cli.translators.refit import refit
from toast_cli.translators.sums import HELD_OUT, held_apart

Tensors = Mapping[str, Tensor]  # of a block, by name


class Place:
    """The latents of a shortened model at one place: made when they are read and, with a ``file``, left there for the next time.

    ``before`` is a place that only this one reads; it is removed with this one, or once it is no longer needed.
    """

    def __init__(
        self,
        make: Callable[[int, int], Tensor],
        images: int,
        file: Latents | HeldLatents | None = None,
        before: "Place | None" = None,
    ) -> None:
        self._make, self._images, self._file, self._before = make, images, file, before
        self._written = 0

    def read(self, start: int, stop: int) -> Tensor:
        """The latents (N, T, D) of the images from number ``start`` to ``stop``; files are written as far as reads go in order."""
        if self._file is None:
            return self._make(start, stop)
        if stop <= self._written:
            return self._file.read(start, stop)
        latent = self._make(start, stop)
        if start == self._written:
            self._file.append(latent)
            self._written = stop
        if self._written == self._images and self._before is not None:
            self._before.remove()
        return latent

    def remove(self) -> None:
        """Remove its file, and that of the place before."""
        if self._file is not None:
            self._file.remove()
            self._written = 0
        if self._before is not None:
            self._before.remove()


class Chain:
    """Follows healed plans of one number of fit images from their first maps on.

    Attributes:
        maps: modules (N, T, D) -> (N, T, D) by map. Those of first maps are given, ``fit_map`` makes others.
        healed: what each healed block has in place of its own tensors.
    """

    def __init__(
        self,
        originals: Originals,
        backbone: Backbone,
        maps: dict[Map, nn.Module],
        healed: dict[HealedBlock, Tensors],
        fit_map: Callable[[Map, Iterator[tuple[np.ndarray, Tensor, Tensor]]], nn.Module],
        keep: Callable[[HealedBlock, Tensors], None],
        advance: Callable[[int], None] = lambda images: None,
        team: Team = ALONE,
    ) -> None:
        """``fit_map`` gets image numbers (N,), sources (N, T, D) and targets (N, T, D) batch by batch. ``keep`` is called for
        every block once it is healed, ``advance`` with the number of images of every batch of a regression."""
        self.maps, self.healed = maps, healed
        self._originals, self._backbone, self._team = originals, backbone, team
        self._fit_map, self._keep, self._advance = fit_map, keep, advance
        self._device = backbone.mean.device
        self._extras = self._of_no_image()
        self._files = 0

    @torch.inference_mode()
    def follow(self, plans: Sequence[Variant], images: int, batch_size: int) -> None:
        """Heal the blocks of all ``plans``, which are fitted on the images with numbers below ``images``.

        Blocks that are healed already are not healed again. Raises FloatingPointError where a latent is not finite.
        """
        self._images, self._batch_size = self._originals.below(images), batch_size
        self._files = 0
        self._from(build_trie(plans, self._backbone.depth), None)

    def modules(self) -> dict[HealedBlock, nn.Module]:
        """The healed blocks as modules (N, T, D) -> (N, T, D)."""
        return {key: self._backbone.healed(key.block, tensors) for key, tensors in self.healed.items()}

    def _of_no_image(self) -> Extras:
        """What blocks take as well as the latent, which is the same for all images."""
        shape = self._backbone.image_shape
        return self._backbone.stem(torch.zeros(1, *shape, dtype=torch.uint8, device=self._device))[1]

    def _from(self, node: Node, place: Place | None) -> None:
        """Heal all that follows ``place``, which is None before the first map."""
        for step, child in node.children.items():
            if self._missing(step, child):
                after = self._after(step, place)
                self._from(child, after)
                if after is not None:
                    after.remove()

    def _missing(self, step: object, node: Node) -> bool:
        if isinstance(step, HealedBlock) and step not in self.healed:
            return True
        if isinstance(step, Map) and step not in self.maps:
            return True
        return any(self._missing(*below) for below in node.children.items())

    def _after(self, step: object, place: Place | None) -> Place | None:
        """The place behind ``step``, which is fitted if it has to be."""
        if isinstance(step, HealedBlock) and place is not None:
            return self._behind_block(step, place)
        if not isinstance(step, Map):
            return None
        source = place or self._on_device(self._originals.whole[step.span.start])
        if step not in self.maps:
            target = self._on_device(self._originals.whole[step.span.end])
            pairs = ((self._numbers(*own), source.read(*own), target.read(*own)) for own in self._batches())
            self.maps[step] = self._fit_map(step, pairs)
        module = self.maps[step]
        return Place(lambda start, stop: module(source.read(start, stop)), self._images)

    def _behind_block(self, key: HealedBlock, place: Place) -> Place:
        known = self.healed.get(key)
        tensors: dict[str, Tensor] = dict(known or {})
        owned = None  # places that are read on the way to the next one alone
        number = key.block.block if isinstance(key.block, Half) else key.block
        branches = branches_of(self._backbone.part(key.block))
        for branch, layer in zip(branches, branch_ends(key.block), strict=True):
            # Attention looks at all tokens, so it runs once and its hidden layer is kept; the MLP's is wide and quick to make again.
            kept = branch.mixes_tokens and known is None
            hidden = self._hidden(number, branch, place, self._new_file() if kept else None)
            if known is None:
                tensors |= self._refitted(number, branch, layer, place, hidden)
            fitted = branch.with_tensors({name: each.to(self._device) for name, each in tensors.items()})
            file = self._new_file() if branch is branches[-1] else None
            owned = place = Place(self._end(number, fitted, place, hidden), self._images, file, owned or hidden)
        if known is None:
            self.healed[key] = tensors
            self._keep(key, tensors)
        return place

    def _hidden(self, block: int, branch: Branch, place: Place, file: Latents | HeldLatents | None) -> Place:
        return Place(
            lambda start, stop: self._backbone.hidden(block, branch, self._read(place, start, stop), self._extras),
            self._images,
            file,
        )

    def _end(self, block: int, branch: Branch, place: Place, hidden: Place) -> Callable[[int, int], Tensor]:
        return lambda start, stop: self._backbone.end(
            block, branch, self._read(place, start, stop), self._read(hidden, start, stop)
        )

    def _read(self, place: Place, start: int, stop: int) -> Tensor:
        return place.read(start, stop).to(self._device)

    def _refitted(self, block: int, branch: Branch, layer: Point, place: Place, hidden: Place) -> Tensors:
        """The branch's last layer, fitted again to what it receives at ``place``, with the original's X^(``layer``) as target."""
        target, sample = self._originals.targets[layer], self._originals.sample
        sums = [WeightedSums(branch.last.in_features, self._backbone.width) for _ in range(2)]  # kept, held out
        for start, stop in self._batches():
            numbers = self._numbers(start, stop)
            latent = sample.of(self._read(place, start, stop), numbers)  # (N, k, D)
            rows = (  # (N, k, F)
                sample.of(self._read(hidden, start, stop), numbers)
                if branch.mixes_tokens
                else self._backbone.hidden(block, branch, latent, self._extras)
            )
            missing = target.read(start, stop).to(latent) - self._backbone.end(block, branch, latent, rows)
            self._add(sums, numbers, rows.float(), missing)
            self._advance(stop - start)
        return self._solved(block, branch, *sums)

    def _add(self, sums: list[WeightedSums], numbers: np.ndarray, rows: Tensor, missing: Tensor) -> None:
        """Add rows (N, k, F) and targets (N, k, D) of these images to the sums of those kept, or of those held out."""
        apart = held_apart(numbers, HELD_OUT)
        weights = self._originals.sample.weights.to(rows.device, non_blocking=True)
        for each, chosen in zip(sums, (~apart, apart), strict=True):
            own = torch.from_numpy(np.flatnonzero(chosen)).to(rows.device, non_blocking=True)  # as in Sums, no mask
            each.update(rows[own].flatten(0, 1), missing[own].flatten(0, 1), weights.expand(len(own), -1).flatten())

    def _solved(self, block: int, branch: Branch, kept: WeightedSums, held_out: WeightedSums) -> Tensors:
        """The branch's tensors by name, from what all processes have summed."""
        seen, apart = (self._team.add_up(each.moments()) for each in (kept, held_out))
        if not all(torch.isfinite(each.yy.trace()) for each in (seen, apart)):
            raise FloatingPointError(f"the latents in front of block {block}")
        if not self._team.leads:
            return self._team.share({})
        found = refit(seen, apart, intercept=branch.last.bias is not None)
        return self._team.share(branch.refitted(found.weight, found.bias))

    def _batches(self) -> Iterator[tuple[int, int]]:
        for start in range(0, self._images, self._batch_size):
            yield start, min(start + self._batch_size, self._images)

    def _numbers(self, start: int, stop: int) -> np.ndarray:
        return self._originals.numbers[start:stop]

    def _on_device(self, file: Latents | HeldLatents) -> Place:
        return Place(lambda start, stop: file.read(start, stop).to(self._device), self._images)

    def _new_file(self) -> Latents | HeldLatents:
        self._files += 1
        file = self._originals.file(f"place{self._files}")
        file.remove()  # of an attempt that ran out of memory
        return file
