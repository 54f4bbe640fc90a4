"""A shortened model on disk: ``model.safetensors`` and ``recipe.json``, read back without running code.

The recipe names timm's architecture and describes every map in plain words; the weights are tensors. Neither can carry
code.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn

from toast_cli.errors import ToastError
from toast_cli.files import write_atomically
from toast_cli.layers import Context, MapBlock
from toast_cli.models.factory import blank, fill
from toast_cli.models.halves import kept_block
from toast_cli.models.timm_parts import Vit, attach_head, with_blocks
from toast_cli.plans import STEM, Half, Kept, ends_of
from toast_cli.surgery.fetched import Export
from toast_cli.surgery.parts import BlockPart, Part, StemPart
from toast_cli.surgery.recipe import FORMAT, RECIPE, WEIGHTS, check_config, intact, layers_in, read_recipe
from toast_cli.surgery.words import build, describe

_FLOATS = ("F32", "F16", "BF16")  # what write_weights writes, as safetensors calls it
_MOST_PLAIN = 20_000  # layers without weights; a map for each token may have so many


def recipe_of(vit: Vit, architecture: Mapping[str, Any], parts: Sequence[Part]) -> dict[str, Any]:
    """The recipe that builds ``vit``, joined from ``parts``: the architecture's blocks by number, half ones as
    ``9.attention`` or ``9.mlp``, maps in plain words.

    Raises ToastError for a map or a head that cannot be described.
    """
    blocks = [
        _word(part.kept) if isinstance(part, BlockPart) else {"of": str(part), **describe(part.module)}
        for part in parts
        if not isinstance(part, StemPart)
    ]
    head = None if isinstance(vit.head, nn.Identity) else describe(vit.head)
    return {
        "format": FORMAT,
        "architecture": dict(architecture),
        "blocks": blocks,
        "head": head,
        "classes": vit.num_classes,
    }


def write_weights(folder: Path, vit: nn.Module, dtype: torch.dtype) -> None:
    """Write the weights of ``vit`` to ``model.safetensors``, in ``dtype``."""
    tensors = {name: value.detach().cpu().to(dtype).contiguous() for name, value in vit.state_dict().items()}
    write_atomically(folder / WEIGHTS, safetensors.torch.save(tensors))


def load(path: str | Path, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Load an export as an ordinary timm module in evaluation mode: normalised (N, 3, H, W) -> logits or features.

    Its preprocessing is in ``pretrained_cfg``, where ``timm.data.resolve_model_data_config`` finds it. Loading runs no
    code from the files. Weights stored in half precision are widened to ``dtype``. ``path`` is a folder, or as text a
    repository on the hub, ``<user>/<name>`` or ``<user>/<name>@<revision>``; a folder of that name comes first.

    Raises ToastError if ``path`` is not an export in safetensors, if its files were changed or do not belong together,
    if a weight is not a finite number, and for what the hub does not have, does not give out or cannot send.
    """
    export = Export.find(path)
    path = export.folder
    recipe = read_recipe(path)
    if recipe.get("file") == WEIGHTS:
        export.require(WEIGHTS)
    file = path / WEIGHTS
    if recipe.get("weights") is None or not file.is_file():
        raise ToastError(
            f"{path} holds no {WEIGHTS}: load reads exports with format=safetensors; run others with their own runtime."
        )
    intact(file, recipe)
    try:
        vit = _assembled(recipe, _shapes(file))
        weights = {name: value.to(dtype) for name, value in safetensors.torch.load(file.read_bytes()).items()}
        fill(vit, recipe["architecture"]["name"], recipe["architecture"]["arguments"], weights)
    except (ToastError, MemoryError, OSError):
        raise
    except Exception as e:  # timm's constructors and torch raise what they like for what a stranger asks of them
        raise ToastError(
            f"{path / RECIPE} does not describe {WEIGHTS} ({' '.join(str(e).split())[:150]}): export the model again."
        ) from e
    _check_finite(weights, file)
    sizes = ("input_size", "mean", "std")  # tuples in timm, lists in JSON
    config = {key: tuple(value) if key in sizes else value for key, value in recipe["pretrained_cfg"].items()}
    vit.pretrained_cfg = vit.default_cfg = config  # type: ignore[assignment]  # the second is timm's older name for it
    return vit.to(dtype).eval()


