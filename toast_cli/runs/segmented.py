"""The rows of the tables of eval=segmentation: a dataclass for each table, its fields in the order of the columns."""

from dataclasses import dataclass

from toast_cli.runs.rows import Number


@dataclass(frozen=True)
class Segmented:
    """One plan with ``eval=segmentation``; the order of the fields is that of the columns of ``segmentation.csv``.

    ``miou`` is the mean over the ``classes`` classes that the test masks have of intersection over union, each from the pixels of all
    ``test_images`` together; ``pixel_accuracy`` is the share of their pixels with a class that get it. Both are fractions. ``penalty`` is
    that of the plan's head, chosen on a fifth of the ``train_images``. Names that ``results.csv`` has too mean the same there.
    """

    model: str
    data: str
    translator: str
    plan: str
    spans_start_end: str
    blocks_removed: Number
    fit_data: str
    fit_images: int
    data_seed: int
    train_images: int
    test_images: int
    classes: int
    penalty: float
    miou: float
    miou_original: float
    miou_delta: float
    pixel_accuracy: float
    pixel_accuracy_original: float
    pixel_accuracy_delta: float
    params: int
    params_original: int
    params_ratio: float
    gflops: float
    gflops_original: float
    gflops_ratio: float
    fit_r2: float | None
    held_out_r2: float | None
    fit_rank: int | None
    sequential: bool
    healed: bool
    tokens: str
    solver: str
    protocol: str
    precision: str
    device: str


@dataclass(frozen=True)
class ClassIou:
    """What one plan does to one class: a line of ``segmentation_classes.csv``, for classes that the test masks have.

    ``number`` is the class's in the masks, ``test_pixels`` how many pixels of the test masks have it, ``iou`` intersection over union.
    """

    plan: str
    fit_images: int
    sequential: bool
    healed: bool
    number: int
    name: str
    test_pixels: int
    iou: float
    iou_original: float
    iou_delta: float
