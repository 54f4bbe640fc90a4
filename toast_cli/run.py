"""The experiment: config in, rows out.

model + data → one streaming pass of moments → translators → one pass of features for every plan → probes → results.csv
"""

import copy
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from toast_cli import __version__, translators
from toast_cli.compute import Compute, Halving, halve, out_of_memory
from toast_cli.console import progress, say
from toast_cli.costs import Costs
from toast_cli.data import Data, Images
from toast_cli.encode import Encoder, build_trie, latents
from toast_cli.errors import ToastError
from toast_cli.features import FeatureFile
from toast_cli.folders import RunFolder
from toast_cli.models import Backbone
from toast_cli.moments import Moments
from toast_cli.plans import Plan, Span, parse_plans
from toast_cli.probes import Probe
from toast_cli.results import Row, Summary, read_csv, summarise, write_csv
from toast_cli.translators import Translator

Fitted = Mapping[Span, Translator]


@dataclass(frozen=True)
class Job:
    """What a config stands for: everything the stages of one run share."""

    folder: RunFolder
    backbone: Backbone
    data: Data
    plans: list[Plan]
    translator: Translator
    probe: Probe
    seeds: list[int]
    compute: Compute
    batch_size: int
    workers: int


def run(cfg: DictConfig, folder: RunFolder) -> None:
    """Bring the run in ``folder`` to its end from wherever it stands; finished stages are not done again.

    Raises ToastError for what a person must mend.
    """
    with folder.stage("load"):
        job = prepare(cfg, folder)
    with folder.stage("fit"):
        fitted = fit(job)
    if missing_seeds(job):
        with folder.stage("encode"):
            encode(job, fitted)
        with folder.stage("probe"):
            score(job, fitted)
    write_csv(folder / "summary.csv", summarise(read_csv(folder / "results.csv", Row)), Summary)
    folder.finish()
    if not cfg.keep_features:
        for name in ("train", "test"):
            feature_file(job, name).path.unlink(missing_ok=True)


def prepare(cfg: DictConfig, folder: RunFolder) -> Job:
    """Load the model, then the data, cheap checks first; record what the run is made of."""
    seeds = _seeds(cfg.seeds)
    backbone = instantiate(cfg.model, _convert_="all")
    plans = parse_plans(_plain(cfg.spans), backbone.depth)
    compute = Compute.pick(cfg.device, cfg.precision, backbone.width)
    data = instantiate(cfg.data, _convert_="all")
    backbone.to(compute.device).block_dtype = compute.dtype
    job = Job(
        folder=folder,
        backbone=backbone,
        data=data,
        plans=plans,
        translator=instantiate(cfg.translator),
        probe=instantiate(cfg.probe, device=str(compute.device)),
        seeds=seeds,
        compute=compute,
        batch_size=compute.batch_size(cfg.batch_size, backbone.tokens, backbone.width),
        workers=_workers(cfg.workers, compute),
    )
    folder.begin(
        weights=backbone.fingerprint(), data=data.fingerprint(), device=compute.device.type, precision=compute.precision
    )
    folder.note(
        versions=_versions(),
        plans=[str(plan) for plan in plans],
        images={"train": len(data.train), "test": len(data.test)},
    )
    say(
        f"{backbone.label} ({backbone.depth} blocks of width {backbone.width}) on {data.label}: {len(plans)} plans, "
        f"{build_trie(plans, backbone.depth).evaluations()} block evaluations an image, {compute.precision} on {compute.device}, "
        f"{job.batch_size} images at a time"
    )
    return job


def fit(job: Job) -> Fitted:
    """The translator of every span, from one pass over the fit images. Bad images that are left out are not counted."""
    path = job.folder / "translators.safetensors"
    if path.is_file():
        return translators.load(path, job.translator)
    spans = sorted({span for plan in job.plans for span in plan.spans})
    size = job.batch_size
    while True:
        try:
            moments, used = _moments(job, spans, size)
            break
        except Exception as e:
            if not out_of_memory(e):
                raise
            size = halve(size, say, e)
    fitted = {span: copy.deepcopy(job.translator).fit(moments.pair(span.start, span.end)) for span in spans}
    job.folder.note(fit_images=used)
    translators.save(path, fitted)
    return fitted


def _moments(job: Job, spans: list[Span], batch_size: int) -> tuple[Moments, int]:
    """Moments of the untouched model's latents over the fit images, and how many of these could be used."""
    moments, used = Moments((span.start, span.end) for span in spans), 0
    with progress("fit", len(job.data.fit)) as advance:
        for positions, pixels in job.data.fit.batches(job.backbone.transform, batch_size, job.workers, keep=True):
            if len(positions):
                moments.update(latents(job.backbone, pixels.to(job.compute.device)))
            used += len(positions)
            advance(len(positions))
    for layer, total in moments.total.items():
        if not torch.isfinite(total).all():
            raise ToastError(
                f"The latents after block {layer} are not finite in {job.compute.precision}: use precision=fp32, and check the weights."
            )
    return moments, used


def encode(job: Job, fitted: Fitted) -> None:
    """The features of every plan for all train and test images, on disk."""
    encoder = Halving(Encoder(job.backbone, job.plans, modules(job, fitted)), say)
    for name, images in (("train", job.data.train), ("test", job.data.test)):
        _encode_split(job, encoder, name, images)
    job.data.fit.split.kept.clear()


