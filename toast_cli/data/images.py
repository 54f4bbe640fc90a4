"""Labelled images, and how they become pixels: decoded once, in batches; a bad image is named or left out."""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from toast_cli.data.decoding import MAX_PIXELS, UNDECODABLE, read_image, reason
from toast_cli.data.streamed import Rows, StreamedRows
from toast_cli.errors import ToastError

Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be decoded: where it is, and why."""

    where: str
    reason: str


@dataclass(frozen=True)
class Split:
    """The encoded images of one stored split."""

    name: str
    rows: Rows  # image_column holds {"bytes", "path"}, or only bytes if the rows are streamed
    image_column: str
    skip_bad_images: bool = False
    max_pixels: int = MAX_PIXELS

    def encoded(self, index: int) -> bytes:
        """The stored file of image ``index``. Raises OSError or ValueError if there is none."""
        return self._encoded(index, self.image_column)

    def _encoded(self, index: int, column: str) -> bytes:
        value = self._stored(index, column)
        if value is None:
            raise ValueError("there is no image in this row")
        if isinstance(value, bytes):
            return value
        return value["bytes"] if value["bytes"] is not None else Path(value["path"]).read_bytes()

    def _stored(self, index: int, column: str) -> Any:
        if isinstance(self.rows, datasets.Dataset):
            return self.rows[index][column]
        return self.rows.value(index, column)

    def signature(self, index: int) -> bytes:
        """What identifies image ``index``: a hash of its file, or its place if it is streamed."""
        if isinstance(self.rows, StreamedRows):
            return self.rows.signature(index)
        try:
            return hashlib.sha256(self.encoded(index)).digest()
        except (OSError, ValueError):
            return b"no file"

    def pixels(self, index: int, transform: Transform) -> Tensor | BadImage:
        """Image ``index`` through ``transform``, uint8 (C, H, W); a BadImage if it cannot be decoded.

        It is in RGB, or has as many bands as the ``bands`` of the transform.
        """
        image = self._image(index, getattr(transform, "bands", 3))
        return image if isinstance(image, BadImage) else transform(image)

    def _image(self, index: int, bands: int) -> Image.Image | BadImage:
        try:
            return read_image(io.BytesIO(self.encoded(index)), self.max_pixels, "data.max_pixels=", bands)
        except UNDECODABLE as e:
            return self._bad(index, reason(e))

    def _bad(self, index: int, why: str) -> BadImage:
        stored = self._stored(index, self.image_column)
        path = stored.get("path") if isinstance(stored, dict) else None
        return BadImage(f"{self.name} image {index}{f' ({path})' if path else ''}", why)


class PixelCache:
    """The pixels of images that are needed twice: the images of ``split`` whose numbers are in ``wanted``."""

    def __init__(self, split: Split, wanted: Iterable[int]) -> None:
        self._split, self._wanted = split, frozenset(wanted)
        self._kept: dict[int, Tensor | BadImage] = {}

    def get(self, split: Split, index: int) -> Tensor | BadImage | None:
        """The pixels of image ``index``, uint8 (C, H, W); None if they are not kept."""
        return self._kept.get(index) if split is self._split else None

    def keep(self, split: Split, index: int, pixels: Tensor | BadImage) -> None:
        """Keep the ``pixels`` (C, H, W) of image ``index`` if it is wanted."""
        if split is self._split and index in self._wanted:
            self._kept[index] = pixels.clone() if isinstance(pixels, Tensor) else pixels

    def clear(self) -> None:
        """Forget all pixels."""
        self._kept.clear()


@dataclass(frozen=True)
class Batch:
    """``size`` consecutive images from number ``first`` on; those at ``positions`` (B,) could be decoded.

    ``pixels`` are uint8 (B, C, H, W).
    """

    first: int
    size: int
    positions: np.ndarray
    pixels: Tensor


@dataclass(frozen=True)
class Images:
    """N labelled images of a split: ``indices`` (N,) are their row numbers, ``labels`` (N,) class numbers 0 … C−1."""

    split: Split
    indices: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def only(self, positions: np.ndarray) -> "Images":
        """The images at ``positions`` (B,), in that order."""
        return replace(self, indices=self.indices[positions], labels=self.labels[positions])

    def batches(
        self,
        transform: Transform,
        size: int,
        workers: int = 0,
        ranges: Sequence[range] | None = None,
        cache: PixelCache | None = None,
        keep: bool = False,
        pin: bool = False,
    ) -> Iterator[Batch]:
        """The images in order as uint8 (B, C, H, W), ``size`` at a time, or one batch for each of the ``ranges``.

        Pixels that ``cache`` holds are not decoded again; with ``keep``, newly decoded ones are added to it. ``pin`` puts
        batches in memory that CUDA can copy from while it computes.

        Raises ToastError naming the first bad image, unless ``skip_bad_images`` is set.
        """
        if ranges is None:
            ranges = [range(first, min(first + size, len(self))) for first in range(0, len(self), size)]
        loader = DataLoader(
            _Decoder(self, transform, cache),
            batch_sampler=map(list, ranges),
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=pin,
        )
        for which, (good, pixels, bad, lost) in zip(ranges, loader, strict=True):
            if lost is not None:
                raise lost
            if bad and not self.split.skip_bad_images:
                first = next(iter(bad.values()))
                raise ToastError(
                    f"{first.where} cannot be decoded ({first.reason}): repair or remove it, or set data.skip_bad_images=true to "
                    "leave such images out."
                )
            if cache is not None and keep:
                for position, item in [*zip(good, pixels, strict=True), *bad.items()]:
                    cache.keep(self.split, int(self.indices[position]), item)
            yield Batch(which.start, len(which), np.array(good, dtype=int), pixels)


# Position; pixels, or why there are none: the image is bad, or it did not come from where it is stored, for which no image is bad.
_Item = tuple[int, Tensor | BadImage | ToastError]


class _Decoder(Dataset):
    """What a DataLoader reads. What went wrong is returned: an exception would lose its message between processes."""

    def __init__(self, images: Images, transform: Transform, cache: PixelCache | None) -> None:
        self.images, self.transform, self.cache = images, transform, cache

    def __getitem__(self, position: int) -> _Item:
        split, index = self.images.split, int(self.images.indices[position])
        kept = None if self.cache is None else self.cache.get(split, index)
        try:
            return position, split.pixels(index, self.transform) if kept is None else kept
        except ToastError as e:
            return position, e


def _collate(items: list[_Item]) -> tuple[list[int], Tensor, dict[int, BadImage], ToastError | None]:
    """One tensor for each batch, since each tensor sent between processes takes a file descriptor."""
    good = {position: item for position, item in items if isinstance(item, Tensor)}
    bad = {position: item for position, item in items if isinstance(item, BadImage)}
    lost = next((item for _, item in items if isinstance(item, ToastError)), None)
    return list(good), torch.stack(list(good.values())) if good else torch.empty(0), bad, lost
