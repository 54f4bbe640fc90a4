"""The folder of an export: written, compared with the model in memory, and found again.

Shapes: N images, C classes, F features.
"""

import copy
import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toast_cli import __version__
from toast_cli.errors import ToastError
from toast_cli.files import sealed, write_atomically
from toast_cli.machine.console import say
from toast_cli.models.timm_parts import Vit
from toast_cli.stages.deploy import deployed
from toast_cli.stages.exporting import Settings
from toast_cli.stages.job import Job
from toast_cli.stages.reopen import Reopened
from toast_cli.surgery import standalone
from toast_cli.surgery.formats import FORMATS
from toast_cli.surgery.parts import Part
from toast_cli.surgery.recipe import RECIPE, checksum, intact, read_recipe, without_folders
from toast_cli.surgery.saved import recipe_of

# How far another runtime may be off, as a share of the largest output. What timm reads back must be exact in fp32.
TOLERANCES = {"fp32": 1e-3, "fp16": 3e-2, "bf16": 1e-1}


def made_of(run: Reopened, settings: Settings) -> dict[str, Any]:
    """The part of the recipe that says what the export is made of. Two with the same are the same."""
    job = run.job
    return without_folders(
        {
            "file": FORMATS[settings.format].file,
            "dtype": settings.dtype,
            "plan": str(run.variant.plan),
            "sequential": run.variant.sequential,
            "healed": run.variant.healed,
            "probe_seed": settings.seed if settings.head == "probe" else None,
            "translators": {name or "own": translator.name for name, translator in job.translators.items()},
            "fine_tuned": run.tuned is not None,
            "source": {
                "weights": job.backbone.fingerprint(),
                "data": job.data.fingerprint(),
                "model": job.backbone.label,
            },
            "row": run.row,
        }
    )


def is_there(out: Path, made: Mapping[str, Any]) -> bool:
    """Whether ``out`` holds the very export that is ``made`` of this, whole and unchanged."""
    try:
        recipe = read_recipe(out)
        intact(out / made["file"], recipe)
    except (ToastError, OSError):
        return False
    there = {key: recipe.get(key) for key in made}
    whole = "checksum" in recipe and recipe.get("weights") is not None  # earlier versions did not say all of it
    return whole and json.dumps(there, sort_keys=True) == json.dumps(made, sort_keys=True)


def write(folder: Path, run: Reopened, settings: Settings, made: Mapping[str, Any]) -> str:
    """Write the export of ``run`` to ``folder``, compared with the model in memory; returns a sentence on loading it without
    toast, with ``{out}`` for the folder, or nothing.

    Raises ToastError if what was written does something else than the model.
    """
    model, parts = deployed(run, settings.head == "probe", settings.seed)
    form = FORMATS[settings.format]
    form.write(folder, copy.deepcopy(model), settings.dtype)
    recipe = _recipe(model, parts, run, folder / form.file) | dict(made)
    _write_recipe(folder, recipe)
    told = _compare(model, run.job, settings, folder)
    say(f"{settings.format} {settings.dtype} read back: {told}")
    alone = None
    if settings.format == "safetensors":
        images = next(_images(run.job, settings.images))
        alone = standalone.add(folder, model, recipe, images, form.read(folder)(images))
    beside = {} if alone is None else {alone: checksum(folder / alone)}
    _write_recipe(folder, recipe | {"compared": told, "beside": beside})
    return {
        standalone.CONFIG: 'timm loads it without toast: timm.create_model("local-dir:{out}", pretrained=True)',
        standalone.MODELING: "modeling.py in it loads it without toast, with torch and timm alone",
        None: "note: it cannot be loaded without toast: use toast_cli.load" * (settings.format == "safetensors"),
    }[alone]


def _write_recipe(folder: Path, recipe: Mapping[str, Any]) -> None:
    write_atomically(folder / RECIPE, json.dumps(sealed(recipe), indent=2) + "\n")


def _recipe(model: Vit, parts: list[Part], run: Reopened, file: Path) -> dict[str, Any]:
    """What ``toast_cli.load`` and ``toast predict`` need of the model and its ``file``."""
    return {
        **recipe_of(model, run.job.backbone.recipe, parts),
        "params": sum(p.numel() for p in model.parameters()),
        "pretrained_cfg": model.pretrained_cfg,
        "weights": checksum(file),
        "versions": {"toast": __version__, **{name: version(name) for name in ("torch", "timm")}},
    }


def _compare(model: Vit, job: Job, settings: Settings, folder: Path) -> str:
    """How what was written compares with the model in memory, on test images. Raises ToastError if they differ."""
    runs = FORMATS[settings.format].read(folder)
    with torch.inference_mode():
        pairs = [(model(images), runs(images)) for images in _images(job, settings.images)]
    mine, theirs = (torch.cat(outputs) for outputs in zip(*pairs, strict=True))
    off = ((mine - theirs).abs().max() / mine.abs().max()).item()
    agree = int((mine.argmax(1) == theirs.argmax(1)).sum())
    what = "class" if settings.head == "probe" else "largest feature"
    told = f"largest difference {off:.1e} of the largest output; the same {what} for {agree} of {len(mine)} images"
    allowed = 1e-6 if (settings.format, settings.dtype) == ("safetensors", "fp32") else TOLERANCES[settings.dtype]
    if not off <= allowed:
        raise ToastError(
            f"The {settings.format} file in {settings.dtype} does not do what the model does ({told}; up to {allowed:.0e} is allowed): nothing was "
            "written; use another dtype= or format=."
        )
    return told


def _images(job: Job, count: int) -> Iterator[Tensor]:
    """Normalised test images (N, 3, H, W) on the CPU."""
    for batch in job.batches(job.data.test.only(np.arange(min(count, len(job.data.test)))), job.batch_size):
        if len(batch.positions):
            yield job.backbone.normalise(batch.pixels).cpu()
