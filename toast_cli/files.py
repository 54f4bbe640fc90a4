"""Write files so that a killed process leaves none half-written, and records so that damage is noticed."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toast_cli.errors import ToastError

if TYPE_CHECKING:
    import numpy as np

_SEAL = "checksum"  # the entry of a record that says what its other entries are


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
    except OSError as e:
        e.filename = e.filename or str(path)  # a write that fails does not say where
        raise
    finally:
        beside(path).unlink(missing_ok=True)  # if the write was interrupted or the disk is full


def encode_arrays(arrays: Mapping[str, "np.ndarray"]) -> bytes:
    """Arrays as a safetensors file; safetensors itself would scramble those that are not laid out row by row."""
    import numpy as np
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(value) for name, value in arrays.items()})


def read_json(path: Path) -> dict[str, Any]:
    """Read a run's record at ``path``. Raises ToastError for a file that was cut short or is not a record."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:
        raise ToastError(f"{path} cannot be read ({type(e).__name__}): restore it, or move its folder away.") from e
    if not isinstance(record, dict):
        raise ToastError(f"{path} is not a run's record: restore it, or move its folder away.")
    return record


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The ``record``, which JSON can hold, with the checksum of its entries, whatever their order, as its last entry."""
    entries = {key: value for key, value in record.items() if key != _SEAL}
    return {**entries, _SEAL: _checksum(entries)}


def unsealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of ``sealed``; a record without a checksum is as it is. Raises ValueError if an entry has changed."""
    entries = {key: value for key, value in record.items() if key != _SEAL}
    if _SEAL in record and record[_SEAL] != _checksum(entries):
        raise ValueError("its checksum is that of other entries")
    return entries


def _checksum(entries: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(entries, sort_keys=True).encode(), digest_size=8).hexdigest()
