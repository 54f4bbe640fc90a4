"""Turn a plan and its maps into a smaller model, an ordinary timm module."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from toast_cli.models.backbone import Backbone
from toast_cli.models.timm_parts import Vit
from toast_cli.plans import PlanLike
from toast_cli.surgery.folding import fold
from toast_cli.surgery.parts import join, parts_of


def shorten(backbone: Backbone, plan: PlanLike, maps: Mapping[Any, nn.Module], folded: bool = True) -> Vit:
    """A copy of the backbone's timm model with ``maps`` in place of the blocks of ``plan``, ``folded`` where possible.

    It takes normalised images (N, 3, H, W), as the original does, and shares no memory with it.
    """
    parts = parts_of(backbone, plan, maps)
    return join(fold(parts) if folded else parts)
