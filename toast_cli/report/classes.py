"""What a plan costs each class: the accuracy of the test images of one class, beside the original's.

Shapes: M test images, C classes among them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toast_cli.machine.console import visible
from toast_cli.report.samples import Line, Sample, grouped
from toast_cli.runs.archive import CompleteRun


@dataclass(frozen=True)
class ClassChange(Line):
    """One plan and class, its fields in the order of the columns of ``classes.csv``.

    Accuracies are shares of the judgements over all seeds of the class's test images. ``test_images`` counts each image
    once. ``class_name`` is the number for a run of an earlier version, which did not record names.
    """

    class_number: int
    class_name: str
    test_images: int
    accuracy: float
    accuracy_original: float
    accuracy_delta: float


@dataclass(frozen=True)
class Tally:
    """For each class, (C,) each: its number, its test images, how often they were judged and how often rightly."""

    numbers: np.ndarray
    images: np.ndarray
    judged: np.ndarray
    right: np.ndarray
    right_original: np.ndarray

    @property
    def changes(self) -> np.ndarray:
        """Change of accuracy (C,); whole numbers divided once, so that equal changes are equal."""
        return (self.right - self.right_original) / self.judged

    @property
    def worst(self) -> int:
        """The position of the class with the largest drop; of several, the one with the most test images."""
        return int(np.lexsort((self.numbers, -self.images, self.changes))[0])

    @property
    def correlation(self) -> float | None:
        """Spearman's ρ of original accuracy and change; None for fewer than three classes, or where one is constant."""
        original, changes = self.right_original / self.judged, self.changes
        if len(original) < 3 or np.ptp(original) == 0 or np.ptp(changes) == 0:
            return None
        from scipy.stats import spearmanr

        return float(spearmanr(original, changes).statistic)


def tally(samples: Sequence[Sample]) -> Tally | None:
    """Count by class over all seeds and draws; None if predictions are missing, and for the original."""
    stored = [sample.stored for sample in samples]
    if samples[0].row.plan == "none" or any(each is None for each in stored):
        return None
    judged, draws = [], {}  # rows of (class, right, original right); the test images of each draw
    for sample, each in zip(samples, stored, strict=True):
        if each is not None:
            predicted = each.by_seed[sample.row.seed]
            judged.append(np.stack([each.truth, *(predicted[[sample.number, 0]] == each.truth)]))
            place = np.full_like(each.images, sample.run.split)
            draws[sample.run.split, sample.row.data_seed] = np.stack([place, each.images, each.truth])
    truth, right, original = np.concatenate(judged, axis=1)
    numbers, position = np.unique(truth, return_inverse=True)
    distinct = np.unique(np.concatenate(list(draws.values()), axis=1), axis=1)[2]
    images = np.bincount(np.searchsorted(numbers, distinct), minlength=len(numbers))
    counts = [np.bincount(position, weights, len(numbers)).astype(np.int64) for weights in (None, right, original)]
    return Tally(numbers, images, *counts)


def name_of(samples: Sequence[Sample], number: int) -> str:
    """The name of a class as a table shows it, from the first run that knows it; else its number."""
    named = (sample.run.classes for sample in samples)
    return next((visible(names[number]) for names in named if 0 <= number < len(names)), str(number))


def worst_of(samples: Sequence[Sample]) -> dict[str, Any]:
    """The columns of a finding about its classes; empty where ``tally`` is None."""
    counted = tally(samples)
    if counted is None:
        return dict.fromkeys(("worst_class", "worst_class_delta", "worst_class_images", "class_correlation"))
    worst = counted.worst
    return {
        "worst_class": name_of(samples, int(counted.numbers[worst])),
        "worst_class_delta": float(counted.changes[worst]),
        "worst_class_images": int(counted.images[worst]),
        "class_correlation": counted.correlation,
    }


def changes_of(runs: list[CompleteRun]) -> list[ClassChange]:
    """Every class of every plan but the original. Raises ToastError for runs that cannot be compared."""
    changes = []
    for settings, samples in grouped(runs):
        counted, row = tally(samples), samples[0].row
        if counted is None:
            continue
        for i, number in enumerate(counted.numbers.tolist()):
            judged = int(counted.judged[i])
            changes.append(
                ClassChange(
                    **settings,
                    plan=row.plan,
                    blocks_removed=row.blocks_removed,
                    fit_images=row.fit_images,
                    class_number=number,
                    class_name=name_of(samples, number),
                    test_images=int(counted.images[i]),
                    accuracy=int(counted.right[i]) / judged,
                    accuracy_original=int(counted.right_original[i]) / judged,
                    accuracy_delta=float(counted.changes[i]),
                )
            )
    return changes
