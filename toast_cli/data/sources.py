"""Where images come from: hub data sets, parquet files, image folders, saved data sets and scikit-learn's digits."""

import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from toast_cli.data.draws import stratified
from toast_cli.data.from_hub import read_hub
from toast_cli.data.streamed import Rows, StreamedRows
from toast_cli.errors import ToastError, did_you_mean, reraise_disk

DIGITS = "scikit-learn"  # the `source` of the digits that ship with scikit-learn
# The embedded model was trained with these images held out: never change them without retraining it.
_DIGITS_TEST, _DIGITS_SEED = 360, 0
# What other programs leave beside images, or with copies of them inside.
_CLUTTER = {".git", ".ipynb_checkpoints", ".thumbnails", ".Trashes", ".AppleDouble", "__MACOSX", "__pycache__"}


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
        splits = _read_path(Path(str(path)).expanduser(), names, streaming)
    elif source == DIGITS:
        splits = _read_digits(config)
    elif source is not None:
        splits = read_hub(source, config, names, streaming)
    else:
        raise ToastError(
            "data=folder has no data.path: give data.path=<dir> with an image folder, parquet files or a saved data set."
        )
    for name in names:
        if name not in splits:
            raise ToastError(
                f"{path or source} has no split '{name}' (it has {', '.join(splits)}): set data.train_split or data.test_split."
            )
        if len(splits[name]) == 0:
            raise ToastError(f"Split '{name}' of {path or source} is empty: it must hold at least one image.")
    return [splits[name] for name in names]


def _read_path(path: Path, names: Sequence[str], streaming: bool) -> Mapping[str, Rows]:
    if not path.is_dir():
        raise ToastError(
            f"data.path={path} is not a folder: give one with an image folder, parquet files or a saved data set."
        )
    try:
        saved = {state.parent.name: state.parent for state in sorted(path.glob("*/state.json"))}
        if saved:
            for name in names:
                if name not in saved:
                    raise ToastError(
                        f"data.path={path} has no split '{name}' (it has {', '.join(saved)}): set data.train_split or data.test_split."
                    )
            return {name: datasets.load_from_disk(str(saved[name])) for name in names}
        kind, files = _find_files(path, names)
        if streaming and kind == "parquet":
            return {name: StreamedRows(files[name]) for name in names}
        return {name: datasets.load_dataset(kind, data_files={name: files[name]}, split=name) for name in names}
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as e:
        reraise_disk(e)
        if "corresponds to no data" in str(e):
            raise ToastError(f"data.path={path} has an empty split ({e}): it must hold at least one image.") from e
        raise ToastError(
            f"data.path={path} cannot be read as a data set: {' '.join(str(e.__cause__ or e).split())[:300]}"
        ) from e


def _find_files(path: Path, names: Sequence[str]) -> tuple[str, dict[str, list[str]]]:
    """The ``datasets`` builder for the files in ``path``, and the files of each split."""
    parquet = _find_parquet(path, names)
    if any(parquet.values()):
        kind, files = "parquet", parquet
    else:
        kind, files = "imagefolder", {name: [str(path / name / "**")] * (path / name).is_dir() for name in names}
    for name in names:
        if not files[name]:
            raise ToastError(
                f"data.path={path} has no split '{name}': toast looks for {name}.parquet, a folder {name}/<class>/ of images or a saved "
                "data set; set data.train_split or data.test_split if yours has another name."
            )
        if kind == "imagefolder":
            _check_names(path / name)
    return kind, files


def _check_names(split: Path) -> None:
    """Raises ToastError for a folder of images that ``datasets`` would leave out without a word, or take for another."""
    endings = Image.registered_extensions()
    for place, folders, files in os.walk(split):
        folders[:] = sorted(folder for folder in folders if folder not in _CLUTTER)
        images = [file for file in files if Path(file).suffix.lower() in endings and not file.startswith(".")]
        inside = Path(place).relative_to(split)
        if images and any(part.startswith((".", "__")) for part in inside.parts):
            raise ToastError(
                f"{place} holds images, but a folder whose name begins with a dot or two underscores is not read: rename it, or move it elsewhere."
            )
        misread = [
            name for name in (inside / image for image in images) if any(sign in str(name) for sign in ("\\", "::"))
        ]
        if misread:
            raise ToastError(
                f"{split / misread[0]} has a backslash or :: in its name, which is not read as such: rename it."
            )


def _find_parquet(path: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """``train.parquet`` or the hub's ``train-00000-of-00001.parquet``, in ``path`` or in the only subfolder that has any."""
    found = []
    for folder in (path, *sorted(child for child in path.iterdir() if child.is_dir())):
        files = {
            name: [
                str(file) for file in sorted([*folder.glob(f"{name}.parquet"), *folder.glob(f"{name}-*-of-*.parquet")])
            ]
            for name in names
        }
        found += [(folder.name, files)] if any(files.values()) else []
    if len(found) > 1:
        raise ToastError(
            f"data.path={path} has parquet files in {', '.join(name for name, _ in found)}: name one of these with data.path."
        )
    return found[0][1] if found else {name: [] for name in names}


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
    """The names of the image column and the label column: as given, else the only ones in the schema.

    Raises ToastError for a column that does not fit, and if a name is needed to choose one.
    """
    images = [name for name, feature in rows.features.items() if _holds_images(feature)]
    labels = [name for name, feature in rows.features.items() if isinstance(feature, datasets.ClassLabel)]
    found = [_column(rows, "image", image, images), _column(rows, "label", label, labels)]
    if found[0] not in images:
        raise ToastError(f"data.image_column={found[0]} holds no images: the data set has {_schema(rows)}.")
    return found[0], found[1]


def _column(rows: Rows, kind: str, name: str | None, fitting: list[str]) -> str:
    if name is None and len(fitting) != 1:
        folders = "; image folders need two classes or more in every split" if kind == "label" and not fitting else ""
        raise ToastError(
            f"The data set's columns are {_schema(rows)}, of which {len(fitting)} are marked as {kind}: name one with data.{kind}_column{folders}."
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
