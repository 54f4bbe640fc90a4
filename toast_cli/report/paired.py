"""A plan and the untouched model on the same test images, image by image.

Shapes: M test images.
"""

from collections.abc import Sequence

import numpy as np

from toast_cli.report.samples import Sample
from toast_cli.report.statistics import bootstrap_interval


def interval_of(samples: Sequence[Sample]) -> tuple[float, float] | None:
    """The 95% paired bootstrap interval of a plan's mean change in accuracy, over the test images of all its ``samples``.

    None for the untouched model itself, and if what the probes predicted is not known.
    """
    found = _changes(samples)
    return None if found is None else bootstrap_interval(*found)


def right_of(sample: Sample) -> tuple[np.ndarray, np.ndarray] | None:
    """Whether the plan and the untouched model are right, bool (M,) each; None if what they predicted is not known."""
    stored = sample.stored
    if stored is None:
        return None
    predicted = stored.by_seed[sample.row.seed]
    return predicted[sample.number] == stored.truth, predicted[0] == stored.truth


def _changes(samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray] | None:
    """The change and how often it was judged, (M,) each: an image counts as one, whatever the seeds that saw it."""
    splits, images, changes = [], [], []
    for sample in samples:
        right, stored = right_of(sample), sample.stored
        if right is None or stored is None or sample.row.plan == "none":
            return None
        splits.append(np.full(len(stored.images), sample.run.split))
        images.append(stored.images)
        changes.append(right[0].astype(int) - right[1].astype(int))
    _, split = np.unique(np.concatenate(splits), return_inverse=True)
    _, image = np.unique(np.concatenate(images), return_inverse=True)
    _, place = np.unique(split * len(image) + image, return_inverse=True)
    return np.bincount(place, weights=np.concatenate(changes)), np.bincount(place)
