"""Writing files so that a killed process leaves none half-written."""

import os
from pathlib import Path


def beside(path: Path) -> Path:
    """Where a file is written before it takes its name."""
    return path.with_name(f".{path.name}.tmp")


def write_atomically(path: Path, content: str | bytes) -> None:
    """The whole file or none of it: written beside ``path``, flushed to the disk, renamed."""
    with beside(path).open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    beside(path).replace(path)
