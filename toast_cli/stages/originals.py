"""What the untouched model makes of the fit images, kept while blocks are healed towards it.

Shapes: N images, T tokens of which the last P are patches, k tokens looked at, D width.
"""

from collections.abc import Collection, Mapping, Set
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from toast_cli.models.backbone import Backbone
from toast_cli.models.branches import branches_of
from toast_cli.moments.streamed import Layer
from toast_cli.plans import Kept, Point, Variant, ends_of, middles
from toast_cli.runs import contents
from toast_cli.runs.latents import HeldLatents, Latents
from toast_cli.stages.walk import latents

_ROWS = 40  # for each unknown of a regression: more tokens of the same images add little
_FEWEST = 4  # one patch in so many is looked at in any case


def branch_ends(kept: Kept) -> tuple[Point, ...]:
    """The points that the branches of a block, or of half of one, lead to."""
    return (kept - 0.5, kept) if isinstance(kept, int) else (ends_of(kept)[1],)


class Sample:
    """The tokens of each image that regressions look at: all prefix tokens and k of the P patches, others in every image.

    The tokens of the readout, if it looks at a few only, weigh as much as all others together: probes see nothing else.
    """

    def __init__(self, backbone: Backbone, images: int | None) -> None:
        prefix, read = backbone.prefix_tokens, backbone.readout_tokens or 0
        widest = max(branch.last.in_features for branch in branches_of(backbone.blocks[-1]))
        self._prefix, self._patches = prefix, backbone.tokens - prefix
        wanted = self._patches if images is None else -(-_ROWS * widest // images) - prefix
        self.picked = min(max(wanted, -(-self._patches // _FEWEST)), self._patches)
        share = self.picked / self._patches
        self.weights = torch.ones(prefix + self.picked)  # (k,)
        self.weights[:prefix] = share
        self._known: dict[int, np.ndarray] = {}
        if read:
            self.weights[:read] = share * (backbone.tokens - read) / read

    def __len__(self) -> int:
        return len(self.weights)

    def of(self, latent: Tensor, numbers: np.ndarray) -> Tensor:
        """The sampled tokens (N, k, …) of a latent (N, T, …) of the images with these ``numbers`` (N,)."""
        if self.picked == self._patches:
            return latent
        tokens = torch.from_numpy(np.stack([self._tokens(int(number)) for number in numbers]))
        tokens = tokens.to(latent.device, non_blocking=True)
        return latent.gather(1, tokens[..., None].expand(-1, -1, latent.shape[2]))

    def _tokens(self, number: int) -> np.ndarray:
        if number not in self._known:
            patches = np.random.default_rng(number).choice(self._patches, self.picked, replace=False)
            self._known[number] = np.concatenate([np.arange(self._prefix), self._prefix + np.sort(patches)])
        return self._known[number]


class Originals:
    """What the untouched model makes of the fit images of this process, for some healed plans.

    Attributes:
        in_memory: whether the latents stay on the model's device; if not, they are on disk in ``folder``.
    """

    def __init__(
        self,
        folder: Path,
        backbone: Backbone,
        plans: Collection[Variant],
        images: int | None,
        rank: int = 0,
        in_memory: bool = False,
    ) -> None:
        """``images``: how many the smallest fit has, which decides how many tokens of each are needed; None: all are."""
        self.in_memory = in_memory
        maps = {key for plan in plans for key in plan.maps}
        first = {key.span.start for key in maps if not key.after.spans}
        chains = [plan.healed_blocks(backbone.depth) for plan in plans]
        healed = {key.block for each in chains for key in each}
        self._longest = max(map(len, chains), default=0)
        self.sample = Sample(backbone, images)
        self._backbone, self._folder, self._rank = backbone, folder, rank
        whole = first | {key.span.end for key in maps if key.after.spans}
        self.whole = {i: self.file(f"{i}-whole") for i in sorted(whole)}
        size = len(self.sample)
        self.targets = {layer: self.file(f"{layer}", size) for layer in sorted(set(chain(*map(branch_ends, healed))))}
        self.inside = middles((*self.whole, *self.targets))
        self.numbers = np.zeros(0, dtype=np.int64)  # of the images seen, in order

    def file(self, name: str, tokens: int | None = None) -> Latents | HeldLatents:
        """A place for latents of so many ``tokens``, by default of all."""
        if self.in_memory:
            return HeldLatents()
        path = self._folder / contents.latents(f"{self._rank}-{name}")
        return Latents(path, tokens or self._backbone.tokens, self._backbone.width)

    def bytes(self, images: int) -> int:
        """What so many images take, with a place for each block of the longest chain and one more."""
        whole = len(self.whole) + self._longest + 1
        tokens = whole * self._backbone.tokens + len(self.targets) * len(self.sample)
        return 4 * images * tokens * self._backbone.width

    def encode(self, pixels: Tensor, inside: Set[int] = frozenset()) -> dict[Layer, Tensor]:
        """uint8 (N, 3, H, W) -> latents (N, T, D) of the untouched model, also between the branches of healed blocks and of the
        blocks ``inside``."""
        return latents(self._backbone, pixels, self.inside | inside)

    def add(self, numbers: np.ndarray, found: Mapping[Layer, Tensor]) -> None:
        """Append the latents (N, T, D) of the images with these ``numbers`` (N,), which rise from batch to batch."""
        for layer, file in self.whole.items():
            file.append(found[layer])
        for point, file in self.targets.items():
            file.append(self.sample.of(found[point], numbers))
        self.numbers = np.concatenate([self.numbers, numbers])

    def below(self, number: int) -> int:
        """How many of the images seen have a lower ``number``."""
        return int(np.searchsorted(self.numbers, number))

    def restart(self) -> None:
        """Forget all images."""
        self.numbers = self.numbers[:0]
        for file in (*self.whole.values(), *self.targets.values()):
            file.remove()
