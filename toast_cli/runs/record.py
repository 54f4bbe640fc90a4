"""A run's record, ``run.json``: what the run is made of, how far it is, and the checksums of its files.

A file's new checksum is recorded before the file takes its place, next to that of the file that is still there: a
process killed in between leaves one of the two, and both are what toast wrote.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import xxhash

from toast_cli.errors import ToastError
from toast_cli.files import read_json, sealed, unsealed, write_atomically
from toast_cli.runs.contents import RECORD

_CHECKSUMS = "checksums"


def read_record(folder: Path) -> dict[str, Any]:
    """The record of the run in ``folder``, empty if there is none. Raises ToastError if the file is damaged."""
    path = folder / RECORD
    if not path.is_file():
        return {}
    try:
        return unsealed(read_json(path))
    except ValueError as e:
        raise ToastError(
            f"{path} was changed or damaged after toast wrote it: restore it, or start over with fresh=true."
        ) from e


def note(folder: Path, **entries: Any) -> None:
    """Add entries to the record of the run in ``folder``."""
    record = sealed({**read_record(folder), **entries})
    write_atomically(folder / RECORD, json.dumps(record, indent=2) + "\n")


def write(path: Path, content: str | bytes) -> None:
    """Write a file of a run's folder, whole or not at all, and record its checksum."""
    new = content.encode() if isinstance(content, str) else content
    expect(path, xxhash.xxh3_64_hexdigest(new))
    write_atomically(path, new)


def expect(path: Path, checksum: str) -> None:
    """Record the ``checksum`` of what is about to take the place of the file ``path``."""
    known = _known(path.parent)
    there = [_checksum(path)] if path.is_file() else []
    kept = [each for each in there if each in known.get(path.name, there)]
    note(path.parent, **{_CHECKSUMS: {**known, path.name: [*kept, checksum]}})


def settle(folder: Path) -> None:
    """Check all files, and forget the checksums of those that others have taken the place of.

    Raises ToastError if a file was changed after toast wrote it.
    """
    there = [folder / name for name in _known(folder) if (folder / name).is_file()]
    note(folder, **{_CHECKSUMS: {path.name: [_checksum(checked(path))] for path in there}})


def recorded(path: Path) -> str:
    """The checksum of an unchanged file. Raises ToastError as ``checked`` does."""
    return _checksum(checked(path))


def changed(path: Path) -> bool:
    """Whether the file ``path`` of a run's folder is not as toast wrote it; False for one without a checksum.

    Versions before checksums wrote files without one.
    """
    known = _known(path.parent).get(path.name)
    return known is not None and path.is_file() and _checksum(path) not in known


def checked(path: Path) -> Path:
    """``path``. Raises ToastError if the file was changed after toast wrote it."""
    if changed(path):
        raise ToastError(
            f"{path} was changed or damaged after toast wrote it: restore it, or run it again with fresh=true."
        )
    return path


def _known(folder: Path) -> dict[str, list[str]]:
    """The checksums of a run's files. Raises ToastError if the record has something else in their place."""
    known = read_record(folder).get(_CHECKSUMS, {})
    if not isinstance(known, dict) or not all(isinstance(each, list) for each in known.values()):
        raise ToastError(f"{folder / RECORD} holds no checksums: restore it, or start over with fresh=true.")
    return known


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_64).hexdigest()
