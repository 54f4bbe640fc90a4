"""Where images come from: hub data sets, parquet files, image folders, saved data sets and scikit-learn's digits."""

import sys
from collections.abc import Sequence
from functools import cache

import datasets
import numpy as np
from PIL import Image

from toast_cli.data.draws import stratified
from toast_cli.data.from_hub import read_hub
from toast_cli.data.on_disk import read_path
from toast_cli.data.streamed import Rows
from toast_cli.errors import ToastError, did_you_mean
from toast_cli.folders import typed_path

DIGITS = "scikit-learn"  # the `source` of the digits that ship with scikit-learn
# The embedded model was trained with these images held out: never change them without retraining it.
_DIGITS_TEST, _DIGITS_SEED = 360, 0
_LABEL = "label"  # the usual name of a column that plain tables cannot mark


def read(
    source: str | None, config: str | None, path: str | None, names: Sequence[str], streaming: bool = False
) -> list[Rows]:
    """The stored splits called ``names``, from the folder ``path`` if given, else from ``source``.

    With ``streaming``, parquet files are read in place; other kinds are never copied.

    Raises ToastError for data that are missing, unreachable, unreadable or empty.
    """
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    if path is not None:
        splits = read_path(typed_path(path), names, streaming)
    elif source == DIGITS:
        splits = _read_digits(config)
    elif source is not None:
        splits = read_hub(source, config, names, streaming)
    else:
        called_null = ", or data.path=./null for the folder of that name" if typed_path("null").is_dir() else ""
        raise ToastError(
            f"There is no data.path to read images from: give data.path=<dir> with an image folder, parquet files or a saved data set{called_null}."
        )
    for name in names:
        if name not in splits:
            raise ToastError(
                f"{path or source} has no split '{name}' (it has {', '.join(splits)}): set data.train_split or data.test_split."
            )
        if len(splits[name]) == 0:
            raise ToastError(f"Split '{name}' of {path or source} is empty: it must hold at least one image.")
    return [splits[name] for name in names]


@cache  # read once for several runs in one process
def _read_digits(config: str | None) -> dict[str, datasets.Dataset]:
    """The 1 797 handwritten digits of scikit-learn, 8 × 8 in 17 grey levels; a fixed stratified draw is the test split."""
    from sklearn.datasets import load_digits

    if config not in (None, "inverted"):
        raise ToastError(f"data.config={config} is not known for the digits: use null, or inverted for dark on light.")
    pixels, labels = load_digits(return_X_y=True)
    grey = np.rint(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    grey = 255 - grey if config == "inverted" else grey
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=[str(digit) for digit in range(10)])
    )
    order = stratified(labels, _DIGITS_SEED)
    parts = {"train": np.sort(order[_DIGITS_TEST:]), "test": np.sort(order[:_DIGITS_TEST])}
    return {
        name: datasets.Dataset.from_dict(
            {"image": [Image.fromarray(grey[i]) for i in part], "label": labels[part]}, features=features
        )
        for name, part in parts.items()
    }


def columns_of(rows: Rows, image: str | None, label: str | None) -> tuple[str, str]:
    """The names of the image column and the label column: as given, else the only ones in the schema, or the column ``label``.

    Raises ToastError for a column that does not fit, and if a name is needed to choose one.
    """
    images = [name for name, feature in rows.features.items() if _holds_images(feature)]
    marked = [name for name, feature in rows.features.items() if isinstance(feature, datasets.ClassLabel)]
    labels = marked or [name for name in rows.features if name == _LABEL]
    found = [_column(rows, "image", image, images), _column(rows, "label", label, labels)]
    if found[0] not in images:
        raise ToastError(f"data.image_column={found[0]} holds no images: the data set has {_schema(rows)}.")
    return found[0], found[1]


def _column(rows: Rows, kind: str, name: str | None, fitting: list[str]) -> str:
    if name is None and len(fitting) != 1:
        marked = f"{len(fitting)} are" if fitting else "none is"
        raise ToastError(
            f"The data set's columns are {_schema(rows)}, of which {marked} marked as {kind}: name one with data.{kind}_column."
        )
    if name is not None and name not in rows.features:
        raise ToastError(
            f"data.{kind}_column={name} is not a column{did_you_mean(name, rows.features)}: the data set has {_schema(rows)}; "
            f"name one of these with data.{kind}_column."
        )
    return name or fitting[0]


def _holds_images(feature: object) -> bool:
    """Whether a column holds images, or what a parquet file without the hub's own schema holds instead."""
    encoded = isinstance(feature, datasets.Value) and feature.dtype in ("binary", "large_binary")
    return (
        isinstance(feature, datasets.Image)
        or encoded
        or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})
    )


def _schema(rows: Rows) -> str:
    return ", ".join(f"{name} ({type(feature).__name__})" for name, feature in rows.features.items())
