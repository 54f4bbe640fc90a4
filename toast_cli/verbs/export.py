"""``toast export``: a shortened model as files that load anywhere.

What is written is read back by the runtime that will use it and compared with the model in memory on real images,
before it gets its final name: a mismatch leaves nothing behind.
"""

import copy
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toast_cli import __version__
from toast_cli.errors import ToastError, did_you_mean, require_flag
from toast_cli.folders import typed_path
from toast_cli.launch import launch, own_folders
from toast_cli.report.settings import Help

if TYPE_CHECKING:
    from omegaconf import DictConfig

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
toast export outputs/run/<run> format=onnx dtype=int8       the same in int8, measured beside fp32 and fp16
toast export outputs/search/<run> plan=front               all plans found, what they share stored once
toast export outputs/finetune/<run>                        the fine-tuned model""",
    groups=False,
)


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
    """``plan`` is a list of plans, or ``front``, for an export that holds several."""

    plan: str | tuple[str, ...] | None
    format: str
    dtype: str
    quantisation: str
    head: str
    seed: int
    images: int

    @property
    def several(self) -> bool:
        """Whether the export holds several plans."""
        from toast_cli.stages.choice import ALL_FOUND

        return isinstance(self.plan, tuple) or self.plan == ALL_FOUND

    @classmethod
    def check(cls, cfg: "DictConfig") -> "_Settings":
        """The settings, checked. Raises ToastError for a value that cannot be used."""
        from toast_cli.stages.choice import given_plans
        from toast_cli.surgery.formats import DTYPES, FORMATS, check_pair
        from toast_cli.surgery.quantised import WAYS

        allowed_values = {"format": tuple(FORMATS), "dtype": DTYPES, "quantisation": WAYS, "head": ("probe", "none")}
        given = {key: str(cfg[key]).lower() for key in allowed_values}
        for key, allowed in allowed_values.items():
            if given[key] not in allowed:
                raise ToastError(
                    f"{key}={cfg[key]} is not known{did_you_mean(given[key], allowed)}: use {', '.join(allowed)}."
                )
        check_pair(given["format"], given["dtype"], given["quantisation"])
        for key, least in (("seed", 0), ("images", 1)):
            if type(cfg[key]) is not int or cfg[key] < least:
                raise ToastError(f"{key}={cfg[key]} cannot be used: give a whole number from {least}.")
        settings = cls(given_plans(cfg.plan), **given, seed=cfg.seed, images=cfg.images)
        if settings.several and settings.format != "safetensors":
            raise ToastError(
                f"format={settings.format} holds one plan: give several with format=safetensors, or one, such as plan=9-11."
            )
        return settings


def export(cfg: "DictConfig", source: Path) -> Path:
    """Write, check and name the export of the run at ``source``; returns its folder.

    If it is there already, as a killed process may leave it behind, nothing is written. Raises ToastError for invalid
    settings and a mismatch, and if another export or anything else is there.
    """
    from toast_cli.stages.choice import rows_of

    settings, fresh = _Settings.check(cfg), require_flag(cfg.fresh, "fresh")
    rows = rows_of(source, settings.plan, settings.seed)

    from toast_cli.machine.console import say
    from toast_cli.stages.elastic import write_plans
    from toast_cli.stages.exported import images_of, is_there, scratch_in
    from toast_cli.stages.reopen import reopen
    from toast_cli.surgery.formats import FORMATS
    from toast_cli.surgery.recipe import RECIPE

    parent = typed_path(cfg.out).parent if cfg.out else Path("outputs/export")
    parent.mkdir(parents=True, exist_ok=True)
    with scratch_in(parent) as scratch:
        runs = (
            reopen(source, row, settings.seed, cfg, scratch / f"run{number}", own_folders())
            for number, row in enumerate(rows)
        )
        run = next(runs)
        out = typed_path(cfg.out) if cfg.out else parent / _name(run, rows, settings)
        made_of = _made_of(run, rows, settings)
        if not fresh and is_there(out, made_of):
            say(f"{out} is there already, and its files are as they were written")
            return out
        if out.exists() and not (fresh and (out / RECIPE).is_file()):
            raise ToastError(f"{out} exists: give another out=, or replace an export with fresh=true.")
        folder = scratch / "export"
        folder.mkdir()
        if settings.several:
            images, recipe = list(images_of(run.job, settings.images)), made_of | {"versions": _versions()}
            has_head = settings.head == "probe"
            told = write_plans(folder, chain([run], runs), has_head, settings.seed, settings.dtype, images, recipe)
        else:
            told = _write(folder, run, made_of, settings)
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)
    if told:
        say(told.format(out=out))
    size = (out / FORMATS[settings.format].file).stat().st_size
    say(f"{out / FORMATS[settings.format].file}: {size / 1e6:.1f} MB")
    return out


def _write(folder: Path, run: "Reopened", made_of: dict[str, Any], settings: _Settings) -> str:
    """Write and compare the one model of an export; returns a sentence about it, with ``{out}`` for the folder."""
    from toast_cli.files import sealed, write_atomically
    from toast_cli.machine.console import say
    from toast_cli.stages.deploy import deployed
    from toast_cli.stages.exported import both, compare, images_of
    from toast_cli.stages.quantised import write_int8
    from toast_cli.surgery.formats import FORMATS, INT8
    from toast_cli.surgery.recipe import RECIPE

    form, has_head = FORMATS[settings.format], settings.head == "probe"
    model, parts = deployed(run, has_head, settings.seed)
    if settings.dtype == INT8:
        write_int8(folder, model, run.job, settings.quantisation, has_head)
    else:
        form.write(folder, copy.deepcopy(model), settings.dtype)
    recipe = _recipe(model, parts, run, folder / form.file) | made_of
    write_atomically(folder / RECIPE, json.dumps(sealed(recipe), indent=2) + "\n")
    if settings.dtype != INT8:  # which is not what the model does, and was measured
        outputs = both(model, form.read(folder), images_of(run.job, settings.images))
        say(compare(*outputs, settings.format, settings.dtype, "class" if has_head else "largest feature"))
    return _add_standalone(folder, model, recipe, run.job, settings)


def _name(run: "Reopened", rows: Sequence[Any], settings: _Settings) -> str:
    from toast_cli.stages.elastic import name_of

    job = run.job
    words = (
        job.backbone.label,
        job.data.label,
        name_of(rows) if settings.several else run.variant,
        settings.format,
        *([settings.dtype] if settings.dtype != "fp32" else []),
        *([settings.quantisation] if settings.quantisation != "dynamic" else []),
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
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    return {"toast": __version__, **{name: version(name) for name in ("torch", "timm")}}


def _made_of(run: "Reopened", rows: Sequence[Any], settings: _Settings) -> dict[str, Any]:
    """The rest of the recipe: what the export is made of. Two with the same are the same."""
    from toast_cli.stages.elastic import made_of_all
    from toast_cli.surgery.formats import FORMATS, INT8

    job = run.job
    made_of: dict[str, Any] = {
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
        **({"quantisation": settings.quantisation} if settings.dtype == INT8 else {}),
    }
    return made_of_all(made_of, rows) if settings.several else made_of


def _add_standalone(folder: Path, model: "Vit", recipe: dict[str, Any], job: "Job", settings: _Settings) -> str:
    """Add what loads an export in safetensors without toast; returns a sentence about it, with ``{out}`` for the folder."""
    from toast_cli.stages.exported import images_of
    from toast_cli.surgery import standalone
    from toast_cli.surgery.formats import FORMATS

    if settings.format != "safetensors":
        return ""
    images = next(images_of(job, settings.images))
    name = standalone.add(folder, model, recipe, images, FORMATS[settings.format].read(folder)(images))
    return {
        standalone.CONFIG: 'timm loads it without toast: timm.create_model("local-dir:{out}", pretrained=True)',
        standalone.MODELING: "modeling.py in it loads it without toast, with torch and timm alone",
        None: "note: it cannot be loaded without toast: use toast_cli.load",
    }[name]
