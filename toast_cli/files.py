"""Write files so that a killed process leaves none half-written."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from toast_cli.errors import ToastError


def beside(path: Path) -> Path:
    """The temporary path where a file is written before it is renamed."""
    return path.with_name(f".{path.name}.tmp")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write the whole file or nothing: under a temporary name, flushed to the disk, then renamed."""
    try:
        with beside(path).open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        beside(path).replace(path)
    finally:
        beside(path).unlink(missing_ok=True)  # if the write was interrupted or the disk is full


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as a safetensors file; safetensors itself would scramble those that are not laid out row by row."""
    write_atomically(path, save({name: np.ascontiguousarray(value) for name, value in arrays.items()}))


def read_json(path: Path) -> dict[str, Any]:
    """Read a run's record at ``path``. Raises ToastError for a file that was cut short or is not a record."""
    try:
        record = json.loads(path.read_text())
    except ValueError as e:
        raise ToastError(f"{path} cannot be read ({type(e).__name__}): restore it, or move its folder away.") from e
    if not isinstance(record, dict):
        raise ToastError(f"{path} is not a run's record: restore it, or move its folder away.")
    return record