def _shapes(file: Path) -> dict[str, list[int]]:
    """The shapes of the tensors in a safetensors file by name, from its header. Raises ValueError if not all are floats."""
    with safe_open(file, framework="pt") as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118  # it is no dict
        other = [name for name, stored in slices.items() if stored.get_dtype() not in _FLOATS]
        if other:
            raise ValueError(f"{other[0]} holds {slices[other[0]].get_dtype()}")
        return {name: stored.get_shape() for name, stored in slices.items()}


def _assembled(recipe: Mapping[str, Any], stored: Mapping[str, Sequence[int]]) -> Vit:
    """The recipe's model on the meta device, with weights of the names and shapes that are ``stored``.

    Raises ValueError, ToastError or whatever timm and torch raise if the recipe describes no such model.
    """
    blocks, head, classes = recipe["blocks"], recipe["head"], recipe["classes"]
    kept = [part if isinstance(part, dict) else _kept(part) for part in blocks]
    ends = [end for part in kept if not isinstance(part, dict) for end in ends_of(part)]
    if ends != sorted(ends) or min(ends, default=STEM) < STEM:
        raise ValueError("its blocks are not block numbers in order, and maps")
    if head is not None and type(classes) is not int:
        raise ValueError("its classes are not a whole number")
    if layers_in([blocks, head]) > 4 * len(stored) + _MOST_PLAIN:
        raise ValueError("it has too many layers for the weights")
    check_config(recipe["pretrained_cfg"])
    vit = blank(recipe["architecture"]["name"], recipe["architecture"]["arguments"])
    with torch.device("meta"):
        short = with_blocks(
            vit, [MapBlock(build(part)) if isinstance(part, dict) else kept_block(vit.blocks, part) for part in kept]
        )
        if any(isinstance(each, Context) and each.prefix != vit.num_prefix_tokens for each in short.modules()):
            raise ValueError("a map takes other tokens for the patches than the model has")
        if head is not None:
            attach_head(short, build(head), classes)
    shapes = {name: list(value.shape) for name, value in short.state_dict().items()}
    for name in [*shapes, *stored]:
        if shapes.get(name) != stored.get(name):
            raise ValueError(f"{name}: {shapes.get(name, 'not there')} and {stored.get(name, 'not there')}")
    _check_shapes(short, recipe["pretrained_cfg"]["input_size"], None if head is None else classes)
    return short.requires_grad_(True)


def _word(kept: Kept) -> int | str:
    return kept if isinstance(kept, int) else str(kept)


def _kept(word: object) -> Kept:
    """The inverse of ``_word``. Raises ValueError for what is no block and no half of one."""
    if type(word) is int:
        return word
    if not isinstance(word, str):
        raise ValueError("its blocks are not block numbers in order, and maps")
    return Half.parse(word)


def _check_shapes(vit: Vit, size: Sequence[int], classes: object) -> None:
    """Check that a model on the meta device takes images (N, 3, H, W) of this ``size`` and gives (N, C).

    Raises ValueError, or what torch raises, if it does not.
    """
    with torch.inference_mode():
        outputs = vit.eval()(torch.empty(2, *size, device="meta"))
    if outputs.ndim != 2 or classes not in (None, outputs.shape[1]):
        raise ValueError(f"the outputs have the shape {[*outputs.shape]} for {classes} classes")


def _check_finite(weights: Mapping[str, Tensor], file: Path) -> None:
    bad = [name for name, value in weights.items() if not torch.isfinite(value).all()]
    if bad:
        raise ToastError(
            f"{file} has weights that are not finite numbers in {', '.join(bad[:3])}{', …' * (len(bad) > 3)}: export the model again."
        )
