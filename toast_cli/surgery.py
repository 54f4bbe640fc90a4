"""Plan + translators -> a smaller model that is an ordinary timm module."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from toast_cli.backbone import Backbone
from toast_cli.folding import Part, fold
from toast_cli.layers import MapBlock
from toast_cli.plans import STEM, Shortened
from toast_cli.timm_parts import Vit, with_blocks


def parts(backbone: Backbone, plan: Shortened, maps: Mapping[Any, nn.Module]) -> list[Part]:
    """What the shortened model is made of, the stem first, then blocks by their numbers and maps by their keys."""
    steps = plan.operations(backbone.depth)
    return [
        (STEM, backbone.vit),
        *((step, backbone.blocks[step] if isinstance(step, int) else maps[step]) for step in steps),
    ]


def join(made: Sequence[Part]) -> Vit:
    """A timm model of copies of the parts, a stem first."""
    (_, vit), *rest = made
    return with_blocks(vit, [module if isinstance(name, int) else MapBlock(module) for name, module in rest])  # type: ignore[arg-type]


def split(vit: Vit, names: Sequence[Any]) -> list[Part]:
    """The parts of a shortened model, whose blocks are what ``names`` say: the inverse of ``join``."""
    blocks = (block.map if isinstance(block, MapBlock) else block for block in vit.blocks)
    return [(STEM, vit), *zip(names, blocks, strict=True)]


def shorten(backbone: Backbone, plan: Shortened, maps: Mapping[Any, nn.Module], folded: bool = True) -> Vit:
    """A copy of the backbone's timm model with the blocks of ``plan`` gone and ``maps`` in their place, where they are not ``folded``.

    Takes normalised images (N, 3, H, W), as the original does; shares no memory with it.
    """
    made = parts(backbone, plan, maps)
    return join(fold(made) if folded else made)
