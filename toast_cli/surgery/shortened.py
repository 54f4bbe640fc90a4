"""A plan and its maps become a smaller model, an ordinary timm module."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from toast_cli.models.backbone import Backbone
from toast_cli.models.timm_parts import Vit
from toast_cli.plans import Shortened
from toast_cli.surgery.folding import fold
from toast_cli.surgery.parts import join, parts_of


def shorten(backbone: Backbone, plan: Shortened, maps: Mapping[Any, nn.Module], folded: bool = True) -> Vit:
    """A copy of the backbone's timm model without the blocks of ``plan``, with ``maps`` in their place, folded where they can be.

    It takes normalised images (N, 3, H, W), as the original does, and shares no memory with it.
    """
    parts = parts_of(backbone, plan, maps)
    return join(fold(parts) if folded else parts)
