"""How small the shortened model must be, and which measured plan to choose."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from toast_cli.errors import ToastError, is_number, require_group
from toast_cli.plans import Plan

RATIOS = ("params", "gflops", "latency")


@dataclass(frozen=True)
class Budget:
    """How many blocks must leave, what share of the original may stay, or how far accuracy may drop."""

    blocks: int | None = None
    params: float | None = None
    gflops: float | None = None
    latency: float | None = None
    accuracy_drop: float | None = None

    @classmethod
    def check(cls, budget: Any, target: Any, depth: int) -> "Budget":
        """The budget, checked. Raises ToastError for a value that cannot be used, or for both a budget and a target."""
        budget = require_group(budget, "budget", ("blocks", *RATIOS))
        target = require_group(target, "target", ("accuracy_drop",))
        blocks, drop = budget["blocks"], target["accuracy_drop"]
        if blocks is not None and (type(blocks) is not int or not 1 <= blocks < depth):
            raise ToastError(f"budget.blocks={blocks} cannot be used: give a whole number from 1 to {depth - 1}.")
        for key in RATIOS:
            _check_share(f"budget.{key}", budget[key])
        _check_share("target.accuracy_drop", drop)
        if drop is not None and any(value is not None for value in budget.values()):
            raise ToastError("target.accuracy_drop and a budget are two questions: give one of them.")
        return cls(**budget, accuracy_drop=drop)

    @property
    def given(self) -> bool:
        """Whether anything is asked for."""
        return any(value is not None for value in vars(self).values())

    def __str__(self) -> str:
        return ", ".join(f"{key} {value}" for key, value in vars(self).items() if value is not None)

    def holds(self, plan: Plan, ratios: Mapping[str, float]) -> bool:
        """Whether a plan is small enough; ``ratios`` are its shares of the original.

        Shares are whole numbers divided once: the one that a table shows for a plan, given as the budget, admits it.
        """
        if plan.blocks_removed < (self.blocks or 0):
            return False
        return all(getattr(self, key) is None or ratios[key] <= getattr(self, key) for key in RATIOS)

    def choose(
        self,
        plans: Iterable[Plan],
        ratios: Callable[[Plan], Mapping[str, float]],
        loss: Callable[[Plan], float],
        drop: Callable[[Plan], float],
    ) -> Plan | None:
        """The plan of the least ``loss`` within the budget, or of fewest GFLOPs within the accuracy ``drop``; or None.

        Where that is equal, the one of fewer GFLOPs, or of less loss; where both are, the first by ``tie_break``. Every
        ``drop`` is a whole number of images divided once by how many there are.
        """
        if self.accuracy_drop is not None:
            fit = [plan for plan in plans if drop(plan) <= self.accuracy_drop]
            return min(fit, key=lambda plan: (ratios(plan)["gflops"], loss(plan), tie_break(plan)), default=None)
        fit = [plan for plan in plans if self.holds(plan, ratios(plan))]
        return min(fit, key=lambda plan: (loss(plan), ratios(plan)["gflops"], tie_break(plan)), default=None)


def tie_break(plan: Plan) -> tuple[int, Plan]:
    """Orders plans that are equally good: fewer spans first, then the plans' own order."""
    return len(plan.spans), plan


def _check_share(key: str, value: Any) -> None:
    if value is not None and (not is_number(value) or not 0 < value < 1):
        raise ToastError(f"{key}={value} cannot be used: give a share between 0 and 1, such as 0.75.")
