"""The images of a run: where they come from, which are drawn, and how they become pixels."""

from typing import TYPE_CHECKING

from toast_cli import when_used

if TYPE_CHECKING:
    from toast_cli.data.dataset import Data, load

__all__ = ["Data", "load"]
__getattr__ = when_used(__name__, {"Data": "dataset", "load": "dataset"})
