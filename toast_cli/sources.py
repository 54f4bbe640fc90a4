"""Where images come from: hub data sets, parquet files, image folders, saved data sets and the digits of scikit-learn."""

import sys
from pathlib import Path

import datasets
import numpy as np
from huggingface_hub.errors import GatedRepoError
from PIL import Image

from toast_cli.draws import stratified
from toast_cli.errors import ToastError, did_you_mean

DIGITS = "scikit-learn"  # the `source` of the digits that ship with scikit-learn
# The embedded model was trained with these held out: never change them apart from it.
_DIGITS_TEST, _DIGITS_SEED = 360, 0


def read(source: str | None, config: str | None, path: str | None, names: tuple[str, str]) -> list[datasets.Dataset]:
    """The stored splits of these ``names``: from the folder ``path`` if given, else from ``source``.

    Raises ToastError for what is missing, out of reach, unreadable or empty.
    """
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    if path is not None:
        splits = _read_path(Path(path).expanduser(), names)
    elif source == DIGITS:
        splits = _read_digits()
    elif source is not None:
        splits = _read_hub(source, config, names)
    else:
        raise ToastError(
            "data=folder has no data.path: give data.path=<dir> with an image folder, parquet files or a saved data set."
        )
    for name in names:
        if len(splits[name]) == 0:
            raise ToastError(f"Split '{name}' of {path or source} is empty: it must hold at least one image.")
    return [splits[name] for name in names]


def _read_path(path: Path, names: tuple[str, str]) -> dict[str, datasets.Dataset]:
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
        return dict(datasets.load_dataset(kind, data_files=files))
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as e:
        if "corresponds to no data" in str(e):
            raise ToastError(f"data.path={path} has an empty split ({e}): it must hold at least one image.") from e
        raise ToastError(
            f"data.path={path} cannot be read as a data set: {' '.join(str(e.__cause__ or e).split())[:300]}"
        ) from e


def _find_files(path: Path, names: tuple[str, str]) -> tuple[str, dict[str, str | list[str]]]:
    """The ``datasets`` builder for what lies in ``path``, and the files of each split."""
    parquet = {
        name: sorted(str(file) for pattern in (f"{name}.parquet", f"{name}-*.parquet") for file in path.rglob(pattern))
        for name in names
    }
    if any(parquet.values()):
        kind, files = "parquet", parquet
    else:
        kind, files = (
            "imagefolder",
            {name: [str(path / name / "**")] if (path / name).is_dir() else [] for name in names},
        )
    for name in names:
        if not files[name]:
            raise ToastError(
                f"data.path={path} has no split '{name}': toast looks for {name}.parquet, a folder {name}/<class>/ of images or a saved "
                "data set; set data.train_split or data.test_split if yours is named otherwise."
            )
    return kind, dict(files)


def _read_hub(source: str, config: str | None, names: tuple[str, str]) -> dict[str, datasets.Dataset]:
    try:
        return {name: datasets.load_dataset(source, config, split=name) for name in names}
    except Exception as e:
        if "Unknown split" in str(e):
            raise ToastError(f"{source}: {e} Set data.train_split or data.test_split.") from e
        causes = (e, e.__cause__, e.__context__)
        if any(isinstance(cause, GatedRepoError) for cause in causes) or "gated" in str(e):
            raise ToastError(
                f"The hub gives {source} only to those who accepted its terms: accept them on its hub page, then set HF_TOKEN to a token "
                "with read access; or give data.path=<dir> with a copy."
            ) from e
        raise ToastError(
            f"{source} could not be fetched from the hub ({type(e).__name__}: {' '.join(str(e).split())[:200]}): give data.path=<dir> with a "
            "copy, or set HF_HOME to a cache that holds it."
        ) from e


def _read_digits() -> dict[str, datasets.Dataset]:
    """The 1 797 handwritten digits of scikit-learn, 8 × 8 in 17 grey levels; a fixed stratified draw is the test split."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    grey = np.rint(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
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


def columns_of(rows: datasets.Dataset, image: str | None, label: str | None) -> tuple[str, str]:
    """The image and the label column: as named, else the only one of its kind in the schema."""
    kinds: dict[str, tuple[str | None, type]] = {
        "image": (image, datasets.Image),
        "label": (label, datasets.ClassLabel),
    }
    found = []
    for kind, (name, feature) in kinds.items():
        fitting = [column for column, value in rows.features.items() if isinstance(value, feature)]
        if name is None and len(fitting) != 1:
            raise ToastError(
                f"The data set's columns are {_schema(rows)}, of which {len(fitting)} are marked as {kind}: name one with data.{kind}_column."
            )
        if name is not None and name not in rows.features:
            raise ToastError(
                f"data.{kind}_column={name} is not a column{did_you_mean(name, rows.features)}: the data set has {_schema(rows)}."
            )
        found.append(name or fitting[0])
    if not isinstance(rows.features[found[0]], datasets.Image):
        raise ToastError(f"data.image_column={found[0]} holds no images: the data set has {_schema(rows)}.")
    return found[0], found[1]


def _schema(rows: datasets.Dataset) -> str:
    return ", ".join(f"{name} ({type(feature).__name__})" for name, feature in rows.features.items())
