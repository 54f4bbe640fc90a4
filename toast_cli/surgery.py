"""Plan + translators -> a smaller model that is an ordinary timm module."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from toast_cli.backbone import Backbone, Vit
from toast_cli.layers import MapBlock
from toast_cli.plans import Shortened


def shorten(backbone: Backbone, plan: Shortened, maps: Mapping[Any, nn.Module]) -> Vit:
    """A copy of the backbone's timm model with the blocks of ``plan`` gone and ``maps`` in their place.

    Takes normalised images (N, 3, H, W), as the original does; shares no memory with it.
    """
    return backbone.shortened(
        [
            backbone.blocks[operation] if isinstance(operation, int) else MapBlock(maps[operation])
            for operation in plan.operations(backbone.depth)
        ]
    )
