"""A race: every plan on a share of the images first, and those that go on on twice as many, until the best have all of them.

A round trains the run's own probe on its share of the train images, as long as in a full run, and tests it on its share
of the test images; who goes on is decided on all of these images (see unseen.py). What a round decides is in ``race.csv``
before the next one begins, and the features of every round stay until the last one: nothing is encoded twice. Plans that are
left get what a full run of them alone would give.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import mean
from typing import Any

import numpy as np

from toast_cli.errors import ToastError
from toast_cli.machine.console import say
from toast_cli.plans import Variant
from toast_cli.runs import contents
from toast_cli.runs.features import Features, stacked
from toast_cli.runs.rows import Raced, Row
from toast_cli.stages.encode import encode
from toast_cli.stages.job import Job, Modules
from toast_cli.stages.probe import right_answers
from toast_cli.stages.rivals import BEATEN, FINISHED, HALVED, RACING, Verdict, interval, verdicts
from toast_cli.stages.schedule import Schedule, by_size
from toast_cli.stages.unseen import unseen_accuracies
from toast_cli.stages.walk import build_trie
from toast_cli.surgery.costs import Costs

_SPLITS = ("train", "test")


@dataclass(frozen=True)
class _Answers:
    """What a round has measured: ``right`` (P, M) counts for how many seeds each test image is classified correctly, ``scores``
    (P,) are accuracies on images not seen."""

    variants: list[Variant]
    right: np.ndarray
    scores: np.ndarray
    train_images: int


class Race:
    """The rounds of a ``job`` with these ``maps``, from wherever its folder stands."""

    def __init__(self, job: Job, maps: Modules, schedule: Schedule) -> None:
        self.job, self.maps, self.schedule = job, maps, schedule
        self._costs = Costs(job.backbone, maps, job.probe.projection)
        self._rows: list[Raced] = job.folder.rows(contents.RACE, Raced)

    def decide(self) -> Job:
        """Run the rounds that are missing; returns the job of the plans that go on to all images.

        Raises ToastError where features are not finite, and if no image of a split can be decoded.
        """
        for number in range(self._finished, self.schedule.rounds):
            parts = [self._part(each) for each in range(number + 1)]
            self._encode(parts)
            self._rows = list(self._judged(number, parts))
            self.job.folder.write_rows(contents.RACE, self._rows, Raced)
            counts = [sum(row.outcome == kind for row in self._rows) for kind in (BEATEN, HALVED)]
            say(
                f"race: {len(self._going(number + 1)) - 1} plans go on; so far {counts[0]} beaten, {counts[1]} halved away"
            )
        return replace(self.job, only=frozenset(self._going(self.schedule.rounds)))

    def gather(self, final: Job) -> None:
        """Write the features of all images for the ``final`` job's plans: those of the rounds, and those still missing."""
        if not all(_is_finished(final, split) for split in _SPLITS):
            parts = [self._part(number) for number in range(self.schedule.rounds + 1)]
            self._encode(parts)
            for split in _SPLITS:
                self._copy(parts, final, split)
        contents.remove_rounds(self.job.folder.path)

    def conclude(self, final: Job, rows: Sequence[Row]) -> None:
        """Add what the ``final`` plans have on all images to ``race.csv``, from their ``rows``, and note what the race cost."""
        of_seed = [[row for row in rows if row.seed == seed] for seed in final.seeds]
        found = dict(zip(final.variants, zip(*of_seed, strict=True), strict=True))
        accuracy = {variant: mean(row.accuracy for row in own) for variant, own in found.items()}
        best = {key: max(own, key=accuracy.__getitem__) for key, own in by_size(final.variants).items()}
        winners = {variant: best[key] for key, own in by_size(final.variants).items() for variant in own}
        lines: Sequence[Raced | None] = self._rows or [None] * len(self.job.variants)
        self._rows = [
            line
            if line is not None and variant not in found
            else self._row(
                variant,
                round=self.schedule.rounds + 1,
                outcome=FINISHED,
                train_images=found[variant][0].train_images,
                test_images=found[variant][0].test_images,
                accuracy=accuracy[variant],
                accuracy_low=accuracy[variant],
                accuracy_high=accuracy[variant],
                accuracy_original=accuracy[final.variants[0]],
                best=str(winners.get(variant, "")),
                behind=accuracy[variant] - accuracy[winners[variant]] if variant in winners else None,
                behind_low=None,
                behind_high=None,
            )
            for variant, line in zip(self.job.variants, lines, strict=True)
        ]
        self.job.folder.write_rows(contents.RACE, self._rows, Raced)
        self.job.folder.note(race={"block_evaluations": self.evaluations, "of": self.evaluations_of_all})

    @property
    def evaluations(self) -> float:
        """Block evaluations of all rounds together."""
        numbers = range(self.schedule.rounds + 1)
        return sum(self.schedule.images(each) * self._evaluations(self._going(each)) for each in numbers)

    @property
    def evaluations_of_all(self) -> float:
        """Block evaluations of a full sweep."""
        return (len(self.job.data.train) + len(self.job.data.test)) * self._evaluations(self.job.variants)

    def _evaluations(self, variants: Sequence[Variant]) -> float:
        return build_trie(variants, self.job.backbone.depth).evaluations()

    @property
    def _finished(self) -> int:
        """How many rounds are finished."""
        return min(max((row.round for row in self._rows), default=0), self.schedule.rounds)

    def _going(self, number: int) -> list[Variant]:
        """The plans that take part in round ``number``, from 0; the one before it must be finished."""
        if not self._rows:
            return self.job.variants
        pairs = zip(self.job.variants, self._rows, strict=True)
        return [each for each, row in pairs if row.round > number or row.outcome in (RACING, FINISHED)]

    def _part(self, number: int) -> Job:
        """The job of the plans and of the images that round ``number`` adds."""
        train, test = self.schedule.parts[number]
        data = replace(self.job.data, train=self.job.data.train.only(train), test=self.job.data.test.only(test))
        only, prefix = frozenset(self._going(number)), contents.round_prefix(number)
        return replace(self.job, data=data, only=only, feature_prefix=prefix)

    def _encode(self, parts: Iterable[Job]) -> None:
        for part in parts:
            if not all(_is_finished(part, split) for split in _SPLITS):
                encode(part, self.maps)

    def _read(self, parts: Sequence[Job], variants: Sequence[Variant], *splits: str) -> tuple[Features, np.ndarray]:
        """The features of the ``parts``' images of these ``splits`` for these ``variants``, and the images' labels."""
        files, labels = [], []
        for split, part in product(splits, parts):
            features, numbers = part.feature_file(split).read(), {each: i for i, each in enumerate(part.variants)}
            files.append((features, [numbers[each] for each in variants]))
            labels.append(part.images(split).labels[features.positions])
        return stacked(files), np.concatenate(labels)

    def _answers(self, number: int, parts: Sequence[Job]) -> _Answers:
        job, variants = self.job, parts[-1].variants
        (train, labels), (test, truth) = (self._read(parts, variants, split) for split in _SPLITS)
        if (len(train) == 0 and len(job.data.train)) or len(test) == 0:
            raise ToastError(
                f"None of the train or none of the test images of round {number + 1} can be decoded: repair them, or use more "
                "sweep.test_images."
            )
        right = right_answers(job, train, labels, test, truth, f"probe round {number + 1}")
        scores = unseen_accuracies(job, *self._read(parts, variants, *_SPLITS), f"judge round {number + 1}")
        return _Answers(variants, right, scores, len(train))

    def _judged(self, number: int, parts: Sequence[Job]) -> Iterator[Raced]:
        """The lines of all plans once round ``number`` is measured."""
        answers, chance = self._answers(number, parts), self.schedule.chance
        place = {each: i for i, each in enumerate(answers.variants)}
        seeds, scores = len(self.job.seeds), answers.scores
        original = verdicts(answers.right[:1], seeds, scores[:1], chance, 1)[0]
        lines = {answers.variants[0]: self._line(number, answers, 0, original)}
        for size, own in by_size(answers.variants).items():
            rows = [place[each] for each in own]
            places = self.schedule.places(size, number + 1)
            found = verdicts(answers.right[rows], seeds, scores[rows], chance, places)
            for row, verdict in zip(rows, found, strict=True):
                lines[answers.variants[row]] = self._line(number, answers, row, verdict, str(own[verdict.best]))
        before = dict(zip(self.job.variants, self._rows, strict=False))  # nothing, in the first round
        for variant in self.job.variants:
            yield lines[variant] if variant in lines else before[variant]

    def _line(self, number: int, answers: _Answers, plan: int, verdict: Verdict, best: str = "") -> Raced:
        """The line of a plan after round ``number``; of the untouched model without a ``best`` of its size."""
        images, seeds = answers.right.shape[1], len(self.job.seeds)
        low, high = interval(verdict.accuracy, images, self.schedule.settings.confidence)
        return self._row(
            answers.variants[plan],
            round=number + 1,
            outcome=verdict.outcome,
            train_images=answers.train_images,
            test_images=images,
            accuracy=verdict.accuracy,
            accuracy_low=low,
            accuracy_high=high,
            accuracy_original=int(answers.right[0].sum()) / (images * seeds),
            best=best,
            behind=verdict.behind if best else None,
            behind_low=verdict.low,
            behind_high=verdict.high,
            score=verdict.score,
        )

    def _row(self, variant: Variant, **measured: Any) -> Raced:
        job, costs = self.job, self._costs.columns(variant)
        return Raced(
            model=job.backbone.label,
            data=job.data.label,
            translator=job.translator.name,
            plan=str(variant),
            blocks_removed=variant.plan.blocks_removed,
            fit_images=variant.fit_images,
            sequential=variant.sequential,
            healed=variant.healed,
            probe=job.probe.name,
            seeds=len(job.seeds),
            data_seed=job.data.seed,
            params_ratio=costs["params_ratio"],
            gflops_ratio=costs["gflops_ratio"],
            **measured,
        )

    def _copy(self, parts: Sequence[Job], final: Job, split: str) -> None:
        """Write the features of all images of a ``split`` in their order; those that were left out stay so."""
        file, images = final.feature_file(split), final.images(split)
        features, _ = self._read(parts, final.variants, split)
        where = np.full(len(images), -1)
        numbers = [
            positions[part.feature_file(split).read().positions]
            for part, positions in zip(parts, (pair[_SPLITS.index(split)] for pair in self.schedule.parts), strict=True)
        ]
        where[np.concatenate(numbers)] = np.arange(len(features))
        size = final.batch_size
        for start in range(file.finished(size), len(images), size):
            rows = where[start : start + size]
            copied = np.full((len(rows), *file.shape[1:]), np.nan, np.float32)
            copied[rows >= 0] = features[rows[rows >= 0]]
            file.append(copied)


def _is_finished(job: Job, split: str) -> bool:
    file = job.feature_file(split)
    return file.finished(job.batch_size) == file.shape[0]
