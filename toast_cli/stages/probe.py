"""The probe stage: probes of every variant and their rows, seed by seed; a finished seed is not repeated."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from toast_cli.errors import ToastError
from toast_cli.machine.console import progress, say
from toast_cli.plans import Plan, Variant
from toast_cli.runs import contents, predictions, projection
from toast_cli.runs.features import Features
from toast_cli.runs.predictions import Predictions
from toast_cli.runs.results import relative_change
from toast_cli.runs.rows import Row
from toast_cli.stages.job import Fitted, Job, Modules
from toast_cli.surgery.costs import Costs


def score(job: Job, fitted: Fitted, maps: Modules, keep: bool = False) -> None:
    """Train and test the probes of all variants, seed by seed; a seed's rows are on disk before the next seed begins.

    ``keep`` the probabilities of all classes too.

    Raises ToastError if none of the train or none of the test images can be decoded.
    """
    train, test = (job.feature_file(name).read() for name in ("train", "test"))
    if (len(train) == 0 and len(job.data.train)) or len(test) == 0:
        raise ToastError(
            "None of the train or none of the test images can be decoded: repair them, or give another data.path."
        )
    left_out = len(job.data.train) + len(job.data.test) - len(train) - len(test)
    if left_out:
        say(f"{left_out} train and test images could not be decoded and were left out")
    todo = missing_seeds(job, keep)
    rows = [_with_change(row) for row in job.folder.rows(contents.RESULTS, Row) if row.seed not in todo]
    costs = Costs(job.backbone, maps, job.probe.projection)
    columns = [variant_columns(job, fitted, variant, costs) for variant in job.variants]
    labels, truth = job.data.train.labels[train.positions], job.data.test.labels[test.positions]  # (N,), (M,)
    job.folder.write(contents.PROJECTION, projection.project(test, truth))
    stored = predictions.read(job.folder.checked(contents.PREDICTIONS))
    stored = stored or Predictions(truth, job.data.test.indices[test.positions])
    for seed in todo:
        with progress(f"probe seed {seed}", len(train) * job.probe.epochs) as advance:
            job.probe.fit(train, labels, len(job.data.classes), seed, advance)
        judged = job.probe.judge(test, keep)
        stored = stored.adding(seed, judged.classes)
        job.folder.write(contents.PREDICTIONS, stored.encoded())
        if judged.probabilities is not None:
            job.folder.write(contents.probabilities(seed), predictions.encoded_probabilities(judged.probabilities))
        accuracies = (judged.classes == truth).mean(axis=1).tolist()
        own = [{**each, "ece": error} for each, error in zip(columns, judged.calibration_errors(truth), strict=True)]
        rows += _rows(own, accuracies, seed=seed, train_images=len(train), test_images=len(test))
        job.folder.write_rows(contents.RESULTS, rows, Row)


def right_answers(
    job: Job, train: Features, labels: np.ndarray, test: Features, truth: np.ndarray, what: str = "probe"
) -> np.ndarray:
    """For how many of the job's seeds each test image is classified correctly with each plan, (P, M).

    The job's probe is trained on ``train`` (N, P, F), part of its train images, with ``labels`` (N,). ``truth`` (M,) are those
    of ``test`` (M, P, F).
    """
    probe, right = (
        job.probe.on_share(len(train) / len(job.data.train) if len(job.data.train) else 1.0),
        np.zeros((test.shape[1], len(test)), int),
    )
    for seed in job.seeds:
        with progress(f"{what} seed {seed}", len(train) * probe.epochs) as advance:
            probe.fit(train, labels, len(job.data.classes), seed, advance)
        right += probe.predict(test) == truth
    return right


def _rows(columns: Sequence[Mapping[str, Any]], accuracies: Sequence[float], **shared: Any) -> list[Row]:
    """The rows of one seed: the ``columns`` of each variant with its accuracy, and what all of them have in common."""
    original = accuracies[0]
    return [
        _with_change(
            Row(**variant, **shared, accuracy=each, accuracy_original=original, accuracy_delta=each - original)
        )
        for variant, each in zip(columns, accuracies, strict=True)
    ]


def _with_change(row: Row) -> Row:
    """The row with its relative change, which earlier versions did not write."""
    return replace(row, accuracy_delta_relative=relative_change(row.accuracy, row.accuracy_original, row.test_images))


def missing_seeds(job: Job, keep: bool = False) -> list[int]:
    """The seeds that have no rows or no predictions yet, or (``keep``) no probabilities."""
    stored = predictions.read(job.folder.checked(contents.PREDICTIONS))
    rows = Counter(row.seed for row in job.folder.rows(contents.RESULTS, Row))
    # An earlier version, which tested fewer plans, may have begun this run.
    finished = {seed for seed, count in rows.items() if count == len(job.variants)} & set(
        stored.by_seed if stored else ()
    )
    if keep:
        finished = {seed for seed in finished if job.folder.checked(contents.probabilities(seed)).is_file()}
    return [seed for seed in job.seeds if seed not in finished]


def variant_columns(job: Job, fitted: Fitted, variant: Variant, costs: Costs) -> dict[str, Any]:
    """The columns of a variant's rows that are the same for every seed."""
    original, plan = costs.of(Plan()), variant.plan
    maps = [fitted.maps[key] for key in variant.maps]
    held_out = [score for translator in maps if (score := translator.held_out_r2_) is not None]
    return {
        "model": job.backbone.label,
        "data": job.data.label,
        "translator": job.translator.name,
        "plan": str(plan),
        "spans_start_end": str([[span.start, span.end] for span in plan.spans]),
        "blocks_removed": plan.blocks_removed,
        "fit_data": job.data.fit_label,
        "fit_images": fitted.images_used[variant.fit_images] if maps else 0,
        "data_seed": job.data.seed,
        "probe": job.probe.name,
        **costs.columns(variant),
        "params_original": original.params,
        "gflops_original": original.gflops,
        "fit_r2": min((translator.r2_ for translator in maps), default=None),
        "held_out_r2": min(held_out) if held_out and len(held_out) == len(maps) else None,
        "fit_rank": min((translator.rank_ for translator in maps), default=None),
        "sequential": variant.sequential,
        "healed": variant.healed,
        "tokens": job.translator.tokens,
        "solver": job.translator.solver,
        "readout": job.backbone.readout_kind,
        "protocol": job.protocol,
        "precision": job.compute.precision,
        "device": job.compute.device.type,
    }
