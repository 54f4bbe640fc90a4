"""Rows of many runs, sorted into those that are one line of a report; whether the runs can be compared at all."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toast_cli.errors import ToastError
from toast_cli.runs.archive import CompleteRun
from toast_cli.runs.predictions import Predictions
from toast_cli.runs.rows import Number, Row


@dataclass(frozen=True)
class Line:
    """What rows that are averaged over seeds have in common; the first columns of a report's tables."""

    model: str
    data: str
    fit_data: str
    translator: str
    tokens: str
    solver: str
    sequential: bool
    healed: bool
    probe: str
    readout: str
    protocol: str
    precision: str
    plan: str
    blocks_removed: Number
    fit_images: int


# All of these but the plan and the number of fit images.
SHARED = [name for name in Line.__annotations__ if name not in ("plan", "blocks_removed", "fit_images")]


@dataclass(frozen=True)
class Sample:
    """A row with its predictions: row ``number`` of its seed."""

    row: Row
    run: CompleteRun
    stored: Predictions | None
    number: int

    @property
    def identity(self) -> tuple[int, int]:
        return self.row.data_seed, self.row.seed


def grouped(runs: list[CompleteRun]) -> list[tuple[dict[str, Any], list[Sample]]]:
    """The ``SHARED`` settings of each line of a report and its rows, one for each seed and draw; originals first.

    Raises ToastError for runs that cannot be compared.
    """
    check_comparable(runs)
    labels = _translator_labels(runs)
    samples: dict[tuple, list[Sample]] = defaultdict(list)
    for run in runs:
        position: dict[int, int] = defaultdict(int)
        for row in run.rows:
            settings = {name: getattr(row, name) for name in SHARED} | {"translator": labels[run.path]}
            if row.plan == "none":  # no translator, no fit images: the same row in many runs
                settings |= {"translator": "", "tokens": "", "solver": "", "fit_data": ""}
            key = (*settings.values(), row.plan, row.fit_images)
            samples[key].append(Sample(row, run, run.stored, position[row.seed]))
            position[row.seed] += 1
    return [(dict(zip(SHARED, key, strict=False)), _distinct(found)) for key, found in _originals_first(samples)]


def apart(runs: list[CompleteRun]) -> tuple[list[list[CompleteRun]], list[str]]:
    """The runs in as few groups as a first fit gives, each of which can be one table, and why they are not one.

    Raises ToastError for a run that cannot be read.
    """
    if _conflict(runs) is None:
        return [runs], []
    groups: list[list[CompleteRun]] = []
    reasons: list[str] = []
    for run in runs:
        conflicts = []
        for group in groups:
            if (conflict := _conflict([*group, run])) is None:
                group.append(run)
                break
            conflicts.append(conflict)
        else:
            if (damage := _conflict([run])) is not None:
                raise ToastError(damage)
            groups.append([run])
            reasons += conflicts[:1]
    return groups, reasons


def _conflict(runs: list[CompleteRun]) -> str | None:
    """Why the runs cannot be one table; None if they can."""
    try:
        for _, samples in grouped(runs):
            expected_of(samples)
    except ToastError as e:
        return str(e)
    return None


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


def _distinct(samples: list[Sample]) -> list[Sample]:
    """One sample for each data seed and probe seed. Raises ToastError if two differ in accuracy and no column says why.

    Probes of different plans train together, and their number decides how products round: two images may differ by
    that.
    """
    seen: dict[tuple[int, int], Sample] = {}
    for sample in samples:
        before = seen.setdefault(sample.identity, sample)
        if abs(before.row.accuracy - sample.row.accuracy) * sample.row.test_images > 2.5:
            raise ToastError(
                f"{before.run.path} and {sample.run.path} hold plan {sample.row.plan} with seed {sample.row.seed} at accuracy "
                f"{before.row.accuracy:.4f} and {sample.row.accuracy:.4f}, and no column tells them apart: name one of them."
            )
    return list(seen.values())


def expected_of(samples: list[Sample]) -> float | None:
    """The accuracy that others report for the plan; None if no run knows one. Raises ToastError if two runs know different ones."""
    plan = samples[0].row.plan
    known = [sample.run for sample in samples if plan in sample.run.expected]
    for run in known:
        if run.expected[plan] != known[0].expected[plan]:
            raise ToastError(
                f"{known[0].path} and {run.path} expect {known[0].expected[plan]} and {run.expected[plan]} of plan {plan}: report them "
                "separately."
            )
    return known[0].expected[plan] if known else None


def _translator_labels(runs: list[CompleteRun]) -> dict[Path, str]:
    """Each run's translator, with its settings that differ between runs: ``lowrank rank=32``."""
    labels = {}
    for run in runs:
        name = run.rows[0].translator
        same = [other.translator for other in runs if other.rows[0].translator == name]
        varied = [key for key in run.translator if any(other.get(key) != run.translator[key] for other in same)]
        labels[run.path] = " ".join([name, *(f"{key}={run.translator[key]}" for key in varied)])
    return labels
