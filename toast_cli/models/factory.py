"""Models by name: built by timm, with weights from a file, from the hub or at random."""

import importlib.util
import inspect
import pickle
import re
import reprlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import timm
import torch
from safetensors import SafetensorError
from timm.models import eva, load_state_dict, vision_transformer
from torch import Tensor, nn

from toast_cli.errors import ToastError, did_you_mean, is_number, require_flag, reraise_disk
from toast_cli.models.backbone import Backbone
from toast_cli.models.published import published
from toast_cli.models.timm_parts import FAMILIES, Vit

# A checkpoint may have these although the encoder does not.
_HEADS = ("head.", "head_dist.")
_PACKAGE = "pkg://"
PREPROCESSING = ("timm", "paper")
# The arguments of timm's models that shape them. timm takes others, which say where weights come from or wrap the model.
_SHAPING = {name for family in FAMILIES for name in inspect.signature(family).parameters} - {"device", "dtype"}
# The least and the largest size, far beyond any model: timm makes loops and tables of these.
_SIZES = {
    "depth": (1, 128),
    "embed_dim": (1, 2**15),
    "num_heads": (1, 2**10),
    "patch_size": (1, 2**10),
    "img_size": (1, 2**14),
    "in_chans": (1, 2**10),
    "num_classes": (0, 2**20),
    "reg_tokens": (0, 2**12),
    "num_reg_tokens": (0, 2**12),
    "mlp_ratio": (0, 2**6),
}
_MOST_COMPUTED = 2**26  # numbers that timm computes for a model
_UNREADABLE = (
    OSError, EOFError, SafetensorError, pickle.UnpicklingError, RuntimeError, KeyError, AttributeError, TypeError,
)  # fmt: skip


def load(
    label: str,
    name: str,
    checkpoint: str | None = None,
    pretrained: bool = True,
    image_size: int | None = None,
    options: Mapping[str, Any] | None = None,
    readout: str = "model",
    preprocessing: str = "timm",
    paper_resize: int | None = None,
) -> Backbone:
    """A timm vision transformer by ``name``. Weights are those of ``checkpoint``, the hub, or random (``pretrained=False``).

    Position embeddings are resized to ``image_size`` (default: the size in the model's own config). ``options`` go to
    the constructor (``depth``, ``embed_dim``, …) and are plain numbers, strings and lists of these. A checkpoint is a
    safetensors file, or a torch file of plain tensors; ``pkg://`` names one inside a package. ``readout`` is passed to
    ``Backbone``. With ``preprocessing="paper"``, a model that has a ``paper_resize`` gets images whose short side is resized
    to that, and its position embeddings are resized without antialiasing: the published preprocessing of DINOv2.

    Raises ToastError for an unknown name, a model that is not a vision transformer, weights that are missing or do not
    fit, and invalid settings.
    """
    _check_settings(preprocessing, image_size, options)
    _check_arguments(str(name), options or {})
    resize = paper_resize if preprocessing == "paper" else None
    size = {} if image_size is None else {"img_size": image_size}
    fetched = require_flag(pretrained, "model.pretrained") and checkpoint is None
    arguments = dict(options or {})
    if not fetched:
        arguments.setdefault("num_classes", 0)
    vit = _create(str(name), fetched and resize is None, arguments | size)
    head = _take_head(vit)
    if checkpoint is not None:
        head = _load_weights(vit, _read_checkpoint(str(checkpoint)), f"model.checkpoint={checkpoint}", resize is None)
    elif fetched and resize is not None:
        weights = _create(str(name), True, arguments).state_dict()  # with the position embeddings as published
        head = _load_weights(vit, weights, f"model.name={name}", antialias=False)
    _check_finite(vit, f"model.checkpoint={checkpoint}" if checkpoint is not None else f"model.name={name}")
    recipe = {
        "name": str(name).partition(".")[0],
        "arguments": {**(options or {}), "img_size": vit.patch_embed.img_size[0]},
    }
    return Backbone(vit, label, image_size or vit.patch_embed.img_size[0], head, readout, resize, recipe)


