"""The stages of a run: moments and translators, features, probes and rows. Each finds what it has finished before."""

import copy
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from toast_cli import translators
from toast_cli.compute import Compute, Halving, halve, out_of_memory
from toast_cli.console import progress, say
from toast_cli.costs import Costs
from toast_cli.data import Data
from toast_cli.encode import Encoder, latents
from toast_cli.errors import ToastError
from toast_cli.features import FeatureFile
from toast_cli.folders import RunFolder
from toast_cli.images import Batch, Images
from toast_cli.models import Backbone
from toast_cli.moments import Moments
from toast_cli.plans import Plan, Span
from toast_cli.probes import Probe
from toast_cli.results import Row, read_csv, write_csv
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

    def batches(self, images: Images, size: int, start: int = 0, keep: Container[int] = ()) -> Iterator[Batch]:
        """``images.batches`` with the model's transform, pixels on the run's device."""
        device = self.compute.device
        pin = device.type == "cuda"
        for batch in images.batches(self.backbone.transform, size, self.workers, start, keep, pin):
            yield replace(batch, pixels=batch.pixels.to(device, non_blocking=pin))


def fit(job: Job) -> Fitted:
    """The translator of every span, from one pass over the fit images. Bad images that are left out are not counted."""
    path = job.folder / "translators.safetensors"
    if path.is_file():
        return translators.load(path, job.translator)
    spans = sorted({span for plan in job.plans for span in plan.spans})
    size = job.batch_size
    while True:  # the whole pass again when memory runs out: half a batch may have been added to the sums already
        try:
            fitted, used = _fit(job, spans, size)
            break
        except Exception as e:
            if not out_of_memory(e):
                raise
            size = halve(size, say, e)
    job.folder.note(fit_images=used)
    translators.save(path, fitted)
    return fitted


def _fit(job: Job, spans: list[Span], batch_size: int) -> tuple[dict[Span, Translator], int]:
    """The translators, and how many images they come from. The moments, gigabytes for a large model, end here."""
    moments, used = _moments(job, spans, batch_size)
    return {span: copy.deepcopy(job.translator).fit(moments.pair(span.start, span.end)) for span in spans}, used


def _moments(job: Job, spans: list[Span], batch_size: int) -> tuple[Moments, int]:
    """Moments of the untouched model's latents over the fit images, and how many of these could be used."""
    moments, used = Moments((span.start, span.end) for span in spans), 0
    again = set(job.data.train.indices.tolist())  # these will be encoded too, and need no second decoding
    with progress("fit", len(job.data.fit)) as advance:
        for batch in job.batches(job.data.fit, batch_size, keep=again):
            if len(batch.positions):
                try:
                    moments.update(latents(job.backbone, batch.pixels))
                except FloatingPointError as e:
                    raise _not_finite(str(e).capitalize(), job) from e
            used += len(batch.positions)
            advance(batch.size)
    if used == 0:
        raise ToastError("None of the fit images can be decoded: mend them, or draw others with data.seed.")
    return moments, used


def encode(job: Job, maps: Mapping[Span, nn.Module]) -> None:
    """The features of every plan for all train and test images, on disk."""
    encoder = Halving(Encoder(job.backbone, job.plans, maps), say)
    for name, images in (("train", job.data.train), ("test", job.data.test)):
        _encode_split(job, encoder, name, images)
    job.data.train.split.kept.clear()  # the split that fit and train images share


def _encode_split(job: Job, encoder: Halving, name: str, images: Images) -> None:
    file = feature_file(job, name)
    done = file.finished(job.batch_size)
    if done == len(images):
        return
    with progress(f"encode {name}", len(images), done) as advance:
        for batch in job.batches(images, job.batch_size, done):
            features = np.full((batch.size, *file.shape[1:]), np.nan, np.float32)  # (B, P, F)
            if len(batch.positions):
                features[batch.positions - done] = encoder(batch.pixels).cpu().numpy()
                _check_finite(job, features[batch.positions - done])
            file.append(features)
            done += batch.size
            advance(batch.size)


def _check_finite(job: Job, features: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(features).all(axis=(0, 2)))
    if len(bad):
        raise _not_finite(f"The features of plan {job.plans[bad[0]]}", job)


def _not_finite(what: str, job: Job) -> ToastError:
    advice = "check the weights" if job.compute.precision == "fp32" else "use precision=fp32"
    return ToastError(f"{what} are not finite in {job.compute.precision}: {advice}.")


def feature_file(job: Job, name: str) -> FeatureFile:
    images = getattr(job.data, name)
    return FeatureFile(job.folder / "features" / f"{name}.f32", len(images), len(job.plans), job.backbone.feature_width)


def score(job: Job, fitted: Fitted, maps: Mapping[Span, nn.Module]) -> None:
    """Train and test the probes of all plans, seed by seed; a finished seed's rows are on disk before the next begins."""
    train, test = (feature_file(job, name).read() for name in ("train", "test"))
    if len(train) == 0 or len(test) == 0:
        raise ToastError(
            "None of the train or none of the test images can be decoded: mend them or name another data.path."
        )
    left_out = len(job.data.train) + len(job.data.test) - len(train) - len(test)
    if left_out:
        say(f"{left_out} train and test images could not be decoded and were left out")
    rows: list[Row] = read_csv(job.folder / "results.csv", Row)
    costs = Costs(job.backbone, maps)
    columns = [_plan_columns(job, fitted, plan, costs) for plan in job.plans]
    for seed in missing_seeds(job):
        with progress(f"probe seed {seed}", len(train) * job.probe.epochs) as advance:
            labels = job.data.train.labels[train.positions]
            job.probe.fit(train, labels, len(job.data.classes), seed, advance)
        predicted, test_labels = job.probe.predict(test), job.data.test.labels[test.positions]  # (P, M), (M,)
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
