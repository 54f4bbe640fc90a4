"""Open a complete run again: for one of its shortened models, or for its features under another probe."""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from toast_cli.errors import ToastError, did_you_mean
from toast_cli.files import beside
from toast_cli.folders import typed_path
from toast_cli.plans import Fit, Map, Plan, Variant
from toast_cli.report.changed import read_table
from toast_cli.runs import contents
from toast_cli.runs.contents import FINETUNE, FRONT, RECORD, RESULTS, TRANSLATORS
from toast_cli.runs.folder import Folder
from toast_cli.runs.naming import differences, folder_name, scientific
from toast_cli.runs.record import expect, read_record, recorded
from toast_cli.runs.rows import Found, Row, Tuned
from toast_cli.runs.settings import as_config
from toast_cli.stages.fit import load_maps
from toast_cli.stages.heal import Healed, load_healed
from toast_cli.stages.job import Fitted, Job
from toast_cli.stages.known import known_only
from toast_cli.stages.load import load
from toast_cli.translators.base import FittedMap

_TABLES: tuple[tuple[str, type], ...] = ((FRONT, Found), (FINETUNE, Tuned), (RESULTS, Row))
_REUSED = (TRANSLATORS, *contents.features_and_sums("train"), *contents.features_and_sums("test"))
_MAY_DIFFER = ("probe", "seeds")


@dataclass(frozen=True)
class Reopened:
    """One model of a complete run, the last of the job's variants.

    ``row`` is its row in the run's table; ``tuned`` is the file of weights that fine-tuning left.
    """

    job: Job
    fitted: Fitted
    row: dict[str, Any]
    tuned: Path | None

    @property
    def variant(self) -> Variant:
        return self.job.variants[-1]


def job_of(path: Path, plans: Sequence[Plan], how: Mapping[str, Any], scratch: Path, own: Sequence[Path] = ()) -> Job:
    """The job of the complete run at ``path`` again, for these ``plans``. New features go to ``scratch``.

    ``how`` holds device, batch_size and workers. The run's settings are data: they may name only what toast's conf/ names,
    or the user's ``own`` folders of settings. Raises ToastError if they name something else, or if the weights or images
    have changed since the run.
    """
    record, settings = Folder(path).record, Folder(path).settings
    for name in ("model", "data", "fit_data", "translator", "fit", "probe"):
        if not isinstance(settings.get(name), dict):
            raise ToastError(f"The settings of {path} describe no {name}: restore its config.yaml.")
    cfg = as_config({**settings, **{key: how[key] for key in ("device", "batch_size", "workers")}})
    folder_name(cfg)  # raises if model, data or translator have no name
    job = load(cfg, Folder(scratch), lambda backbone: list(plans), record.get("precision"), make=known_only(path, own))
    for what, now in (("weights", job.backbone.fingerprint()), ("data", job.data.fingerprint())):
        if record.get(what) != now:
            raise ToastError(
                f"The {what} that {path} was made from have changed since: restore them, or run it again with fresh=true."
            )
    return job


def reopen(
    path: Path, plan: str | None, seed: int, how: Mapping[str, Any], scratch: Path, own: Sequence[Path] = ()
) -> Reopened:
    """The model of ``plan`` with the maps that the run has fitted; ``how``, ``scratch`` and ``own`` are those of ``job_of``.

    Raises ToastError as ``job_of`` does, and if ``path`` is not a complete run or has no such plan or seed.
    """
    if not read_record(path).get("complete"):
        raise ToastError(f"{path} is not a complete run: give the folder of a finished toast run, search or finetune.")
    row = _row(path, plan, seed)
    job = job_of(path, list(dict.fromkeys([Plan(), Plan.parse(row.plan)])), how, scratch, own)
    if seed not in job.seeds:
        raise ToastError(f"seed={seed} is not in {path}: it has {', '.join(map(str, job.seeds))}.")
    asked = job.fits[0]
    fit = Fit(getattr(row, "sequential", asked.sequential), getattr(row, "healed", asked.healed))
    job = replace(job, fits=(fit,))
    tuned = Folder(path).checked(contents.weights(row.seed)) if isinstance(row, Tuned) else None
    fitted = Fitted(_maps(job, path), Folder(path).images_used, _healed(job, path))
    return Reopened(job, fitted, asdict(row), tuned)


