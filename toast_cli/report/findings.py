"""Many runs as one table: which belong together, whether they can be compared, and what their differences are worth."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toast_cli.errors import ToastError
from toast_cli.report.statistics import bootstrap_interval, flip_rate, mcnemar
from toast_cli.runs.archive import CompleteRun
from toast_cli.runs.predictions import Predictions
from toast_cli.runs.results import spread_of
from toast_cli.runs.rows import Row

# What rows that are averaged over seeds have in common, in addition to the plan and the number of fit images.
SHARED = (
    "model", "data", "fit_data", "translator", "tokens", "solver", "sequential", "probe", "readout", "protocol", "precision",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One plan, translator, data set and model over all seeds, its fields in the order of the report's CSV columns.

    Means and standard deviations are over ``runs`` pairs of probe seed and data seed. ``delta_relative_mean`` is that of
    the changes' shares of the original's accuracy. ``delta_low`` and ``delta_high`` bound the 95% paired bootstrap
    interval of the mean change over test images; ``within_noise``: it contains 0. ``mcnemar_p`` is the median over runs.
    ``flip_rate``: the share of predictions that differ from the original's.
    """

    model: str
    data: str
    fit_data: str
    translator: str
    tokens: str
    solver: str
    sequential: bool
    probe: str
    readout: str
    protocol: str
    precision: str
    plan: str
    blocks_removed: int
    fit_images: int
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


def findings_of(runs: list[CompleteRun]) -> list[Finding]:
    """One finding for each plan and setting, originals first. Raises ToastError for runs that cannot be compared."""
    check_comparable(runs)
    labels = _translator_labels(runs)
    samples: dict[tuple, list[_Sample]] = defaultdict(list)
    for run in runs:
        position: dict[int, int] = defaultdict(int)
        for row in run.rows:
            settings = {name: getattr(row, name) for name in SHARED} | {"translator": labels[run.path]}
            if row.plan == "none":  # no translator, no fit images: the same row in many runs
                settings |= {"translator": "", "tokens": "", "solver": "", "fit_data": ""}
            key = (*settings.values(), row.plan, row.fit_images)
            samples[key].append(_Sample(row, run, run.stored, position[row.seed]))
            position[row.seed] += 1
    return [
        _finding(dict(zip(SHARED, key, strict=False)), _distinct(found)) for key, found in _originals_first(samples)
    ]


def check_comparable(runs: list[CompleteRun]) -> None:
    """Raises ToastError unless the same labels mean the same weights, test images, number of train images and probe."""
    for what, label, value in (
        ("weights of model", _model, lambda run: run.record.get("weights")),
        ("number of test images of", _data, lambda run: run.rows[0].test_images),
        ("test images of", _draw, lambda run: run.test_set),
        ("number of train images of", _probe, lambda run: run.rows[0].train_images),
        ("settings of probe", _probe, lambda run: run.config.get("probe")),
    ):
        seen: dict[Any, tuple[CompleteRun, Any]] = {}
        for run in runs:
            other, before = seen.setdefault(label(run), (run, value(run)))
            if before != value(run):
                named = label(run) if isinstance(label(run), str) else " ".join(map(str, label(run)))
                raise ToastError(
                    f"{other.path} and {run.path} cannot be in one table: the {what} {named} differ ({before} and {value(run)}); report "
                    "them separately, or give one of them another label."
                )


def _model(run: CompleteRun) -> tuple[str, ...]:
    """The model; the paper's preprocessing resizes position embeddings in its own way, so weights differ with it."""
    paper = run.config["model"].get("preprocessing") == "paper"
    return run.rows[0].model, *(["with the paper's preprocessing"] if paper else [])


def _data(run: CompleteRun) -> tuple[str, ...]:
    return run.rows[0].data, run.rows[0].protocol


def _draw(run: CompleteRun) -> tuple[str, ...]:
    return *_data(run), f"with data.seed={run.rows[0].data_seed}"


def _probe(run: CompleteRun) -> tuple[str, ...]:
    return run.rows[0].probe, *_data(run)


def _originals_first(samples: dict[tuple, Any]) -> list[tuple[tuple, Any]]:
    return sorted(samples.items(), key=lambda item: (item[0][:2], item[0][-2] != "none"))


@dataclass(frozen=True)
class _Sample:
    """A row with its predictions: row ``number`` of its seed."""

    row: Row
    run: CompleteRun
    stored: Predictions | None
    number: int

    @property
    def identity(self) -> tuple[int, int]:
        return self.row.data_seed, self.row.seed


def _distinct(samples: list[_Sample]) -> list[_Sample]:
    """One sample for each data seed and probe seed. Raises ToastError if two differ in accuracy and no column says why.

    Probes of different plans train together, and their number decides how products round: two images may differ by
    that.
    """
    seen: dict[tuple[int, int], _Sample] = {}
    for sample in samples:
        before = seen.setdefault(sample.identity, sample)
        if abs(before.row.accuracy - sample.row.accuracy) * sample.row.test_images > 2.5:
            raise ToastError(
                f"{before.run.path} and {sample.run.path} hold plan {sample.row.plan} with seed {sample.row.seed} at accuracy "
                f"{before.row.accuracy:.4f} and {sample.row.accuracy:.4f}, and no column tells them apart: name one of them."
            )
    return list(seen.values())


def _finding(settings: dict[str, Any], samples: list[_Sample]) -> Finding:
    rows = [sample.row for sample in samples]
    first = rows[0]
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
        fit_r2=_mean(row.fit_r2 for row in rows),
        held_out_r2=_mean(row.held_out_r2 for row in rows),
        runs=len(rows),
        **asdict(spread_of(rows)),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of those that are known; None if none is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _worth(samples: list[_Sample]) -> dict[str, Any]:
    """Interval, test and flips against the original of the same run and seed; empty for originals and without predictions."""
    empty = dict.fromkeys(("delta_low", "delta_high", "mcnemar_p", "flip_rate", "within_noise"))
    if samples[0].row.plan == "none" or any(sample.stored is None for sample in samples):
        return empty
    differences: dict[tuple[int, int], list[float]] = defaultdict(list)  # test image -> one value per run
    chances, flips = [], []
    for sample in samples:
        stored = sample.stored
        if stored is None:
            return empty
        predicted = stored.by_seed[sample.row.seed]
        right, original = predicted[sample.number] == stored.truth, predicted[0] == stored.truth
        for image, change in zip(
            stored.images.tolist(), (right.astype(int) - original.astype(int)).tolist(), strict=True
        ):
            differences[sample.run.split, image].append(change)
        chances.append(mcnemar(right, original))
        flips.append(flip_rate(predicted[sample.number], predicted[0]))
    changes, counts = (np.array([reduce(values) for values in differences.values()]) for reduce in (sum, len))
    low, high = bootstrap_interval(changes, counts)
    return {
        "delta_low": low,
        "delta_high": high,
        "mcnemar_p": float(np.median(chances)),
        "flip_rate": float(np.mean(flips)),
        "within_noise": low <= 0 <= high,
    }


def _translator_labels(runs: list[CompleteRun]) -> dict[Path, str]:
    """Each run's translator, with its settings that differ between runs: ``lowrank rank=32``."""
    labels = {}
    for run in runs:
        name = run.rows[0].translator
        same = [other.translator for other in runs if other.rows[0].translator == name]
        varied = [key for key in run.translator if any(other.get(key) != run.translator[key] for other in same)]
        labels[run.path] = " ".join([name, *(f"{key}={run.translator[key]}" for key in varied)])
    return labels
