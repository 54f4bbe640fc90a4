"""What the same images say about a plan and a rival: by how much the plan may still be the better one.

Let d be (right with the rival) − (right with the plan) of an image, a mean over S seeds, in [−1, 1]. If the rival is not
better on all test images, Σd ≤ 0 there, then for every λ in (0, 1) the product of 1 + λd over images drawn without
replacement has an expectation of 1 at most (Maclaurin's inequality), and so has its mean over λ. By Markov's inequality
this mean exceeds 1/α with a chance of α at most, for any number of images: no distribution is assumed.

Shapes: P plans, M images, V different values of d.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

RACING, BEATEN, HALVED, FINISHED = "racing", "beaten", "halved", "finished"  # outcomes, see ``Raced``
_BETS = (np.arange(32)[:, None] + 0.5) / 32  # λ
_STEPS = 40  # of a bisection


def ahead_at_most(plan: np.ndarray, rival: np.ndarray, seeds: int, chance: float) -> float:
    """By how much the plan is more accurate than the rival on all test images at most; wrong with a ``chance`` at most.

    ``plan`` and ``rival`` (M,) say with how many of the ``seeds`` each image is classified correctly. Below 0, the rival
    is the better one.
    """
    values, counts = np.unique((rival.astype(int) - plan) / seeds, return_counts=True)  # (V,)
    low, high = -1.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        enough = _evidence(values, counts, middle) >= -math.log(chance)
        low, high = (low, middle) if enough else (middle, high)
    return high


def _evidence(values: np.ndarray, counts: np.ndarray, lead: float) -> float:
    """ln of the mean over λ of Π (1 + λd), where d is a difference plus the ``lead`` of the plan, brought into [−1, 1]."""
    moved = (values + lead) / max(1.0, 1.0 - lead)
    return float(np.logaddexp.reduce(np.log1p(_BETS * moved) @ counts) - math.log(len(_BETS)))


def interval(accuracy: float, images: int, confidence: float) -> tuple[float, float]:
    """Bounds of an accuracy on all test images, from so many ``images``: Clopper and Pearson's (1934).

    For a mean over seeds, whose spread over images is no larger, they are wider than they need be.
    """
    right, chance = accuracy * images, (1 - confidence) / 2
    low = float(beta.ppf(chance, right, images - right + 1)) if right > 0 else 0.0
    high = float(beta.ppf(1 - chance, right + 1, images - right)) if right < images else 1.0
    return low, high


@dataclass(frozen=True)
class Verdict:
    """On a plan of a size, next to the best one, number ``best`` of that size: see ``Raced``."""

    outcome: str
    accuracy: float
    score: float
    best: int
    behind: float
    low: float | None = None
    high: float | None = None


def verdicts(right: np.ndarray, seeds: int, scores: np.ndarray, chance: float, places: int) -> list[Verdict]:
    """What a round says about the P plans of a size; ``right`` (P, M) counts for how many of the ``seeds`` a test image is
    classified correctly.

    The best plan is that with the highest of the ``scores`` (P,). A plan is beaten if the best one is better on all test
    images, but for a ``chance``. Of the others so many go on as there are ``places``, by their scores; of two with the same
    score, the later one.
    """
    order = sorted(range(len(right)), key=lambda plan: (scores[plan], plan), reverse=True)
    best, found, going = order[0], dict[int, Verdict](), 0
    for plan in order:
        accuracy, lead = (int(right[each].sum()) / (right.shape[1] * seeds) for each in (plan, best))
        if plan == best:
            low = high = None
        else:
            low = -ahead_at_most(right[best], right[plan], seeds, chance)
            high = ahead_at_most(right[plan], right[best], seeds, chance)
        beaten = high is not None and high < 0
        outcome = BEATEN if beaten else RACING if going < places else HALVED
        going += outcome == RACING
        found[plan] = Verdict(outcome, accuracy, float(scores[plan]), best, accuracy - lead, low, high)
    return [found[plan] for plan in range(len(right))]
