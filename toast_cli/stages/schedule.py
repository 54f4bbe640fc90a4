"""The rounds of a race: which images each has, how many plans go on, and what that costs at least and at most."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toast_cli.data.dataset import Data
from toast_cli.data.draws import stratified
from toast_cli.plans import Variant
from toast_cli.stages.job import Job
from toast_cli.stages.racing import Settings
from toast_cli.stages.unseen import TRAININGS
from toast_cli.stages.walk import build_trie

_CHEAP = 2 / 3  # of the model's blocks; docs/race.md has what comes of it


@dataclass(frozen=True)
class Schedule:
    """``parts`` lists the positions (train, test) of the images that each round adds; the last adds all that are left.

    ``sizes`` are the numbers of plans of each size at the start, ``chance`` is that of one comparison to go wrong. ``cheap`` plans of
    a size go on at least, if there are so many: as many as the blocks that they keep add up to two thirds of the model's.
    """

    settings: Settings
    parts: tuple[tuple[np.ndarray, np.ndarray], ...]
    sizes: dict[Any, int]
    cheap: dict[Any, int]

    @classmethod
    def of(cls, settings: Settings, data: Data, variants: Sequence[Variant], depth: int) -> "Schedule":
        """Stratified draws by ``data.seed``, each of which holds the one before; train images have the same share as test images."""
        counts, images = [], settings.test_images
        while images < len(data.test):
            counts.append((-(-len(data.train) * images // len(data.test)), images))
            images *= 2
        parts = []
        for split, ends in zip((data.train, data.test), zip(*counts, strict=True) if counts else ((), ()), strict=True):
            parts.append(list(map(np.sort, np.split(stratified(split.labels, data.seed), ends))))
        sizes = by_size(variants)
        kept = {key: max(depth - own[0].plan.blocks_removed, 0.5) for key, own in sizes.items()}  # blocks of a plan
        return cls(
            settings,
            tuple(zip(*parts, strict=True)),
            {key: len(own) for key, own in sizes.items()},
            {key: int(_CHEAP * depth / blocks + 1e-9) for key, blocks in kept.items()},
        )

    @property
    def rounds(self) -> int:
        """After how many rounds plans may leave."""
        return len(self.parts) - 1

    @property
    def chance(self) -> float:
        """The chance that one comparison may go wrong, so that ``confidence`` holds for those of every size's best plan together."""
        comparisons = max(self.rounds, 1) * sum(count - 1 for count in self.sizes.values())
        return (1 - self.settings.confidence) / max(comparisons, 1)

    def places(self, size: Any, finished: int) -> int:
        """How many plans of a ``size`` go on at most once so many rounds are finished."""
        share = int(np.ceil(self.sizes[size] * self.settings.keep**finished - 1e-9))
        return max(1, share, min(self.cheap[size], self.sizes[size]))

    def images(self, number: int) -> int:
        """How many train and test images round ``number`` adds."""
        return sum(map(len, self.parts[number]))

    def rows_at_most(self) -> int:
        """How many rows of features, one for a plan and an image, are on the disk at once at most."""
        plans = [1 + sum(self.places(size, number) for size in self.sizes) for number in range(len(self.parts))]
        images = [self.images(number) for number in range(len(self.parts))]
        in_rounds = sum(count * each for count, each in zip(plans, images, strict=True))
        return in_rounds + sum(images) * plans[-1]

    def in_words(self, variants: Sequence[Variant], depth: int) -> str:
        """What the race begins with, and what it costs at least and at most."""
        train, test = map(len, self.parts[0])
        if not self.rounds:
            return f"sweep=race: there are no more than sweep.test_images={self.settings.test_images} test images, so every plan has all of them"
        full = self._full(variants, depth)
        few, many = (full / evaluations for evaluations in reversed(self.bounds(variants, depth)))
        return (
            f"sweep=race: {self.rounds} rounds, the first on {train} train and {test} test images; {few:.1f} to {many:.1f} times fewer block "
            "evaluations than a full sweep"
        )

    def seconds(self, full: Mapping[str, float], job: Job) -> tuple[float, float]:
        """Seconds at least and at most, from those of the stages of a full sweep. A round's probes take up to as long as its own,
        each time that they are trained."""
        whole = self._full(job.variants, job.backbone.depth)
        least, most = (part / whole for part in self.bounds(job.variants, job.backbone.depth))
        trainings = len(job.seeds) + self.rounds * (len(job.seeds) + TRAININGS)
        probes = full["probe"] * trainings / len(job.seeds)
        return full["fit"] + least * full["encode"], full["fit"] + most * full["encode"] + probes

    def _full(self, variants: Sequence[Variant], depth: int) -> float:
        """Block evaluations of a full sweep."""
        return sum(map(self.images, range(len(self.parts)))) * build_trie(variants, depth).evaluations()

    def bounds(self, variants: Sequence[Variant], depth: int) -> tuple[float, float]:
        """Block evaluations of the whole race at least and at most: the cheapest plan of each size alone wins at once, or the
        costliest go on as long as there are places."""

        def cost(each: Variant) -> float:
            return build_trie([variants[0], each], depth).evaluations()

        least = most = 0.0
        sizes = {key: sorted(own, key=cost) for key, own in by_size(variants).items()}
        for number in range(len(self.parts)):
            for_sure = [plan for own in sizes.values() for plan in (own[:1] if number else own)]
            at_most = [plan for key, own in sizes.items() for plan in own[-self.places(key, number) :]]
            least, most = (
                total + self.images(number) * build_trie([variants[0], *chosen], depth).evaluations()
                for total, chosen in ((least, for_sure), (most, at_most))
            )
        return least, most


def by_size(variants: Sequence[Variant]) -> dict[Any, list[Variant]]:
    """The plans that compete: those that remove as many blocks, with maps of as many fit images. The untouched model is in no size."""
    found: dict[Any, list[Variant]] = {}
    for each in variants:
        if each.plan.spans:
            found.setdefault((each.fit_images, each.plan.blocks_removed), []).append(each)
    return found
