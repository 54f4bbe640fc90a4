"""Vision transformers, built by timm and cut into stem, blocks and readout."""

from toast_cli.models.backbone import Backbone
from toast_cli.models.factory import load

__all__ = ["Backbone", "load"]
