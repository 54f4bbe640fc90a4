"""Features of every plan for every image of a split, on disk: float32 (N images, P plans, F), appended batch by batch."""

from pathlib import Path

import numpy as np


class FeatureFile:
    """A file whose length says how many images are finished, so that a killed run goes on where it stopped.

    An image that was left out has NaN for features.
    """

    def __init__(self, path: Path, images: int, plans: int, width: int) -> None:
        self.path = path
        self.shape = (images, plans, width)
        self._row = 4 * plans * width  # bytes

    @property
    def bytes(self) -> int:
        """Of the whole file."""
        return self.shape[0] * self._row

    @property
    def bytes_missing(self) -> int:
        """What is still to be written."""
        return self.bytes - (self.path.stat().st_size if self.path.is_file() else 0)

    def finished(self, batch_size: int) -> int:
        """How many images are finished, in whole batches; what a kill left beyond them is cut off."""
        rows = min(self.path.stat().st_size // self._row, self.shape[0]) if self.path.is_file() else 0
        whole = rows if rows == self.shape[0] else rows // batch_size * batch_size
        if self.path.is_file():
            with self.path.open("r+b") as file:
                file.truncate(whole * self._row)
        return whole

    def append(self, features: np.ndarray) -> None:
        """Add float32 (B, P, F)."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(np.ascontiguousarray(features, dtype=np.float32).tobytes())

    def read(self) -> "Features":
        """What is finished, left on disk."""
        return Features(np.memmap(self.path, np.float32, "r", shape=self.shape))


class Features:
    """The features (M, P, F) of the M images that were not left out; rows are read from disk when they are asked for.

    ``positions`` (M,) are those of the images among the split's.
    """

    def __init__(self, stored: np.ndarray, positions: np.ndarray | None = None) -> None:
        self._stored = stored
        self.positions = np.flatnonzero(~np.isnan(stored[:, 0, 0])) if positions is None else positions
        self.shape = (len(self.positions), *stored.shape[1:])

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, which: np.ndarray | slice) -> np.ndarray:
        """float32 (B, P, F) of the images that ``which`` picks out of M."""
        return np.asarray(self._stored[self.positions[which]])

    def of_plan(self, plan: int) -> np.ndarray:
        """float32 (M, F) of one plan."""
        return np.asarray(self._stored[self.positions, plan])

    def at(self, which: np.ndarray) -> "Features":
        """Those of the images that ``which`` picks out of M."""
        return Features(self._stored, self.positions[which])
