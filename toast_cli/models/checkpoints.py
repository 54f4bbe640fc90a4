"""Files of weights, as people have them: one file, several with an index, or a folder; read as plain tensors by name."""

import argparse
import json
import pickle
import re
import reprlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from toast_cli.errors import ToastError
from toast_cli.models.weight_files import INDEX

Weights = dict[str, Tensor]

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=\.)")
_DEEPEST = 8  # dictionaries inside dictionaries; a pickled one may even hold itself
_MOST_BYTES = 2**26  # of an index or a config
_UNREADABLE = (
    OSError, EOFError, SafetensorError, pickle.UnpicklingError, RuntimeError, KeyError, AttributeError, TypeError, ValueError,
)  # fmt: skip


def read(path: Path, given: str) -> Weights:
    """All tensors in the file ``path``, by name, on the CPU. Names of nested dictionaries are joined by dots.

    It is a safetensors file, a torch file, or the index of several. Nothing in a file is executed. Raises ToastError, which
    begins with what the user has ``given``, if it cannot be read.
    """
    if path.name.endswith(INDEX):
        return _sharded(path, given)
    shard = _SHARD.search(path.name)
    if shard and int(shard[2]) > 1:
        index = _SHARD.sub("", path.name) + INDEX
        raise ToastError(
            f"{given} is one of {int(shard[2])} files that hold a model together: give {index}, which lies beside them."
        )
    return dict(_tensors(_loaded(path, given)))


def config_beside(path: Path) -> dict[str, Any]:
    """The ``config.json`` in the folder of the file ``path``; empty if there is none that can be read."""
    try:
        config = _json(path.parent / "config.json")
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _loaded(path: Path, given: str) -> Any:
    """What one file holds."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about a pickle, which is refused anyway
            if path.suffix == ".safetensors":
                return safetensors.torch.load_file(path)
            with torch.serialization.safe_globals([argparse.Namespace]):  # training scripts keep their arguments so
                return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as e:
        raise ToastError(
            f"{given} cannot be read as weights ({type(e).__name__}{_foreign(path)}): it must be a safetensors file, or a "
            "torch file that holds nothing but tensors (toast executes no pickle); if you trust it, load it yourself and save its state_dict with "
            "safetensors.torch.save_file."
        ) from e


def _foreign(path: Path) -> str:
    """``, it holds numpy.dtype``: what else than tensors a torch file would create, found without creating it."""
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # the file may be anything
        return ""
    return f", it holds {', '.join(names[:2])}{', …' * (len(names) > 2)}" if names else ""


def _tensors(value: object, name: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """The tensors inside nested dictionaries, with their dotted names."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping) and depth < _DEEPEST:
        for key, inside in value.items():
            if isinstance(key, str):
                yield from _tensors(inside, f"{name}.{key}" if name else key, depth + 1)


def _sharded(index: Path, given: str) -> Weights:
    """The tensors of all files that ``index`` names."""
    try:
        names = _json(index)["weight_map"]
        files = sorted(set(names.values()))
        if not all(isinstance(file, str) and Path(file).name == file for file in files):
            raise ValueError(f"it names {reprlib.repr(files)}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise ToastError(
            f"{given} is not an index of weights ({type(e).__name__}: {e}): fetch it again, with the files beside it."
        ) from e
    found: Weights = {}
    for file in files:
        if not (index.parent / file).is_file():
            raise ToastError(f"{given} names {file}, which is not beside it: fetch that file too.")
        found |= dict(_tensors(_loaded(index.parent / file, given)))
    missing = [name for name in names if name not in found]
    if missing:
        raise ToastError(
            f"{given}: {missing[0]} should be in {names[missing[0]]} and is not there: fetch the files again."
        )
    return found


def _json(path: Path) -> Any:
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError("it is too large")
    return json.loads(path.read_text("utf-8"))
