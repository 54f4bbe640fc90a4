"""What others would remove, to compare plans found with: as many blocks, and nothing in their place."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from math import comb
from statistics import mean

import numpy as np

from toast_cli.plans import Plan, Span
from toast_cli.runs.contents import RESULTS
from toast_cli.runs.results import spread_of
from toast_cli.runs.rows import Row
from toast_cli.runs.searched import Baseline
from toast_cli.search.held_out import Score
from toast_cli.search.influence import block_influence
from toast_cli.search.measured import Survey
from toast_cli.stages.job import Job

DRAWS = 20  # of random blocks, for each number of them

Plans = dict[tuple[str, int], list[Plan]]  # by the name of the baseline and the number of blocks removed


def plans_of(job: Job, names: Iterable[str], sizes: Iterable[float]) -> Plans:
    """The plans of the baselines ``names`` for each whole number of blocks removed, several only where blocks are drawn."""
    depth, names = job.backbone.depth, tuple(names)
    translator = "" if job.translator.name == "identity" else "identity"  # as the search writes it
    order = _by_influence(job) if "influence" in names else []
    found: Plans = {}
    for size in sorted({int(size) for size in sizes if size % 1 == 0}):
        choices: Mapping[str, list[Iterable[int]]] = {
            "last": [range(depth - size, depth)],
            "influence": [order[:size]],
            "random": list(random_blocks(depth, size, job.data.seed)) if "random" in names else [],
        }
        found |= {(name, size): [without(blocks, translator) for blocks in choices[name]] for name in names}
    return found


def _by_influence(job: Job) -> list[int]:
    """All blocks, that of least influence first."""
    influence = block_influence(job)
    return sorted(range(len(influence)), key=influence.__getitem__)


def random_blocks(depth: int, size: int, seed: int) -> list[tuple[int, ...]]:
    """``DRAWS`` different draws of ``size`` of ``depth`` blocks, the same for the same ``seed``, or all if there are fewer."""
    if comb(depth, size) <= DRAWS:
        return list(combinations(range(depth), size))
    generator = np.random.default_rng([seed, size])
    found: dict[tuple[int, ...], None] = {}
    while len(found) < DRAWS:
        found[tuple(sorted(generator.choice(depth, size, replace=False).tolist()))] = None
    return list(found)


def without(blocks: Iterable[int], translator: str) -> Plan:
    """The plan that removes these ``blocks``, neighbours by one span, with the ``translator`` of that name."""
    spans: list[Span] = []
    for block in sorted(blocks):
        start = spans.pop().start if spans and spans[-1].end == block - 1 else block - 1
        spans.append(Span(start, block, translator))
    return Plan(tuple(spans))


def rows_of(final: Job, plans: Plans, survey: Survey) -> list[Baseline]:
    """The rows of the baselines, from the features and the probes of the ``final`` job, which has their plans."""
    scores = survey.scores(final)
    rows: dict[str, list[Row]] = {}
    for row in final.folder.rows(RESULTS, Row):
        if not (row.sequential or row.healed):
            rows.setdefault(row.plan, []).append(row)
    original = scores[final.variants[0]]

    def row_of(name: str, own: list[Plan]) -> Baseline:
        of_draws = [row for plan in own for row in rows[str(plan)]]
        return _row(name, own, [scores[survey.variant(plan)] for plan in own], original, of_draws)

    return [row_of(name, own) for (name, _), own in plans.items()]


def _row(name: str, plans: list[Plan], scores: list[Score], original: Score, rows: list[Row]) -> Baseline:
    """One baseline at one size; ``scores`` and ``rows`` are those of its ``plans``, rows for every seed."""
    first, spread = rows[0], spread_of(rows)
    return Baseline(
        model=first.model,
        data=first.data,
        translator=first.translator,
        baseline=name,
        plan=str(plans[0]) if len(plans) == 1 else "",
        draws=len(plans),
        blocks_removed=first.blocks_removed,
        loss=mean(score.loss for score in scores),
        loss_original=original.loss,
        held_out_accuracy=mean(score.accuracy for score in scores),
        seeds=len({row.seed for row in rows}),
        accuracy_mean=spread.accuracy_mean,
        accuracy_std=spread.accuracy_std,
        accuracy_delta_mean=spread.delta_mean,
        params_ratio=mean(row.params_ratio for row in rows),
        gflops_ratio=mean(row.gflops_ratio for row in rows),
    )
