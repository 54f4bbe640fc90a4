"""A plan's shares of the original: parameters, GFLOPs and, if a budget asks for it, time on this machine."""

import numpy as np
import torch

from toast_cli.machine.timing import call, ratio, rounds
from toast_cli.plans import Plan, Span
from toast_cli.search.budget import Budget
from toast_cli.search.measured import Survey
from toast_cli.surgery.shortened import shorten

_SECONDS = 2.0  # for each model that is timed


class Sizes:
    """What share of the original each plan keeps.

    ``sizes(plan)`` is {"params": …, "gflops": …} and, if the budget has a latency, "latency": what ``time`` has
    measured, or else a prediction from a few shortened models, as if a block, or a map of one kind, took the same time
    anywhere.
    """

    def __init__(self, survey: Survey, budget: Budget) -> None:
        self.survey, self.budget = survey, budget
        self.timed: dict[Plan, float] = {}
        if budget.latency is not None:
            self._calibrate()

    def __call__(self, plan: Plan) -> dict[str, float]:
        ratios = self.survey.ratios(plan)
        if self.budget.latency is not None:
            ratios["latency"] = self.timed.get(plan) or float(self._row(plan) @ self.seconds_)
        return ratios

    def blocks_needed(self, depth: int) -> int:
        """The fewest blocks that must leave, by a single span, to meet the budget; 1 if it asks for no more."""
        for removed in range(1, depth):
            plan = Plan((Span(depth - 1 - removed, depth - 1),))
            if self.budget.holds(plan, self(plan)):
                return removed
        return depth - 1

    def time(self, plans: list[Plan]) -> None:
        """Measure every plan's latency for one image against the original's, if the budget asks for it."""
        if self.budget.latency is None:
            return
        job = self.survey.job
        images = torch.zeros(1, *job.backbone.image_shape, device=job.compute.device, dtype=job.compute.dtype)
        maps = job.modules(self.survey.fitted)
        models = [
            shorten(job.backbone, self.survey.variant(plan), maps).to(job.compute.device, job.compute.dtype)
            for plan in (Plan(), *plans)
        ]
        times = rounds([call(model, images) for model in models], _SECONDS)
        for plan, taken in zip(plans, times[1:], strict=True):
            self.timed[plan] = ratio(taken, times[0])

    def _calibrate(self) -> None:
        depth, folder = self.survey.job.backbone.depth, self.survey.job.folder
        self._names = sorted({plan.spans[0].translator for plan in self.survey.job.plans if plan.spans})
        if "latency" in folder.record:  # measuring again would choose other plans, next to these features
            self.seconds_ = np.array(folder.record["latency"])
            return
        known = [Plan((Span(0, end, name),)) for name in self._names for end in (1, depth // 2)]
        self.time(known)
        rows, seen = np.array([self._row(plan) for plan in known]), np.array([self.timed[plan] for plan in known])
        self.seconds_ = np.concatenate([[1.0], np.linalg.lstsq(rows[:, 1:], seen - 1, rcond=None)[0]])
        self.timed.clear()
        folder.note(latency=self.seconds_.tolist())

    def _row(self, plan: Plan) -> np.ndarray:
        """1, how many blocks leave, how many maps of each kind take their place."""
        maps = [sum(span.translator == name for span in plan.spans) for name in self._names]
        return np.array([1, plan.blocks_removed, *maps], dtype=float)
