"""Models by name: built by timm, with weights from a file, from the hub or at random."""

import re
import reprlib
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from toast_cli.errors import ToastError, did_you_mean, reraise_disk
from toast_cli.models import checkpoints
from toast_cli.models.allowed import check
from toast_cli.models.arguments import check_arguments
from toast_cli.models.backbone import Backbone
from toast_cli.models.dry import check_dry
from toast_cli.models.published import published
from toast_cli.models.sources import Source, source_of
from toast_cli.models.timm_parts import FAMILIES, Vit
from toast_cli.models.weight_files import file_of
from toast_cli.models.weights import Wanted, classifier, take

_MOST_COMPUTED = 2**26  # numbers that timm computes for a model


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

    A name is timm's own, ``local-dir:<folder>`` or ``hf-hub:<owner>/<name>`` for a model that was saved as timm saves it.
    Position embeddings are resized to ``image_size`` (default: the size in the model's own config). ``options`` go to
    the constructor (``depth``, ``embed_dim``, …) and are plain numbers, strings and lists of these. A checkpoint is a
    safetensors file, or a torch file of plain tensors, or an index of several, or a folder with one; ``pkg://`` names one
    inside a package. ``readout`` is passed to ``Backbone``. With ``preprocessing="paper"``, a model that has a ``paper_resize``
    gets images whose short side is resized to that, and its position embeddings are resized without antialiasing: the
    published preprocessing of DINOv2.

    Raises ToastError for an unknown name, a model that is not a vision transformer, weights that are missing or do not
    fit, and invalid settings.
    """
    check(preprocessing=preprocessing, image_size=image_size, options=options, pretrained=pretrained)
    check_arguments(str(name), options or {})
    fetched = pretrained and checkpoint is None
    with redirect_stdout(StringIO()):  # timm prints lines of its own, and stdout is for results
        source = source_of(str(name), fetched)
        return _loaded(
            label, str(name), source, checkpoint, fetched, image_size, options or {}, readout,
            paper_resize if preprocessing == "paper" else None,
        )  # fmt: skip


def _loaded(
    label: str,
    name: str,
    source: Source,
    checkpoint: str | None,
    fetched: bool,
    image_size: int | None,
    options: Mapping[str, Any],
    readout: str,
    resize: int | None,
) -> Backbone:
    size = {} if image_size is None else {"img_size": image_size}
    asked = {**source.arguments, **options}
    if fetched and (source.folder is not None or source.absent):
        checkpoint, fetched = None if source.folder is None else str(source.folder), False
    arguments = asked if fetched else {**asked, "num_classes": asked.get("num_classes", 0)}
    vit = _create(source, fetched and resize is None, arguments | size)
    head = classifier(vit, vit.state_dict())
    vit.reset_classifier(0)
    wanted = Wanted(vit, source.architecture, "patch_size" in options, antialias=resize is None)
    given, notes = f"model.name={name}", list[str]()
    if checkpoint is not None:
        given = (
            given
            if source.folder is not None and checkpoint == str(source.folder)
            else f"model.checkpoint={checkpoint}"
        )
        file = file_of(str(checkpoint), given)
        head, notes = take(wanted, checkpoints.read(file, given), given, file)
    elif fetched and resize is not None:
        weights = _create(source, True, arguments).state_dict()  # with the position embeddings as published
        head, notes = take(wanted, weights, given)
    _check_finite(vit, given)
    side = vit.patch_embed.img_size[0]
    recipe = {"name": source.architecture, "arguments": {**asked, "img_size": side}}
    return Backbone(vit, label, image_size or side, head, readout, resize, recipe, notes=notes)


def depth_of(name: str) -> int | None:
    """How many blocks timm's model of that ``name`` has; nothing is fetched. None if it is not one of timm's vision transformers."""
    if not timm.is_model(name):
        return None
    with torch.device("meta"):
        model = timm.create_model(name.partition(".")[0], pretrained=False)
    return len(model.blocks) if isinstance(model, FAMILIES) else None


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
    check_arguments(name, arguments)
    with torch.device("meta"):
        vit = timm.create_model(name, pretrained=False, **{**arguments, "num_classes": 0})
    if not isinstance(vit, FAMILIES):
        raise ToastError(f"{name} is not a vision transformer: the recipe was not written by toast.")
    return vit.to("meta")  # older versions of timm compute some tables on the CPU


def by_timm(folder: Path) -> nn.Module:
    """What timm makes of a ``folder`` with config.json and model.safetensors, without toast. Raises what timm raises."""
    return timm.create_model(f"local-dir:{folder}", pretrained=True)


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


def _create(source: Source, pretrained: bool, arguments: dict[str, Any]) -> Vit:
    """timm's model. It is built without numbers first, so that what cannot be used is named before anything is fetched."""
    name = source.name
    with torch.device("meta"):
        kind = type(timm.create_model(source.architecture, pretrained=False))
    if not issubclass(kind, FAMILIES):
        raise ToastError(
            f"model.name={name} is a {kind.__name__}: only models of timm's VisionTransformer and Eva classes can be used."
        )
    where = None  # random weights, also for a forecast that fetches nothing
    try:
        with torch.device("meta"):
            dry = timm.create_model(source.architecture, pretrained=False, **arguments)
        check_dry(cast(Vit, dry.to("meta")), name)
        where = published(name) if pretrained else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(
                0
            )  # random weights are the same in every run, so that a run with random weights can be resumed
            overlay = {**source.preprocessing, **(where or {})} or None
            return cast(
                Vit,
                timm.create_model(name, pretrained=where is not None, pretrained_cfg_overlay=overlay, **arguments),
            )
    except ToastError:
        raise
    except Exception as e:
        reraise_disk(e)
        raise _cannot_create(name, pretrained, arguments, e) from e


def _cannot_create(name: str, pretrained: bool, arguments: dict[str, Any], error: Exception) -> ToastError:
    wrong = isinstance(error, TypeError | AssertionError) or "size mismatch" in str(error)
    if pretrained and not wrong:
        return ToastError(
            f"The weights of {name} that the hub gives cannot be read ({type(error).__name__}): delete them from the cache to fetch them again, "
            "give model.checkpoint=<file>, or try the pipeline with model.pretrained=false."
        )
    reason = " ".join(str(error).split())[:200]
    return ToastError(f"timm cannot build {name} with {arguments}: {reason}; check model.image_size and model.options.")


def _check_finite(vit: Vit, given: str) -> None:
    bad = [key for key, value in vit.named_parameters() if not torch.isfinite(value).all()]
    if bad:
        raise ToastError(
            f"{given} has weights that are not finite numbers in {', '.join(bad[:3])}{', …' * (len(bad) > 3)}: fetch or copy it again."
        )
