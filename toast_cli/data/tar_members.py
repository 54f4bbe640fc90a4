"""What one tar file holds: names and places of its files, from its headers alone. Nothing is unpacked.

A tar file from a stranger is data: its names are never paths to write to or read from, links and devices are refused, and a header
cannot ask for more memory than a name needs.
"""

import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from toast_cli.errors import ToastError

_LONGEST_HEADER = 1 << 20  # bytes; long names and extended headers have some hundreds
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd"}  # how compressed files begin
_UNREADABLE = (tarfile.TarError, ValueError, OverflowError, LookupError, RecursionError, struct.error)
_KINDS = {
    tarfile.SYMTYPE: "a link",
    tarfile.LNKTYPE: "a link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}


class Member(NamedTuple):
    """A file in a tar file: its name, and where its content begins and how long it is, in bytes."""

    name: str
    offset: int
    size: int


class _Headers:
    """What ``tarfile`` reads headers from. It asks for as many bytes as a header claims to have."""

    def __init__(self, stored: BinaryIO) -> None:
        self.seek, self.tell, self._stored = stored.seek, stored.tell, stored

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header says that it has {size} bytes")
        return self._stored.read(size)


def members(file: str) -> Iterator[Member]:
    """The ordinary files in the tar ``file``, in stored order.

    Raises OSError for a file that cannot be opened, and ToastError for one that is compressed, cut off or damaged, or that
    holds a link or a device.
    """
    with Path(file).open("rb") as stored:
        try:
            yield from _of(file, stored)
        except _UNREADABLE as e:
            stored.seek(0)
            begin = stored.read(6)
            if packed := next((name for sign, name in _PACKED.items() if begin.startswith(sign)), None):
                raise ToastError(
                    f"{file} is compressed with {packed}, and toast reads each image where it lies in a tar file: decompress it to a plain .tar."
                ) from e
            raise ToastError(
                f"{file} cannot be read as a tar file ({e}): it is cut off or damaged, so copy or pack it again."
            ) from e


def _of(file: str, stored: BinaryIO) -> Iterator[Member]:
    end = 0
    with tarfile.open(fileobj=cast(BinaryIO, _Headers(stored)), mode="r:", encoding="utf-8") as tar:
        while (found := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # they would be kept, all of them
            if found.offset < end or found.size < 0:
                raise tarfile.ReadError("its headers lead back")
            end = found.offset + tarfile.BLOCKSIZE
            if found.isdir():
                continue
            if not found.isreg() or found.issparse():
                kind = _KINDS.get(found.type, "a sparse file" if found.issparse() else "no ordinary file")
                raise ToastError(
                    f"{file} holds {found.name}, {kind}, and toast reads ordinary files alone: pack the files themselves "
                    "(tar --dereference --hard-dereference)."
                )
            yield Member(found.name, found.offset_data, found.size)
        stored.seek(tar.offset)  # `tarfile` takes a damaged header for the end
    if stored.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no end mark at byte {tar.offset}")
