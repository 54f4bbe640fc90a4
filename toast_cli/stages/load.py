"""Turn a config into a job: load the model, check the settings against it, then load the data."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from toast_cli.data.dataset import Data
from toast_cli.data.image_warnings import warnings_of
from toast_cli.data.images import PixelCache
from toast_cli.errors import ToastError
from toast_cli.hub.listening import listening
from toast_cli.machine.console import say
from toast_cli.machine.device import Compute
from toast_cli.machine.team import ALONE, Team
from toast_cli.models.backbone import Backbone
from toast_cli.models.branches import require_branches
from toast_cli.models.factory import depth_of
from toast_cli.models.halves import require_halves
from toast_cli.plans import INDEPENDENT, Fit, Plan, parse_plans
from toast_cli.probes.base import Probe
from toast_cli.registry import CONF, options
from toast_cli.runs.folder import Folder, RunFolder
from toast_cli.runs.naming import today
from toast_cli.stages.job import Job
from toast_cli.stages.settings import SEGMENTATION, fit_of, ours, plain, require_workers, seeds_of
from toast_cli.stages.versions import note_versions
from toast_cli.translators.base import BaseTranslator, ClosedForm, ImageTranslator
from toast_cli.translators.named import by_name
from toast_cli.translators.trained import TrainedTranslator

PlansOf = Callable[[Backbone], list[Plan]]
# From a config, the name of one of its groups, and further settings: the object that the group describes.
Make = Callable[..., Any]


def begin(
    cfg: DictConfig, folder: RunFolder, plans_of: PlansOf | None = None, team: Team = ALONE, fit: Fit | None = None
) -> Job:
    """Load the job, and record what the run is made of. Raises ToastError for invalid settings."""
    begun_with = folder.record.get("precision", "auto")  # what `auto` stood for when the run began
    job = load(cfg, folder, plans_of, begun_with if cfg.precision == "auto" else cfg.precision, team, fit=fit)
    folder.begin(
        weights=job.backbone.fingerprint(),
        data=job.data.fingerprint(),
        device=job.compute.device.type,
        precision=job.compute.precision,
        **({} if job.probe.made_of is None else {"texts": job.probe.made_of}),
    )
    warnings = [*warnings_of(job.data), *job.probe.notes]
    for warning in warnings:
        say(f"note: {warning}")
    folder.note(depth=job.backbone.depth, oddities=[*job.backbone.notes, *warnings], classes=list(job.data.classes))
    note_versions(folder)
    return job


@listening(say)
def make(cfg: DictConfig, name: str, **settings: Any) -> Any:
    """The object that the group ``name`` describes: its ``_target_``, called with its other settings and ``settings``.

    This calls whatever the config names, so the config has to be the user's own.
    """
    group = cfg[name]
    if OmegaConf.is_config(group) and isinstance(target := group.get("_target_"), str):
        settings["_target_"] = today(target)
    return instantiate(group, _convert_="all", **settings)


def load(
    cfg: DictConfig,
    folder: Folder,
    plans_of: PlansOf | None = None,
    precision: str | None = None,
    team: Team = ALONE,
    make: Make = make,
    fit: Fit | None = None,
) -> Job:
    """The job that the config describes, its plans from ``plans_of`` or else from ``spans``, its kind of ``fit`` or else from
    the group ``fit``.

    ``make`` makes its parts. Raises ToastError for invalid settings.
    """
    seeds, translator, probe = seeds_of(cfg.seeds), make_translator(cfg, make), make_probe(cfg, make)
    of_settings, held_out_r2 = fit_of(cfg)
    asked = of_settings if fit is None else fit
    if plans_of is None:
        _require_blocks(cfg)
    backbone: Backbone = make(cfg, "model")
    for note in backbone.notes:
        say(f"note: {note}")
    plans = plans_of(backbone) if plans_of else parse_plans(plain(cfg.spans), backbone.depth)
    require_halves(plans, backbone.blocks)
    translators = {"": translator} | of_spans(plans, translator)
    _require_that_it_fits(asked, translator, backbone)
    compute = Compute.pick(cfg.device, cfg.precision if precision is None else precision, backbone.width)
    batch_size = compute.batch_size(cfg.batch_size, backbone.tokens, backbone.width)
    workers = _workers(cfg.workers, compute)
    chosen, batch_size = team.share((compute.precision, batch_size))
    compute = replace(compute, precision=chosen)
    backbone = backbone.on(compute.device, compute.dtype, with_head=probe.takes_head)
    probe = _probe_of(probe, backbone)
    data = load_data(cfg, make)
    if probe.trains and not len(data.train):
        raise ToastError(
            f"data={data.label} has no train images, and probe={probe.name} is trained on some: use probe=pretrained_head or probe=zero_shot, or give "
            "data.train_split."
        )
    return Job(
        folder=folder,
        backbone=backbone,
        data=data,
        plans=plans,
        translators=translators,
        probe=probe.matched(data.classes, backbone.vit.pretrained_cfg),
        seeds=seeds,
        protocol=_protocol(cfg),
        compute=compute,
        batch_size=batch_size,
        workers=workers,
        pixels=_needed_twice(data),
        fits=(asked,),
        team=team,
        held_out_r2=held_out_r2,
    )


def _require_blocks(cfg: DictConfig) -> None:
    """Check that a model whose weights may have to be fetched has the blocks that ``spans`` names."""
    model = ours(cfg, "model")
    fetched = model.get("pretrained") is True and model.get("checkpoint") is None
    if fetched and not model.get("options") and (depth := depth_of(str(model["name"]))) is not None:
        parse_plans(plain(cfg.spans), depth)


def _require_that_it_fits(fit: Fit, translator: BaseTranslator, backbone: Backbone) -> None:
    """Check that ``translator`` can be fitted in this way, and the blocks healed if they are to be."""
    if fit != INDEPENDENT and isinstance(translator, TrainedTranslator):
        raise ToastError(
            f"fit.{'heal' if fit.healed else 'sequential'}=true needs a translator in closed form, and {translator.name} is trained: use "
            "translator=linear."
        )
    if fit.healed:
        require_branches(backbone.blocks)


def _probe_of(probe: Probe, backbone: Backbone) -> Probe:
    """The probe for the features of this ``backbone``, on its device. Raises ToastError if it cannot use them."""
    if probe.takes_head and backbone.pooler is not None:
        raise ToastError(
            f"readout=paper puts a layer with random weights before the probe, and probe={probe.name} takes the model's own features: use readout=model."
        )
    found = probe.on(backbone.mean.device, backbone.head, backbone.feature_width)
    found.check(backbone.label)
    return found


def make_translator(cfg: DictConfig, make: Make = make) -> BaseTranslator:
    """The run's own translator. Raises ToastError if ``translator`` describes something else."""
    translator = make(cfg, "translator")
    if not isinstance(translator, BaseTranslator):
        raise ToastError(
            f"translator={type(translator).__name__} is not a translator: derive it from toast_cli.translators.Translator."
        )
    return translator


