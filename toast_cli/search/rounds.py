"""The rounds of a search: every single span first, then the plans that look most promising, until nothing new does."""

from dataclasses import replace

from toast_cli.plans import Plan, every_half_span, every_span
from toast_cli.search.budget import Budget
from toast_cli.search.measured import Survey
from toast_cli.search.paths import POOL, promising, shortest
from toast_cli.search.settings import Settings
from toast_cli.search.sizes import Sizes


def single_spans(depth: int, names: tuple[str, ...], most: int | None = None, parts: int = 1) -> list[Plan]:
    """Every span that removes up to ``most`` blocks, with each of the translators ``names``; with 2 ``parts`` of a block, those
    that end inside blocks too."""
    plans = every_half_span(depth) if parts == 2 else every_span(depth)
    spans = [plan.spans[0] for plan in plans if plan.blocks_removed <= (most or depth)]
    return [Plan((replace(span, translator=name),)) for span in spans for name in names]


def measure_rounds(survey: Survey, settings: Settings, budget: Budget, names: tuple[str, ...]) -> Sizes:
    """Measure round by round until nothing new is promising; returns the sizes of plans.

    Raises ToastError where features are not finite.
    """
    depth, sizes = survey.job.backbone.depth, Sizes(survey, budget)
    most = settings.blocks or _most(budget, depth, sizes)
    if not survey.measured:
        survey.measure(single_spans(depth, names, most, survey.parts), {})
    original = next(iter(survey.measured.values())).loss_original
    paths = shortest(survey.single, depth, most, POOL * settings.beam)
    within = [[plan for plan in plans if sizes.budget.holds(plan, sizes(plan))] for plans in paths.values()]
    # The next round depends only on what earlier rounds found, so that a killed search goes on in the same way.
    while survey.rounds <= settings.rounds:
        losses = {plan: row.loss - original for plan, row in survey.measured.items()}
        new = promising(within, survey.single, losses, settings.beam)
        if not new:
            break
        survey.measure(new, {plan: original + loss for plan, loss in new.items()})
    return sizes


def _most(budget: Budget, depth: int, sizes: Sizes) -> int:
    """How many blocks may leave if ``search.blocks`` does not say: any number if only accuracy is given."""
    return depth - 1 if budget.accuracy_drop is not None else max(depth // 2, sizes.blocks_needed(depth))
