"""Fitted translators on disk: one safetensors file for each run."""

import json
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from toast_cli.errors import ToastError, reraise_disk
from toast_cli.plans import Map
from toast_cli.translators.base import FittedMap


def encoded(fitted: Mapping[Map, FittedMap]) -> bytes:
    """The file of what the maps have learned, by map and name; plain numbers go into the file's metadata."""
    learned = {f"{key}/{name}": value for key, fit in fitted.items() for name, value in fit.learned().items()}
    tensors = {key: value for key, value in learned.items() if isinstance(value, Tensor)}
    numbers = {key: value for key, value in learned.items() if key not in tensors}
    return safetensors.torch.save(tensors, metadata={"learned": json.dumps(numbers)})


def load(
    path: Path, restore: Callable[[Map, dict[str, Any]], FittedMap], wanted: Container[Map] | None = None
) -> dict[Map, FittedMap]:
    """The maps in the file ``path``, or those ``wanted``; ``restore`` makes a fitted map from what it has learned.

    Raises ToastError for a file that ``encoded`` has not made.
    """
    try:
        learned = _learned(path, wanted)
        return {key: restore(key, values) for key, values in learned.items()}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError, IndexError) as e:
        reraise_disk(e)
        raise ToastError(
            f"{path} does not hold the translators of this run ({type(e).__name__}): restore it, or run it again with fresh=true."
        ) from e


def _learned(path: Path, wanted: Container[Map] | None) -> dict[Map, dict[str, Any]]:
    """What each map has learned, by name."""
    maps: dict[Map, dict[str, Any]] = {}
    with safe_open(path, framework="pt") as file:
        numbers = json.loads(file.metadata()["learned"])
        for name in [*numbers, *file.keys()]:
            key, _, inside = name.partition("/")
            parsed = Map.parse(key)
            if wanted is None or parsed in wanted:
                maps.setdefault(parsed, {})[inside] = numbers[name] if name in numbers else file.get_tensor(name)
    return maps