def _check_settings(preprocessing: object, image_size: object, options: object) -> None:
    """Check the settings. Raises ToastError for one that cannot be used."""
    if preprocessing not in PREPROCESSING:
        raise ToastError(f"model.preprocessing={preprocessing} is not known: use timm, or paper for the paper's own.")
    if image_size is not None and (type(image_size) is not int or image_size < 1):
        raise ToastError(
            f"model.image_size={image_size} is not a size: give a whole number of pixels, or null for the model's own."
        )
    if options is not None and not isinstance(options, Mapping):
        raise ToastError(
            f"model.options={options} are not arguments: write model.options={{depth:6}}, or {{}} for none."
        )


def _take_head(vit: Vit) -> nn.Linear | None:
    """Take the classifier off the model; None if it has none, or two (DeiT's distilled models)."""
    head = vit.head if isinstance(vit.head, nn.Linear) and not hasattr(vit, "head_dist") else None
    vit.reset_classifier(0)
    return head


def _check_arguments(name: str, arguments: Mapping[Any, Any]) -> None:
    """Check what timm is to be given. Raises ToastError for what does not shape a model, and for sizes that no model has."""
    for key, value in arguments.items():
        values = value if isinstance(value, list | tuple) else [value]
        plain = all(isinstance(each, str | bool | None) or is_number(each) for each in values)
        if key not in _SHAPING or not plain:
            raise ToastError(
                f"timm cannot build {name} with {reprlib.repr(key)}: {reprlib.repr(value)}: give only arguments that shape its VisionTransformer and "
                "Eva models, such as depth and embed_dim, as plain numbers and words."
            )
        least, most = _SIZES.get(key, (float("-inf"), float("inf")))
        sizes = [each for each in values if isinstance(each, int | float)] if key in _SIZES else []
        if not all(least <= each <= most and type(each) is not bool for each in sizes):
            raise ToastError(
                f"timm cannot build {name} with {key}={reprlib.repr(value)}: give a number from {least} to {most}."
            )


def blank(name: object, arguments: Mapping[str, Any]) -> Vit:
    """timm's architecture ``name``, without a head, on torch's meta device: shapes without numbers, which take no memory.

    Nothing is fetched. Raises ToastError if timm has no such vision transformer or takes no such ``arguments``, which may
    come from a stranger, and what timm raises for those that do not fit.
    """
    if not isinstance(name, str) or not timm.is_model(name):
        raise ToastError(
            f"timm {timm.__version__} knows no architecture {reprlib.repr(name)}{did_you_mean(str(name)[:80], timm.list_models())}: install a newer "
            "timm."
        )
    _check_arguments(name, arguments)
    with torch.device("meta"):
        vit = timm.create_model(name, pretrained=False, **{**arguments, "num_classes": 0})
    if not isinstance(vit, FAMILIES):
        raise ToastError(f"{name} is not a vision transformer: the recipe was not written by toast.")
    return vit.to("meta")  # older versions of timm compute some tables on the CPU


