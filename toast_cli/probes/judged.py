"""What probes say of images, and how sure they are.

Shapes: P plans, N images, C classes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_BINS = 15  # of equal width, as in Guo et al. (2017)


@dataclass(frozen=True)
class Judged:
    """The ``classes`` (P, N) that a probe predicts; None for what the probe does not give or was not asked for.

    ``confidence`` (P, N) is the probability of that class, ``probabilities`` (P, N, C) are those of all: float32.
    """

    classes: np.ndarray
    confidence: np.ndarray | None = None
    probabilities: np.ndarray | None = None

    def calibration_errors(self, truth: np.ndarray) -> list[float | None]:
        """The expected calibration error of each plan, for the classes ``truth`` (N,); None without confidences."""
        if self.confidence is None:
            return [None] * len(self.classes)
        pairs = zip(self.confidence, self.classes == truth, strict=True)
        return [calibration_error(confidence, right) for confidence, right in pairs]


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Σ n_b/N |accuracy_b − mean confidence_b| over bins b of the confidences (N,) in 15 intervals ((m−1)/15, m/15].

    ``right``: whether the class with that confidence is the image's, bool (N,). Guo et al. (2017), for the top label.
    """
    bins = np.digitize(confidence, np.linspace(0, 1, _BINS + 1)[1:-1], right=True)
    gaps = np.bincount(bins, right.astype(np.float64) - confidence.astype(np.float64))
    return float(np.abs(gaps).sum() / len(confidence))


def of_logits(batches: Iterable[Tensor], keep: bool) -> Judged:
    """The largest of the logits (P, B, C) of each batch, and its softmax; ``keep`` all probabilities too."""
    classes, confidence, kept = [], [], []
    for logits in batches:
        sure, probabilities = [], []
        for each in logits:  # one plan at a time: those of all are as large as the logits
            found = each.float().softmax(-1)
            sure.append(found.amax(-1))
            probabilities += [found.cpu().numpy()] if keep else []
        classes.append(logits.argmax(-1).cpu().numpy())
        confidence.append(torch.stack(sure).cpu().numpy())
        kept += [np.stack(probabilities)] if keep else []
    return Judged(
        np.concatenate(classes, axis=1),
        np.concatenate(confidence, axis=1),
        np.concatenate(kept, axis=1) if keep else None,
    )


def of_plans(plans: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray | None]]) -> Judged:
    """From each plan's classes (N,), their confidence (N,) and, if they are kept, all probabilities (N, C)."""
    classes, confidence, kept = zip(*plans, strict=True)
    probabilities = None if kept[0] is None else np.stack(kept).astype(np.float32)
    return Judged(np.stack(classes), np.stack(confidence).astype(np.float32), probabilities)