def _encode_split(job: Job, encoder: Halving, name: str, images: Images) -> None:
    file = feature_file(job, name)
    done = file.finished(job.batch_size)
    if done == len(images):
        return
    with progress(f"encode {name}", len(images), done) as advance:
        for positions, pixels in images.batches(job.backbone.transform, job.batch_size, job.workers, done):
            features = np.full(
                (min(job.batch_size, len(images) - done), *file.shape[1:]), np.nan, np.float32
            )  # (B, P, F)
            if len(positions):
                features[positions - done] = encoder(pixels.to(job.compute.device)).cpu().numpy()
                _check_finite(job, features[positions - done])
            file.append(features)
            done += len(features)
            advance(len(features))


def _check_finite(job: Job, features: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(features).all(axis=(0, 2)))
    if len(bad):
        raise ToastError(
            f"The features of plan {job.plans[bad[0]]} are not finite in {job.compute.precision}: use precision=fp32, or leave the plan out."
        )


def feature_file(job: Job, name: str) -> FeatureFile:
    images = getattr(job.data, name)
    return FeatureFile(job.folder / "features" / f"{name}.f32", len(images), len(job.plans), job.backbone.feature_width)


def score(job: Job, fitted: Fitted) -> None:
    """Train and test the probes of all plans, seed by seed; a finished seed's rows are on disk before the next begins."""
    (train, train_used), (test, test_used) = (feature_file(job, name).read() for name in ("train", "test"))
    train_labels, test_labels = job.data.train.labels[train_used], job.data.test.labels[test_used]
    left_out = len(job.data.train) + len(job.data.test) - len(train_used) - len(test_used)
    if left_out:
        say(f"{left_out} images could not be decoded and were left out")
    rows: list[Row] = read_csv(job.folder / "results.csv", Row)
    costs = Costs(job.backbone, modules(job, fitted))
    columns = [_plan_columns(job, fitted, plan, costs) for plan in job.plans]
    for seed in missing_seeds(job):
        say(f"probe: seed {seed}, {len(job.plans)} plans on {len(train)} train images")
        predicted = job.probe.fit(train, train_labels, len(job.data.classes), seed).predict(test)  # (P, N)
        accuracies = (predicted == test_labels).mean(axis=1).tolist()
        shared = {
            "seed": seed,
            "train_images": len(train),
            "test_images": len(test),
            "accuracy_original": accuracies[0],
        }
        rows += [
            Row(**plan, **shared, accuracy=accuracy, accuracy_delta=accuracy - accuracies[0])
            for plan, accuracy in zip(columns, accuracies, strict=True)
        ]
        write_csv(job.folder / "results.csv", rows, Row)


def missing_seeds(job: Job) -> list[int]:
    """The seeds that have no rows yet."""
    finished = {row.seed for row in read_csv(job.folder / "results.csv", Row)}
    return [seed for seed in job.seeds if seed not in finished]


def modules(job: Job, fitted: Fitted) -> dict[Span, nn.Module]:
    """The map of every span, on the run's device."""
    return {span: translator.to_module().to(job.compute.device) for span, translator in fitted.items()}


def _plan_columns(job: Job, fitted: Fitted, plan: Plan, costs: Costs) -> dict[str, Any]:
    """The columns of a plan's rows that are the same for every seed."""
    cost, original = costs.of(plan), costs.of(Plan())
    maps = [fitted[span] for span in plan.spans]
    return {
        "model": job.backbone.label,
        "data": job.data.label,
        "translator": job.translator.name,
        "plan": str(plan),
        "spans_start_end": str([[span.start, span.end] for span in plan.spans]),
        "blocks_removed": plan.blocks_removed,
        "fit_images": job.folder.record["fit_images"],
        "probe": job.probe.name,
        "params": cost.params,
        "params_original": original.params,
        "params_ratio": cost.params / original.params,
        "gflops": cost.gflops,
        "gflops_original": original.gflops,
        "gflops_ratio": cost.gflops / original.gflops,
        "fit_r2": min((translator.r2_ for translator in maps), default=None),
        "fit_rank": min((translator.rank_ for translator in maps), default=None),
        "precision": job.compute.precision,
        "device": job.compute.device.type,
    }


def _seeds(seeds: Any) -> list[int]:
    values = _plain(seeds) if OmegaConf.is_config(seeds) else [seeds]
    if not isinstance(values, list) or not values or not all(type(seed) is int and seed >= 0 for seed in values):
        raise ToastError(f"seeds={values} is not a list of seeds: use whole numbers from 0, such as seeds=[0,1,2].")
    return list(dict.fromkeys(values))


def _plain(value: Any) -> Any:
    """A config node as Python's own lists and dicts."""
    return OmegaConf.to_object(value) if OmegaConf.is_config(value) else value


def _workers(workers: Any, compute: Compute) -> int:
    """On a CPU the model takes so much longer than decoding that a process for it would only be in its way."""
    if workers == "auto":
        return 0 if compute.device.type == "cpu" else min(8, (os.cpu_count() or 1) - 1)
    if type(workers) is not int or workers < 0:
        raise ToastError(f"workers={workers} is not a number of processes: use auto or a whole number from 0.")
    return workers


def _versions() -> dict[str, str]:
    packages = ("torch", "timm", "datasets", "numpy", "pillow")
    return {"toast": __version__, "python": platform.python_version(), **{name: version(name) for name in packages}}
