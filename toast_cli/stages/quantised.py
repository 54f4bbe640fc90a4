"""An export in int8: written, and measured beside the same model in fp32 and fp16.

Shapes: N images, M test images, C classes, F features.
"""

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from toast_cli.errors import ToastError
from toast_cli.machine import timing
from toast_cli.machine.console import progress, say
from toast_cli.report.quantised import COMPARISON, findings, print_compared
from toast_cli.report.statistics import bootstrap_interval
from toast_cli.runs.measured import Compared
from toast_cli.runs.results import write_csv
from toast_cli.stages.job import Job
from toast_cli.surgery.formats import INT8, ONNX, Run, run_onnx, write_onnx
from toast_cli.surgery.quantised import quantise

CALIBRATION = 128  # fit images on which the ranges of activations are found
_BATCH = 16
_SECONDS = 2.0  # for each file and each number of images


def write_int8(folder: Path, model: nn.Module, job: Job, way: str, with_head: bool) -> None:
    """Write ``model``, which is on the CPU, to ``folder`` in int8, quantised in this ``way``, with ``comparison.csv`` beside it.

    Files in fp32 and fp16, which it is compared with, are left beside the folder. Raises ToastError without the packages for
    ONNX, and if no fit image can be decoded or outputs are not finite.
    """
    files = {dtype: folder.parent / dtype / ONNX for dtype in ("fp32", "fp16")}
    for dtype, file in files.items():
        file.parent.mkdir()
        write_onnx(file.parent, copy.deepcopy(model), dtype)
    files[INT8] = folder / ONNX
    batches = calibration(job) if way == "static" else None
    quantise(files["fp32"], files[INT8], batches)
    used = {"quantisation": way, "calibration_images": sum(map(len, batches or []))}
    rows = _compared(files, {dtype: run_onnx(file) for dtype, file in files.items()}, job, with_head, used)
    write_csv(folder / COMPARISON, rows, Compared)
    print_compared(rows)
    for told in findings(rows[-1]):
        say(told)


def calibration(job: Job) -> list[Tensor]:
    """The run's first fit images, evenly spread over their part, in normalised batches (N, 3, H, W) on the CPU.

    Raises ToastError if none can be decoded.
    """
    left, batches = CALIBRATION, list[Tensor]()
    for part in job.data.fit:
        images = part.only(np.linspace(0, len(part) - 1, min(len(part), left)).round().astype(int))
        left -= len(images)
        batches += [_normalised(job, batch.pixels) for batch in job.batches(images, _BATCH) if len(batch.positions)]
    if not batches:
        raise ToastError("None of the fit images can be decoded: repair them, or use quantisation=dynamic.")
    return batches


def _normalised(job: Job, pixels: Tensor) -> Tensor:
    return job.backbone.normalise(pixels).cpu()


def _compared(
    files: Mapping[str, Path], runs: Mapping[str, Run], job: Job, with_head: bool, used: Mapping[str, Any]
) -> list[Compared]:
    """A row for each file, fp32 first; the last is the one in int8, with what it ``used``."""
    named, truth = _named(list(runs.values()), job)
    right = named == truth  # (files, M)
    alone, together = (_timed(list(runs.values()), job, size) for size in (1, _BATCH))
    rows = []
    for i, (dtype, file) in enumerate(files.items()):
        change = right[i].astype(int) - right[0].astype(int)
        interval = bootstrap_interval(change, np.ones_like(change)) if i else (None, None)
        rows.append(
            Compared(
                dtype,
                **(used if dtype == INT8 else {"quantisation": "", "calibration_images": 0}),
                size=file.stat().st_size,
                test_images=len(truth),
                accuracy=float(right[i].mean()) if with_head else None,
                accuracy_delta=float(change.mean()) if with_head and i else None,
                accuracy_delta_low=interval[0] if with_head else None,
                accuracy_delta_high=interval[1] if with_head else None,
                same_class=float((named[i] == named[0]).mean()),
                **_columns("latency", alone[i], alone[0]),
                batch_size=_BATCH,
                **_columns("batch", together[i], together[0]),
                onnxruntime=version("onnxruntime"),
            )
        )
    return rows


def _named(runs: Sequence[Run], job: Job) -> tuple[np.ndarray, np.ndarray]:
    """The largest output of each run (R, M), and the labels (M,), on all test images that can be decoded.

    Raises ToastError if the last run's outputs are not finite.
    """
    test, named, truth = job.data.test, list[np.ndarray](), list[np.ndarray]()
    with progress("compare", len(test)) as advance:
        for batch in job.batches(test, job.batch_size):
            if len(batch.positions):
                images = _normalised(job, batch.pixels)
                outputs = torch.stack([run(images) for run in runs])  # (R, N, C) or (R, N, F)
                if not outputs[-1].isfinite().all():
                    raise ToastError("The outputs in int8 are not finite numbers: use dtype=fp32 or dtype=fp16.")
                named.append(outputs.argmax(2).numpy())
                truth.append(test.labels[batch.positions])
            advance(batch.size)
    return np.concatenate(named, axis=1), np.concatenate(truth)


def _timed(runs: Sequence[Run], job: Job, size: int) -> list[list[float]]:
    """Seconds that each run takes for ``size`` images, round by round."""
    images = torch.randn(size, *job.backbone.image_shape, generator=torch.Generator().manual_seed(0))
    return timing.rounds([partial(_call, run, images) for run in runs], _SECONDS)


def _call(run: Run, images: Tensor) -> None:
    run(images)


def _columns(name: str, times: list[float], others: list[float]) -> dict[str, Any]:
    low, middle, high = timing.quartiles([one / other for one, other in zip(times, others, strict=True)])
    return {
        f"{name}_ms": 1e3 * timing.quartiles(times)[1],
        f"{name}_ratio": middle,
        f"{name}_ratio_low": low,
        f"{name}_ratio_high": high,
    }
