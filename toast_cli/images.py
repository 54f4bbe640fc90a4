"""Labelled images and how they become pixels: decoded once, in batches, a bad one named or left out."""

import hashlib
import io
import re
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from toast_cli.errors import ToastError
from toast_cli.streamed import Rows, StreamedRows
from toast_cli.team import ALONE

Transform = Callable[[Image.Image], Tensor]
UNDECODABLE = (
    OSError,
    ValueError,
    SyntaxError,
    Image.DecompressionBombError,
)  # what Pillow raises for a file that is no image


@dataclass(frozen=True)
class BadImage:
    """What is wrong with an image that cannot be decoded."""

    where: str
    reason: str


@dataclass(frozen=True)
class Split:
    """The encoded images of one stored split, and those pixels that are needed more than once."""

    name: str
    rows: Rows  # image_column holds {"bytes", "path"}, or in streamed rows bytes alone
    image_column: str
    skip_bad_images: bool = False
    kept: dict[int, Tensor | BadImage] = field(default_factory=dict)

    def encoded(self, index: int) -> bytes:
        """The file of image ``index`` as it is stored. Raises OSError or ValueError where there is none."""
        value = self._stored(index)
        if value is None:
            raise ValueError("there is no image in this row")
        if isinstance(value, bytes):
            return value
        return value["bytes"] if value["bytes"] is not None else Path(value["path"]).read_bytes()

    def _stored(self, index: int) -> Any:
        if isinstance(self.rows, StreamedRows):
            return self.rows.value(index, self.image_column)
        return self.rows[index][self.image_column]

    def signature(self, index: int) -> bytes:
        """What tells image ``index`` from another: a hash of its file, or where it lies if it is streamed."""
        if isinstance(self.rows, StreamedRows):
            return self.rows.signature(index)
        try:
            return hashlib.sha256(self.encoded(index)).digest()
        except (OSError, ValueError):
            return b"no file"

    def pixels(self, index: int, transform: Transform) -> Tensor | BadImage:
        """Image ``index`` in RGB through ``transform``: uint8 (3, H, W)."""
        if index in self.kept:
            return self.kept[index]
        try:
            with Image.open(io.BytesIO(self.encoded(index))) as image:
                return transform(to_rgb(image))
        except UNDECODABLE as e:
            stored = self._stored(index)
            path = stored.get("path") if isinstance(stored, dict) else None
            return BadImage(f"{self.name} image {index}{f' ({path})' if path else ''}", _reason(e))


def _reason(error: Exception) -> str:
    """In one line, without the name of a buffer that nobody else knows."""
    return re.sub(r" <_io\.BytesIO object at \w+>", "", " ".join(str(error).split()))


def to_rgb(image: Image.Image) -> Image.Image:
    """Upright, in three channels of 8 bits. 16-bit grey is scaled; raises ValueError for pixels without a fixed range."""
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are of mode {image.mode}, whose range is not fixed")
    if "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns of a palette that goes to RGB at once
    return image.convert("RGB")


@dataclass(frozen=True)
class Batch:
    """``size`` images in a row from number ``first`` on, of which those at ``positions`` (B,) could be decoded.

    ``pixels`` are uint8 (B, 3, H, W).
    """

    first: int
    size: int
    positions: np.ndarray
    pixels: Tensor


@dataclass(frozen=True)
class Images:
    """N labelled images of a split, by their ``indices`` (N,) in it; ``labels`` (N,) are class numbers 0 … C−1."""

    split: Split
    indices: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def only(self, positions: np.ndarray) -> "Images":
        """Those at ``positions`` (B,), in that order."""
        return replace(self, indices=self.indices[positions], labels=self.labels[positions])

    def batches(
        self,
        transform: Transform,
        size: int,
        workers: int = 0,
        ranges: Sequence[range] | None = None,
        keep: Container[int] = (),
        pin: bool = False,
    ) -> Iterator[Batch]:
        """The images in order, ``size`` at a time, or those of each of the ``ranges``.

        The pixels of the split's images numbered in ``keep`` stay in memory, for whoever asks for them again. ``pin`` puts
        batches where CUDA copies them from while it computes.

        Raises ToastError that names a bad image, unless ``skip_bad_images`` is set.
        """
        ranges = ALONE.ranges(0, len(self), size) if ranges is None else ranges
        loader = DataLoader(
            _Decoder(self, transform),
            batch_sampler=map(list, ranges),
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=pin,
        )
        for which, (good, pixels, bad) in zip(ranges, loader, strict=True):
            if bad and not self.split.skip_bad_images:
                first = next(iter(bad.values()))
                raise ToastError(
                    f"{first.where} cannot be decoded ({first.reason}): mend or remove it, or set data.skip_bad_images=true to "
                    "leave such images out."
                )
            for position, item in [*zip(good, pixels, strict=True), *bad.items()]:
                if (index := int(self.indices[position])) in keep:
                    self.split.kept[index] = item.clone() if isinstance(item, Tensor) else item
            yield Batch(which.start, len(which), np.array(good, dtype=int), pixels)


_Item = tuple[int, Tensor | BadImage]  # position, pixels


class _Decoder(Dataset):
    """What a DataLoader wants; a bad image is a value, because an exception would lose its words between processes."""

    def __init__(self, images: Images, transform: Transform) -> None:
        self.images, self.transform = images, transform

    def __getitem__(self, position: int) -> _Item:
        return position, self.images.split.pixels(int(self.images.indices[position]), self.transform)


def _collate(items: list[_Item]) -> tuple[list[int], Tensor, dict[int, BadImage]]:
    """One tensor a batch: between processes each tensor takes a file descriptor."""
    good = {position: item for position, item in items if isinstance(item, Tensor)}
    bad = {position: item for position, item in items if isinstance(item, BadImage)}
    return list(good), torch.stack(list(good.values())) if good else torch.empty(0), bad
