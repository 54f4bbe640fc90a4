"""``toast export``: a shortened model as files that load anywhere.

What is written is read back by the runtime that will use it and compared with the model in memory on real images, before it
gets its name: a mismatch leaves nothing behind.
"""

import copy
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from filelock import FileLock
from omegaconf import DictConfig
from torch import Tensor, nn

from toast_cli import __version__
from toast_cli.console import say
from toast_cli.errors import ToastError, did_you_mean, require_flag
from toast_cli.files import write_atomically
from toast_cli.finished import Finished, reopen
from toast_cli.folders import held
from toast_cli.folding import Part, fold
from toast_cli.formats import DTYPES, FORMATS
from toast_cli.job import Job
from toast_cli.saved import RECIPE, WEIGHTS, recipe_of
from toast_cli.stages import encode, modules
from toast_cli.surgery import join, parts, split
from toast_cli.timm_parts import Vit, attach_head

_SCRATCH = ".export-"
# Of the largest output, how far another runtime may be off; a file that is read back by timm must be exact in fp32.
_TOLERANCES = {"fp32": 1e-3, "fp16": 3e-2, "bf16": 1e-1}


@dataclass(frozen=True)
class _Settings:
    plan: str | None
    format: str
    dtype: str
    head: str
    seed: int
    images: int

    @classmethod
    def check(cls, cfg: DictConfig) -> "_Settings":
        """Raises ToastError for a value that cannot be used."""
        given = {key: str(cfg[key]).lower() for key in ("format", "dtype", "head")}
        for key, allowed in (("format", tuple(FORMATS)), ("dtype", tuple(DTYPES)), ("head", ("probe", "none"))):
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


def export(cfg: DictConfig) -> Path:
    """Write, check, name; returns the folder. Raises ToastError for what a person must mend, a mismatch among it."""
    settings, fresh = _Settings.check(cfg), require_flag(cfg.fresh, "fresh")
    source = Path(str(cfg.run)).expanduser()
    parent = Path(str(cfg.out)).expanduser().parent if cfg.out else Path("outputs/export")
    parent.mkdir(parents=True, exist_ok=True)
    with _scratch(parent) as scratch:
        finished = reopen(source, settings.plan, settings.seed, cfg, scratch / "run")
        out = Path(str(cfg.out)).expanduser() if cfg.out else parent / _name(finished, settings)
        if out.exists() and not (fresh and (out / RECIPE).is_file()):
            raise ToastError(f"{out} exists: give another out=, or replace an export with fresh=true.")
        model, blocks = _model(finished, settings)
        folder = scratch / "export"
        folder.mkdir()
        FORMATS[settings.format].write(folder, copy.deepcopy(model), DTYPES[settings.dtype])
        write_atomically(
            folder / RECIPE, json.dumps(_recipe(model, blocks, finished, settings, folder), indent=2) + "\n"
        )
        say(_compare(model, finished.job, settings, folder))
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)
    size = (out / FORMATS[settings.format].file).stat().st_size
    say(f"{out / FORMATS[settings.format].file}: {size / 1e6:.1f} MB")
    return out


@contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    """A folder in ``parent`` that ends with this process; those of processes that were killed are removed."""
    for left in parent.glob(f"{_SCRATCH}*"):
        if (left / ".lock").is_file() and not held(left):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=parent) as scratch, FileLock(Path(scratch) / ".lock"):
        yield Path(scratch)


def _name(finished: Finished, settings: _Settings) -> str:
    job = finished.job
    words = (
        job.backbone.label,
        job.data.label,
        finished.variant,
        settings.format,
        *([settings.dtype] if settings.dtype != "fp32" else []),
        *(["no_head"] if settings.head == "none" else [f"seed{settings.seed}"] if settings.seed else []),
    )
    return "-".join(str(word).replace(":", "_").replace("/", "_") for word in words)


