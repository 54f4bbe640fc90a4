"""Image warnings: what may mislead the reader of a run, but is no reason to stop it."""

import hashlib
import io
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from toast_cli.data.class_folders import FolderRows
from toast_cli.data.dataset import Data
from toast_cli.data.decoding import UNDECODABLE, pillows_limit
from toast_cli.data.images import Images
from toast_cli.data.masked import MaskedSplit
from toast_cli.data.streamed import StreamedRows
from toast_cli.data.tar_shards import TarRows

_MOST = 100_000  # files of each kind that are compared, evenly spread
_DARK = 1 << 14  # a set of 16-bit images has brighter values than this, unless it has 14 bits or fewer


def warnings_of(data: Data) -> list[str]:
    """One sentence each for files left out, classes without images, test images that are also train images, repeated images,
    16-bit images that are nearly black, and transparent ones.

    Files are compared byte for byte. Streamed images are not compared, since all of them would have to be read.
    """
    return [*_left_out(data), *_missing(data), *_of_files(data)]


def _left_out(data: Data) -> list[str]:
    """What image folders and tar files hold beside the images of a class."""
    splits = (images.split.rows for images in (data.train, data.test, *data.fit))
    return list(
        dict.fromkeys(note for rows in splits if isinstance(rows, FolderRows | TarRows) for note in rows.left_out)
    )


def _missing(data: Data) -> list[str]:
    if isinstance(data.train.split, MaskedSplit):
        return []  # what classes its pixels have is not known yet
    told = []
    for name, images in (("train", data.train), ("test", data.test)):
        absent = np.setdiff1d(np.arange(len(data.classes)), images.labels)
        if len(absent) and len(images):
            named = ", ".join(data.classes[i] for i in absent[:5]) + ", …" * (len(absent) > 5)
            told.append(f"{len(absent)} of {len(data.classes)} classes have no {name} image: {named}")
    return told


@dataclass
class _Files:
    """What the files of some images are: how often each occurs, how many can be seen through, and those of 16-bit grey."""

    copies: Counter[bytes] = field(default_factory=Counter)
    see_through: int = 0
    deep: int = 0
    brightest: int = 0  # value of the 16-bit images


def _of_files(data: Data) -> list[str]:
    """What the files themselves tell."""
    kinds = {"train": data.train, "test": data.test}
    if any(isinstance(images.split.rows, StreamedRows) for images in kinds.values()):
        return []
    files = {name: _look(images) for name, images in kinds.items()}
    told = _repeated(data, files["train"].copies, files["test"].copies)
    for name, found in files.items():
        if found.deep and found.brightest < _DARK:
            told.append(
                f"no value in {found.deep} {name} images of 16 bits is above {found.brightest} of 65535, so they are nearly black: multiply "
                "their values if they have fewer bits"
            )
    see_through = [f"{found.see_through} {name} images" for name, found in files.items() if found.see_through]
    if see_through:
        told.append(f"{' and '.join(see_through)} have an alpha channel: what is transparent is shown on white")
    return told


def _repeated(data: Data, train: Counter[bytes], test: Counter[bytes]) -> list[str]:
    shared, again = sum(test[file] for file in test if file in train), sum(train.values()) - len(train)
    least = "at least " * (max(len(data.train), len(data.test)) > _MOST)
    told = []
    if shared:
        told.append(
            f"{least}{shared} of {len(data.test)} test images are also train images, byte for byte: the accuracies are too high"
        )
    if again:
        told.append(f"{least}{again} of {len(data.train)} train images repeat another one, byte for byte")
    return told


def _look(images: Images) -> _Files:
    """The files of the images; those that cannot be read are left out."""
    found = _Files()
    for index in images.indices[:: -(-len(images) // _MOST) or 1]:
        try:
            content = images.split.encoded(int(index))
        except (OSError, ValueError):
            continue
        found.copies[hashlib.blake2b(content, digest_size=16).digest()] += 1
        with suppress(*UNDECODABLE), pillows_limit(images.split.max_pixels), Image.open(io.BytesIO(content)) as image:
            found.see_through += image.has_transparency_data
            if image.mode.startswith("I;16"):
                found.deep += 1
                if found.brightest < _DARK:  # decoded until one is bright
                    found.brightest = max(found.brightest, int(np.asarray(image).max()))
    return found
