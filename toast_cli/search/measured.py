"""The plans that a search has measured on held-out train images, round by round, on disk."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from toast_cli.data.dataset import Data
from toast_cli.data.draws import stratified
from toast_cli.errors import ToastError
from toast_cli.machine.console import say
from toast_cli.plans import INDEPENDENT, Fit, Plan, Span, Variant
from toast_cli.runs import contents
from toast_cli.runs.features import Features
from toast_cli.runs.searched import Candidate
from toast_cli.search.held_out import LeaveOneOut, Score
from toast_cli.search.paths import pieces
from toast_cli.stages.encode import encode
from toast_cli.stages.fit import fit
from toast_cli.stages.forecast import announce
from toast_cli.stages.job import Fitted, Job
from toast_cli.surgery.costs import Costs


class Survey:
    """The plans measured so far, and the fitted maps of all single spans, which are the plans of ``job``.

    ``measured`` holds a Candidate for each plan as the maps of single spans make it, ``refitted`` one for each that was also fitted
    in another way; ``positions`` are the train images that plans are measured on, ``penalty`` is the strength of the ridge
    classifier that judges them. Raises ToastError if too few train images are left for that.
    """

    def __init__(self, job: Job, images: int, penalty: float | None) -> None:
        self.job, self.penalty = job, penalty
        self.positions = unseen(job.data, images)
        self.fitted = fit(job)
        self.costs = Costs(job.backbone, job.modules(self.fitted), job.probe.projection)
        rows: list[Candidate] = job.folder.rows(contents.SEARCH, Candidate)
        self.measured = {Plan.parse(row.plan): row for row in rows if not (row.sequential or row.healed)}
        refitted = [row for row in rows if row.sequential or row.healed]
        self.refitted = {self.variant(Plan.parse(row.plan), row.sequential, row.healed): row for row in refitted}

    @property
    def single(self) -> dict[Span, float]:
        """How much each single span adds to the original's loss."""
        return {
            plan.spans[0]: row.loss - row.loss_original for plan, row in self.measured.items() if len(plan.spans) == 1
        }

    @property
    def parts(self) -> int:
        """Of how many pieces a block is in this search: 2 if spans end inside blocks too."""
        return pieces(plan.spans[0] for plan in self.job.plans if plan.spans)

    @property
    def rounds(self) -> int:
        """How many rounds are finished, including that of the single spans."""
        return 1 + max((row.round for row in self.measured.values()), default=-1)

    def rival(self, blocks: float) -> Plan:
        """The single span with the run's own translator that removes this many ``blocks`` at the least loss."""
        spans = [span for span in self.single if span.blocks_removed == blocks and not span.translator]
        return Plan((min(spans, key=self.single.__getitem__),))

    def best(self, plan: Plan) -> Candidate:
        """What was measured of the plan, in the way of fitting it that has the least loss."""
        others = [row for variant, row in self.refitted.items() if variant.plan == plan]
        return min([self.measured[plan], *others], key=lambda row: row.loss)

    def variant(self, plan: Plan, sequential: bool = False, healed: bool = False) -> Variant:
        """The plan with the maps that the survey has fitted, or fitted in another way."""
        return Variant(plan, self.job.data.fit_sizes[-1], sequential, healed)

    def ratios(self, plan: Plan) -> dict[str, float]:
        """The plan's shares of the original with an independent fit; with a sequential fit they are the same."""
        columns = self.costs.columns(self.variant(plan))
        return {name: columns[f"{name}_ratio"] for name in ("params", "gflops")}

    def measure(self, plans: Iterable[Plan], predicted: Mapping[Plan, float]) -> None:
        """Encode the train images with all ``plans`` in one walk, and add the plans' scores to ``search.csv``.

        Raises ToastError where features are not finite.
        """
        plans, number = list(plans), self.rounds
        say(f"round {number}: {len(plans)} plans on {len(self.positions)} train images")
        job = self._round([Plan(), *plans], (INDEPENDENT,), number)
        scores = self._measured(job, Fitted({key: self.fitted.maps[key] for key in job.maps}, {}))
        for variant in job.variants[1:]:
            row = self._candidate(
                variant, number, predicted.get(variant.plan), scores[variant], scores[job.variants[0]]
            )
            self.measured[variant.plan] = row
        self._write(job)

    def refit(self, plans: Iterable[Plan], fits: Sequence[Fit]) -> None:
        """Fit the ``plans`` in each other way of ``fits`` too, and add their scores to ``search.csv``.

        Raises ToastError where latents or features are not finite.
        """
        number, others = self.rounds, [fit for fit in fits if fit != INDEPENDENT]
        job = self._round([Plan(), *plans], others, number)
        wanted = [each for each in job.variants if (each.sequential or each.healed) and each not in self.refitted]
        if not wanted:
            return
        say(f"round {number}: {len(wanted)} plans fitted again, on {len(self.positions)} train images")
        announce(job, memory=False)
        scores = self._measured(job, fit(job))
        for variant in wanted:
            row = self._candidate(variant, number, None, scores[variant], scores[job.variants[0]])
            self.refitted[variant] = row
        self._write(job)

    def _round(self, plans: list[Plan], fits: Sequence[Fit], number: int) -> Job:
        """The job that encodes the ``plans`` on the images of the survey alone."""
        data = replace(self.job.data, train=self.job.data.train.only(self.positions))
        return replace(self.job, plans=plans, data=data, fits=tuple(fits), feature_prefix=contents.round_prefix(number))

    def _measured(self, job: Job, fitted: Fitted) -> dict[Variant, Score]:
        encode(job, job.modules(fitted), ["train"])
        return self._scores(job, job.feature_file("train").read())

    def scores(self, job: Job) -> dict[Variant, Score]:
        """The held-out score of each variant of ``job``, whose features of all train images are on disk."""
        features = job.feature_file("train").read()
        return self._scores(job, features.at(np.flatnonzero(np.isin(features.positions, self.positions))))

    def _scores(self, job: Job, features: Features) -> dict[Variant, Score]:
        judge = LeaveOneOut(job.data.train.labels[features.positions], len(job.data.classes), self.penalty)
        judge.fit(features.of_plan(0))
        return {variant: judge.score(features.of_plan(number)) for number, variant in enumerate(job.variants)}

    def _write(self, job: Job) -> None:
        """Write all rows, and remove the features of ``job``, which nothing needs any more."""
        job.folder.write_rows(contents.SEARCH, [*self.measured.values(), *self.refitted.values()], Candidate)
        job.feature_file("train").remove()

    def _candidate(
        self, variant: Variant, number: int, predicted: float | None, score: Score, original: Score
    ) -> Candidate:
        return Candidate(
            model=self.job.backbone.label,
            data=self.job.data.label,
            translator=self.job.translator.name,
            plan=str(variant.plan),
            blocks_removed=variant.plan.blocks_removed,
            round=number,
            loss_predicted=predicted,
            loss=score.loss,
            loss_original=original.loss,
            held_out_accuracy=score.accuracy,
            held_out_accuracy_original=original.accuracy,
            held_out_images=score.images,
            **{f"{key}_ratio": value for key, value in self.ratios(variant.plan).items()},
            sequential=variant.sequential,
            healed=variant.healed,
        )


def unseen(data: Data, images: int) -> np.ndarray:
    """Positions of up to ``images`` train images that no map is fitted on, a stratified draw.

    Raises ToastError for too few.
    """
    train = data.train
    if not len(train):
        raise ToastError(
            f"toast search measures plans on train images, and data={data.label} has none: search on a data set that has some, then give toast run the "
            "plans found."
        )
    fitted_on = [part.indices for part in data.fit if part.split is train.split]
    order = stratified(train.labels, data.seed)
    found = order[~np.isin(train.indices[order], np.concatenate(fitted_on))] if fitted_on else order
    if len(found[:images]) < len(data.classes):
        raise ToastError(
            f"toast search measures plans on train images that no map is fitted on, and there are {len(found[:images])} of these "
            f"for {len(data.classes)} classes: use fewer data.fit_images, more data.train_images, or more search.images."
        )
    return np.sort(found[:images])
