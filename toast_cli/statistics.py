"""What a difference in accuracy is worth: paired bootstrap, McNemar's test, flip rate.

Shapes: S probe seeds, M test images.
"""

import numpy as np
from scipy.stats import binomtest

_DRAWS, _CHUNK = 2000, 100


def bootstrap_interval(difference: np.ndarray, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile interval of the mean of ``difference`` (M,), images drawn with replacement (Efron & Tibshirani, 1993, ch. 13).

    ``difference`` is (right with the plan) − (right with the original) per image, averaged over seeds where there are
    several: both are judged on the same images, so that it is the images' difference that is drawn again.
    """
    generator = np.random.default_rng(seed)
    count = len(difference)
    means = [
        (generator.multinomial(count, np.full(count, 1 / count), size=_CHUNK) @ difference) / count
        for _ in range(_DRAWS // _CHUNK)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mcnemar(right: np.ndarray, right_original: np.ndarray) -> float:
    """Two-sided exact p that the plan is as often right as the original (M,) bool each: a binomial test on the images on
    which one is right and the other wrong (McNemar, 1947). 1 where there are none."""
    lost, won = int((right_original & ~right).sum()), int((right & ~right_original).sum())
    return float(binomtest(won, won + lost, 0.5).pvalue) if won + lost else 1.0


def flip_rate(predicted: np.ndarray, predicted_original: np.ndarray) -> float:
    """Share of the test images (M,) whose predicted class is another one than the original's, right or wrong."""
    return float((predicted != predicted_original).mean())
