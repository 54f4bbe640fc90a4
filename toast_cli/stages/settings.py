"""What can be wrong with a run's settings whatever its model and data are: looked at before torch, timm and datasets are imported.

All of it is checked again where it is used; a person who has mistyped a word should not wait for these imports to hear of it.
"""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from toast_cli.data import allowed as data
from toast_cli.errors import Check, ToastError, check_settings, require_flag, require_group
from toast_cli.folders import require_data, typed_path
from toast_cli.machine.device import pick_device, require_batch_size, require_precision
from toast_cli.models import allowed as models
from toast_cli.models.allowed import require_readout
from toast_cli.models.weight_files import file_of
from toast_cli.plans import HEALED, Fit, written_plans
from toast_cli.probes import allowed as probes
from toast_cli.translators import allowed as translators

CLASSIFICATION, SEGMENTATION = "classification", "segmentation"  # of `eval`
_OURS = "toast_cli."  # where a group's _target_ begins unless it is the user's own


def check(cfg: DictConfig) -> None:
    """Raises ToastError for settings of ``conf/base.yaml`` that no model and no data make usable."""
    seeds_of(cfg.seeds)
    fit_of(cfg)
    require_batch_size(cfg.batch_size)
    require_workers(cfg.workers)
    require_readout(cfg.readout)
    check_model(cfg)
    for name in ("data", "fit_data"):
        group = _checked(cfg, name, data.CHECKS)
        if group.get("path") is not None:
            require_data(typed_path(group["path"]), f"{name}.path")
    _checked(cfg, "probe", probes.CHECKS)


def check_model(cfg: DictConfig) -> None:
    """Raises ToastError as ``check`` does, for the settings that are those of ``conf/bench.yaml`` too."""
    require_precision(cfg.precision)
    if cfg.device not in ("auto", "cpu"):  # only torch knows which others there are
        pick_device(cfg.device)
    model = _checked(cfg, "model", models.CHECKS)
    if model.get("checkpoint") is not None:
        file_of(str(model["checkpoint"]), f"model.checkpoint={model['checkpoint']}")
    spans, depth = plain(cfg.spans), (model.get("options") or {}).get("depth")
    for plan in [] if spans is None else written_plans(spans):
        if type(depth) is int and depth > 0:  # else only timm knows how many blocks there are
            plan.operations(depth)
    _checked(cfg, "translator", translators.CHECKS)


def _checked(cfg: DictConfig, name: str, checks: Mapping[str, Check]) -> dict[str, Any]:
    """``ours``, checked."""
    group = ours(cfg, name)
    check_settings(name, group, checks)
    return group


def ours(cfg: DictConfig, name: str) -> dict[str, Any]:
    """The settings of a group; none if it is the user's own, whose settings may mean anything."""
    group = plain(cfg[name])
    return group if isinstance(group, dict) and str(group.get("_target_")).startswith(_OURS) else {}


def seeds_of(given: Any) -> list[int]:
    """The seeds, each once. Raises ToastError for anything but a list of whole numbers from 0."""
    values = plain(given) if OmegaConf.is_config(given) else [given]
    if (
        not isinstance(values, list)
        or not values
        or not all(type(seed) is int and 0 <= seed < 2**63 for seed in values)
    ):
        raise ToastError(f"seeds={values} is not a list of seeds: use whole numbers from 0, such as seeds=[0,1,2].")
    return list(dict.fromkeys(values))


def require_eval(given: Any) -> str:
    """``given``. Raises ToastError unless it is a way to evaluate plans."""
    if given not in (CLASSIFICATION, SEGMENTATION):
        raise ToastError(
            f"eval={given} is not known: use {CLASSIFICATION} (a class for each image), or {SEGMENTATION} (one for each pixel)."
        )
    return str(given)


def fit_of(cfg: DictConfig) -> tuple[Fit, bool]:
    """The kind of fit that the settings ask for, and ``fit.held_out_r2``. Raises ToastError for values that are not flags."""
    given = plain(cfg.fit)
    # Runs of earlier versions have neither of these two, and none has one that is as it was before.
    given = {"heal": False, "held_out_r2": True, **given} if isinstance(given, dict) else given
    fit = require_group(given, "fit", ["sequential", "heal", "held_out_r2"])
    sequential, heal, held_out_r2 = (
        require_flag(fit[key], f"fit.{key}") for key in ("sequential", "heal", "held_out_r2")
    )
    return HEALED if heal else Fit(sequential), held_out_r2


def require_workers(given: Any) -> None:
    """Raises ToastError for anything but ``auto`` or a whole number from 0."""
    if given != "auto" and (type(given) is not int or given < 0):
        raise ToastError(f"workers={given} is not a number of processes: use auto or a whole number from 0.")


def plain(value: Any) -> Any:
    """A config node as Python's own lists and dicts."""
    return OmegaConf.to_object(value) if OmegaConf.is_config(value) else value