def make_probe(cfg: DictConfig, make: Make = make) -> Probe:
    """The run's probe. Raises ToastError if ``probe`` describes something else."""
    probe = make(cfg, "probe")
    if not isinstance(probe, Probe):
        raise ToastError(f"probe={type(probe).__name__} is not a probe: derive it from toast_cli.probes.Probe.")
    return probe


def of_spans(plans: list[Plan], own: BaseTranslator) -> dict[str, BaseTranslator]:
    """The translators named in spans, with the grouping of tokens that ``own`` has, unless that is fixed.

    Raises ToastError for an unknown one, or one that does not mix with ``own``.
    """
    found: dict[str, BaseTranslator] = {}
    tokens = "shared" if isinstance(own, ImageTranslator) else own.tokens
    for name in sorted({span.translator for plan in plans for span in plan.spans} - {""}):
        found[name] = by_name(name, tokens=tokens)
        if not isinstance(found[name], ClosedForm) or not isinstance(own, ClosedForm):
            raise ToastError(
                f"A plan names the translator '{name}' next to translator={own.name}: only closed forms can be mixed, such as linear and identity."
            )
    return found


def _needed_twice(data: Data) -> PixelCache:
    """Fit images that are also train images: they are encoded again, but need not be decoded again."""
    split = data.train.split
    fit = {index for part in data.fit if part.split is split for index in part.indices.tolist()}
    return PixelCache(split, fit & set(data.train.indices.tolist()))


def _protocol(cfg: DictConfig) -> str:
    """The protocol's name, with any of its choices that were overridden: ``clean+splits=paper``."""
    known = options("protocol", [CONF])
    if cfg.protocol not in known:
        return str(cfg.protocol)
    usual: Any = OmegaConf.load(known[cfg.protocol])
    choices = [("data", "fit_order")]
    choices += [("data", "splits")] if cfg.data.get("one_split") else []  # other data sets can be split in only one way
    choices += [("model", "preprocessing")] if cfg.model.get("paper_resize") else []
    other = [f"+{key}={cfg[group][key]}" for group, key in choices if cfg[group][key] != usual[group][key]]
    return f"{cfg.protocol}{''.join(other)}"


def load_data(cfg: DictConfig, make: Make = make) -> Data:
    """The data set, its fit images from ``fit_data`` if that is given. Raises ToastError for invalid settings."""
    data = make(cfg, "data", **({"masks": True} if cfg.get("eval") == SEGMENTATION else {}))
    if "_target_" not in cfg.fit_data:
        if cfg.fit_data.get("path") is not None:
            raise ToastError(f"fit_data.path={cfg.fit_data.path} needs a data set: add fit_data=folder or another.")
        return _with_fit_images(data, "data")
    shared = ("fit_images", "fit_order", "max_pixels", "seed", "skip_bad_images", "splits", "streaming")
    asked = {key: cfg.data[key] for key in shared if key in cfg.data}  # runs of earlier versions have no max_pixels
    other = _with_fit_images(make(cfg, "fit_data", **asked), "fit_data")
    return replace(data, fit=other.fit, fit_label=other.label)


def _with_fit_images(data: Data, group: str) -> Data:
    """``data``. Raises ToastError if it has no train split, which fit images come from."""
    if not data.fit:
        raise ToastError(
            f"{group}={data.label} has no train split that fit images could come from: take them from another data set, such as fit_data=imagenet1k "
            "or fit_data=folder fit_data.path=<dir>."
        )
    return data


def _workers(workers: Any, compute: Compute) -> int:
    """How many processes decode images; ``auto`` is none on a CPU, where they would only get in the model's way."""
    if workers == "auto":
        return 0 if compute.device.type == "cpu" else min(8, (os.cpu_count() or 1) - 1)
    require_workers(workers)
    return int(workers)
