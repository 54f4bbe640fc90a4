"""The plans that a search has measured on held-out train images, round by round, on disk."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from toast_cli.data.dataset import Data
from toast_cli.data.draws import stratified
from toast_cli.errors import ToastError
from toast_cli.machine.console import say
from toast_cli.plans import INDEPENDENT, Plan, Span, Variant
from toast_cli.runs import contents
from toast_cli.runs.rows import Candidate
from toast_cli.search.held_out import LeaveOneOut, Score
from toast_cli.search.paths import pieces
from toast_cli.stages.encode import encode
from toast_cli.stages.fit import fit
from toast_cli.stages.job import Fitted, Job
from toast_cli.surgery.costs import Costs


class Survey:
    """The plans measured so far, and the fitted maps of all single spans, which are the plans of ``job``.

    ``measured`` holds a Candidate for each plan, ``positions`` the train images that plans are measured on. Raises
    ToastError if too few train images are left for that.
    """

    def __init__(self, job: Job, images: int) -> None:
        self.job = job
        self.positions = unseen(job.data, images)
        self.fitted = fit(job)
        self.costs = Costs(job.backbone, job.modules(self.fitted))
        rows: list[Candidate] = job.folder.rows(contents.SEARCH, Candidate)
        self.measured = {Plan.parse(row.plan): row for row in rows}

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

    def variant(self, plan: Plan) -> Variant:
        """The plan with the maps that the survey has fitted."""
        return Variant(plan, self.job.data.fit_sizes[-1])

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
        data = replace(self.job.data, train=self.job.data.train.only(self.positions))
        job = replace(
            self.job,
            plans=[Plan(), *plans],
            data=data,
            fits=(INDEPENDENT,),
            feature_prefix=contents.round_prefix(number),
        )
        encode(job, job.modules(Fitted({key: self.fitted.maps[key] for key in job.maps}, {})), ["train"])
        scores = held_out_scores(job)
        for plan, score in zip(plans, scores[1:], strict=True):
            self.measured[plan] = self._candidate(plan, number, predicted.get(plan), score, scores[0])
        job.folder.write_rows(contents.SEARCH, self.measured.values(), Candidate)
        job.feature_file("train").remove()

    def _candidate(self, plan: Plan, number: int, predicted: float | None, score: Score, original: Score) -> Candidate:
        return Candidate(
            model=self.job.backbone.label,
            data=self.job.data.label,
            translator=self.job.translator.name,
            plan=str(plan),
            blocks_removed=plan.blocks_removed,
            round=number,
            loss_predicted=predicted,
            loss=score.loss,
            loss_original=original.loss,
            held_out_accuracy=score.accuracy,
            held_out_accuracy_original=original.accuracy,
            held_out_images=score.images,
            **{f"{key}_ratio": value for key, value in self.ratios(plan).items()},
        )


def unseen(data: Data, images: int) -> np.ndarray:
    """Positions of up to ``images`` train images that no map is fitted on, a stratified draw.

    Raises ToastError for too few.
    """
    train = data.train
    fitted_on = [part.indices for part in data.fit if part.split is train.split]
    order = stratified(train.labels, data.seed)
    found = order[~np.isin(train.indices[order], np.concatenate(fitted_on))] if fitted_on else order
    if len(found[:images]) < len(data.classes):
        raise ToastError(
            f"toast search measures plans on train images that no map is fitted on, and there are {len(found[:images])} of these "
            f"for {len(data.classes)} classes: use fewer data.fit_images, more data.train_images, or more search.images."
        )
    return np.sort(found[:images])


def held_out_scores(job: Job, positions: np.ndarray | None = None) -> list[Score]:
    """The held-out score of each of the job's variants on its train images, or on those at ``positions`` (N,)."""
    features = job.feature_file("train").read()
    if positions is not None:
        features = features.at(np.flatnonzero(np.isin(features.positions, positions)))
    judge = LeaveOneOut(job.data.train.labels[features.positions], len(job.data.classes))
    judge.fit(features.of_plan(0))
    return [judge.score(features.of_plan(number)) for number in range(len(job.variants))]
