"""Fitted translators on disk: one safetensors file a run."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import safe_open
from torch import Tensor

from toast_cli.files import write_atomically
from toast_cli.plans import Map
from toast_cli.translators import Translator


def save(path: Path, fitted: Mapping[Map, Translator]) -> None:
    """What the translators have learned, by map and name; plain numbers go into the file's metadata."""
    learned = {f"{key}/{name}": value for key, fit in fitted.items() for name, value in fit.learned().items()}
    tensors = {key: value for key, value in learned.items() if isinstance(value, Tensor)}
    numbers = {key: value for key, value in learned.items() if key not in tensors}
    write_atomically(path, safetensors.torch.save(tensors, metadata={"learned": json.dumps(numbers)}))


def load(path: Path, blank: Callable[[Map], Translator]) -> dict[Map, Translator]:
    """The inverse of ``save``; ``blank`` makes the translator of a map, not fitted yet."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        learned = {**json.loads(file.metadata()["learned"]), **tensors}
    maps: dict[str, dict[str, Any]] = {}
    for key, value in learned.items():
        name, _, inside = key.partition("/")
        maps.setdefault(name, {})[inside] = value
    keys = {name: Map.parse(name) for name in maps}
    return {keys[name]: blank(keys[name]).restore(values) for name, values in maps.items()}
