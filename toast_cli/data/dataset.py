"""The images of one run: fit images estimate translators, train images train the probe, test images are only ever scored."""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np

from toast_cli.data.allowed import check
from toast_cli.data.class_names import composed, in_order
from toast_cli.data.decoding import MAX_PIXELS
from toast_cli.data.draws import divide, draw, draw_fit
from toast_cli.data.images import Images, Split
from toast_cli.data.masked import with_masks
from toast_cli.data.sources import columns_of, read
from toast_cli.data.streamed import Rows
from toast_cli.errors import ToastError, did_you_mean

_SAMPLED = 1000


@dataclass(frozen=True)
class Data:
    """The images of one run. ``classes`` are the C class names; ``seed`` is the seed of the draws.

    Fit images come in parts, each added to those before it; ``fit_sizes`` says how many there are after each part.
    """

    label: str
    classes: tuple[str, ...]
    fit: tuple[Images, ...]
    train: Images
    test: Images
    seed: int
    fit_label: str

    @property
    def fit_sizes(self) -> list[int]:
        return list(itertools.accumulate(map(len, self.fit)))

    def fingerprint(self) -> str:
        """Hash of the numbers and labels of the images used, and of up to 1 000 files of each kind, evenly spread."""
        digest = hashlib.sha256()
        for images in (*self.fit, self.train, self.test):
            digest.update(images.indices.astype("<i8").tobytes() + images.labels.astype("<i8").tobytes())
            for index in images.indices[:: -(-len(images) // _SAMPLED) or 1]:
                digest.update(images.split.signature(int(index)))
        return digest.hexdigest()[:16]


def load(
    label: str,
    source: str | None,
    *,
    config: str | None = None,
    path: str | None = None,
    train_split: str | None = "train",
    test_split: str = "test",
    image_column: str | None = None,
    label_column: str | None = None,
    one_split: Mapping[str, Any] | None = None,
    classes: list[str] | None = None,
    masks: bool = False,
    splits: str = "standard",
    fit_images: int | list[int] = 500,
    train_images: int | None = None,
    test_images: int | None = None,
    fit_order: str = "random",
    skip_bad_images: bool = False,
    max_pixels: int = MAX_PIXELS,
    streaming: bool = False,
    seed: int = 0,
) -> Data:
    """Fit, train and test images from ``path`` if given, else from ``source`` (a hub data set, or ``scikit-learn``).

    Columns that are not named are found in the data set's schema. ``train_images`` and ``test_images`` limit a split to
    a stratified draw; a smaller draw is part of a larger one with the same seed. Fit images are drawn from the whole
    train split (``random``: seeded, ``first``: in stored order), so they do not depend on ``train_images``; if several
    numbers of them are given, the draws are nested. An image of more than ``max_pixels`` counts as one that cannot be
    decoded.
    Without a ``train_split``, as data sets have it that are only tests, there are no train images and no fit images: these come from
    elsewhere.
    With ``masks``, the label column holds a mask for each image, a class number for each pixel, and ``classes`` may name these numbers; the
    labels of images are all 0 then. ``streaming`` reads parquet files in place, on disk or on the hub. With ``splits="paper"``, a data set that has
    ``one_split`` {"name", "test_images"} is that split alone, divided at random with the ``seed``.

    Raises ToastError for data that are missing, unreachable, empty or too small, and for invalid settings.
    """
    check(splits=splits, fit_images=fit_images, train_images=train_images, test_images=test_images, fit_order=fit_order,
          streaming=streaming, skip_bad_images=skip_bad_images, max_pixels=max_pixels, seed=seed)  # fmt: skip
    if splits == "paper" and one_split is not None:
        name = one_split["name"]
        whole = read(source, config, path, [name], streaming)[0]
        rows = divide(whole, one_split["test_images"], seed)
        names: tuple[str, ...] = (f"{name} (train part)", f"{name} (test part)")
    else:
        names = (test_split,) if train_split is None else (train_split, test_split)
        rows = read(source, config, path, names, streaming)
    how = (skip_bad_images, max_pixels)
    if masks:
        if train_split is None:
            raise ToastError("eval=segmentation fits a head on train images with masks: give data.train_split.")
        named, *images = with_masks(names, rows, image_column, label_column, classes, how)
    else:
        named, images = _labelled(names, rows, image_column, label_column, how)
    test = images[-1]
    train = images[0] if len(images) > 1 else test.only(np.array([], int))
    fit = draw_fit(len(train), fit_images, fit_order, seed) if len(train) else []
    return Data(
        label=label,
        classes=named,
        fit=tuple(train.only(np.sort(part)) for part in fit),
        train=train.only(np.sort(draw(train.labels, train_images, "data.train_images", seed))) if len(train) else train,
        test=test.only(np.sort(draw(test.labels, test_images, "data.test_images", seed))),
        seed=seed,
        fit_label=label,
    )


def _labelled(
    names: Sequence[str], rows: list[Rows], image_column: str | None, label_column: str | None, how: tuple[bool, int]
) -> tuple[tuple[str, ...], list[Images]]:
    """The class names, and all images of each split, with ``how`` they are read: skipping, pixels."""
    columns = [columns_of(split, image_column, label_column) for split in rows]
    classes, numbers = _labels(names, rows, [column for _, column in columns])
    return classes, [
        Images(Split(name, _encoded(split, image), image, *how), np.arange(len(labels)), labels)
        for name, split, (image, _), labels in zip(names, rows, columns, numbers, strict=True)
    ]


def _encoded(rows: Rows, image: str) -> Rows:
    """The rows with their images left encoded."""
    if not isinstance(rows, datasets.Dataset):
        return rows
    return rows.select_columns([image]).cast_column(image, datasets.Image(decode=False))


def _labels(splits: Sequence[str], rows: list[Rows], columns: list[str]) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """The class names, taken from the first split, and the labels of each split as class numbers (N,)."""
    values = [_values(split, column) for split, column in zip(rows, columns, strict=True)]
    feature = rows[0].features[columns[0]]
    names = composed(feature.names) if isinstance(feature, datasets.ClassLabel) else _kinds(values[0])
    number = {name: i for i, name in enumerate(names)}
    numbers = []
    for split, stored, column, value in zip(splits, rows, columns, values, strict=True):
        feature = stored.features[column]
        kinds = composed(feature.names) if isinstance(feature, datasets.ClassLabel) else np.unique(value).tolist()
        lookup = np.array([number.get(kind, -1) for kind in kinds] + [-1])  # the last entry is for −1, no label
        place = value if isinstance(feature, datasets.ClassLabel) else np.searchsorted(kinds, value)
        numbers.append(lookup[place])
        foreign = np.flatnonzero(numbers[-1] < 0)
        if len(foreign):
            label = ([*kinds, -1])[place[foreign[0]]]
            raise ToastError(
                f"Split '{split}' has the label {label}{did_you_mean(label, map(str, names))} for {len(foreign)} of its {len(value)} images, outside "
                f"the {len(names)} classes of split '{splits[0]}': choose a labelled split with data.train_split or data.test_split."
            )
    return tuple(map(str, names)), numbers


def _values(rows: Rows, column: str) -> np.ndarray:
    """The labels (N,) as stored. Raises ToastError if they are not classes."""
    feature = rows.features[column]
    if not isinstance(feature, datasets.ClassLabel | datasets.Value):
        raise ToastError(_no_classes(column, feature))
    stored: Any = rows[column][:] if isinstance(rows, datasets.Dataset) else rows.column(column)
    if isinstance(feature, datasets.ClassLabel):
        return np.asarray([-1 if value is None else value for value in stored])
    empty = sum(value is None or value != value for value in stored)  # nan is not equal to itself
    if empty:
        raise ToastError(
            f"data.label_column={column} is empty in {empty} of {len(stored)} rows: give these rows a label or leave them out."
        )
    values = np.asarray(composed(stored) if isinstance(next(iter(stored), None), str) else stored)
    if values.dtype.kind == "f" and (values == np.rint(values)).all():
        values = values.astype(np.int64)  # pandas makes floats of whole numbers next to an empty row
    if values.dtype.kind not in "biuU":
        raise ToastError(_no_classes(column, feature))
    return values


def _kinds(values: np.ndarray) -> list[Any]:
    """The different ``values`` (N,) in the order in which classes are numbered."""
    found = np.unique(values).tolist()
    return in_order(found) if values.dtype.kind == "U" else found


def _no_classes(column: str, feature: object) -> str:
    return f"data.label_column={column} holds {feature}, not classes: name a column of class labels, whole numbers, strings or booleans."
