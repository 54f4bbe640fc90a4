"""Vision transformers, built by timm and cut into stem, blocks and readout."""

from typing import TYPE_CHECKING

from toast_cli import when_used

if TYPE_CHECKING:
    from toast_cli.models.backbone import Backbone
    from toast_cli.models.factory import load

__all__ = ["Backbone", "load"]
__getattr__ = when_used(__name__, {"Backbone": "backbone", "load": "factory"})
