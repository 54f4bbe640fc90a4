"""Predict what a run will take: memory and disk from its shapes, time from trying each stage for a few seconds."""

import copy
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from toast_cli.errors import ToastError
from toast_cli.machine.console import duration, say
from toast_cli.machine.memory import resident
from toast_cli.models.branches import branches_of
from toast_cli.moments.streamed import ROWS_FOR_A_BASIS
from toast_cli.moments.weighted import WeightedSums
from toast_cli.plans import middles
from toast_cli.probes.batched import BatchedProbe
from toast_cli.room import in_words
from toast_cli.runs import contents
from toast_cli.runs.features import Features
from toast_cli.stages.heal import is_healed, originals_of
from toast_cli.stages.job import Job
from toast_cli.stages.probe import missing_seeds
from toast_cli.stages.schedule import Schedule
from toast_cli.stages.solve import empty_sums
from toast_cli.stages.walk import Encoder, build_trie, by_block, latents
from toast_cli.translators.base import ImageTranslator, white
from toast_cli.translators.by_token import example
from toast_cli.translators.refit import refit
from toast_cli.translators.trained import TrainedTranslator

_FP32, _FP64 = 4, 8  # bytes
_SOLVING = {False: 8, True: 110}  # D × D matrices at once while a map is solved, by whether it sees the image
_BLOCK = 12  # latents that a block holds in memory at once: queries, keys and values, the hidden layer twice, norms
_PROBED = 512  # train images
_SUMS_OF_A_REFIT = 10  # sums kept and held out, both together, their correlations and factors


@dataclass(frozen=True)
class Forecast:
    """Bytes: of all features, of those still to be written, free on the disk, of peak memory without mapped files; of
    healed blocks still to be written, and of the latents that are on the disk meanwhile, before the features."""

    features: int
    disk: int
    free: int
    memory: int
    healed: int
    latents: int

    @property
    def most(self) -> int:
        """The most that is still to be written at any time."""
        return self.healed + max(self.disk, self.latents)

    def check(self, job: Job) -> None:
        """Check that the features and the latents fit on the disk. Raises ToastError if they do not."""
        for what, size, setting in (
            ("features", self.disk, "train"),
            ("latents of fit.heal=true", self.latents, "fit"),
        ):
            if self.healed + size > self.free:
                raise ToastError(
                    f"The {what} need {in_words(self.healed + size)} in {job.folder.path}, which has {in_words(self.free)} free: make room, ask "
                    f"for fewer spans= or data.{setting}_images=, or give another place with hydra.run.dir=<dir>."
                )


def forecast(job: Job, schedule: Schedule | None = None) -> Forecast:
    """The forecast for a job, from shapes alone; for a race, if it has a ``schedule``."""
    place = next(parent for parent in (job.folder.path, *job.folder.path.absolute().parents) if parent.is_dir())
    files = [job.feature_file(name) for name in ("train", "test")]
    disk = sum(file.bytes_missing for file in files) if missing_seeds(job) else 0
    if schedule and disk:
        row = _FP32 * job.backbone.feature_width
        disk = max(row * schedule.rows_at_most() - job.folder.feature_bytes, 0)
    free, memory = shutil.disk_usage(place).free, resident() + _peak(job)
    healed, latents = (0, 0) if is_healed(job) else (_healed(job)[0], _latents(job))
    return Forecast(sum(file.bytes for file in files), disk, free, memory, healed, latents)


def _unfitted(job: Job) -> bool:
    return not (job.folder / contents.TRANSLATORS).is_file()


def _latents(job: Job) -> int:
    """Bytes on the disk while blocks are healed."""
    if not job.healed:
        return 0
    originals = originals_of(job)
    return 0 if originals.in_memory else originals.bytes(sum(map(len, job.data.fit)))


def _healed(job: Job) -> tuple[int, int]:
    """Bytes of the last layers of all healed blocks in fp32, and of the sums and solutions while one is fitted again."""
    if not job.healed:
        return 0, 0
    by_block = [[branch.last for branch in branches_of(job.backbone.part(key.block))] for key in job.healed]
    ends = [end for own in by_block for end in own]
    layers = sum(_FP32 * p.numel() for end in ends for p in end.parameters())
    widest = max(end.in_features for end in ends)
    return layers, _FP64 * _SUMS_OF_A_REFIT * widest * (widest + 2 * job.backbone.width)


def _converted(job: Job) -> int:
    """Bytes of the blocks behind maps as the walk holds them; healed ones share all but their last layers."""
    blocks, healed = job.backbone.blocks, _healed(job)[0] // _FP32
    tails = by_block(build_trie(job.variants, job.backbone.depth).tails())
    return (sum(p.numel() for i in tails for p in blocks[i].parameters()) + healed) * job.backbone.block_dtype.itemsize