def _model(finished: Finished, settings: _Settings) -> tuple[Vit, list[Any]]:
    """The shortened model on the CPU, with its head, in evaluation mode; and what its blocks are."""
    job, classes = finished.job, list(finished.job.data.classes)
    made = parts(job.backbone, finished.variant, modules(job, finished.fitted))
    tuned = None if finished.tuned is None else safetensors.torch.load_file(finished.tuned)
    made = fold(made if tuned is None else _trained(made, tuned))
    vit = join(made).cpu()
    if settings.head == "probe":
        head = _probe(finished, settings.seed) if tuned is None else _trained_head(tuned)
        pooler = job.backbone.pooler
        attach_head(vit, head if pooler is None else nn.Sequential(*copy.deepcopy(pooler).cpu(), head), len(classes))
    vit.pretrained_cfg = {  # type: ignore[assignment]  # a plain dict is one of the kinds that timm takes
        "architecture": job.backbone.recipe["name"],
        **{
            key: list(value) if isinstance(value, tuple) else value for key, value in job.backbone.preprocessing.items()
        },
        "num_classes": vit.num_classes,
        **({"label_names": classes} if settings.head == "probe" else {}),
    }
    return vit.eval(), [name for name, _ in made[1:]]


def _trained(made: list[Part], weights: Mapping[str, Tensor]) -> list[Part]:
    """The same parts with the weights of a fine-tuned model."""
    vit = join(made)
    vit.load_state_dict({key.removeprefix("vit."): value for key, value in weights.items() if key.startswith("vit.")})
    return split(vit, [name for name, _ in made[1:]])


def _trained_head(weights: Mapping[str, Tensor]) -> nn.Linear:
    classes, width = weights["head.weight"].shape
    head = nn.Linear(width, classes)
    head.load_state_dict({key: weights[f"head.{key}"] for key in ("weight", "bias")})
    return head


def _probe(finished: Finished, seed: int) -> nn.Module:
    """The plan's classifier, trained once more on the run's train images as the run has trained it."""
    job = finished.job
    encode(job, modules(job, finished.fitted), ["train"])
    features = job.feature_file("train").read()
    job.probe.fit(features, job.data.train.labels[features.positions], len(job.data.classes), seed)
    return copy.deepcopy(job.probe.to_module(-1)).cpu()


def _recipe(model: Vit, blocks: list[Any], finished: Finished, settings: _Settings, folder: Path) -> dict[str, Any]:
    """All that ``toast_cli.load`` and ``toast predict`` need, and where the model comes from."""
    job, weights = finished.job, folder / WEIGHTS
    return {
        **recipe_of(model, job.backbone.recipe, blocks),
        "params": sum(p.numel() for p in model.parameters()),
        "pretrained_cfg": model.pretrained_cfg,
        "file": FORMATS[settings.format].file,
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else None,
        "dtype": settings.dtype,
        "plan": str(finished.variant.plan),
        "sequential": finished.variant.sequential,
        "probe_seed": settings.seed if settings.head == "probe" else None,
        "translators": {name or "own": translator.name for name, translator in job.translators.items()},
        "fine_tuned": finished.tuned is not None,
        "source": {"weights": job.backbone.fingerprint(), "data": job.data.fingerprint(), "model": job.backbone.label},
        "row": finished.row,
        "versions": {"toast": __version__, **{name: version(name) for name in ("torch", "timm")}},
    }


def _compare(model: Vit, job: Job, settings: _Settings, folder: Path) -> str:
    """What was written beside the model in memory, on test images. Raises ToastError where they are not the same model."""
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


def _images(job: Job, count: int) -> Iterator[Tensor]:
    """Normalised test images (N, 3, H, W) on the CPU."""
    for batch in job.batches(job.data.test.only(np.arange(min(count, len(job.data.test)))), job.batch_size):
        if len(batch.positions):
            yield job.backbone.normalise(batch.pixels).cpu()
