"""Replace spans of a vision transformer's blocks by closed-form maps, and measure what that costs and what it saves.

``compress`` shortens a model in memory, ``load`` reads what ``toast export`` wrote, ``load_elastic`` all plans of an export with several;
``Plan`` and ``Span`` say which blocks leave.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toast_cli.in_memory import compress
    from toast_cli.plans import Plan, Span
    from toast_cli.surgery.elastic import load_elastic
    from toast_cli.surgery.saved import load

__version__ = "0.1.0"
__all__ = ["Plan", "Span", "__version__", "compress", "load", "load_elastic"]


def when_used(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A ``__getattr__`` for ``package`` that imports a public name from its home when it is first used.

    So ``toast --version`` does not wait for torch, nor what reads image files for the library that fetches data sets.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return find


_HOMES = {
    "compress": "in_memory",
    "load": "surgery.saved",
    "load_elastic": "surgery.elastic",
    "Plan": "plans",
    "Span": "plans",
}
__getattr__ = when_used(__name__, _HOMES)
