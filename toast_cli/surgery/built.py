"""A recipe and the tensors that it was written for become a model; both may come from a stranger.

Nothing is built before the recipe's sizes are known to be those of the tensors.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from torch import Tensor, nn

from toast_cli.errors import ToastError
from toast_cli.layers import Context, MapBlock
from toast_cli.models.factory import blank, fill
from toast_cli.models.halves import kept_block
from toast_cli.models.timm_parts import Vit, attach_head, with_blocks
from toast_cli.plans import STEM, Half, Kept, ends_of
from toast_cli.surgery.recipe import RECIPE, check_config, layers_in
from toast_cli.surgery.words import build

_FLOATS = ("F32", "F16", "BF16")  # what is written, as safetensors calls it
_MOST_PLAIN = 20_000  # layers without weights; a map for each token may have so many


class Stored(Protocol):
    """The tensors of a model in a ``file``, by their names in the model."""

    @property
    def file(self) -> Path: ...

    def shapes(self) -> Mapping[str, Sequence[int]]:
        """Their shapes, from the file's header. Raises ValueError if not all are floats."""

    def read(self) -> Mapping[str, Tensor]:
        """All of them."""


def built(recipe: Mapping[str, Any], stored: Stored, dtype: torch.dtype) -> nn.Module:
    """The model of ``recipe`` in evaluation mode: normalised (N, 3, H, W) -> logits (N, C) or features (N, F).

    Raises ToastError if the recipe does not describe the tensors, and if one has a number that is not finite.
    """
    try:
        vit = _assembled(recipe, stored.shapes())
        weights = {name: value.to(dtype) for name, value in stored.read().items()}
        fill(vit, recipe["architecture"]["name"], recipe["architecture"]["arguments"], weights)
    except (ToastError, MemoryError, OSError):
        raise
    except Exception as e:  # timm's constructors and torch raise what they like for what a stranger asks of them
        raise ToastError(
            f"{stored.file.parent / RECIPE} does not describe {stored.file.name} ({' '.join(str(e).split())[:150]}): export the model again."
        ) from e
    _check_finite(weights, stored.file)
    sizes = ("input_size", "mean", "std")  # tuples in timm, lists in JSON
    config = {key: tuple(value) if key in sizes else value for key, value in recipe["pretrained_cfg"].items()}
    vit.pretrained_cfg = vit.default_cfg = config  # type: ignore[assignment]  # the second is timm's older name for it
    return vit.to(dtype).eval()


def shapes_in(file: Path) -> dict[str, list[int]]:
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
