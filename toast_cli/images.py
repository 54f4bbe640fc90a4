"""Labelled images and how they become pixels: decoded once, in batches, a bad one named or left out."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from toast_cli.errors import ToastError

Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class BadImage:
    """What is wrong with an image that cannot be decoded."""

    where: str
    reason: str


@dataclass(frozen=True)
class Split:
    """The encoded images of one stored split, and those pixels that are needed more than once."""

    name: str
    rows: datasets.Dataset
    image_column: str
    skip_bad_images: bool = False
    kept: dict[int, Tensor | BadImage] = field(default_factory=dict)

    def encoded(self, index: int) -> bytes:
        """The file of image ``index`` as it is stored."""
        value = self.rows[index][self.image_column]
        return value["bytes"] if value["bytes"] is not None else Path(value["path"]).read_bytes()

    def pixels(self, index: int, transform: Transform) -> Tensor | BadImage:
        """Image ``index`` in RGB through ``transform``: uint8 (3, H, W)."""
        if index in self.kept:
            return self.kept[index]
        try:
            with Image.open(io.BytesIO(self.encoded(index))) as image:
                return transform(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
            path = self.rows[index][self.image_column]["path"]
            return BadImage(f"{self.name} image {index}{f' ({path})' if path else ''}", " ".join(str(e).split()))


@dataclass(frozen=True)
class Images:
    """N labelled images of a split, by their ``indices`` (N,) in it; ``labels`` (N,) are class numbers 0 … C−1."""

    split: Split
    indices: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def batches(
        self, transform: Transform, size: int, workers: int = 0, start: int = 0, keep: bool = False
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Positions (B,) and pixels uint8 (B, 3, H, W), ``size`` at a time from image ``start`` on, in order.

        With ``keep`` the pixels stay in memory, so that whoever asks for the same image again has it decoded already.
        Positions of bad images are missing from their batch where ``skip_bad_images`` is set.

        Raises ToastError that names a bad image.
        """
        loader = DataLoader(
            _Decoder(self, transform, start),
            batch_size=size,
            num_workers=workers,
            collate_fn=list,
            persistent_workers=False,
        )
        for number, items in enumerate(loader):
            positions = start + number * size + np.arange(len(items))
            if keep:
                self.split.kept.update(zip(self.indices[positions].tolist(), items, strict=True))
            good = [i for i, item in enumerate(items) if not self._is_bad(item)]
            yield positions[good], torch.stack([items[i] for i in good]) if good else torch.empty(0)

    def _is_bad(self, item: Tensor | BadImage) -> bool:
        if isinstance(item, BadImage) and not self.split.skip_bad_images:
            raise ToastError(
                f"{item.where} cannot be decoded ({item.reason}): mend or remove it, or set data.skip_bad_images=true to leave such images out."
            )
        return isinstance(item, BadImage)


class _Decoder(Dataset):
    """What a DataLoader wants; a bad image is a value, because an exception would lose its words between processes."""

    def __init__(self, images: Images, transform: Transform, start: int) -> None:
        self.images, self.transform, self.start = images, transform, start

    def __len__(self) -> int:
        return len(self.images) - self.start

    def __getitem__(self, i: int) -> Tensor | BadImage:
        return self.images.split.pixels(int(self.images.indices[self.start + i]), self.transform)
