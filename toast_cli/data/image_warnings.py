"""Image warnings: what may mislead the reader of a run, but is no reason to stop it."""

import hashlib
from collections import Counter

import numpy as np

from toast_cli.data.class_folders import FolderRows
from toast_cli.data.dataset import Data
from toast_cli.data.images import Images
from toast_cli.data.streamed import StreamedRows

_MOST = 100_000  # files of each kind that are compared, evenly spread


def warnings_of(data: Data) -> list[str]:
    """One sentence each for files left out, test images that are also train images, repeated images, and classes without any.

    Files are compared byte for byte. Streamed images are not compared, since all of them would have to be read.
    """
    return [*_left_out(data), *_missing(data), *_repeated(data)]


def _left_out(data: Data) -> list[str]:
    """What image folders hold beside the images of a class."""
    splits = (images.split.rows for images in (data.train, data.test, *data.fit))
    return list(dict.fromkeys(note for rows in splits if isinstance(rows, FolderRows) for note in rows.left_out))


def _missing(data: Data) -> list[str]:
    told = []
    for name, images in (("train", data.train), ("test", data.test)):
        absent = np.setdiff1d(np.arange(len(data.classes)), images.labels)
        if len(absent):
            named = ", ".join(data.classes[i] for i in absent[:5]) + ", …" * (len(absent) > 5)
            told.append(f"{len(absent)} of {len(data.classes)} classes have no {name} image: {named}")
    return told


def _repeated(data: Data) -> list[str]:
    if isinstance(data.train.split.rows, StreamedRows) or isinstance(data.test.split.rows, StreamedRows):
        return []
    train, test = _files(data.train), _files(data.test)
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


def _files(images: Images) -> Counter[bytes]:
    """How often each file occurs; files that cannot be read are left out."""
    found: Counter[bytes] = Counter()
    for index in images.indices[:: -(-len(images) // _MOST)]:
        try:
            found[hashlib.blake2b(images.split.encoded(int(index)), digest_size=16).digest()] += 1
        except (OSError, ValueError):
            continue
    return found
