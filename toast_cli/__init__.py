"""Replace spans of a vision transformer's blocks by closed-form maps, and measure what that costs and what it saves.

``compress`` shortens a model in memory, ``load`` reads what ``toast export`` wrote; ``Plan`` and ``Span`` say what leaves.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toast_cli.in_memory import compress
    from toast_cli.plans import Plan, Span
    from toast_cli.saved import load

__all__ = ["Plan", "Span", "__version__", "compress", "load"]
__version__ = "0.1.0"
_HOMES = {"compress": "in_memory", "load": "saved", "Plan": "plans", "Span": "plans"}


def __getattr__(name: str) -> Any:
    """Looked up when they are asked for: the command line should not wait for torch to say its version."""
    if name not in _HOMES:
        raise AttributeError(f"module 'toast_cli' has no attribute {name!r}")
    return getattr(import_module(f"toast_cli.{_HOMES[name]}"), name)
