"""Open a complete run again, for one of its shortened models."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from toast_cli.errors import ToastError
from toast_cli.plans import Fit, Map, Plan, Variant
from toast_cli.runs import contents
from toast_cli.runs.contents import TRANSLATORS
from toast_cli.runs.folder import Folder
from toast_cli.runs.measured import Tuned
from toast_cli.runs.naming import folder_name
from toast_cli.runs.rows import Row
from toast_cli.runs.searched import Found
from toast_cli.runs.settings import as_config
from toast_cli.stages.fit import load_maps
from toast_cli.stages.heal import Healed, load_healed
from toast_cli.stages.job import Fitted, Job
from toast_cli.stages.known import known_only
from toast_cli.stages.load import load
from toast_cli.translators.base import FittedMap


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
    made_of = {"weights": job.backbone.fingerprint(), "data": job.data.fingerprint(), "texts": job.probe.made_of}
    for what, now in made_of.items():
        if record.get(what) != now:
            raise ToastError(
                f"The {what} that {path} was made from have changed since: restore them, or run it again with fresh=true."
            )
    return job


def reopen(
    path: Path, row: Found | Tuned | Row, seed: int, how: Mapping[str, Any], scratch: Path, own: Sequence[Path] = ()
) -> Reopened:
    """The model of a ``row`` of the complete run at ``path``, with the maps that the run has fitted, for the probe's ``seed``;
    ``how``, ``scratch`` and ``own`` are those of ``job_of``.

    Raises ToastError as ``job_of`` does, and if the run has no such seed.
    """
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
