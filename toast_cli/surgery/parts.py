"""The parts of a shortened model: a stem, then blocks that stay and maps in place of the others.

Shapes: N images, T tokens, D width.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from torch import nn

from toast_cli.layers import MapBlock
from toast_cli.models.backbone import Backbone
from toast_cli.models.timm_parts import Vit, with_blocks
from toast_cli.plans import Kept, PlanLike, kept_of


@dataclass(frozen=True)
class StemPart:
    """The whole timm model, used for everything but its blocks."""

    vit: Vit


@dataclass(frozen=True)
class BlockPart:
    """The original's block ``kept`` or half of it, healed or not, (N, T, D) -> (N, T, D)."""

    kept: Kept
    module: nn.Module


@dataclass(frozen=True)
class MapPart:
    """A map (N, T, D) -> (N, T, D) that does what the maps with these ``keys`` do, one after the other."""

    keys: tuple[Hashable, ...]
    module: nn.Module

    def __str__(self) -> str:
        return " ".join(map(str, self.keys))


Part: TypeAlias = StemPart | BlockPart | MapPart


def parts_of(backbone: Backbone, plan: PlanLike, maps: Mapping[Any, nn.Module]) -> list[Part]:
    """The parts of the shortened model of ``plan``, in order; ``maps`` holds its maps and healed blocks by operation."""

    def part(step: Any) -> Part:
        kept = kept_of(step)
        if kept is None:
            return MapPart((step,), maps[step])
        return BlockPart(kept, backbone.part(kept) if step == kept else maps[step])

    return [StemPart(backbone.vit), *map(part, plan.operations(backbone.depth))]


def join(parts: Sequence[Part]) -> Vit:
    """A timm model made of copies of the ``parts``, the first of which is a stem."""
    stem, *rest = parts
    if not isinstance(stem, StemPart):
        raise ValueError(f"a model begins with its stem, not with {stem}")
    modules = [
        part.module if isinstance(part, BlockPart) else MapBlock(part.module)
        for part in rest
        if not isinstance(part, StemPart)
    ]
    return with_blocks(stem.vit, modules)


def split(vit: Vit, parts: Sequence[Part]) -> list[Part]:
    """The parts of ``vit``, which was joined from ``parts`` and has been given other weights since."""
    blocks = iter(block.map if isinstance(block, MapBlock) else block for block in vit.blocks)
    return [StemPart(vit) if isinstance(part, StemPart) else replace(part, module=next(blocks)) for part in parts]
