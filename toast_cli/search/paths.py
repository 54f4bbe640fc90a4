"""Which plans are worth measuring: a plan is a path from stem to readout, and its loss is nearly a sum over its spans.

Each step of the path keeps a block or takes a span. Two spans never touch: two maps in a row are one map, and least
squares over both spans at once fits no worse. So the best plans under an additive loss are the shortest paths, found by
dynamic programming for every number of blocks removed and of maps. What is not additive is learned from measured plans.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, product
from math import comb

import numpy as np

from toast_cli.plans import STEM, Plan, Span

# On a pair's correction, which is believed in full only after several measurements. Any value from 0.2 to 1 finds the
# same or nearly the same plans on tables of all plans (docs/search.md).
_DAMPING = 0.5
POOL = 16  # times the beam: how many plans with the least sums, per number of blocks and of maps, every round considers
_STEEPEST = 2.0  # bound of the scale: where sums are close to zero, what plans cost is not a multiple of them


def shortest(losses: Mapping[Span, float], depth: int, most: int, keep: int) -> dict[int, list[Plan]]:
    """The ``keep`` plans of least summed ``losses`` for each number of spans and of blocks removed, up to ``most``.

    Listed by blocks removed, best first within each number of spans. ``depth`` is the model's L.
    """
    steps: dict[int, list[Span]] = defaultdict(list)
    for span in losses:
        steps[span.start].append(span)
    # (layer reached, blocks removed, spans taken) -> the best [loss, spans] so far; a span is followed by a block that stays
    paths: dict[tuple[int, int, int], list[tuple[float, tuple[Span, ...]]]] = defaultdict(list)
    paths[STEM, 0, 0] = [(0.0, ())]
    for layer in range(STEM, depth):
        for removed in range(most + 1):
            for taken in range(removed + 1):
                best = sorted(paths[layer, removed, taken])[:keep]
                paths[layer, removed, taken] = best
                if layer < depth:
                    paths[layer + 1, removed, taken] += best
                for span in steps[layer]:
                    if removed + span.blocks_removed <= most:
                        after = min(span.end + 1, depth)  # past the block that stays, or past the last one
                        grown = [(loss + losses[span], (*spans, span)) for loss, spans in best]
                        paths[after, removed + span.blocks_removed, taken + 1] += grown
    found: dict[int, list[Plan]] = defaultdict(list)
    for (layer, removed, _), best in paths.items():
        if layer == depth and removed:
            found[removed] += [Plan(spans) for _, spans in sorted(best)[:keep]]
    return dict(found)


def possible(depth: int, removed: int, translators: int = 1) -> int:
    """How many plans remove this many of L blocks: j spans that do not touch, each with one of the translators."""
    kept = depth - removed
    return sum(comb(removed - 1, j - 1) * comb(kept + 1, j) * translators**j for j in range(1, removed + 1))


_Pair = tuple[Span, Span] | tuple[int, int]


class Predictor:
    """Predicts a plan's loss: the sum over its spans, a correction for each pair, and one in proportion to the sum.

    A pair is two spans, or two blocks that leave by different spans: what is learned about blocks holds for spans never
    measured together. Both corrections come from ridge regression on the measured plans.

    Learned:
        scale_: the correction per unit of the sum. pairs_: the corrections by two spans or two blocks.
    """

    def __init__(self, single: Mapping[Span, float]) -> None:
        self.single = single
        self.scale_ = 0.0
        self.pairs_: dict[_Pair, float] = {}

    def fit(self, measured: Mapping[Plan, float]) -> "Predictor":
        """Learn from the losses of the ``measured`` plans with several spans."""
        plans = [plan for plan in measured if len(plan.spans) > 1]
        if not plans:
            return self
        pairs = list(dict.fromkeys(pair for plan in plans for pair in _pairs(plan)))
        column = {pair: number for number, pair in enumerate(pairs)}
        together = np.zeros((len(plans), len(pairs)))
        for row, plan in enumerate(plans):
            together[row, [column[pair] for pair in _pairs(plan)]] = 1
        sums = np.array([self._sum(plan) for plan in plans])
        left = np.array([measured[plan] for plan in plans]) - sums
        unit = max(float(np.square(sums).mean()), 1e-12)  # so that the scale is hardly damped, but pairs are
        damped = [_DAMPING] * len(pairs)
        scale = _ridge(np.column_stack([sums, together]), left, [1e-3 * unit, *damped])[0]
        self.scale_ = float(np.clip(scale, -1.0, _STEEPEST))
        corrections = _ridge(together, left - self.scale_ * sums, damped)  # the pairs again, given that scale
        self.pairs_ = dict(zip(pairs, corrections.tolist(), strict=True))
        return self

    def __call__(self, plan: Plan) -> float:
        pairs = sum(self.pairs_.get(pair, 0.0) for pair in _pairs(plan)) if self.pairs_ else 0.0
        return self._sum(plan) * (1 + self.scale_ * (len(plan.spans) > 1)) + pairs

    def _sum(self, plan: Plan) -> float:
        return sum(self.single[span] for span in plan.spans)


def _pairs(plan: Plan) -> list[_Pair]:
    """Every two spans, and every two blocks that leave by different spans."""
    met: list[_Pair] = []
    for left, right in combinations(plan.spans, 2):
        met.append((left, right))
        met += product(range(left.start + 1, left.end + 1), range(right.start + 1, right.end + 1))
    return met


def _ridge(x: np.ndarray, y: np.ndarray, penalties: Sequence[float]) -> np.ndarray:
    """Weights w (F,) that minimise |x w − y|² + Σ penalty w², for x (N, F) and y (N,)."""
    return np.linalg.solve(x.T @ x + np.diag(penalties), x.T @ y)


def best_first(plans: Iterable[Plan], predictor: Predictor) -> list[Plan]:
    """The plans in order of predicted loss."""
    return sorted(plans, key=lambda plan: (predictor(plan), plan))


def promising(
    pools: Iterable[Iterable[Plan]], single: Mapping[Span, float], measured: Mapping[Plan, float], beam: int
) -> dict[Plan, float]:
    """The ``beam`` best plans of each pool as predicted from the ``measured`` losses, with their predictions.

    Plans measured already are left out and not replaced: if all of them are measured, there is nothing more to find.
    """
    predictor = Predictor(single).fit(measured)
    best = [plan for pool in pools for plan in best_first(pool, predictor)[:beam]]
    return {plan: predictor(plan) for plan in best if plan not in measured}