def _maps(job: Job, path: Path) -> Mapping[Map, FittedMap]:
    """The run's maps. Raises ToastError if one is missing or is no map between latents of this model."""
    maps = load_maps(job, Folder(path), job.maps)
    latent = torch.zeros(1, job.backbone.tokens, job.backbone.width)
    for key in job.maps:
        try:
            fits = maps[key].to_module()(latent).shape == latent.shape
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError):
            fits = False
        if not fits:
            raise ToastError(
                f"{path / TRANSLATORS} holds no map for {key} that fits the model: restore it, or run it again with fresh=true."
            )
    return maps


def _healed(job: Job, path: Path) -> Healed:
    """The run's healed blocks. Raises ToastError if one is missing."""
    healed = load_healed(job, Folder(path))
    missing = [key for key in job.healed if key not in healed]
    if missing:
        raise ToastError(f"{path} holds no healed block {missing[0]}: restore it, or run it again with fresh=true.")
    return healed


def _row(path: Path, plan: str | None, seed: int) -> Any:
    """The row of the run's table for ``plan`` and the probe's ``seed``."""
    rows: Sequence[Any] = next((found for name, kind in _TABLES if (found := read_table(path / name, kind))), [])
    if not rows:
        raise ToastError(f"{path} holds no rows: restore its {RESULTS}, or run it again with fresh=true.")
    plans = list(dict.fromkeys(row.plan for row in rows))
    if plan is None:
        chosen = [row.plan for row in rows if getattr(row, "chosen", False)] or [
            text for text in plans if text != "none"
        ]
        if len(chosen) != 1:
            raise ToastError(
                f"{path} has several plans: choose one with plan=, such as plan={chosen[-1] if chosen else 'none'}."
            )
        plan = chosen[0]
    with suppress(ToastError):  # spans in another order are the same plan
        plan = str(Plan.parse(str(plan)))
    if str(plan) not in plans:
        raise ToastError(
            f"plan={plan} is not in {path}{did_you_mean(str(plan), plans)}: it has {', '.join(plans[:8])}{', …' * (len(plans) > 8)}."
        )
    of_plan = [row for row in rows if row.plan == str(plan)]
    seeds = [row.seed for row in of_plan if hasattr(row, "seed")]
    if seeds and seed not in seeds:
        raise ToastError(f"seed={seed} is not in {path}: it has {', '.join(map(str, dict.fromkeys(seeds)))}.")
    return next(row for row in reversed(of_plan) if getattr(row, "seed", seed) == seed)  # the most fit images


def take_features(cfg: DictConfig, folder: Folder) -> None:
    """Link the maps and features of the run ``cfg.features_from`` into ``folder``.

    Raises ToastError if that run has no features, is not complete, or differs in more than its probe and seeds.
    """
    other = typed_path(cfg.features_from)
    if not (other / RECORD).is_file() or not all((other / name).is_file() for name in _REUSED):
        raise ToastError(
            f"features_from={other} holds no features: give the folder of a run that was made with keep_features=true."
        )
    source = Folder(other)
    differ = [key for key in differences(source.settings, scientific(cfg)) if key.partition(".")[0] not in _MAY_DIFFER]
    record = source.record
    if differ or not record.get("complete"):
        what = f"differs in {', '.join(sorted(differ))}" if differ else "is not complete"
        raise ToastError(f"features_from={other} {what}: give a complete run that differs only in probe and seeds.")
    healed = [file.name for file in contents.healed_in(other)]
    for name in (TRANSLATORS, *healed):
        expect(folder / name, recorded(source / name))
    for name in (*_REUSED, *healed):
        _link(other / name, folder / name)
    folder.note_images_used(source.images_used)
    folder.note(**{key: record[key] for key in ("precision", "weights", "data")})


def _link(source: Path, target: Path) -> None:
    """Make ``target`` a hard link to ``source``, or a copy where the file system has no hard links."""
    if target.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, beside(target))
        beside(target).replace(target)
