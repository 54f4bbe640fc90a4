"""The images of a run: where they come from, which are drawn, and how they become pixels."""

from toast_cli.data.dataset import Data, load

__all__ = ["Data", "load"]
