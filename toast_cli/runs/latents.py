"""Latents of the fit images, for as long as a fit needs them: on disk, or where a GPU has room for them."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class Latents:
    """One latent of the images that a process has seen, float32 (N, t, D), for all or some of its tokens."""

    def __init__(self, path: Path, tokens: int, width: int) -> None:
        self.path = path
        self._shape = (tokens, width)

    def append(self, latents: Tensor) -> None:
        """Append ``latents`` (N, t, D)."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = latents.float().cpu().numpy().tobytes()
        try:
            with self.path.open("ab") as file:
                file.write(content)
        except OSError as e:
            e.filename = e.filename or str(self.path)  # a write that fails does not say where
            raise

    def read(self, start: int, stop: int) -> Tensor:
        """The latents (N, t, D) of the images from number ``start`` to ``stop``."""
        row = 4 * self._shape[0] * self._shape[1]  # bytes
        values = np.fromfile(self.path, np.float32, (stop - start) * row // 4, offset=start * row)
        return torch.from_numpy(values.reshape(-1, *self._shape))

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


class HeldLatents:
    """The same without a file: float32 (N, t, D) on the device that they come from."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []

    def append(self, latents: Tensor) -> None:
        """Append ``latents`` (N, t, D)."""
        self._parts.append(latents.float())

    def read(self, start: int, stop: int) -> Tensor:
        """The latents (N, t, D) of the images from number ``start`` to ``stop``."""
        if len(self._parts) > 1:
            self._parts = [torch.cat(self._parts)]
        return self._parts[0][start:stop]

    def remove(self) -> None:
        """Forget them."""
        self._parts = []
