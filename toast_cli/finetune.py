"""``toast finetune``: what training gives back to a shortened model. Config in, finetune.csv and the weights out.

The head starts from the probe, so that accuracy before and after are of the same model. The epoch is chosen on held-out
train images, and its weights meet the test images once.
"""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from toast_cli.costs import Costs
from toast_cli.draws import stratified
from toast_cli.errors import ToastError
from toast_cli.fitting import fit
from toast_cli.folders import RunFolder
from toast_cli.forecast import announce
from toast_cli.images import Images
from toast_cli.job import Job
from toast_cli.plans import Map, Plan, parse_plans
from toast_cli.probes import LinearProbe
from toast_cli.results import read_csv, write_csv
from toast_cli.rows import Tuned
from toast_cli.run import prepare
from toast_cli.stages import encode, modules
from toast_cli.tuning import Settings, Student, Training, accuracy, forget


def finetune(cfg: DictConfig, folder: RunFolder) -> None:
    """Fit, train, choose, test. Raises ToastError for what a person must mend."""
    settings = Settings.check(OmegaConf.to_container(cfg.tune) if OmegaConf.is_config(cfg.tune) else cfg.tune)
    with folder.stage("load"):
        job = prepare(cfg, folder, lambda depth: _one_plan(cfg, depth))
        _held_out(job.data.train.labels, settings.held_out, job.data.seed)  # so that one image is refused now
        announce(job, memory=False)
    with folder.stage("fit"):
        maps = modules(job, fit(job))
    rows: list[Tuned] = read_csv(folder / "finetune.csv", Tuned)
    if seeds := [seed for seed in job.seeds if seed not in {row.seed for row in rows}]:
        _tune(job, maps, settings, seeds, rows)
    forget(folder)
    for name in ("train", "test"):
        job.feature_file(name).path.unlink(missing_ok=True)
    folder.finish()


def _tune(job: Job, maps: Mapping[Map, nn.Module], settings: Settings, seeds: list[int], rows: list[Tuned]) -> None:
    """Add the row of each seed to ``rows``, and all of them to ``finetune.csv`` before the next begins."""
    folder, probe = job.folder, cast(LinearProbe, job.probe)
    with folder.stage("encode"):
        encode(job, maps)
    train, test = (job.feature_file(name).read() for name in ("train", "test"))
    rest, apart = _held_out(job.data.train.labels[train.positions], settings.held_out, job.data.seed)
    parts = [job.data.train.only(train.positions[which]) for which in (rest, apart)] + [
        job.data.test.only(test.positions)
    ]
    for seed in seeds:
        probe.fit(train.at(rest), parts[0].labels, len(job.data.classes), seed)
        original, before = (probe.predict(test) == parts[2].labels).mean(axis=1)[[0, -1]].tolist()
        student = Student(job.backbone, job.variants[-1], maps, probe.to_module(-1), settings.train_maps).to(
            job.compute.device
        )
        with folder.stage("tune"):
            training = Training(job, student, settings, seed)
            best = training.run(parts[0], parts[1])
            after = accuracy(job, student, parts[2], f"test seed {seed}")
        found = {"accuracy_original": original, "accuracy_before": before, "accuracy_after": after, **best}
        rows.append(Tuned(**_columns(job, maps, settings), seed=seed, **_counts(parts), **found))
        write_csv(folder / "finetune.csv", rows, Tuned)
        forget(folder)


def _one_plan(cfg: DictConfig, depth: int) -> list[Plan]:
    """The untouched model and the plan. Raises ToastError for several, before the folder records that a run has begun."""
    plans = parse_plans(OmegaConf.to_object(cfg.spans) if OmegaConf.is_config(cfg.spans) else cfg.spans, depth)  # type: ignore[arg-type]
    several = OmegaConf.is_list(cfg.data.fit_images) and len(cfg.data.fit_images) > 1
    if len(plans) > 2 or several or not isinstance(instantiate(cfg.probe), LinearProbe):
        raise ToastError(
            "toast finetune takes one plan, one number of data.fit_images, and a linear probe that its head starts from: give "
            "spans=[9-11] data.fit_images=500 probe=linear."
        )
    return plans


def _held_out(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the images to train on and of those held out, a stratified draw."""
    if len(labels) < 2:
        raise ToastError(
            "toast finetune holds out train images to choose the epoch, and there is one: use data.train_images=2 or more."
        )
    order = stratified(labels, seed)
    count = min(max(round(share * len(order)), 1), len(order) - 1)
    return np.sort(order[count:]), np.sort(order[:count])


def _counts(parts: list[Images]) -> dict[str, Any]:
    return dict(zip(("train_images", "held_out_images", "test_images"), map(len, parts), strict=True))


def _columns(job: Job, maps: Mapping[Map, nn.Module], settings: Settings) -> dict[str, Any]:
    """Of ``finetune.csv``, what is the same for every seed."""
    variant, costs = job.variants[-1], Costs(job.backbone, maps)
    return {
        "model": job.backbone.label,
        "data": job.data.label,
        "translator": job.translator.name if variant.maps else "",
        "plan": str(variant),
        "blocks_removed": variant.plan.blocks_removed,
        "data_seed": job.data.seed,
        "fit_images": job.folder.record["fit_images"][str(variant.fit_images)] if variant.maps else 0,
        "train_maps": settings.train_maps,
        "learning_rate": settings.learning_rate,
        "encoder_learning_rate": settings.encoder_rate,
        "epochs": settings.epochs,
        **costs.columns(variant),
        "precision": job.compute.precision,
        "device": job.compute.device.type,
    }
