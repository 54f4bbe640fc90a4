"""Exports on disk: made in a temporary folder, compared with the model in memory, and found again.

Shapes: N images, C classes, F features.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn

from toast_cli.errors import ToastError
from toast_cli.runs import contents
from toast_cli.runs.folder import held
from toast_cli.stages.job import Job
from toast_cli.surgery.formats import Run
from toast_cli.surgery.recipe import intact, read_recipe

_SCRATCH = ".export-"
# How far another runtime may be off, as a share of the largest output. What timm reads back must be exact in fp32.
_TOLERANCES = {"fp32": 1e-3, "fp16": 3e-2, "bf16": 1e-1}


@contextmanager
def scratch_in(parent: Path) -> Iterator[Path]:
    """A temporary folder in ``parent`` for this export; those that killed exports left behind are removed."""
    for left in parent.glob(f"{_SCRATCH}*"):
        if (left / contents.LOCK).is_file() and not held(left):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=parent) as scratch, FileLock(Path(scratch) / contents.LOCK):
        yield Path(scratch)


def is_there(out: Path, made_of: Mapping[str, Any]) -> bool:
    """Whether ``out`` holds the export that is ``made_of`` this, whole and unchanged."""
    try:
        recipe = read_recipe(out)
        intact(out / made_of["file"], recipe)
    except (ToastError, OSError):
        return False
    there = {key: recipe.get(key) for key in made_of}
    sealed = "checksum" in recipe and recipe.get("weights") is not None  # earlier versions did not say all of it
    return sealed and json.dumps(there, sort_keys=True) == json.dumps(made_of, sort_keys=True)


def images_of(job: Job, count: int) -> Iterator[Tensor]:
    """Normalised test images (N, 3, H, W) on the CPU."""
    for batch in job.batches(job.data.test.only(np.arange(min(count, len(job.data.test)))), job.batch_size):
        if len(batch.positions):
            yield job.backbone.normalise(batch.pixels).cpu()


def both(model: nn.Module, runs: Run, images: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    """What the model in memory and what was written make of ``images``, (N, C) or (N, F) each."""
    with torch.inference_mode():
        pairs = [(model(batch), runs(batch)) for batch in images]
    mine, theirs = (torch.cat(outputs) for outputs in zip(*pairs, strict=True))
    return mine, theirs


def compare(mine: Tensor, theirs: Tensor, form: str, dtype: str, what: str) -> str:
    """Compare the outputs (N, C) or (N, F) of the model in memory with ``theirs``, those of what was written; ``what`` is the largest.

    Raises ToastError if they differ.
    """
    off = ((mine - theirs).abs().max() / mine.abs().max()).item()
    agree = int((mine.argmax(1) == theirs.argmax(1)).sum())
    told = f"largest difference {off:.1e} of the largest output; the same {what} for {agree} of {len(mine)} images"
    allowed = 1e-6 if (form, dtype) == ("safetensors", "fp32") else _TOLERANCES[dtype]
    if not off <= allowed:
        raise ToastError(
            f"The {form} file in {dtype} does not do what the model does ({told}; up to {allowed:.0e} is allowed): nothing was "
            "written; use another dtype= or format=."
        )
    return f"{form} {dtype} read back: {told}"
