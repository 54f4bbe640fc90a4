"""Files of weights, as people have them: one file, several with an index, or a folder; read as plain tensors by name."""

import argparse
import json
import pickle
import re
import reprlib
import struct
import warnings
import zipfile
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

CONFIG = "config.json"
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=\.)")
# What modules that wrap others put into the names of these.
_WRAPPER = re.compile(r"(?<![^.])(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.")
# What comes in place of weights, by how it begins.
_NO_WEIGHTS = (
    (
        b"version https://git-lfs",
        "is a pointer of git-lfs and not the file itself: run git lfs pull where it came from",
    ),
    (b"<!doctype", "is a page of HTML, which a server sent instead of weights: fetch it again"),
    (b"<html", "is a page of HTML, which a server sent instead of weights: fetch it again"),
)
_DEEPEST = 8  # dictionaries inside dictionaries; a pickled one may even hold itself
_MOST_BYTES = 2**26  # of an index or a config
# What safetensors and torch raise for a file that is something else: torch's unpickler stumbles over any bytes.
_UNREADABLE = (
    OSError, EOFError, SafetensorError, pickle.UnpicklingError, struct.error, RuntimeError, LookupError, AttributeError, TypeError, ValueError,
    ArithmeticError, AssertionError,
)  # fmt: skip


def read(path: Path, given: str) -> Weights:
    """All tensors in the file ``path``, by name, on the CPU. Names of nested dictionaries are joined by dots.

    It is a safetensors file, a torch file, or the index of several. Nothing in a file is executed. Raises ToastError, which
    begins with what the user has ``given``, if it cannot be read.
    """
    if path.name.endswith(INDEX):
        return _unwrapped(_sharded(path, given))
    shard = _SHARD.search(path.name)
    if shard and int(shard[2]) > 1:
        index = _SHARD.sub("", path.name) + INDEX
        raise ToastError(
            f"{given} is one of {int(shard[2])} files that hold a model together: give {index}, which lies beside them."
        )
    return _unwrapped(dict(_tensors(_loaded(path, given))))


def _unwrapped(tensors: Weights) -> Weights:
    """The tensors with the names they have where torch.compile, FSDP or checkpointing wraps nothing."""
    found = {_WRAPPER.sub("", name): tensor for name, tensor in tensors.items()}
    return found if len(found) == len(tensors) else tensors


def config_beside(path: Path) -> dict[str, Any]:
    """The ``config.json`` in the folder of the file ``path``; empty if there is none that can be read."""
    try:
        config = _json(path.parent / CONFIG)
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _loaded(path: Path, given: str) -> Any:
    """What one file holds, whatever its name ends in: safetensors begin with a number of 8 bytes and a brace."""
    begin = b""
    try:
        with path.open("rb") as file:
            begin = file.read(64)
        _check_begin(begin, given)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about a pickle, which is refused anyway
            if begin[8:9] == b"{":
                return safetensors.torch.load_file(path)
            # Training scripts keep their arguments in a Namespace. Of a path, torch would look at the ending.
            with torch.serialization.safe_globals([argparse.Namespace]), path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
    except _UNREADABLE as e:
        if "incomplete" in str(e).lower() or (begin.startswith(b"PK") and not zipfile.is_zipfile(path)):
            raise ToastError(f"{given} is cut off, its end is missing: fetch or copy it again.") from e
        raise ToastError(
            f"{given} cannot be read as weights ({type(e).__name__}{_foreign(path)}): it must be a safetensors file, or a "
            "torch file that holds nothing but tensors (toast executes no pickle); if you trust it, load it yourself and save its state_dict with "
            "safetensors.torch.save_file."
        ) from e


def _check_begin(begin: bytes, given: str) -> None:
    """Raises ToastError for a file that begins as no weights do, and says what it is."""
    if not begin:
        raise ToastError(f"{given} is empty: fetch or copy it again.")
    for start, what in _NO_WEIGHTS:
        if begin.lstrip().lower().startswith(start):
            raise ToastError(f"{given} {what}.")


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


def places(index: Path, given: str) -> dict[str, str]:
    """In which file beside ``index`` each tensor is. Raises ToastError for a file that does not say so."""
    try:
        names: dict[str, str] = _json(index)["weight_map"]
        if not all(isinstance(file, str) and Path(file).name == file for file in names.values()):
            raise ValueError(f"it names {reprlib.repr(sorted(map(str, names.values())))}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise ToastError(
            f"{given} is not an index of weights ({type(e).__name__}: {e}): fetch it again, with the files beside it."
        ) from e
    return names


def _sharded(index: Path, given: str) -> Weights:
    """The tensors of all files that ``index`` names."""
    names = places(index, given)
    found: Weights = {}
    for file in sorted(set(names.values())):
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
