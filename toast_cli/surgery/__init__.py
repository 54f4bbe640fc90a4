"""Turn a plan and its maps into a smaller timm model: build, fold, count, write and read it."""

from toast_cli.surgery.saved import load
from toast_cli.surgery.shortened import shorten

__all__ = ["load", "shorten"]
