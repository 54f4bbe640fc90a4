"""What a difference in accuracy is worth: paired bootstrap, McNemar's test, flip rate.

Shapes: M test images.
"""

import numpy as np

_DRAWS = 2000


def bootstrap_interval(
    change: np.ndarray, times: np.ndarray, level: float = 0.95, seed: int = 0, draws: int = _DRAWS
) -> tuple[float, float]:
    """Percentile interval of Σ ``change`` / Σ ``times``, (M,) each, over images drawn with replacement.

    ``change`` is (right with the plan) − (right with the original) for an image, added up over the ``times`` that it
    was judged (probe and data seeds). Both are judged on the same images, so the differences are drawn again, image by
    image (Efron & Tibshirani, 1993, ch. 13). Images with the same two numbers are drawn together, which is the same
    draw and takes no time.
    """
    kinds, counts = np.unique(np.stack([change, times], axis=1), axis=0, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(change), counts / len(change), size=draws) @ kinds  # (draws, 2)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mcnemar(right: np.ndarray, right_original: np.ndarray) -> float:
    """Two-sided exact p-value for the plan being right as often as the original, bool (M,) each.

    A binomial test on the images on which one is right and the other wrong (McNemar, 1947); 1 if there are none.
    """
    from scipy.stats import binomtest  # slow to import, and a table needs intervals only

    lost, won = int((right_original & ~right).sum()), int((right & ~right_original).sum())
    return float(binomtest(won, won + lost, 0.5).pvalue) if won + lost else 1.0


def flip_rate(predicted: np.ndarray, predicted_original: np.ndarray) -> float:
    """Share of the test images (M,) whose predicted class differs from the original's, right or wrong."""
    return float((predicted != predicted_original).mean())
