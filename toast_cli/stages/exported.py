"""The folder of an export: made in a temporary one, compared with the model in memory, and found again.

Shapes: N images, C classes, F features.
"""

import copy
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn

from toast_cli import __version__
from toast_cli.errors import ToastError
from toast_cli.files import sealed, write_atomically
from toast_cli.machine.console import say
from toast_cli.models.timm_parts import Vit
from toast_cli.report.quantised import COMPARISON
from toast_cli.runs import contents
from toast_cli.runs.folder import held
from toast_cli.stages.deploy import deployed
from toast_cli.stages.exporting import Settings
from toast_cli.stages.job import Job
from toast_cli.stages.quantised import write_int8
from toast_cli.stages.reopen import Reopened
from toast_cli.surgery import standalone
from toast_cli.surgery.formats import FORMATS, INT8, Run
from toast_cli.surgery.parts import Part
from toast_cli.surgery.recipe import RECIPE, checksum, intact, read_recipe, without_folders
from toast_cli.surgery.saved import recipe_of

_SCRATCH = ".export-"
# How far another runtime may be off, as a share of the largest output. What timm reads back must be exact in fp32.
TOLERANCES = {"fp32": 1e-3, "fp16": 3e-2, "bf16": 1e-1}


@contextmanager
def scratch_in(parent: Path) -> Iterator[Path]:
    """A temporary folder in ``parent`` for this export; those that killed exports left behind are removed."""
    for left in parent.glob(f"{_SCRATCH}*"):
        if (left / contents.LOCK).is_file() and not held(left):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=parent) as scratch, FileLock(Path(scratch) / contents.LOCK):
        yield Path(scratch)


def made_of(run: Reopened, settings: Settings) -> dict[str, Any]:
    """The part of the recipe that says what the export of one plan is made of. Two with the same are the same."""
    job = run.job
    return without_folders(
        {
            "file": FORMATS[settings.format].file,
            "dtype": settings.dtype,
            "plan": str(run.variant.plan),
            "sequential": run.variant.sequential,
            "healed": run.variant.healed,
            "probe_seed": settings.seed if settings.has_head else None,
            "translators": {name or "own": translator.name for name, translator in job.translators.items()},
            "fine_tuned": run.tuned is not None,
            "source": {
                "weights": job.backbone.fingerprint(),
                "data": job.data.fingerprint(),
                "model": job.backbone.label,
            },
            "row": run.row,
            **({"quantisation": settings.quantisation} if settings.dtype == INT8 else {}),
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

    Raises ToastError if what was written does something else than the model. What int8 does is measured.
    """
    model, parts = deployed(run, settings.has_head, settings.seed)
    form = FORMATS[settings.format]
    if settings.dtype == INT8:
        write_int8(folder, model, run.job, settings.quantisation, settings.has_head)
        recipe = _recipe(model, parts, run, folder / form.file) | dict(made)
        write_recipe(folder, recipe | beside(folder, COMPARISON))
        return ""
    form.write(folder, copy.deepcopy(model), settings.dtype)
    recipe = _recipe(model, parts, run, folder / form.file) | dict(made)
    write_recipe(folder, recipe)
    outputs = _both(model, form.read(folder), images_of(run.job, settings.images))
    recipe["compared"] = compare(*outputs, settings)
    alone = None
    if settings.format == "safetensors":
        images = next(images_of(run.job, settings.images))
        alone = standalone.add(folder, model, recipe, images, form.read(folder)(images))
    write_recipe(folder, recipe | beside(folder, alone))
    return {
        standalone.CONFIG: 'timm loads it without toast: timm.create_model("local-dir:{out}", pretrained=True)',
        standalone.MODELING: "modeling.py in it loads it without toast, with torch and timm alone",
        None: "note: it cannot be loaded without toast: use toast_cli.load" * (settings.format == "safetensors"),
    }[alone]


def beside(folder: Path, name: str | None = None) -> dict[str, Any]:
    """The entry of a recipe that knows the file ``name`` beside the model's, or that there is none."""
    return {"beside": {} if name is None else {name: checksum(folder / name)}}


def write_recipe(folder: Path, recipe: Mapping[str, Any]) -> None:
    """Write ``recipe``, with a checksum of its own."""
    write_atomically(folder / RECIPE, json.dumps(sealed(recipe), indent=2) + "\n")


def versions() -> dict[str, str]:
    """What writes the export."""
    return {"toast": __version__, **{name: version(name) for name in ("torch", "timm")}}


def _recipe(model: Vit, parts: list[Part], run: Reopened, file: Path) -> dict[str, Any]:
    """What ``toast_cli.load`` and ``toast predict`` need of the model and its ``file``."""
    return {
        **recipe_of(model, run.job.backbone.recipe, parts),
        "params": sum(p.numel() for p in model.parameters()),
        "pretrained_cfg": model.pretrained_cfg,
        "weights": checksum(file),
        "versions": versions(),
    }


def images_of(job: Job, count: int) -> Iterator[Tensor]:
    """Normalised test images (N, 3, H, W) on the CPU."""
    for batch in job.batches(job.data.test.only(np.arange(min(count, len(job.data.test)))), job.batch_size):
        if len(batch.positions):
            yield job.backbone.normalise(batch.pixels).cpu()


def _both(model: nn.Module, runs: Run, images: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    """What the model in memory and what was written make of ``images``, (N, C) or (N, F) each."""
    with torch.inference_mode():
        pairs = [(model(batch), runs(batch)) for batch in images]
    mine, theirs = (torch.cat(outputs) for outputs in zip(*pairs, strict=True))
    return mine, theirs


def compare(mine: Tensor, theirs: Tensor, settings: Settings) -> str:
    """Say how the outputs (N, C) or (N, F) of the model in memory compare with ``theirs``, those of what was written; returns that.

    Raises ToastError if they differ.
    """
    form, dtype = settings.format, settings.dtype
    off = ((mine - theirs).abs().max() / mine.abs().max()).item()
    agree = int((mine.argmax(1) == theirs.argmax(1)).sum())
    what = "class" if settings.has_head else "largest feature"
    told = f"largest difference {off:.1e} of the largest output; the same {what} for {agree} of {len(mine)} images"
    allowed = 1e-6 if (form, dtype) == ("safetensors", "fp32") else TOLERANCES[dtype]
    if not off <= allowed:
        raise ToastError(
            f"The {form} file in {dtype} does not do what the model does ({told}; up to {allowed:.0e} is allowed): nothing was "
            "written; use another dtype= or format=."
        )
    say(f"{form} {dtype} read back: {told}")
    return told
