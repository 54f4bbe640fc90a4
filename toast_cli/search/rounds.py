"""The rounds of a search: every single span first, then the plans that look most promising, until nothing new does."""

from dataclasses import dataclass, replace
from typing import Any

from toast_cli.errors import ToastError, is_number, require_flag, require_group
from toast_cli.plans import Plan, every_half_span, every_span
from toast_cli.search.baselines import check_names
from toast_cli.search.budget import Budget
from toast_cli.search.measured import Survey
from toast_cli.search.paths import POOL, promising, shortest
from toast_cli.search.sizes import Sizes


@dataclass(frozen=True)
class Settings:
    """The group ``search`` of ``conf/search.yaml``."""

    beside: tuple[str, ...]
    blocks: int | None
    images: int
    beam: int
    rounds: int
    baselines: tuple[str, ...]
    refits: int | None
    halves: bool
    penalty: float | None

    @classmethod
    def check(cls, given: Any) -> "Settings":
        """The settings, checked. Raises ToastError for a value that cannot be used."""
        given = require_group(given, "search", cls.__dataclass_fields__)
        for key, least in {"images": 1, "beam": 1, "rounds": 1, "blocks": 1, "refits": 0}.items():
            value = given[key]
            if (key not in ("blocks", "refits") or value is not None) and (type(value) is not int or value < least):
                raise ToastError(f"search.{key}={value} cannot be used: give a whole number from {least}.")
        beside = given["beside"]
        if not isinstance(beside, list) or not all(isinstance(name, str) for name in beside):
            raise ToastError(
                f"search.beside={beside} is not a list of translators: write search.beside=[identity], or [] for none."
            )
        require_flag(given["halves"], "search.halves")
        penalty = given["penalty"]
        if penalty is not None and not (is_number(penalty) and penalty > 0):
            raise ToastError(
                f"search.penalty={penalty} cannot be used: give a number above 0, or null for the one that suits the original best."
            )
        baselines = check_names(given["baselines"])
        return cls(**{**given, "beside": tuple(dict.fromkeys(beside)), "baselines": baselines})


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
