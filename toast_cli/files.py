"""Writing files so that a killed process leaves none half-written."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from toast_cli.errors import ToastError


def beside(path: Path) -> Path:
    """Where a file is written before it takes its name."""
    return path.with_name(f".{path.name}.tmp")


def write_atomically(path: Path, content: str | bytes) -> None:
    """The whole file or none of it: written beside ``path``, flushed to the disk, renamed."""
    try:
        with beside(path).open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        beside(path).replace(path)
    finally:
        beside(path).unlink(missing_ok=True)  # where it was interrupted, or the disk is full


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """A safetensors file of numpy arrays; safetensors itself would scramble those that are not laid out row by row."""
    write_atomically(path, save({name: np.ascontiguousarray(value) for name, value in arrays.items()}))


def read_json(path: Path) -> dict[str, Any]:
    """What a run has recorded at ``path``. Raises ToastError for a file that was cut short or is no such record."""
    try:
        record = json.loads(path.read_text())
    except ValueError as e:
        raise ToastError(f"{path} cannot be read ({type(e).__name__}): restore it, or move its folder away.") from e
    if not isinstance(record, dict):
        raise ToastError(f"{path} is no run's record: restore it, or move its folder away.")
    return record
