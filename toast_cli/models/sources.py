"""What ``model.name`` names: one of timm's models, or a model in timm's format in a folder or in a repository on the hub."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm

from toast_cli.errors import ToastError, did_you_mean, is_number
from toast_cli.folders import typed_path
from toast_cli.models.arguments import check_arguments
from toast_cli.models.checkpoints import CONFIG, config_beside
from toast_cli.models.published import repository

_FOLDER, _HUB = "local-dir", ("hf-hub", "hf_hub")
_REPOSITORY = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*(@.+)?")


@dataclass(frozen=True)
class Source:
    """A model's name for timm, with its tag, and what a config of its own adds to that.

    Attributes:
        arguments: of timm's constructor.
        preprocessing: entries of timm's ``pretrained_cfg``.
        folder: where its weights are; None if timm knows where to fetch them.
        absent: whether its weights would have to be fetched, and whoever listens only asks.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    absent: bool = False

    @property
    def architecture(self) -> str:
        """timm's name without the tag."""
        return self.name.partition(".")[0]


def source_of(name: str, fetch: bool) -> Source:
    """What ``name`` names; with ``fetch`` its weights are in its folder, if it has one.

    Raises ToastError for a name that timm does not know, and for a folder or a repository without a model of timm's.
    """
    kind, colon, place = name.partition(":")
    if not colon:
        return _known(name)
    if not place or kind not in (_FOLDER, *_HUB) or (kind != _FOLDER and not _REPOSITORY.fullmatch(place)):
        raise ToastError(
            f"model.name={name} is not known: give a name of timm's, local-dir:<folder> or hf-hub:<owner>/<name>."
        )
    if kind != _FOLDER:
        config, found = repository(place, fetch)
        return _of_config(name, config, found, absent=fetch and found is None)
    folder = typed_path(place)
    if not (folder / CONFIG).is_file():
        raise ToastError(f"model.name={name}: {folder} has no {CONFIG}: give a folder as timm saves it for the hub.")
    return _of_config(name, config_beside(folder / CONFIG), folder)


def _known(name: str) -> Source:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        if "/" in name:
            kind = _FOLDER if typed_path(name).is_dir() else _HUB[0]
            raise ToastError(
                f"model.name={name} is not known to timm {timm.__version__}: for {'a folder' if kind == _FOLDER else 'a repository on the hub'} write "
                f"model.name={kind}:{name}."
            )
        raise ToastError(
            f"model.name={name} is not known to timm {timm.__version__}{did_you_mean(architecture.lower(), timm.list_models())}: "
            "use a name that timm.list_models('*vit*') lists."
        )
    tags = timm.list_pretrained(architecture)
    if tag and name not in tags:
        raise ToastError(
            f"model.name={name}: {architecture} has no weights tagged '{tag}'; it has {', '.join(tags) or 'none'}."
        )
    return Source(name)


def _of_config(name: str, config: Mapping[str, Any], folder: Path | None, absent: bool = False) -> Source:
    """The model that ``config`` describes, which a stranger may have written. Its weights are in ``folder``, or are ``absent``."""
    architecture = config.get("architecture")
    if not isinstance(architecture, str) or not timm.is_model(architecture):
        raise ToastError(
            f"model.name={name}: its {CONFIG} names no model that timm {timm.__version__} knows: give timm's own name for its architecture as "
            f"model.name, and model.checkpoint={folder or '<a copy of its weights>'}."
        )
    arguments = config.get("model_args") or {}
    if not isinstance(arguments, dict):
        raise ToastError(f"model.name={name}: the model_args in its {CONFIG} are no arguments: fetch it again.")
    if absent and "num_classes" in config:  # of a classifier that would come with the weights
        arguments = {"num_classes": config["num_classes"], **arguments}
    check_arguments(architecture, arguments)
    # Earlier versions of timm wrote all entries side by side.
    told = config.get("pretrained_cfg", config)
    preprocessing = {
        key: told[key] for key, fits in _FITS.items() if isinstance(told, dict) and key in told and fits(told[key])
    }
    return Source(architecture, arguments, preprocessing, folder, absent)


def _numbers(value: Any, least: float = float("-inf")) -> bool:
    return isinstance(value, list) and len(value) in (1, 3) and all(is_number(each) and each > least for each in value)


_FITS: dict[str, Callable[[Any], bool]] = {
    "interpolation": lambda value: value in ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"),
    "crop_pct": lambda value: is_number(value) and 0.05 < value <= 1,
    "crop_mode": lambda value: value in ("center", "squash", "border"),
    "mean": _numbers,
    "std": lambda value: _numbers(value, least=0),
}
