"""Features of every plan for every image of a split, on disk as float32 (N images, P plans, F), batch by batch.

Next to them is a file of checksums, one for each image. An image counts as finished once it has its checksum, and its
features are compared with it when they are first read. Several processes may write different images at the same time.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xxhash

from toast_cli.errors import ToastError
from toast_cli.runs import contents


class FeatureFile:
    """A file whose checksums say how many images are finished, so that a killed run resumes where it stopped.

    An image that was left out has NaN as its features.
    """

    def __init__(self, path: Path, images: int, plans: int, width: int) -> None:
        self.path, self.sums = path, contents.sums(path)
        self.shape = (images, plans, width)
        self._row = 4 * plans * width  # bytes

    @property
    def bytes(self) -> int:
        """The size of the whole file."""
        return self.shape[0] * self._row

    @property
    def bytes_missing(self) -> int:
        """The size of what is still to be written."""
        return self.bytes - (self.path.stat().st_size if self.path.is_file() else 0)

    def finished(self, batch_size: int) -> int:
        """How many images are finished without a gap, in whole batches; what a kill left after them is cut off."""
        images, sizes = self.shape[0], {self.path: self._row, self.sums: _SUM}
        rows = min(images, *(file.stat().st_size // size if file.is_file() else 0 for file, size in sizes.items()))
        if rows:
            sums = np.fromfile(self.sums, "u8", rows)  # 0 where another process had written beyond this image
            rows = int(np.argmin(sums != 0)) if not sums.all() else rows
        whole = rows if rows == images else rows // batch_size * batch_size
        for file, size in sizes.items():
            if file.is_file():
                with file.open("r+b") as opened:
                    opened.truncate(whole * size)
        return whole

    def begin(self) -> tuple[int, int]:
        """Make sure that there is a file, and return what tells it from any other."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        return self._identity()

    def is_at(self, identity: tuple[int, int]) -> bool:
        """Whether it is the file of which ``begin`` has returned the ``identity``, perhaps to a process on another machine."""
        return self.path.is_file() and self._identity() == identity

    def _identity(self) -> tuple[int, int]:
        found = self.path.stat()
        return found.st_ino, found.st_mtime_ns

    def append(self, features: np.ndarray) -> None:
        """Write ``features``, float32 (B, P, F), after those that are there."""
        self.write(self.path.stat().st_size // self._row if self.path.is_file() else 0, features)

    def write(self, first: int, features: np.ndarray) -> None:
        """Write ``features``, float32 (B, P, F), as those of the images from number ``first`` on."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = np.ascontiguousarray(features, dtype=np.float32)
        for file, size, content in (
            (self.path, self._row, rows.data),
            (self.sums, _SUM, b"".join(map(_sum, rows))),
        ):
            try:
                with open(file, "wb", opener=_keeping) as opened:
                    opened.seek(first * size)
                    opened.write(content)
            except OSError as e:
                e.filename = e.filename or str(file)  # a write that fails does not say where
                raise

    def read(self) -> "Features":
        """The features of a finished file, which stay on disk. Raises ToastError if that file or its checksums are cut."""
        if not self.shape[0]:  # of no image there is no file either
            return Features(np.empty(self.shape, np.float32))
        for file, size in ((self.path, self._row), (self.sums, _SUM)):
            if not file.is_file() or file.stat().st_size != self.shape[0] * size:
                raise _damaged(self.path)
        stored = np.memmap(self.path, np.float32, "r", shape=self.shape)
        return Features(stored, check=_Check(self.path, stored, np.fromfile(self.sums, f"V{_SUM}")))

    def remove(self) -> None:
        """Remove the features and their checksums."""
        for file in (self.path, self.sums):
            file.unlink(missing_ok=True)


_SUM = 8  # bytes of a checksum


def _keeping(path: str, flags: int) -> int:
    """Open a file for writing as it is, or a new one: unlike "r+b" and "ab", and safe from others that do the same."""
    return os.open(path, flags & ~os.O_TRUNC, 0o666)


def _sum(row: np.ndarray) -> bytes:
    """The checksum of an image's features (P, F)."""
    return xxhash.xxh3_64_digest(row.tobytes())


def _damaged(path: Path) -> ToastError:
    return ToastError(
        f"{path} was changed or damaged after toast wrote it: remove it, and the same command writes it again."
    )


class _Check:
    """Compare the ``stored`` features (N, P, F) with their checksums ``sums`` (N,), each image once."""

    def __init__(self, path: Path, stored: np.ndarray, sums: np.ndarray) -> None:
        self._path, self._stored, self._sums = path, stored, sums
        self._done = np.zeros(len(stored), dtype=bool)

    def __call__(self, images: np.ndarray) -> None:
        """Check the images with these numbers (B,). Raises ToastError if the features of one have changed."""
        for image in images[~self._done[images]]:
            if _sum(self._stored[image]) != self._sums[image].tobytes():
                raise _damaged(self._path)
        self._done[images] = True


class Stored(Protocol):
    """What features are read from: like an array (N, P, F)."""

    shape: tuple[int, ...]

    def __getitem__(self, key: Any) -> np.ndarray: ...


class Features:
    """The features (M, P, F) of the M images that were not left out; rows are read from disk when they are needed.

    ``positions`` (M,) are the positions of these images in the split. Reading raises ToastError for damaged rows.
    """

    def __init__(
        self,
        stored: np.ndarray | Stored,
        positions: np.ndarray | None = None,
        check: Callable[[np.ndarray], None] = lambda images: None,
    ) -> None:
        self._stored, self._check = stored, check
        if positions is None:
            left_out = np.isnan(stored[:, 0, 0])
            check(np.flatnonzero(left_out))
            positions = np.flatnonzero(~left_out)
        self.positions = positions
        self.shape = (len(self.positions), *stored.shape[1:])

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, which: np.ndarray | slice) -> np.ndarray:
        """The features, float32 (B, P, F), of the images that ``which`` (B,) picks out of M."""
        images = self.positions[which]
        self._check(images)
        return np.asarray(self._stored[images])

    def of_plan(self, plan: int) -> np.ndarray:
        """The features of one plan, float32 (M, F)."""
        self._check(self.positions)
        return np.asarray(self._stored[self.positions, plan])

    def at(self, which: np.ndarray) -> "Features":
        """The features of the images that ``which`` (B,) picks out of M."""
        return Features(self._stored, self.positions[which], self._check)


class _Stacked:
    """Features (M, P, F) of the same plans from several files: the images of one after those of the other."""

    def __init__(self, parts: Sequence[tuple[Features, Sequence[int]]]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(features) for features, _ in parts])
        self.shape: tuple[int, ...] = (int(self._ends[-1]), len(parts[0][1]), *parts[0][0].shape[2:])

    def __getitem__(self, key: Any) -> np.ndarray:
        """The features of images (B,): (B, P, F), or (B, F) of one plan."""
        images, plan = key if isinstance(key, tuple) else (key, None)
        found = np.empty((len(images), *self.shape[1 if plan is None else 2 :]), np.float32)
        for (features, plans), end in zip(self._parts, self._ends, strict=True):
            inside = (images >= end - len(features)) & (images < end)
            own = features.at(images[inside] - (end - len(features)))
            found[inside] = own[:][:, np.array(plans)] if plan is None else own.of_plan(plans[plan])
        return found


def stacked(parts: Sequence[tuple[Features, Sequence[int]]]) -> Features:
    """The features of several files, one after the other; of each, the plans with these numbers, the same P for all."""
    both = _Stacked(parts)
    return Features(both, np.arange(both.shape[0]))
