"""What a search has found: the best measured plans, then each with its better fit and its test accuracy."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from toast_cli.errors import ToastError
from toast_cli.plans import Plan, Variant
from toast_cli.runs.contents import SUMMARY
from toast_cli.runs.rows import Summary
from toast_cli.runs.searched import Candidate, Found
from toast_cli.search.budget import tie_break
from toast_cli.search.held_out import Score
from toast_cli.search.measured import Survey
from toast_cli.search.paths import possible
from toast_cli.search.sizes import Sizes
from toast_cli.stages.job import Job

# The columns that come from the summary; one of them, ``best_trade_off``, is then set again for the plans found.
_SHARED = [name for name in Found.__annotations__ if name in Summary.__annotations__]


def leading(survey: Survey, sizes: Sizes, count: int) -> list[Plan]:
    """The ``count`` best measured plans within the budget for each number of blocks removed, best first."""
    found: dict[float, list[Plan]] = {}
    loss = {plan: survey.best(plan).loss for plan in survey.measured}
    for plan in sorted(loss, key=lambda plan: (loss[plan], sizes(plan)["gflops"], tie_break(plan))):
        if sizes.budget.holds(plan, sizes(plan)):
            found.setdefault(plan.blocks_removed, []).append(plan)
    return [plan for plans in found.values() for plan in plans[:count]]


def best_measured(survey: Survey, sizes: Sizes) -> list[Plan]:
    """The best measured plan within the budget for each number of blocks removed, and the one that answers the search.

    Each plan counts with the way of fitting it that is the best so far. Raises ToastError if no measured plan meets the budget.
    """
    measured = {plan: survey.best(plan) for plan in survey.measured}
    best = leading(survey, sizes, 1)
    answer = sizes.budget.choose(measured, sizes, lambda p: measured[p].loss, lambda p: _lost(measured[p]))
    if answer is None and sizes.budget.given:
        smallest = min(measured, key=lambda plan: (sizes(plan)["gflops"], tie_break(plan)))
        raise ToastError(
            f"No plan that was measured meets {sizes.budget}: the smallest, {smallest}, has "
            f"{', '.join(f'{key} {value:.3f}' for key, value in sizes(smallest).items())} and a held-out accuracy drop of "
            f"{_lost(measured[smallest]):.3f}; ask for less, or let more blocks leave with search.blocks."
        )
    return sorted({*best, *([answer] if answer else [])}, key=lambda plan: (plan.blocks_removed, plan))


def _lost(row: Candidate) -> float:
    return _drop(row.held_out_accuracy, row.held_out_accuracy_original, row.held_out_images)


def _drop(accuracy: float, original: float, images: int) -> float:
    """How far accuracy drops from the original's: whole numbers of right answers, subtracted, then divided once."""
    return (round(original * images) - round(accuracy * images)) / images


def front_of(final: Job, best: list[Plan], survey: Survey, sizes: Sizes, translators: int) -> list[Found]:
    """The plans found, each with the better fit on held-out images, their test accuracies next to their rivals'."""
    judged = _judged(final, best, survey)
    sizes.time(list(judged.better))
    chosen = sizes.budget.choose(
        judged.better,
        sizes,
        lambda p: judged.held_out(p).loss,
        judged.drop,
    )
    tested = {(line.plan, line.sequential, line.healed): line for line in final.folder.rows(SUMMARY, Summary)}
    found = []
    for plan in judged.better:
        row = _row(plan, judged, tested, survey)
        found.append(
            replace(
                row,
                latency_ratio=sizes(plan).get("latency"),
                possible=possible(final.backbone.depth, plan.blocks_removed, translators, survey.parts),
                chosen=sizes.budget.given and plan == chosen,
            )
        )
    return [
        replace(row, best_trade_off=not any(other.gflops <= row.gflops and other.loss < row.loss for other in found))
        for row in found
    ]


@dataclass(frozen=True)
class _Judged:
    """The held-out ``scores`` of all variants, the ``better`` variant of each plan, and the original's score."""

    scores: Mapping[Variant, Score]
    better: Mapping[Plan, Variant]
    original: Score

    def held_out(self, plan: Plan) -> Score:
        return self.scores[self.better[plan]]

    def drop(self, plan: Plan) -> float:
        score = self.held_out(plan)
        return _drop(score.accuracy, self.original.accuracy, score.images)


def _judged(final: Job, best: list[Plan], survey: Survey) -> _Judged:
    scores = survey.scores(final)
    better: dict[Plan, Variant] = {}
    for variant in (variant for variant in final.variants if variant.plan in best):
        before = better.setdefault(variant.plan, variant)
        better[variant.plan] = min(before, variant, key=lambda each: scores[each].loss)
    return _Judged(scores, better, scores[final.variants[0]])


def _row(plan: Plan, judged: _Judged, tested: Mapping[tuple[str, bool, bool], Summary], survey: Survey) -> Found:
    """A plan's row, except for what depends on the whole front."""
    variant, held_out = judged.better[plan], judged.held_out(plan)
    line, sequential = tested[str(plan), variant.sequential, variant.healed], tested.get((str(plan), True, False))
    healed = next((line for key, line in tested.items() if key[0] == str(plan) and line.healed), None)
    rival = survey.rival(plan.blocks_removed)
    return Found(
        **{name: getattr(line, name) for name in _SHARED},
        loss_predicted=survey.measured[plan].loss_predicted,
        loss_independent=judged.scores[Variant(plan, variant.fit_images)].loss,
        loss=held_out.loss,
        loss_original=judged.original.loss,
        held_out_accuracy=held_out.accuracy,
        held_out_accuracy_delta=0.0 - judged.drop(plan),  # 0 stays 0, not −0
        accuracy_independent=tested[str(plan), False, False].accuracy_mean,
        accuracy_sequential=sequential.accuracy_mean if sequential else None,
        rival=str(rival),
        rival_loss=survey.measured[rival].loss,
        rival_accuracy=tested[str(rival), False, False].accuracy_mean,
        latency_ratio=None,
        measured=sum(row.blocks_removed == plan.blocks_removed for row in survey.measured.values()),
        possible=0,
        chosen=False,
        accuracy_healed=healed.accuracy_mean if healed else None,
    )
