"""The stages of fine-tuning, seed by seed: features, the probe that the head starts from, training, one row.

The head starts from the probe, so that the accuracies before and after belong to the same model. The epoch is chosen on
held-out train images, and its weights see the test images once.
"""

from typing import Any

import numpy as np

from toast_cli.data.draws import stratified
from toast_cli.data.images import Images
from toast_cli.errors import ToastError
from toast_cli.plans import Plan, parse_plans
from toast_cli.probes.batched import LinearProbe
from toast_cli.runs.contents import FINETUNE
from toast_cli.runs.folder import RunFolder
from toast_cli.runs.measured import Tuned
from toast_cli.stages.encode import encode
from toast_cli.stages.job import Fitted, Job, Modules
from toast_cli.stages.tune import Student, Training, accuracy, forget
from toast_cli.stages.tuning import Settings
from toast_cli.surgery.costs import Costs


def one_plan(spans: Any, fit_images: Any, probe: Any, depth: int) -> list[Plan]:
    """The untouched model and the plan.

    Raises ToastError for several plans or fit sizes, or for a probe that no head can start from.
    """
    plans = parse_plans(spans, depth)
    several = isinstance(fit_images, list) and len(fit_images) > 1
    if len(plans) > 2 or several or not isinstance(probe, LinearProbe):
        raise ToastError(
            "toast finetune takes one plan, one number of data.fit_images, and a linear probe that its head starts from: give "
            "spans=[9-11] data.fit_images=500 probe=linear."
        )
    return plans


def split_off(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions in ``labels`` (N,) of the images to train on and of those held out, a stratified draw.

    Raises ToastError for fewer than two images.
    """
    if len(labels) < 2:
        raise ToastError(
            "toast finetune holds out train images to choose the epoch, and there is only one: use data.train_images=2 or more."
        )
    order = stratified(labels, seed)
    count = min(max(round(share * len(order)), 1), len(order) - 1)
    return np.sort(order[count:]), np.sort(order[:count])


def tune_seeds(
    job: Job, folder: RunFolder, fitted: Fitted, settings: Settings, seeds: list[int], rows: list[Tuned]
) -> None:
    """Add each seed's row to ``rows``, and write them all to ``finetune.csv`` before the next seed begins.

    Raises ToastError where the loss or the features are not finite.
    """
    maps, probe = job.modules(fitted), job.probe
    if not isinstance(probe, LinearProbe):
        raise TypeError(f"{probe.name}: one_plan refuses such probes")
    with folder.stage("encode"):
        encode(job, maps)
    train, test = (job.feature_file(name).read() for name in ("train", "test"))
    rest, apart = split_off(job.data.train.labels[train.positions], settings.held_out, job.data.seed)
    trained_on, chosen_by = (job.data.train.only(train.positions[which]) for which in (rest, apart))
    tested = job.data.test.only(test.positions)
    for seed in seeds:
        probe.fit(train.at(rest), trained_on.labels, len(job.data.classes), seed)
        original, before = (probe.predict(test) == tested.labels).mean(axis=1)[[0, -1]].tolist()
        student = Student(job.backbone, job.variants[-1], maps, probe.to_module(-1), settings.train_maps)
        with folder.stage("tune"):
            best = Training(job, student, settings, seed).run(trained_on, chosen_by)
            after = accuracy(job, student, tested, f"test seed {seed}")
        found = {"accuracy_original": original, "accuracy_before": before, "accuracy_after": after, **best}
        counts = _counts(trained_on, chosen_by, tested)
        rows.append(Tuned(**_columns(job, fitted, maps, settings), seed=seed, **counts, **found))
        folder.write_rows(FINETUNE, rows, Tuned)
        forget(folder)


def _counts(trained_on: Images, chosen_by: Images, tested: Images) -> dict[str, Any]:
    return {"train_images": len(trained_on), "held_out_images": len(chosen_by), "test_images": len(tested)}


def _columns(job: Job, fitted: Fitted, maps: Modules, settings: Settings) -> dict[str, Any]:
    """The columns of ``finetune.csv`` that are the same for every seed."""
    variant, costs = job.variants[-1], Costs(job.backbone, maps)
    return {
        "model": job.backbone.label,
        "data": job.data.label,
        "translator": job.translator.name if variant.maps else "",
        "plan": str(variant),
        "blocks_removed": variant.plan.blocks_removed,
        "data_seed": job.data.seed,
        "fit_images": fitted.images_used[variant.fit_images] if variant.maps else 0,
        "train_maps": settings.train_maps,
        "learning_rate": settings.learning_rate,
        "encoder_learning_rate": settings.encoder_rate,
        "epochs": settings.epochs,
        **costs.columns(variant),
        "precision": job.compute.precision,
        "device": job.compute.device.type,
    }
