"""Features of every plan for every image of a split, on disk as float32 (N images, P plans, F), batch by batch."""

from pathlib import Path

import numpy as np


class FeatureFile:
    """A file whose length says how many images are finished, so that a killed run resumes where it stopped.

    An image that was left out has NaN as its features.
    """

    def __init__(self, path: Path, images: int, plans: int, width: int) -> None:
        self.path = path
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
        """How many images are finished, in whole batches; what a kill left after them is cut off."""
        rows = min(self.path.stat().st_size // self._row, self.shape[0]) if self.path.is_file() else 0
        whole = rows if rows == self.shape[0] else rows // batch_size * batch_size
        if self.path.is_file():
            with self.path.open("r+b") as file:
                file.truncate(whole * self._row)
        return whole

    def append(self, features: np.ndarray) -> None:
        """Append ``features``, float32 (B, P, F)."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(np.ascontiguousarray(features, dtype=np.float32).tobytes())

    def read(self) -> "Features":
        """The features of a finished file, which stay on disk."""
        return Features(np.memmap(self.path, np.float32, "r", shape=self.shape))


class Features:
    """The features (M, P, F) of the M images that were not left out; rows are read from disk when they are needed.

    ``positions`` (M,) are the positions of these images in the split.
    """

    def __init__(self, stored: np.ndarray, positions: np.ndarray | None = None) -> None:
        self._stored = stored
        self.positions = np.flatnonzero(~np.isnan(stored[:, 0, 0])) if positions is None else positions
        self.shape = (len(self.positions), *stored.shape[1:])

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, which: np.ndarray | slice) -> np.ndarray:
        """The features, float32 (B, P, F), of the images that ``which`` (B,) picks out of M."""
        return np.asarray(self._stored[self.positions[which]])

    def of_plan(self, plan: int) -> np.ndarray:
        """The features of one plan, float32 (M, F)."""
        return np.asarray(self._stored[self.positions, plan])

    def at(self, which: np.ndarray) -> "Features":
        """The features of the images that ``which`` (B,) picks out of M."""
        return Features(self._stored, self.positions[which])
