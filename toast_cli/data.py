"""The images of one run: fit images estimate translators, train images train the probe, test images are only ever scored."""

import hashlib
from dataclasses import dataclass

import datasets
import numpy as np

from toast_cli.draws import draw, draw_fit
from toast_cli.errors import ToastError
from toast_cli.images import Images, Split
from toast_cli.sources import columns_of, read


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
    rows = read(source, config, path, (train_split, test_split))
    columns = [columns_of(split, image_column, label_column) for split in rows]
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
        fit=take(train, train_labels, draw_fit(len(train_labels), fit_images, fit_order, seed)),
        train=take(train, train_labels, draw(train_labels, train_images, "data.train_images", seed)),
        test=take(test, test_labels, draw(test_labels, test_images, "data.test_images", seed)),
    )


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
