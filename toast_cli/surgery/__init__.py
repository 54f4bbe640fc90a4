"""A plan and its maps become a smaller timm model: built, folded, counted, written and read."""

from toast_cli.surgery.saved import load
from toast_cli.surgery.shortened import shorten

__all__ = ["load", "shorten"]
