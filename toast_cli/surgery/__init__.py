"""Turn a plan and its maps into a smaller timm model: build, fold, count, write and read it."""

from typing import TYPE_CHECKING

from toast_cli import when_used

if TYPE_CHECKING:
    from toast_cli.surgery.elastic import load_elastic
    from toast_cli.surgery.saved import load
    from toast_cli.surgery.shortened import shorten

__all__ = ["load", "load_elastic", "shorten"]
__getattr__ = when_used(__name__, {"load": "saved", "load_elastic": "elastic", "shorten": "shortened"})
