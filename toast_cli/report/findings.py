"""Many runs as one table: means over seeds, and what differences are worth."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from toast_cli.report.classes import worst_of
from toast_cli.report.paired import interval_of, right_of
from toast_cli.report.samples import Line, Sample, expected_of, grouped
from toast_cli.report.statistics import flip_rate, mcnemar
from toast_cli.runs.archive import CompleteRun
from toast_cli.runs.results import spread_of


@dataclass(frozen=True)
class Finding(Line):
    """One plan, translator, data set and model over all seeds, its fields in the order of the report's CSV columns.

    Means and standard deviations are over ``runs`` pairs of probe seed and data seed. ``delta_relative_mean`` is that of
    the changes' shares of the original's accuracy. ``delta_low`` and ``delta_high`` bound the 95% paired bootstrap
    interval of the mean change over test images; ``within_noise``: it contains 0. ``mcnemar_p`` is the median over runs.
    ``flip_rate``: the share of predictions that differ from the original's. ``worst_class`` is that with the largest drop,
    ``class_correlation`` Spearman's ρ over classes between the original's accuracy and the change. ``expected`` is the
    accuracy that others report, ``expected_delta`` = accuracy_mean − expected.
    """

    runs: int
    test_images: int
    accuracy_mean: float
    accuracy_std: float | None
    delta_mean: float
    delta_std: float | None
    delta_relative_mean: float | None
    delta_low: float | None
    delta_high: float | None
    mcnemar_p: float | None
    flip_rate: float | None
    within_noise: bool | None
    params: int
    params_ratio: float
    gflops: float
    gflops_ratio: float
    fit_r2: float | None
    held_out_r2: float | None
    worst_class: str | None
    worst_class_delta: float | None
    worst_class_images: int | None
    class_correlation: float | None
    expected: float | None
    expected_delta: float | None


def findings_of(runs: list[CompleteRun]) -> list[Finding]:
    """One finding for each plan and setting, originals first. Raises ToastError for runs that cannot be compared."""
    return [_finding(settings, samples) for settings, samples in grouped(runs)]


def _finding(settings: dict[str, Any], samples: list[Sample]) -> Finding:
    rows = [sample.row for sample in samples]
    first, spread, expected = rows[0], spread_of(rows), expected_of(samples)
    names = (
        "plan",
        "blocks_removed",
        "fit_images",
        "test_images",
        "params",
        "params_ratio",
        "gflops",
        "gflops_ratio",
    )
    return Finding(
        **settings,
        **{name: getattr(first, name) for name in names},
        **_worth(samples),
        **worst_of(samples),
        fit_r2=_mean(row.fit_r2 for row in rows),
        held_out_r2=_mean(row.held_out_r2 for row in rows),
        runs=len(rows),
        **asdict(spread),
        expected=expected,
        expected_delta=None if expected is None else spread.accuracy_mean - expected,
    )


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of those that are known; None if none is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _worth(samples: list[Sample]) -> dict[str, Any]:
    """Interval, test and flips against the original of the same run and seed; empty for originals and without predictions."""
    interval = interval_of(samples)
    if interval is None:
        return dict.fromkeys(("delta_low", "delta_high", "mcnemar_p", "flip_rate", "within_noise"))
    low, high = interval
    chances, flips = [], []
    for sample in samples:
        if (right := right_of(sample)) is not None and sample.stored is not None:
            predicted = sample.stored.by_seed[sample.row.seed]
            chances.append(mcnemar(*right))
            flips.append(flip_rate(predicted[sample.number], predicted[0]))
    return {
        "delta_low": low,
        "delta_high": high,
        "mcnemar_p": float(np.median(chances)),
        "flip_rate": float(np.mean(flips)),
        "within_noise": low <= 0 <= high,
    }
