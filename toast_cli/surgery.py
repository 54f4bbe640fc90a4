"""Plan + translators -> a smaller model that is an ordinary timm module."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from toast_cli.backbone import Backbone, Vit
from toast_cli.folding import Part, fold
from toast_cli.layers import MapBlock
from toast_cli.plans import Shortened


def parts(backbone: Backbone, plan: Shortened, maps: Mapping[Any, nn.Module], folded: bool = False) -> list[Part]:
    """What the shortened model is made of, from the stem to the readout: blocks by their number, maps by their span's text.

    ``folded``: maps that can be are merged, or moved into the blocks before them.
    """
    made: list[Part] = [
        (step, backbone.blocks[step]) if isinstance(step, int) else (str(step), maps[step])
        for step in plan.operations(backbone.depth)
    ]
    return fold(made) if folded else made


def join(backbone: Backbone, made: Sequence[Part]) -> Vit:
    """A copy of the backbone's timm model with the parts for its blocks."""
    return backbone.shortened([module if isinstance(name, int) else MapBlock(module) for name, module in made])


def shorten(backbone: Backbone, plan: Shortened, maps: Mapping[Any, nn.Module]) -> Vit:
    """A copy of the backbone's timm model with the blocks of ``plan`` gone and ``maps`` in their place.

    Takes normalised images (N, 3, H, W), as the original does; shares no memory with it.
    """
    return join(backbone, parts(backbone, plan, maps))
