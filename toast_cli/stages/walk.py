"""The trie walk: features of every plan in one pass over the images, each shared prefix computed once.

A plan is a sequence of operations from the stem to the readout. All plans of a run form a trie; for each batch it is
walked depth-first, so memory holds one path of activations. What comes before a plan's first translator is the
untouched model, computed by timm's own code, which also gives the latents inside its blocks; what comes after it is a
tail, computed by fused blocks. If the readout uses only the leading tokens, the last operation of a tail is computed for
those alone.
"""

from collections.abc import Container, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import torch
from torch import Tensor, nn

from toast_cli.layers import leading, rounded_on_gpus
from toast_cli.machine.side_by_side import GivenUpError, in_parts
from toast_cli.models.backbone import Backbone, Extras, FastBlock
from toast_cli.moments.streamed import Layer
from toast_cli.plans import STEM, Half, HealedBlock, Kept, PlanLike, Point, block_of, kept_of


@dataclass
class Node:
    """A prefix of operations: the plans that end with it, and the longer prefixes by their next operation."""

    plans: list[int] = field(default_factory=list)
    children: dict[Hashable, "Node"] = field(default_factory=dict)

    def evaluations(self, shortened: bool = False) -> float:
        """How many blocks are evaluated for one image, half ones as halves; the untouched model gives its middles for nothing."""
        total = 0.0
        for operation, child in self.children.items():
            kept = kept_of(operation)
            if isinstance(kept, Half):
                total += 0.5 if shortened or kept.block not in self.children else 0.0
            total += isinstance(kept, int)
            total += child.evaluations(shortened or kept is None)
        return total

    def tails(self, shortened: bool = False) -> Iterator[Kept | HealedBlock]:
        """The blocks and half blocks that come after a translator, healed or not, each as many times as it does so."""
        for operation, child in self.children.items():
            if shortened and isinstance(operation, int | Half | HealedBlock):
                yield operation
            yield from child.tails(shortened or block_of(operation) is None)


def build_trie(plans: Sequence[PlanLike], depth: int) -> Node:
    """The trie of all ``plans``; a node's ``plans`` are their positions in the sequence."""
    root = Node()
    for number, plan in enumerate(plans):
        node = root
        for operation in plan.operations(depth):
            node = node.children.setdefault(operation, Node())
        node.plans.append(number)
    return root


class Encoder:
    """Pixels -> the features of P plans. ``maps`` holds the module of every map and of every healed block in ``plans``.

    The untouched model is computed whole, so that its features equal those of timm's own forward pass bit for bit. With
    ``whole`` the result is X^(L−1), all tokens of the last latent, instead of the readout's features.
    """

    def __init__(
        self, backbone: Backbone, plans: Sequence[PlanLike], maps: Mapping[Any, nn.Module], whole: bool = False
    ) -> None:
        self.backbone = backbone
        self.maps = maps
        self.read = (lambda latent: latent) if whole else backbone.readout
        self.rows = None if whole else backbone.readout_tokens
        self.trie = build_trie(plans, backbone.depth)
        self.given_up = Event()
        self.fused: dict[Hashable, FastBlock] = {}
        for block, keys in by_block(self.trie.tails()).items():
            parts: dict[Hashable, nn.Module] = {
                key: maps[key] if isinstance(key, HealedBlock) else backbone.part(key) for key in keys
            }
            self.fused |= backbone.fused_blocks(block, parts)

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> float32 (N, P, F), or (N, P, T, D) if ``whole``."""
        return _joined(in_parts(self.encode, pixels, self.given_up))

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """The same, by all threads together."""
        features: dict[int, Tensor] = {}
        self._walk(self.trie, *self.backbone.stem(pixels), features)
        return torch.stack([features[plan] for plan in range(len(features))], dim=1)

    def _walk(
        self, node: Node, latent: Tensor, extras: Extras, features: dict[int, Tensor], shortened: bool = False
    ) -> None:
        """``latent`` (N, T, D) is the output of ``node``'s prefix; ``shortened`` says whether a translator is in it."""
        if self.given_up.is_set():
            raise GivenUpError
        for plan in node.plans:
            features[plan] = self.read(latent)
        untouched = {} if shortened else self._untouched(node, latent, extras)
        for operation, child in node.children.items():
            rows = None if child.children else self.rows
            if block_of(operation) is None:
                with rounded_on_gpus(self.backbone.is_rounded(_start(operation))):
                    mapped = leading(self.maps[operation], latent, rows)
                self._walk(child, mapped, extras, features, shortened=True)
            elif shortened:
                self._walk(child, self.fused[operation](latent, extras, rows), extras, features, shortened=True)
            else:
                self._walk(child, untouched[operation], extras, features)

    def _untouched(self, node: Node, latent: Tensor, extras: Extras) -> dict[Hashable, Tensor]:
        """What the untouched model makes of ``latent`` (N, T, D) by the block that comes next in ``node``, by the first half of
        that block, or by both at once."""
        found: dict[Hashable, Tensor] = {}
        kept = {key for key in map(kept_of, node.children) if key is not None}
        for half in (key for key in kept if isinstance(key, Half)):
            if half.block in kept:
                found[half], found[half.block] = self.backbone.block_and_middle(half.block, latent, extras)
            else:
                found[half] = self.backbone.block(half.block, latent, extras, self.backbone.part(half))
        for block in (key for key in kept if isinstance(key, int) and key not in found):
            found[block] = self.backbone.block(block, latent, extras)
        return found


def _start(operation: Any) -> Point:
    """The point that a map, or the span whose place it takes, begins at."""
    return getattr(operation, "span", operation).start


def by_block(tails: Iterable[Kept | HealedBlock]) -> dict[int, set[Kept | HealedBlock]]:
    """The blocks and half blocks ``tails`` by their number in the model."""
    found: dict[int, set[Kept | HealedBlock]] = {}
    for key in tails:
        if (block := block_of(key)) is not None:
            found.setdefault(block, set()).add(key)
    return found


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """The parts of a batch as one, without copying a single one."""
    return torch.cat(list(parts)) if len(parts) > 1 else parts[0]


def latents(backbone: Backbone, pixels: Tensor, middles: Container[int] = ()) -> dict[Layer, Tensor]:
    """uint8 (N, 3, H, W) -> X^(i) (N, T, D) for i = −1 … L−1, of the untouched model.

    For a block i in ``middles``, X^(i−½) is what lies between its two branches.
    """
    parts = in_parts(lambda part: _latents(backbone, part, middles), pixels)
    return {layer: _joined([part.pop(layer) for part in parts]) for layer in list(parts[0])}  # each is free once joined


@torch.inference_mode()
def _latents(backbone: Backbone, pixels: Tensor, middles: Container[int]) -> dict[Layer, Tensor]:
    stem, extras = backbone.stem(pixels)
    result: dict[Layer, Tensor] = {STEM: stem}
    for i in range(backbone.depth):
        if i in middles:
            result[i - 0.5], result[i] = backbone.block_and_middle(i, result[i - 1], extras)
        else:
            result[i] = backbone.block(i, result[i - 1], extras)
    return result
