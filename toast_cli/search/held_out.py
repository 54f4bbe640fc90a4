"""How well features tell classes apart, on train images alone and without the luck of a probe's seed.

A ridge classifier leaves every image out once, in closed form: no split, no steps, no seed. It decides between plans.

Shapes: N images, F features, C classes.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

# In units of a feature's variance. The usual one comes first; another has to predict the original's images clearly better,
# since a model that is never wrong on them says nothing about strengths (docs/search.md).
_STRENGTHS = (1.0, 10.0, 3.0, 0.3, 0.1, 0.03, 0.01)
_CLEARLY = 1e-3  # nats
_SHARPNESS = (-3.0, 6.0)  # bounds of ln β: if the original is never wrong, the best β would be infinite


@dataclass(frozen=True)
class Score:
    """``loss``: mean cross-entropy of images left out, in nats. ``accuracy``: share of them classified correctly."""

    loss: float
    accuracy: float
    images: int


class LeaveOneOut:
    """Ridge regression from standardised features to one-hot classes, each image predicted from all others.

    With H = X (XᵀX + λ n)⁻¹ Xᵀ + 1/n the prediction of an image left out is (ŷ − h y) / (1 − h), h its diagonal entry
    (Allen, 1974); softmax(β ŷ) are the probabilities of the classes.

    ``strength`` is λ, in units of a feature's variance; None takes the one that predicts the original's images best.

    Learned:
        strength_, sharpness_: λ and β, fitted to the original's features and the same for all plans.
    """

    strength_: float
    sharpness_: float

    def __init__(self, labels: np.ndarray, classes: int, strength: float | None = None) -> None:
        self.labels, self.strength = labels, strength  # (N,)
        onehot = np.eye(classes)[labels]
        self.target = onehot - onehot.mean(0)  # (N, C)

    def fit(self, features: np.ndarray) -> Self:
        """Choose λ and β on the original's ``features`` (N, F)."""
        least = np.inf
        for strength in _STRENGTHS if self.strength is None else (self.strength,):
            loss, sharpness = self._sharpest(self._predict(features, strength))
            if loss < least - _CLEARLY:
                least, self.strength_, self.sharpness_ = loss, strength, sharpness
        return self

    def score(self, features: np.ndarray) -> Score:
        """The score of a plan's ``features`` (N, F)."""
        predicted = self._predict(features, self.strength_)
        right = predicted.argmax(1) == self.labels
        return Score(self._loss(predicted, self.sharpness_), float(right.mean()), len(right))

    def _sharpest(self, predicted: np.ndarray) -> tuple[float, float]:
        """The least loss of these predictions (N, C), and the β that gives it."""
        found = minimize_scalar(lambda log: self._loss(predicted, np.exp(log)), bounds=_SHARPNESS, method="bounded")
        return float(found.fun), float(np.exp(found.x))

    def _predict(self, features: np.ndarray, strength: float) -> np.ndarray:
        """Features (N, F) -> the prediction of each image from all others (N, C)."""
        x = features.astype(np.float64)
        x -= x.mean(0)
        spread = x.std(0)
        x /= np.where(spread > 0, spread, 1.0)
        n, width = x.shape
        solved = np.linalg.solve(x.T @ x + strength * n * np.eye(width), x.T).T  # (N, F)
        leverage = ((x * solved).sum(1) + 1 / n)[:, None]  # h (N, 1)
        return (x @ (solved.T @ self.target) - leverage * self.target) / (1 - leverage)

    def _loss(self, predicted: np.ndarray, sharpness: float) -> float:
        logits = sharpness * predicted
        return float((logsumexp(logits, axis=1) - logits[np.arange(len(logits)), self.labels]).mean())