def _peak(job: Job) -> int:
    """Bytes that the stages add to what the process holds after loading: the maps and the largest stage."""
    backbone, plans, features = job.backbone, len(job.variants), job.backbone.feature_width
    matrix, latent = backbone.width**2, _FP32 * backbone.tokens * backbone.width
    pairs = {(key.span.start, key.span.end) for key in job.maps if not key.healed}
    layers = {layer for pair in pairs for layer in pair}
    modules = len(job.maps) * sum(_FP32 * p.numel() for p in _example(job).parameters())
    again = {i for part in job.data.fit for i in part.indices} & set(job.data.train.indices)
    pixels = len(again) * math.prod(backbone.image_shape)
    at_once = max(job.batch_size, -(-ROWS_FOR_A_BASIS * backbone.width // backbone.tokens))
    solving = _SOLVING[any(isinstance(each, ImageTranslator) for each in job.translators.values())]
    sums = _FP64 * matrix * (_matrices(job) + solving)
    fit = sums + at_once * latent * (backbone.depth + 1 + len(layers) + _BLOCK) if pairs else 0
    healed, refit = _healed(job)
    modules += healed
    fit = max(
        fit + modules, 3 * modules, modules + refit
    )  # the translators, and twice their size while they are written
    encode = _converted(job) + job.batch_size * (latent * (backbone.depth + _BLOCK) + 4 * _FP32 * plans * features)
    drawn = 3 * _FP64 * min(500, len(job.data.test)) * plans * features  # projection.py
    learned = 5 * _FP32 * plans * features * len(job.data.classes) if isinstance(job.probe, BatchedProbe) else 0
    rows = 1024 * plans * features if isinstance(job.probe, BatchedProbe) else 4 * len(job.data.train) * features
    return pixels + max(fit, 2 * modules + max(encode, drawn, learned + 3 * _FP32 * rows))


def _matrices(job: Job) -> int:
    """How many D × D matrices the sums for the job's maps are; trained maps need none."""
    return empty_sums(job, {key: key.span.start for key in job.maps}).matrices if job.closed_forms else 0


def seconds_left(job: Job, seconds: float = 10.0) -> dict[str, float]:
    """The seconds each stage will still take, from doing a little of each for ``seconds`` in all. Writes nothing."""
    left = {"fit": 0.0, "encode": 0.0, "probe": 0.0}
    maps: dict[Any, nn.Module] = dict.fromkeys(job.maps, _example(job).to(job.compute.device))
    encoder = Encoder(job.backbone, job.variants, maps | {key: job.backbone.part(key.block) for key in job.healed})
    if job.maps and _unfitted(job) and not isinstance(job.translator, TrainedTranslator):
        sums = empty_sums(job, {key: key.span.start for key in job.maps})
        inside = middles(point for plan in job.plans for point in plan.points)

        def add(pixels: torch.Tensor) -> None:
            sums.update(np.arange(len(pixels)), latents(job.backbone, pixels, inside))

        each = _seconds_an_image(job, add, seconds / 4)
        fits = len(job.maps) * (2 if job.held_out_r2 else 1)
        left["fit"] = each * sum(map(len, job.data.fit)) + _seconds_to_solve(job) * fits
        left["fit"] += _seconds_to_heal(job) if job.healed else 0.0
    row = _FP32 * len(job.variants) * job.backbone.feature_width
    images = sum(job.feature_file(name).bytes_missing for name in ("train", "test")) / row
    seeds = missing_seeds(job)
    if seeds:
        left["encode"] = _seconds_an_image(job, encoder, seconds / 2) * images
        left["probe"] = _seconds_to_probe(job) * len(seeds)
    return left


def _example(job: Job) -> torch.nn.Module:
    return example(job.translator, job.backbone.width, job.backbone.prefix_tokens, job.backbone.tokens)


def _seconds_an_image(job: Job, function: Callable[[torch.Tensor], object], seconds: float) -> float:
    """Seconds per image, decoding included. The first batch is a warm-up and not counted, unless it is the only one."""
    begun = first = time.perf_counter()
    done = 0
    images = job.data.train if len(job.data.train) else job.data.test
    for number, batch in enumerate(job.batches(images, job.batch_size)):
        if len(batch.positions):
            function(batch.pixels)
        if job.compute.device.type == "cuda":
            torch.cuda.synchronize(job.compute.device)
        done += batch.size
        now = time.perf_counter()
        if now - first > seconds:
            break
        if number == 0 and batch.size < len(images):
            begun, done = now, 0
    return (time.perf_counter() - begun) / done


def _seconds_to_solve(job: Job) -> float:
    """Seconds to solve one map."""
    translator, width, prefix = job.translator, job.backbone.width, job.backbone.prefix_tokens
    begun = time.perf_counter()
    if isinstance(translator, ImageTranslator):
        group = replace(white(2 * width, width), held_out=white(2 * width, width))
        copy.deepcopy(translator).fit([group] * (1 + bool(prefix)), prefix)
    else:
        _example(job)
    return time.perf_counter() - begun


def _seconds_to_heal(job: Job) -> float:
    """Seconds to heal all blocks, from the last block and a regression for its MLP, the larger of its branches."""
    backbone, block = job.backbone, job.backbone.depth - 1
    branches = branches_of(backbone.blocks[block])
    sums, sample = WeightedSums(branches[-1].last.in_features, backbone.width), originals_of(job).sample

    def both_branches(pixels: torch.Tensor) -> None:
        """What one block takes: each branch once, that of the MLP once more on sampled tokens, then the products."""
        latent, extras = backbone.stem(pixels)
        for branch in branches:
            hidden = backbone.hidden(block, branch, latent, extras)
            latent = backbone.end(block, branch, latent, hidden)
        latent = sample.of(latent, np.arange(len(pixels)))
        hidden = backbone.hidden(block, branch, latent, extras)
        rows, targets = (each.float().flatten(0, 1) for each in (hidden, latent))
        sums.update(rows, targets, sample.weights.to(latent.device).repeat(len(pixels)))

    each = _seconds_an_image(job, torch.inference_mode()(both_branches), 1.0)
    begun = time.perf_counter()
    refit(sums.moments(), sums.moments(), intercept=True)
    solving = 2 * (time.perf_counter() - begun)
    shares = [1.0 if isinstance(key.block, int) else 0.5 for key in job.healed]
    return sum(share * (each * key.fit_images + solving) for share, key in zip(shares, job.healed, strict=True))


def _seconds_to_probe(job: Job) -> float:
    """Seconds for one seed, from random features of part of the images.

    A probe that runs to convergence may need more or less.
    """
    train, plans = job.data.train, len(job.variants)
    part = min(len(train), _PROBED)
    if part == 0:
        return 0.0
    shape = (part, plans, job.backbone.feature_width)
    features = Features(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
    labels = train.labels[np.linspace(0, len(train) - 1, part).astype(int)]
    begun = time.perf_counter()
    job.probe.fit(features, labels, len(job.data.classes), 0)
    job.probe.predict(features)
    return (time.perf_counter() - begun) * len(train) / part


def announce(job: Job, memory: bool = True, schedule: Schedule | None = None) -> Forecast:
    """Say in one line what is about to be done; returns the forecast. ``memory`` is predicted for ``toast run`` alone.

    A race has a line more. Raises ToastError if the disk has no room for the features.
    """
    backbone, plans, expected = job.backbone, job.variants, forecast(job, schedule)
    most = f", {in_words(expected.memory)} of memory at most" if memory else ""
    say(
        f"{backbone.label} ({backbone.depth} blocks of width {backbone.width}) on {job.data.label}: {len(plans)} plan{'s' * (len(plans) > 1)}, "
        f"{build_trie(plans, backbone.depth).evaluations():g} block evaluations an image, {job.compute.precision} on {job.compute.device}, "
        f"{job.batch_size} images at a time, {in_words(expected.disk)} of features to write{most}"
    )
    if schedule:
        say(schedule.in_words(plans, backbone.depth))
    expected.check(job)
    return expected


def tell(job: Job, wanted: Sequence[tuple[str, int]] = (), schedule: Schedule | None = None) -> None:
    """Say what a run would do and take (``dry=true``), and what it would fetch first: ``wanted`` holds (what, bytes).

    Raises ToastError if the disk has no room for the features.
    """
    expected = announce(job, schedule=schedule)
    counts = [f"{len(job.data.train)} train", f"{len(job.data.test)} test"]
    say(
        f"images: {sum(map(len, job.data.fit))} fit, {', '.join(counts)}; {len(job.maps)} maps; {len(job.seeds)} probe seeds"
    )
    say(f"plans: {' '.join(map(str, job.plans))}")
    seconds = seconds_left(job)
    said = ", ".join(f"{stage} {duration(value)}" for stage, value in seconds.items())
    if isinstance(job.translator, TrainedTranslator):
        said = f"{said}, and training the maps, which is not rehearsed"
    if wanted:
        said = f"{said}; fetching is not counted, and random weights or one grey picture stand for what is not here"
        whole = in_words(sum(size for _, size in wanted))
        print(f"fetch {whole} from the hub ({', '.join(f'{in_words(size)} {what}' for what, size in wanted)})")
    least, most = schedule.seconds(seconds, job) if schedule else [sum(seconds.values())] * 2
    whole = f"{duration(least)} to {duration(most)} in a race" if schedule else duration(most)
    print(f"time {whole} ({said}{' in a full sweep' * bool(schedule)})")
    print(
        f"memory {in_words(expected.memory)} at most, disk {in_words(expected.most)} of {in_words(expected.free)} free"
    )
    print(f"folder {job.folder.path}")
