"""``toast export``: a shortened model as files that load anywhere, and on the hub.

What is written is read back by the runtime that will use it and compared with the model in memory on real images,
before it gets its final name: a mismatch leaves nothing behind. Only what has its name is pushed.
"""

import shutil
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toast_cli.errors import ToastError
from toast_cli.folders import typed_path
from toast_cli.launch import launch, own_folders
from toast_cli.report.settings import Help
from toast_cli.stages.exporting import Settings

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from toast_cli.stages.reopen import Reopened

USAGE = "export <run> [key=value ...]"
SUMMARY = "a shortened model as files that load anywhere"
HELP = Help(
    "a shortened model as files that load anywhere, checked against the model in memory on real images.",
    """\
toast export outputs/search/<run>                          what the search has chosen, as safetensors and a recipe
toast export outputs/run/<run> plan=9-11 dtype=fp16        a plan of a run, at half the size
toast export outputs/run/<run> plan=9-11 format=onnx       for onnxruntime (pip install toast-cli[onnx])
toast export outputs/run/<run> format=onnx dtype=int8      the same in int8, measured beside fp32 and fp16
toast export outputs/search/<run> plan=front               all plans found, what they share stored once
toast export outputs/run/<run> plan=9-11 push=me/vit-9-11  and to a private repository on the Hugging Face hub
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
    source, settings = _source(given, cfg), Settings.check(cfg)
    out = export(cfg, source, settings)
    if settings.push is not None:
        _push(out, source, settings)
    print(out)


def _push(out: Path, source: Path, settings: Settings) -> None:
    """Bring the export in ``out`` to the hub, or print what would go there."""
    from toast_cli.stages.publish import publish

    for line in publish(out, source, settings):
        print(line)


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


def export(cfg: "DictConfig", source: Path, settings: Settings) -> Path:
    """Write, check and name the export of the run at ``source``; returns its folder.

    If it is there already, as a killed process may leave it behind, nothing is written. Raises ToastError for a mismatch,
    and if another export or anything else is there.
    """
    from toast_cli.stages.choice import rows_of

    rows = rows_of(source, settings.plan, settings.seed)

    from toast_cli.machine.console import say
    from toast_cli.report.card import write_card
    from toast_cli.report.card_table import check_numbers
    from toast_cli.stages.elastic import made_of_all, write_plans
    from toast_cli.stages.exported import is_there, made_of, scratch_in, write
    from toast_cli.stages.reopen import reopen
    from toast_cli.surgery.formats import FORMATS
    from toast_cli.surgery.recipe import RECIPE

    check_numbers(source)
    parent = typed_path(cfg.out).parent if cfg.out else Path("outputs/export")
    parent.mkdir(parents=True, exist_ok=True)
    with scratch_in(parent) as scratch:
        runs = (
            reopen(source, row, settings.seed, cfg, scratch / f"run{number}", own_folders())
            for number, row in enumerate(rows)
        )
        run = next(runs)
        out = typed_path(cfg.out) if cfg.out else parent / _name(run, rows, settings)
        made = made_of_all(run, rows, settings) if settings.several else made_of(run, settings)
        if not settings.fresh and is_there(out, made):
            say(f"{out} is there already, and its files are as they were written")
            return out
        if out.exists() and not (settings.fresh and (out / RECIPE).is_file()):
            raise ToastError(f"{out} exists: give another out=, or replace an export with fresh=true.")
        folder = scratch / "export"
        folder.mkdir()
        told = (
            write_plans(folder, chain([run], runs), settings, made)
            if settings.several
            else write(folder, run, settings, made)
        )
        write_card(folder, source)
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)
    if told:
        say(told.format(out=out))
    size = (out / FORMATS[settings.format].file).stat().st_size
    say(f"{out / FORMATS[settings.format].file}: {size / 1e6:.1f} MB")
    return out


def _name(run: "Reopened", rows: Sequence[Any], settings: Settings) -> str:
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
