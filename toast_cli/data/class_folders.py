"""Image folders, ``<split>/<class>/…``: the class of an image is the first folder below the split, however deep it lies."""

import os
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from toast_cli.data.class_names import in_order
from toast_cli.errors import ToastError
from toast_cli.folders import Found, as_text, find, in_words

_NO_PICTURES = {"BUFR", "GRIB", "HDF5", "MPEG"}  # Pillow knows these kinds of files, but sees no picture in them


class FolderRows:
    """The images of a split that lies in folders, with the part of ``datasets.Dataset`` that a split needs.

    ``left_out`` are sentences about files that are not among them.
    """

    def __init__(self, files: list[str], labels: np.ndarray, classes: list[str], left_out: list[str]) -> None:
        """``files``, N paths, and their class numbers ``labels`` (N,)."""
        import datasets

        self.features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=classes))
        self.left_out = left_out
        # Arrow's bytes: a million Python strings would be copied into every process that decodes, and a name may be no text.
        self._files = pa.array([os.fsencode(file) for file in files], pa.large_binary())
        self._labels = labels

    def __len__(self) -> int:
        return len(self._labels)

    def select(self, rows: np.ndarray) -> "FolderRows":
        """The rows with these numbers (N,), in that order."""
        files = [os.fsdecode(file) for file in self._files.take(pa.array(rows)).to_pylist()]
        return FolderRows(files, self._labels[rows], self.features["label"].names, self.left_out)

    def column(self, name: str) -> list[Any]:
        """All values of a column."""
        return self._labels.tolist() if name == "label" else [self.value(row, name) for row in range(len(self))]

    def value(self, row: int, column: str) -> Any:
        """One value; an image is the path of its file."""
        if column == "label":
            return int(self._labels[row])
        return {"bytes": None, "path": os.fsdecode(self._files[row].as_py())}


@cache
def _endings() -> frozenset[str]:
    kinds = Image.registered_extensions()
    return frozenset(ending for ending, kind in kinds.items() if kind in Image.OPEN and kind not in _NO_PICTURES)


def is_image_name(name: str) -> bool:
    """Whether a file's ending is one of those that Pillow opens, in any case."""
    return PurePosixPath(name).suffix.lower() in _endings()


def find_images(folder: Path) -> Found:
    """The image files below ``folder``. Raises OSError or ToastError for a folder that cannot be walked."""
    return find(folder, is_image_name)


def told(folder: Path, found: Found) -> list[str]:
    """A sentence about the files in ``folder`` that are no images to toast, if there are any."""
    count = found.left_out.total()
    which, them = ("1 file is", "it as an image") if count == 1 else (f"{count} files are", "them as images")
    why = f"since toast does not read {them} ({in_words(found.left_out)})"
    return [f"{folder}: {which} left out, {why}"] if count else []


def read_class_folders(split: Path) -> FolderRows:
    """The images in the class folders of ``split``.

    Raises ToastError if there are none, and for images in a hidden folder.
    """
    found = find_images(split)
    if found.hidden:
        place = (split / found.hidden[0]).parent
        raise ToastError(
            f"{place} holds images, but a folder whose name begins with a dot is not read: rename it, or move it elsewhere."
        )
    files = [file for file in found.files if "/" in file]
    stray = [file for file in found.files if "/" not in file]
    notes = told(split, found)
    if not files:
        why = f"{len(stray)} lie in the folder itself" if stray else "; ".join(notes) or "it is empty"
        raise ToastError(f"{split} holds no images in class folders ({why}): put them into {split.name}/<class>/.")
    if stray:
        which = f"and {len(stray) - 1} more lie" if len(stray) > 1 else "lies"
        notes.append(f"{split / stray[0]} {which} beside the class folders and so in no class: left out")
    names = [as_text(file.partition("/")[0]) for file in files]
    classes = in_order(names)
    number = {name: i for i, name in enumerate(classes)}
    labels = np.array([number[name] for name in names])
    return FolderRows([f"{split}/{file}" for file in files], labels, classes, notes)
