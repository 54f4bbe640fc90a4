"""Images with a mask, a class number for each pixel: read as it is stored, then resized and cropped like its image."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import datasets
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from toast_cli.data.decoding import UNDECODABLE, pillows_limit, reason
from toast_cli.data.images import BadImage, Images, Split
from toast_cli.data.sources import holds_images, schema
from toast_cli.data.streamed import Rows, StreamedRows
from toast_cli.errors import ToastError, did_you_mean

IGNORED = 255  # a pixel without a class
NUMBERS = 255  # class numbers that a mask can have
_IMAGE, _MASKS = "image", ("mask", "label")  # usual names of the columns
_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")  # of Pillow: one number for each pixel


class MaskTransform(Protocol):
    """What makes pixels of an image, and of its mask in the same geometry."""

    def __call__(self, image: Image.Image) -> Tensor:
        """PIL image -> uint8 (C, H, W)."""
        ...

    def mask(self, mask: Image.Image) -> Tensor:
        """PIL image in grey, each value a class number -> uint8 (1, H, W)."""
        ...


@dataclass(frozen=True)
class MaskedSplit(Split):
    """The encoded images of one stored split with their masks, whose class numbers are below ``classes``, or IGNORED."""

    mask_column: str = ""
    classes: int = NUMBERS

    def pixels(self, index: int, transform: Any) -> Tensor | BadImage:
        """Image ``index`` and its mask through ``transform``, a MaskTransform: uint8 (C + 1, H, W), the mask last. Through another
        transform, the image alone.

        A BadImage if one of both cannot be decoded, or if they differ in size. Raises ToastError for a class number that there is not.
        """
        if not hasattr(transform, "mask"):
            return super().pixels(index, transform)
        image = self._image(index, getattr(transform, "bands", 3))
        if isinstance(image, BadImage):
            return image
        try:
            mask = read_mask(self._encoded(index, self.mask_column), self.max_pixels)
        except UNDECODABLE as e:
            return self._bad(index, f"its mask: {reason(e)}")
        if mask.size != image.size:
            one, other = (f"{each.width} × {each.height}" for each in (image, mask))
            return self._bad(index, f"it has {one} pixels, and its mask {other}")
        self._require_classes(index, mask)
        return torch.cat([transform(image), transform.mask(mask)])

    def _require_classes(self, index: int, mask: Image.Image) -> None:
        values = np.asarray(mask)
        foreign = values[(values >= self.classes) & (values != IGNORED)]
        if foreign.size:
            raise ToastError(
                f"The mask of {self.name} image {index} has the class {foreign[0]}, and data.classes names 0 to {self.classes - 1}: name all "
                f"classes in their order; {IGNORED} means none."
            )

    def signature(self, index: int) -> bytes:
        """What identifies image ``index`` and its mask."""
        found = super().signature(index)
        try:
            return (
                found
                if isinstance(self.rows, StreamedRows)
                else found + hashlib.sha256(self._encoded(index, self.mask_column)).digest()
            )
        except (OSError, ValueError):
            return found + b"no mask"


def read_mask(content: bytes, max_pixels: int) -> Image.Image:
    """The mask in an image file in grey, each value the number that is stored: of a palette the index, not the colour.

    Raises one of UNDECODABLE for another kind of image.
    """
    with pillows_limit(max_pixels), Image.open(io.BytesIO(content)) as image:
        image.load()
        if image.mode not in _MODES:
            raise ValueError(
                f"its pixels are colours (mode {image.mode}), and a mask has a class number for each pixel"
            )
        values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > IGNORED:
        raise ValueError(f"it has values from {values.min()} to {values.max()}, and class numbers are 0 to {IGNORED}")
    return Image.fromarray(values.astype(np.uint8))


def with_masks(
    names: Sequence[str],
    rows: Sequence[Rows],
    image_column: str | None,
    mask_column: str | None,
    classes: Sequence[str] | None,
    how: tuple[bool, int],
) -> tuple[tuple[str, ...], Images, Images]:
    """The class names, and all images of the train and the test split with their masks, each labelled 0.

    ``classes`` are the names in the order of their numbers; None if the numbers are their names. ``how`` they are read: skipping,
    pixels. Raises ToastError for columns that hold none, and for names that are none.
    """
    if classes is not None and (
        not classes or len(classes) > NUMBERS or not all(isinstance(name, str) for name in classes)
    ):
        raise ToastError(
            f"data.classes={classes} does not name classes: give a list of 1 to {NUMBERS} names in the order of their numbers, or null."
        )
    known = tuple(map(str, range(NUMBERS))) if classes is None else tuple(classes)
    found = []
    for name, split in zip(names, rows, strict=True):
        image, mask = _columns(split, image_column, mask_column)
        own = MaskedSplit(name, _encoded(split, [image, mask]), image, *how, mask_column=mask, classes=len(known))
        found.append(Images(own, np.arange(len(split)), np.zeros(len(split), dtype=int)))
    return known, found[0], found[1]


def _columns(rows: Rows, image: str | None, mask: str | None) -> tuple[str, str]:
    """The names of the columns of images and of masks, as given or by their usual names."""
    able = [name for name, feature in rows.features.items() if holds_images(feature)]
    for key, given in (("image", image), ("label", mask)):
        if given is not None and given not in able:
            raise ToastError(
                f"data.{key}_column={given} holds no images{did_you_mean(given, able)}, and masks are images too: the data set has {schema(rows)}."
            )
    mask = mask or next((name for name in _MASKS if name in able), None)
    image = image or (_IMAGE if _IMAGE in able else None)
    if image is None or mask is None or image == mask:
        raise ToastError(
            f"The data set's columns are {schema(rows)}, and eval=segmentation needs one of images and one of masks: name them with "
            "data.image_column and data.label_column."
        )
    return image, mask


def _encoded(rows: Rows, columns: list[str]) -> Rows:
    """The rows with their images left encoded."""
    if not isinstance(rows, datasets.Dataset):
        return rows
    rows = rows.select_columns(columns)
    for column in columns:
        rows = rows.cast_column(column, datasets.Image(decode=False))
    return rows
