"""Replace spans of a vision transformer's blocks by closed-form maps, and measure what that costs and what it saves.

``compress`` shortens a model in memory, ``load`` reads what ``toast export`` wrote; ``Plan`` and ``Span`` say which blocks leave.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toast_cli.in_memory import compress
    from toast_cli.plans import Plan, Span
    from toast_cli.surgery.saved import load

__version__ = "0.1.0"
__all__ = ["Plan", "Span", "__version__", "compress", "load"]
_HOMES = {"compress": "in_memory", "load": "surgery.saved", "Plan": "plans", "Span": "plans"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: ``toast --version`` should not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'toast_cli' has no attribute {name!r}")
    return getattr(import_module(f"toast_cli.{_HOMES[name]}"), name)
