"""Labelled images: hub data sets, parquet files, image folders, saved data sets and the embedded digits.

Everything is read through ``datasets`` and lands as fit, train and test images:
fit images estimate translators, train images train the probe, test images are only ever scored.
"""

import hashlib
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from huggingface_hub.errors import GatedRepoError
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from toast_cli.errors import ToastError, did_you_mean

DIGITS = "scikit-learn"  # the `source` of the digits that ship with scikit-learn
_DIGITS_TEST, _DIGITS_SEED = (
    360,
    0,
)  # the embedded model was trained with these held out: never change them apart from it

Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class BadImage:
    """What is wrong with an image that cannot be decoded."""

    where: str
    reason: str


@dataclass(frozen=True)
class Split:
    """The encoded images of one stored split, and those pixels that are needed more than once."""

    name: str
    rows: datasets.Dataset
    image_column: str
    skip_bad_images: bool = False
    kept: dict[int, Tensor | BadImage] = field(default_factory=dict)

    def encoded(self, index: int) -> bytes:
        """The file of image ``index`` as it is stored."""
        value = self.rows[index][self.image_column]
        return value["bytes"] if value["bytes"] is not None else Path(value["path"]).read_bytes()

    def pixels(self, index: int, transform: Transform) -> Tensor | BadImage:
        """Image ``index`` in RGB through ``transform``: uint8 (3, H, W)."""
        if index in self.kept:
            return self.kept[index]
        try:
            with Image.open(io.BytesIO(self.encoded(index))) as image:
                return transform(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
            path = self.rows[index][self.image_column]["path"]
            return BadImage(f"{self.name} image {index}{f' ({path})' if path else ''}", " ".join(str(e).split()))


@dataclass(frozen=True)
class Images:
    """N labelled images of a split, by their ``indices`` (N,) in it; ``labels`` (N,) are class numbers 0 … C−1."""

    split: Split
    indices: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def batches(
        self, transform: Transform, size: int, workers: int = 0, start: int = 0, keep: bool = False
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Positions (B,) and pixels uint8 (B, 3, H, W), ``size`` at a time from image ``start`` on, in order.

        With ``keep`` the pixels stay in memory, so that whoever asks for the same image again has it decoded already.
        Positions of bad images are missing from their batch where ``skip_bad_images`` is set.

        Raises ToastError that names a bad image.
        """
        loader = DataLoader(
            _Decoder(self, transform, start),
            batch_size=size,
            num_workers=workers,
            collate_fn=list,
            persistent_workers=False,
        )
        for number, items in enumerate(loader):
            positions = start + number * size + np.arange(len(items))
            if keep:
                self.split.kept.update(zip(self.indices[positions].tolist(), items, strict=True))
            good = [i for i, item in enumerate(items) if not self._is_bad(item)]
            yield positions[good], torch.stack([items[i] for i in good]) if good else torch.empty(0)

    def _is_bad(self, item: Tensor | BadImage) -> bool:
        if isinstance(item, BadImage) and not self.split.skip_bad_images:
            raise ToastError(
                f"{item.where} cannot be decoded ({item.reason}): mend or remove it, or set data.skip_bad_images=true to leave such images out."
            )
        return isinstance(item, BadImage)


class _Decoder(Dataset):
    """What a DataLoader wants; a bad image is a value, because an exception would lose its words between processes."""

    def __init__(self, images: Images, transform: Transform, start: int) -> None:
        self.images, self.transform, self.start = images, transform, start

    def __len__(self) -> int:
        return len(self.images) - self.start

    def __getitem__(self, i: int) -> Tensor | BadImage:
        return self.images.split.pixels(int(self.images.indices[self.start + i]), self.transform)


@dataclass(frozen=True)
class Data:
    """The images of one run. ``classes`` are the C class names."""

    label: str
    classes: tuple[str, ...]
    fit: Images
    train: Images
    test: Images

    def fingerprint(self) -> str:
        """Hash of which images are used with which labels, and of the fit images' files."""
        digest = hashlib.sha256()
        for images in (self.fit, self.train, self.test):
            digest.update(images.indices.astype("<i8").tobytes() + images.labels.astype("<i8").tobytes())
        for index in self.fit.indices:
            digest.update(self.fit.split.encoded(int(index)))
        return digest.hexdigest()[:16]


def load(
    label: str,
    source: str | None,
    *,
    config: str | None = None,
    path: str | None = None,
    train_split: str = "train",
    test_split: str = "test",
    image_column: str | None = None,
    label_column: str | None = None,
    fit_images: int = 500,
    train_images: int | None = None,
    test_images: int | None = None,
    fit_order: str = "random",
    skip_bad_images: bool = False,
    seed: int = 0,
) -> Data:
    """Fit, train and test images from ``path`` if given, else from ``source`` (a hub data set, or ``scikit-learn``).

    Columns that are not named are read from the data set's own schema. ``train_images`` and ``test_images`` limit a
    split to a stratified draw; smaller draws of one seed are part of larger ones. Fit images are drawn from the whole
    train split (``random``: seeded, ``first``: stored order), so that they do not move with ``train_images``.

    Raises ToastError for whatever is missing, unreachable, empty or too small.
    """
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    rows = _read(source, config, path, (train_split, test_split))
    columns = [_columns(split, image_column, label_column) for split in rows]
    classes, (train_labels, test_labels) = _labels(rows, [column for _, column in columns])
    train, test = (
        Split(name, split.cast_column(image, datasets.Image(decode=False)), image, skip_bad_images)
        for name, split, (image, _) in zip((train_split, test_split), rows, columns, strict=True)
    )

    def take(split: Split, labels: np.ndarray, indices: np.ndarray) -> Images:
        return Images(split, np.sort(indices), labels[np.sort(indices)])

    return Data(
        label=label,
        classes=classes,
        fit=take(train, train_labels, _draw_fit(len(train_labels), fit_images, fit_order, seed)),
        train=take(train, train_labels, _draw(train_labels, train_images, "data.train_images", seed)),
        test=take(test, test_labels, _draw(test_labels, test_images, "data.test_images", seed)),
    )


def _read(source: str | None, config: str | None, path: str | None, names: tuple[str, str]) -> list[datasets.Dataset]:
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
        name: sorted(str(file) for folder in (path, path / "data") for file in folder.glob(f"{name}*.parquet"))
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
    order = _stratified(labels, _DIGITS_SEED)
    parts = {"train": np.sort(order[_DIGITS_TEST:]), "test": np.sort(order[:_DIGITS_TEST])}
    return {
        name: datasets.Dataset.from_dict(
            {"image": [Image.fromarray(grey[i]) for i in part], "label": labels[part]}, features=features
        )
        for name, part in parts.items()
    }


def _columns(rows: datasets.Dataset, image: str | None, label: str | None) -> tuple[str, str]:
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


def _labels(rows: list[datasets.Dataset], columns: list[str]) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """Class names, and the labels of each split as class numbers. The first split is the one that names the classes."""
    feature = rows[0].features[columns[0]]
    if not isinstance(feature, datasets.ClassLabel | datasets.Value):
        raise ToastError(
            f"data.label_column={columns[0]} holds {type(feature).__name__}s, not classes: name a column of class labels."
        )
    values = [np.asarray(split[column]) for split, column in zip(rows, columns, strict=True)]
    if isinstance(feature, datasets.ClassLabel):
        names, numbers = tuple(feature.names), [value.astype(np.int64) for value in values]
    elif values[0].dtype.kind in "iuU":
        kinds = np.unique(values[0])
        names = tuple(str(kind) for kind in kinds)
        numbers = [np.where(np.isin(value, kinds), np.searchsorted(kinds, value), -1) for value in values]
    else:
        raise ToastError(
            f"data.label_column={columns[0]} holds {feature}, not classes: name a column of class labels, integers or strings."
        )
    for split, value, number in zip(rows, values, numbers, strict=True):
        foreign = value[(number < 0) | (number >= len(names))]
        if len(foreign):
            raise ToastError(
                f"Split '{split.split}' has the label {foreign[0]} for {len(foreign)} of its {len(value)} images, outside the "
                f"{len(names)} classes: choose a labelled split with data.train_split or data.test_split."
            )
    return names, numbers


def _stratified(labels: np.ndarray, seed: int) -> np.ndarray:
    """An order (N,) of which every beginning is a random draw with each class in proportion."""
    generator = np.random.default_rng(seed)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + generator.random()) / len(members)
    return np.argsort(place, kind="stable")


def _draw(labels: np.ndarray, wanted: int | None, key: str, seed: int) -> np.ndarray:
    return np.arange(len(labels)) if wanted is None else _stratified(labels, seed)[: _count(wanted, len(labels), key)]


def _draw_fit(available: int, wanted: int, order: str, seed: int) -> np.ndarray:
    count = _count(wanted, available, "data.fit_images")
    orders = {
        "first": lambda: np.arange(count),
        "random": lambda: np.random.default_rng(seed).permutation(available)[:count],
    }
    if order not in orders:
        raise ToastError(f"data.fit_order={order} is not an order{did_you_mean(order, orders)}: use random or first.")
    return orders[order]()


def _count(wanted: Any, available: int, key: str) -> int:
    if not isinstance(wanted, int) or isinstance(wanted, bool) or not 1 <= wanted <= available:
        raise ToastError(
            f"{key}={wanted} cannot be had: give a whole number from 1 to {available}, the images of that split."
        )
    return wanted
