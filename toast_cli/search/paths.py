"""Which plans are worth measuring: a plan is a path from stem to readout, and its loss is nearly a sum over its spans.

Each step of the path keeps a block, or half of one where spans may end inside blocks, or takes a span. Two spans never
touch: two maps in a row are one map, and least squares over both spans at once fits no worse. So the best plans under an
additive loss are the shortest paths, found by dynamic programming for every number of blocks removed and of maps. What is
not additive is learned from measured plans.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, product
from math import ceil, comb, floor

import numpy as np

from toast_cli.plans import STEM, Plan, Span, middles

# On a pair's correction, which is believed in full only after several measurements. Any value from 0.2 to 1 finds the
# same or nearly the same plans on tables of all plans (docs/search.md).
_DAMPING = 0.5
POOL = 16  # times the beam: how many plans with the least sums, per number of blocks and of maps, every round considers
_STEEPEST = 2.0  # bound of the scale: where sums are close to zero, what plans cost is not a multiple of them


def shortest(losses: Mapping[Span, float], depth: int, most: float, keep: int) -> dict[float, list[Plan]]:
    """The ``keep`` plans of least summed ``losses`` for each number of spans and of blocks removed, up to ``most``.

    Listed by blocks removed, best first within each number of spans. ``depth`` is the model's L.
    """
    parts = pieces(losses)  # of a block: points, and what is removed, are counted in these
    steps: dict[int, list[tuple[int, int, Span]]] = defaultdict(list)
    for span in losses:
        start, end = (int((point - STEM) * parts) for point in (span.start, span.end))
        steps[start].append((end, end - start, span))
    last = depth * parts + 1
    # (point reached, removed, spans taken) -> the best [loss, spans] so far; a span is followed by a piece that stays
    paths: dict[tuple[int, int, int], list[tuple[float, tuple[Span, ...]]]] = defaultdict(list)
    paths[0, 0, 0] = [(0.0, ())]
    for point in range(last):
        for removed in range(int(most * parts) + 1):
            for taken in range(removed + 1):
                best = sorted(paths[point, removed, taken])[:keep]
                paths[point, removed, taken] = best
                paths[point + 1, removed, taken] += best
                for end, length, span in steps[point]:
                    if removed + length <= most * parts:
                        after = min(end + 1, last)  # past the piece that stays, or past the last one
                        grown = [(loss + losses[span], (*spans, span)) for loss, spans in best]
                        paths[after, removed + length, taken + 1] += grown
    found: dict[float, list[Plan]] = defaultdict(list)
    for (point, removed, _), best in paths.items():
        if point == last and removed:
            found[removed / parts] += [Plan(spans) for _, spans in sorted(best)[:keep]]
    return dict(found)


def pieces(spans: Iterable[Span]) -> int:
    """Of how many pieces a block is: 2 if some of the ``spans`` end inside blocks, otherwise 1."""
    return 2 if middles(point for span in spans for point in (span.start, span.end)) else 1


def possible(depth: int, removed: float, translators: int = 1, parts: int = 1) -> int:
    """How many plans remove this many of L blocks: j spans that do not touch, each with one of the translators.

    Spans end between blocks, or with 2 ``parts`` of a block inside them too.
    """
    out, kept = int(removed * parts), int((depth - removed) * parts)
    return sum(comb(out - 1, j - 1) * comb(kept + 1, j) * translators**j for j in range(1, out + 1))


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
    """Every two spans, and every two blocks that leave by different spans; half a block counts as the block."""
    met: list[_Pair] = []
    for left, right in combinations(plan.spans, 2):
        met.append((left, right))
        met += product(_blocks(left), _blocks(right))
    return met


def _blocks(span: Span) -> range:
    return range(floor(span.start) + 1, ceil(span.end) + 1)


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
