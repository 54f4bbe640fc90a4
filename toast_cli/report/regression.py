"""Has a run lost accuracy against a baseline? Plan by plan, on the same test images.

Shapes: M test images.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from toast_cli.errors import ToastError
from toast_cli.report.samples import Sample, grouped
from toast_cli.report.statistics import bootstrap_interval
from toast_cli.runs.archive import CompleteRun
from toast_cli.runs.rows import Summary

_CHANCE = 0.05  # that any plan at all is called worse although none is
_BEYOND = 100  # draws of the bootstrap outside the interval
_MOST = 200_000  # draws


class IncomparableError(ToastError):
    """Nothing can be said about a run and a baseline. The command line exits with status 2: this never passes."""

    status = 2


@dataclass(frozen=True)
class Line:
    """What tells the plans of a run apart. ``translator`` is empty for the untouched model."""

    model: str
    data: str
    translator: str
    plan: str
    fit_images: int
    sequential: bool
    healed: bool

    def __str__(self) -> str:
        fit = "healed" if self.healed else "sequential" * self.sequential
        return " ".join(filter(None, (self.plan, self.translator, fit)))


@dataclass(frozen=True)
class Change:
    """A plan's accuracy in the baseline and in the run, means over seeds. ``low`` and ``high`` bound the paired interval of the
    change, None where a tolerance decides."""

    line: Line
    before: float
    after: float
    low: float | None
    high: float | None
    worse: bool


def against_runs(runs: list[CompleteRun], baseline: list[CompleteRun], tolerance: float | None) -> list[Change]:
    """The changes of the baseline's plans. Worse is a loss of more than the ``tolerance``, or, without one, an interval below 0.

    The intervals hold for all plans at once with 95%: each is of the level 1 − 0.05 / plans (Bonferroni).
    Raises IncomparableError unless each plan was tested on the same images with the same seeds.
    """
    after, before = _lines(runs), _lines(baseline)
    _require_lines(after, before)
    level = 1 - _CHANCE / len(before)
    return [_change(line, after[line], samples, tolerance, level) for line, samples in before.items()]


def against_summary(runs: list[CompleteRun], baseline: Sequence[Summary], tolerance: float | None) -> list[Change]:
    """The same for the lines of a ``summary.csv``, which need a tolerance. Raises IncomparableError for other plans or numbers of seeds."""
    if tolerance is None:
        raise IncomparableError(
            "A summary.csv has no predictions to compare image by image: give --tolerance, or the folder of the baseline's run."
        )
    after = _lines(runs)
    before = {_line(summary): summary for summary in baseline}
    if len(before) < len(baseline):
        raise IncomparableError("The baseline has two lines for one plan: give the folder of its run.")
    _require_lines(after, before)
    found = []
    for line, summary in before.items():
        if len(after[line]) != summary.seeds:
            raise IncomparableError(
                f"{line} has {summary.seeds} seeds in the baseline and {len(after[line])} in the run: use the same seeds."
            )
        was, now = summary.accuracy_mean, _accuracy(after[line])
        found.append(Change(line, was, now, None, None, _lost(was, now, tolerance)))
    return found


def _lines(runs: list[CompleteRun]) -> dict[Line, list[Sample]]:
    found: dict[Line, list[Sample]] = {}
    for _, samples in grouped(runs):
        line = _line(samples[0].row)
        if line in found:
            raise IncomparableError(
                f"{samples[0].run.path} and {found[line][0].run.path} both have {line}: compare one run with one."
            )
        found[line] = samples
    return found


def _line(row: "Summary | object") -> Line:
    values = {name: getattr(row, name) for name in Line.__annotations__}
    return Line(**values | ({"translator": ""} if values["plan"] == "none" else {}))


def _require_lines(after: Mapping[Line, object], before: Mapping[Line, object]) -> None:
    missing = [line for line in before if line not in after]
    if missing:
        also = f" and {len(missing) - 1} more of {len(before)} plans" if len(missing) > 1 else ""
        where = f"{missing[0].model} on {missing[0].data}"
        raise IncomparableError(
            f"The run has no {missing[0]} of {where}{also}, which the baseline has: run the same plans under the same labels."
        )


def _change(line: Line, after: list[Sample], before: list[Sample], tolerance: float | None, level: float) -> Change:
    ours, theirs = ({sample.identity: sample for sample in samples} for samples in (after, before))
    if ours.keys() != theirs.keys():
        raise IncomparableError(
            f"{line} has the seeds (data, probe) {sorted(theirs)} in the baseline and {sorted(ours)} in the run: use the same."
        )
    was, now = _accuracy(before), _accuracy(after)
    pairs = [(ours[seeds], theirs[seeds]) for seeds in theirs]
    if tolerance is not None:
        for new, old in pairs:
            _require_images(line, new, old, known=False)
        return Change(line, was, now, None, None, _lost(was, now, tolerance))
    changes: dict[tuple[int, int], list[int]] = defaultdict(list)  # by test image, one for each pair of seeds
    for new, old in pairs:
        _require_images(line, new, old, known=True)
        change = _right(new).astype(int) - _right(old).astype(int)  # (M,)
        for image, each in zip(new.stored.images.tolist(), change.tolist(), strict=True):  # type: ignore[union-attr]
            changes[new.run.split, image].append(each)
    total, times = (np.array([reduce(values) for values in changes.values()]) for reduce in (sum, len))
    low, high = bootstrap_interval(total, times, level, draws=min(ceil(2 * _BEYOND / (1 - level)), _MOST))
    return Change(line, was, now, low, high, high < 0)


def _require_images(line: Line, new: Sample, old: Sample, known: bool) -> None:
    """Raises IncomparableError unless both were tested on the same images, and, if these have to be ``known``, their predictions stored."""
    if known and (new.stored is None or old.stored is None):
        lacking = new if new.stored is None else old
        raise IncomparableError(f"{lacking.run.path} has no predictions to compare image by image: give --tolerance.")
    if new.stored is None or old.stored is None:
        same = new.row.test_images == old.row.test_images
    else:
        same = np.array_equal(new.stored.images, old.stored.images) and np.array_equal(
            new.stored.truth, old.stored.truth
        )
    if not same:
        raise IncomparableError(
            f"{line} was tested on other images in {old.run.path} than in {new.run.path}: use the same data and the same data.seed."
        )


def _right(sample: Sample) -> np.ndarray:
    """Whether each test image was classified correctly, bool (M,)."""
    stored = sample.stored
    if stored is None:
        raise ValueError(f"{sample.run.path} has no predictions")
    return stored.by_seed[sample.row.seed][sample.number] == stored.truth


def _accuracy(samples: list[Sample]) -> float:
    return float(np.mean([sample.row.accuracy for sample in samples]))


def _lost(before: float, after: float, tolerance: float) -> bool:
    """Whether accuracy fell by more than the tolerance; a decimal such as 0.01 allows as many images as it says."""
    return before - after > tolerance + 1e-9
