"""``toast export``: a shortened model as files that load anywhere.

What is written is read back by the runtime that will use it and compared with the model in memory on real images,
before it gets its final name: a mismatch leaves nothing behind.
"""

import copy
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toast_cli import __version__
from toast_cli.errors import ToastError, did_you_mean, require_flag
from toast_cli.folders import typed_path
from toast_cli.launch import launch, own_folders
from toast_cli.report.settings import Help
from toast_cli.runs import contents

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import Tensor

    from toast_cli.models.timm_parts import Vit
    from toast_cli.stages.job import Job
    from toast_cli.stages.reopen import Reopened
    from toast_cli.surgery.parts import Part

USAGE = "export <run> [key=value ...]"
SUMMARY = "a shortened model as files that load anywhere"
HELP = Help(
    "a shortened model as files that load anywhere, checked against the model in memory on real images.",
    """\
toast export outputs/search/<run>                          what the search has chosen, as safetensors and a recipe
toast export outputs/run/<run> plan=9-11 dtype=fp16        a plan of a run, at half the size
toast export outputs/run/<run> plan=9-11 format=onnx       for onnxruntime (pip install toast-cli[onnx])
toast export outputs/finetune/<run>                        the fine-tuned model""",
    groups=False,
)
_SCRATCH = ".export-"
# How far another runtime may be off, as a share of the largest output. What timm reads back must be exact in fp32.
_TOLERANCES = {"fp32": 1e-3, "fp16": 3e-2, "bf16": 1e-1}


def main(argv: list[str]) -> None:
    """Export, and print the folder. The first word is the run's folder, as ``run=`` is, but taken as it is typed."""
    given = None
    if argv and not argv[0].startswith("-") and "=" not in argv[0]:
        given, argv = Path(argv[0]), argv[1:]
    launch("export", "export", argv, HELP, partial(_job, given))


def _job(given: Path | None, cfg: "DictConfig", path: Path) -> None:
    print(export(cfg, _source(given, cfg)))


def _source(given: Path | None, cfg: "DictConfig") -> Path:
    """The run's folder. Raises ToastError if it is given twice or not at all."""
    from omegaconf import OmegaConf

    if OmegaConf.is_missing(cfg, "run"):
        if given is None:
            raise ToastError(
                "toast export needs the folder of a finished run: toast export outputs/run/<run> plan=9-11."
            )
        return typed_path(given)
    if given is not None:
        raise ToastError(f"toast export was given two runs, {given} and run={cfg.run}: give one of them.")
    return typed_path(cfg.run)


@dataclass(frozen=True)
class _Settings:
    plan: str | None
    format: str
    dtype: str
    head: str
    seed: int
    images: int

    @classmethod
    def check(cls, cfg: "DictConfig") -> "_Settings":
        """The settings, checked. Raises ToastError for a value that cannot be used."""
        from toast_cli.surgery.formats import DTYPES, FORMATS

        given = {key: str(cfg[key]).lower() for key in ("format", "dtype", "head")}
        for key, allowed in (("format", tuple(FORMATS)), ("dtype", DTYPES), ("head", ("probe", "none"))):
            if given[key] not in allowed:
                raise ToastError(
                    f"{key}={cfg[key]} is not known{did_you_mean(given[key], allowed)}: use {', '.join(allowed)}."
                )
        runs_in = FORMATS[given["format"]].dtypes
        if given["dtype"] not in runs_in:
            raise ToastError(
                f"format={given['format']} has no runtime for dtype={given['dtype']}: use {', '.join(runs_in)}."
            )
        for key, least in (("seed", 0), ("images", 1)):
            if type(cfg[key]) is not int or cfg[key] < least:
                raise ToastError(f"{key}={cfg[key]} cannot be used: give a whole number from {least}.")
        return cls(cfg.plan, **given, seed=cfg.seed, images=cfg.images)


def export(cfg: "DictConfig", source: Path) -> Path:
    """Write, check and name the export of the run at ``source``; returns its folder.

    If it is there already, as a killed process may leave it behind, nothing is written. Raises ToastError for invalid
    settings and a mismatch, and if another export or anything else is there.
    """
    from toast_cli.stages.choice import row_of

    settings, fresh = _Settings.check(cfg), require_flag(cfg.fresh, "fresh")
    row = row_of(source, settings.plan, settings.seed)

    from toast_cli.files import sealed, write_atomically
    from toast_cli.machine.console import say
    from toast_cli.stages.deploy import deployed
    from toast_cli.stages.reopen import reopen
    from toast_cli.surgery.formats import FORMATS
    from toast_cli.surgery.recipe import RECIPE

    parent = typed_path(cfg.out).parent if cfg.out else Path("outputs/export")
    parent.mkdir(parents=True, exist_ok=True)
    with _scratch(parent) as scratch:
        run = reopen(source, row, settings.seed, cfg, scratch / "run", own_folders())
        out = typed_path(cfg.out) if cfg.out else parent / _name(run, settings)
        made_of = _made_of(run, settings)
        if not fresh and _is_there(out, made_of):
            say(f"{out} is there already, and its files are as they were written")
            return out
        if out.exists() and not (fresh and (out / RECIPE).is_file()):
            raise ToastError(f"{out} exists: give another out=, or replace an export with fresh=true.")
        model, parts = deployed(run, settings.head == "probe", settings.seed)
        folder = scratch / "export"
        folder.mkdir()
        FORMATS[settings.format].write(folder, copy.deepcopy(model), settings.dtype)
        recipe = _recipe(model, parts, run, folder / FORMATS[settings.format].file) | made_of
        write_atomically(folder / RECIPE, json.dumps(sealed(recipe), indent=2) + "\n")
        say(_compare(model, run.job, settings, folder))
        alone = _add_standalone(folder, model, recipe, run.job, settings)
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)
    if alone:
        say(alone.format(out=out))
    size = (out / FORMATS[settings.format].file).stat().st_size
    say(f"{out / FORMATS[settings.format].file}: {size / 1e6:.1f} MB")
    return out


@contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    """A temporary folder in ``parent`` for this export; those that killed exports left behind are removed."""
    from filelock import FileLock

    from toast_cli.runs.folder import held

    for left in parent.glob(f"{_SCRATCH}*"):
        if (left / contents.LOCK).is_file() and not held(left):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=parent) as scratch, FileLock(Path(scratch) / contents.LOCK):
        yield Path(scratch)


def _name(run: "Reopened", settings: _Settings) -> str:
    job = run.job
    words = (
        job.backbone.label,
        job.data.label,
        run.variant,
        settings.format,
        *([settings.dtype] if settings.dtype != "fp32" else []),
        *(["no_head"] if settings.head == "none" else [f"seed{settings.seed}"] if settings.seed else []),
    )
    return "-".join(str(word).replace(":", "_").replace("/", "_") for word in words)


def _recipe(model: "Vit", parts: "list[Part]", run: "Reopened", file: Path) -> dict[str, Any]:
    """What ``toast_cli.load`` and ``toast predict`` need of the model and its ``file``."""
    from toast_cli.surgery.recipe import checksum
    from toast_cli.surgery.saved import recipe_of

    return {
        **recipe_of(model, run.job.backbone.recipe, parts),
        "params": sum(p.numel() for p in model.parameters()),
        "pretrained_cfg": model.pretrained_cfg,
        "weights": checksum(file),
        "versions": {"toast": __version__, **{name: version(name) for name in ("torch", "timm")}},
    }


def _made_of(run: "Reopened", settings: _Settings) -> dict[str, Any]:
    """The rest of the recipe: what the export is made of. Two with the same are the same."""
    from toast_cli.surgery.formats import FORMATS

    job = run.job
    return {
        "file": FORMATS[settings.format].file,
        "dtype": settings.dtype,
        "plan": str(run.variant.plan),
        "sequential": run.variant.sequential,
        "healed": run.variant.healed,
        "probe_seed": settings.seed if settings.head == "probe" else None,
        "translators": {name or "own": translator.name for name, translator in job.translators.items()},
        "fine_tuned": run.tuned is not None,
        "source": {"weights": job.backbone.fingerprint(), "data": job.data.fingerprint(), "model": job.backbone.label},
        "row": run.row,
    }


def _add_standalone(folder: Path, model: "Vit", recipe: dict[str, Any], job: "Job", settings: _Settings) -> str:
    """Add what loads an export in safetensors without toast; returns a sentence about it, with ``{out}`` for the folder."""
    from toast_cli.surgery import standalone
    from toast_cli.surgery.formats import FORMATS

    if settings.format != "safetensors":
        return ""
    images = next(_images(job, settings.images))
    name = standalone.add(folder, model, recipe, images, FORMATS[settings.format].read(folder)(images))
    return {
        standalone.CONFIG: 'timm loads it without toast: timm.create_model("local-dir:{out}", pretrained=True)',
        standalone.MODELING: "modeling.py in it loads it without toast, with torch and timm alone",
        None: "note: it cannot be loaded without toast: use toast_cli.load",
    }[name]


def _is_there(out: Path, made_of: dict[str, Any]) -> bool:
    """Whether ``out`` holds this very export, whole and unchanged."""
    from toast_cli.surgery.recipe import intact, read_recipe

    try:
        recipe = read_recipe(out)
        intact(out / made_of["file"], recipe)
    except (ToastError, OSError):
        return False
    there = {key: recipe.get(key) for key in made_of}
    sealed = "checksum" in recipe and recipe.get("weights") is not None  # earlier versions did not say all of it
    return sealed and json.dumps(there, sort_keys=True) == json.dumps(made_of, sort_keys=True)


def _compare(model: "Vit", job: "Job", settings: _Settings, folder: Path) -> str:
    """Compare what was written with the model in memory, on test images. Raises ToastError if they differ."""
    import torch

    from toast_cli.surgery.formats import FORMATS

    runs = FORMATS[settings.format].read(folder)
    with torch.inference_mode():
        pairs = [(model(images), runs(images)) for images in _images(job, settings.images)]
    mine, theirs = (torch.cat(outputs) for outputs in zip(*pairs, strict=True))
    off = ((mine - theirs).abs().max() / mine.abs().max()).item()
    agree = int((mine.argmax(1) == theirs.argmax(1)).sum())
    what = "class" if settings.head == "probe" else "largest feature"
    told = f"largest difference {off:.1e} of the largest output; the same {what} for {agree} of {len(mine)} images"
    allowed = 1e-6 if (settings.format, settings.dtype) == ("safetensors", "fp32") else _TOLERANCES[settings.dtype]
    if not off <= allowed:
        raise ToastError(
            f"The {settings.format} file in {settings.dtype} does not do what the model does ({told}; up to {allowed:.0e} is allowed): nothing was "
            "written; use another dtype= or format=."
        )
    return f"{settings.format} {settings.dtype} read back: {told}"


def _images(job: "Job", count: int) -> "Iterator[Tensor]":
    """Normalised test images (N, 3, H, W) on the CPU."""
    import numpy as np

    for batch in job.batches(job.data.test.only(np.arange(min(count, len(job.data.test)))), job.batch_size):
        if len(batch.positions):
            yield job.backbone.normalise(batch.pixels).cpu()
