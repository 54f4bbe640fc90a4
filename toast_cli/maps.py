"""Fitted translators on disk: one safetensors file a run."""

import json
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import safe_open
from torch import Tensor

from toast_cli.files import write_atomically
from toast_cli.plans import Map
from toast_cli.translators import Translator

NAME = "translators.safetensors"


def save(path: Path, fitted: Mapping[Map, Translator]) -> None:
    """What the translators have learned, by map and name; plain numbers go into the file's metadata."""
    learned = {f"{key}/{name}": value for key, fit in fitted.items() for name, value in fit.learned().items()}
    tensors = {key: value for key, value in learned.items() if isinstance(value, Tensor)}
    numbers = {key: value for key, value in learned.items() if key not in tensors}
    write_atomically(path, safetensors.torch.save(tensors, metadata={"learned": json.dumps(numbers)}))


def load(path: Path, blank: Callable[[Map], Translator], wanted: Container[Map] | None = None) -> dict[Map, Translator]:
    """The inverse of ``save``, for all maps or those ``wanted``; ``blank`` makes the translator of a map, not fitted yet."""
    maps: dict[Map, dict[str, Any]] = {}
    with safe_open(path, framework="pt") as file:
        numbers = json.loads(file.metadata()["learned"])
        for name in [*numbers, *file.keys()]:
            key, _, inside = name.partition("/")
            parsed = Map.parse(key)
            if wanted is None or parsed in wanted:
                maps.setdefault(parsed, {})[inside] = numbers[name] if name in numbers else file.get_tensor(name)
    return {key: blank(key).restore(values) for key, values in maps.items()}