def fill(vit: Vit, name: str, arguments: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Give a model on the meta device its ``weights``, and what no file stores since timm computes it: rotary embeddings.

    The model was made of ``blank(name, arguments)``; it may have fewer blocks, and maps among them. Only the stem and one
    block are built for this: what timm computes is the same in all blocks.
    """
    vit.load_state_dict(weights, assign=True)
    missing = {key: buffer.numel() for key, buffer in vit.named_buffers() if buffer.is_meta}
    if not missing:
        return
    if sum(missing.values()) > _MOST_COMPUTED:
        raise ToastError(
            f"timm cannot build {name} with {reprlib.repr(arguments)}: its tables take more than {_MOST_COMPUTED} numbers."
        )
    depth = int(any(key.startswith("blocks.") for key in missing))
    with torch.random.fork_rng(devices=[]):
        real = timm.create_model(name, pretrained=False, **{**arguments, "num_classes": 0, "depth": depth})
    computed = dict(real.named_buffers())
    for key in missing:
        module, _, buffer = key.rpartition(".")
        setattr(vit.get_submodule(module), buffer, computed[re.sub(r"^blocks\.\d+", "blocks.0", key)].clone())


def _create(name: str, pretrained: bool, arguments: dict[str, Any]) -> Vit:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise ToastError(
            f"model.name={name} is not known to timm {timm.__version__}{did_you_mean(architecture, timm.list_models())}: "
            "use a name that timm.list_models('*vit*') lists."
        )
    tags = timm.list_pretrained(architecture)
    if tag and name not in tags:
        raise ToastError(
            f"model.name={name}: {architecture} has no weights tagged '{tag}'; it has {', '.join(tags) or 'none'}."
        )
    with torch.device("meta"):  # look at its class before anything is fetched
        kind = type(timm.create_model(architecture, pretrained=False))
    if not issubclass(kind, FAMILIES):
        raise ToastError(
            f"model.name={name} is a {kind.__name__}: only models of timm's VisionTransformer and Eva classes can be used."
        )
    where = published(name) if pretrained else None  # None: random weights, also for a forecast that fetches nothing
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(
                0
            )  # random weights are the same in every run, so that a run with random weights can be resumed
            return cast(Vit, timm.create_model(name, pretrained=where is not None, **(where or {}), **arguments))
    except Exception as e:
        reraise_disk(e)
        raise _cannot_create(name, pretrained, arguments, e) from e


def _cannot_create(name: str, pretrained: bool, arguments: dict[str, Any], error: Exception) -> ToastError:
    if pretrained and not isinstance(error, TypeError | AssertionError) and "size mismatch" not in str(error):
        return ToastError(
            f"The weights of {name} that the hub gives cannot be read ({type(error).__name__}): delete them from the cache to fetch them again, "
            "give model.checkpoint=<file>, or try the pipeline with model.pretrained=false."
        )
    reason = " ".join(str(error).split())[:200]
    return ToastError(f"timm cannot build {name} with {arguments}: {reason}; check model.image_size and model.options.")


def _read_checkpoint(checkpoint: str) -> dict[str, Tensor]:
    path = checkpoint_path(checkpoint)
    if not path.is_file():
        raise ToastError(
            f"model.checkpoint={checkpoint} is not a file: give the path of a safetensors or torch weights file."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about a pickle, which is refused anyway
            return load_state_dict(str(path), weights_only=True)
    except _UNREADABLE as e:
        raise ToastError(
            f"model.checkpoint={checkpoint} cannot be read as weights ({type(e).__name__}): it must be a safetensors file, or a torch "
            "file that holds nothing but tensors (toast executes no pickle)."
        ) from e


def _load_weights(vit: Vit, weights: dict[str, Tensor], given: str, antialias: bool) -> nn.Linear | None:
    """Load ``weights`` into the model, with the position embeddings resized; returns their classifier, if there is one."""
    try:
        family = eva if isinstance(vit, eva.Eva) else vision_transformer
        fitting = family.checkpoint_filter_fn(weights, vit, antialias=antialias)
        missing, unexpected = vit.load_state_dict(fitting, strict=False)
    except (RuntimeError, KeyError, AttributeError, TypeError, ValueError) as e:
        raise ToastError(f"{given} does not fit the model: {' '.join(str(e).split())[:300]}") from e
    foreign = [key for key in unexpected if not key.startswith(_HEADS)]
    if missing or foreign:
        named = "; ".join(
            f"{len(keys)} {what}, such as {keys[0]}"
            for what, keys in (("weights are missing", missing), ("are unknown", foreign))
            if keys
        )
        raise ToastError(f"{given} does not fit the model ({named}): choose the model it was saved from.")
    if "head.weight" not in fitting or "head_dist.weight" in fitting:
        return None
    weight, bias = fitting["head.weight"], fitting.get("head.bias")
    head = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    head.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    return head if weight.shape[1] == vit.head_hidden_size else None


def _check_finite(vit: Vit, given: str) -> None:
    bad = [key for key, value in vit.named_parameters() if not torch.isfinite(value).all()]
    if bad:
        raise ToastError(
            f"{given} has weights that are not finite numbers in {', '.join(bad[:3])}{', …' * (len(bad) > 3)}: fetch or copy it again."
        )


def checkpoint_path(checkpoint: str) -> Path:
    """The file that ``model.checkpoint`` names; ``pkg://toast_cli/…`` is inside the installed package.

    Raises ToastError for a package that is not installed.
    """
    if checkpoint.startswith(_PACKAGE):
        package, _, inside = checkpoint.removeprefix(_PACKAGE).partition("/")
        folders = _folders_of(package)
        if not folders:
            raise ToastError(
                f"model.checkpoint={checkpoint} does not name an installed package: write pkg://<package>/<file>."
            )
        return Path(folders[0]) / inside
    return Path(checkpoint).expanduser()


def _folders_of(package: str) -> list[str]:
    """Where a package lies, found without importing it: its code may be a stranger's. Empty for anything else."""
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    return list((spec.submodule_search_locations if spec else None) or [])
