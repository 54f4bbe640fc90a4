"""A shortened model that does what its plan says, tried on images: classes that people derive from timm's may do more.

Shapes: N images, T tokens, D width.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from toast_cli.errors import ToastError
from toast_cli.layers import MapBlock
from toast_cli.models.backbone import Backbone
from toast_cli.models.timm_parts import Vit, exchanged
from toast_cli.plans import PlanLike, ends_of
from toast_cli.surgery.parts import BlockPart, MapPart, parts_of
from toast_cli.surgery.shortened import shorten

_ALLOWED = {torch.float32: 1e-3, torch.float64: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.1}  # of the largest output


def shortened(backbone: Backbone, plan: PlanLike, maps: Mapping[Any, nn.Module], images: Tensor | None) -> Vit:
    """``shorten``, but the model gives for ``images`` (N, C, H, W) what the original gives with maps in place of blocks.

    Where a stem does more than timm's, maps are not folded into it. Raises ToastError if fewer blocks give something else.
    """
    if images is None:
        return shorten(backbone, plan, maps)
    pixels = images.to(next(backbone.parameters()))
    own = {key: copy.deepcopy(module).to(pixels) for key, module in maps.items()}
    wanted = list(_outputs(in_place(backbone, plan, own), pixels))
    for folded in (True, False):
        short = shorten(backbone, plan, maps, folded).to(pixels)
        if _agree(list(_outputs(short, pixels)), wanted):
            return short
    raise ToastError(
        f"The forward of {type(backbone.vit).__name__} does something else with fewer blocks, as if it counted them: such a model cannot be compressed."
    )


class InTurn(nn.Module):
    """Several modules in the place of one block, or none."""

    def __init__(self, inside: Sequence[nn.Module]) -> None:
        super().__init__()
        self.inside = nn.ModuleList(inside)

    def forward(self, latent: Tensor, *rest: Any, **others: Any) -> Tensor:
        """(N, T, D) -> (N, T, D)."""
        for module in self.inside:
            latent = module(latent, *rest, **others)
        return latent


def in_place(backbone: Backbone, plan: PlanLike, maps: Mapping[Any, nn.Module]) -> Vit:
    """The original with as many blocks as before: at the end of each span its map, and nothing in the place of other removed blocks.

    It shares its weights with the original and with the maps.
    """
    slots: list[list[nn.Module]] = [[] for _ in range(backbone.depth)]
    _, *parts = parts_of(backbone, plan, maps)
    for step, part in zip(plan.operations(backbone.depth), parts, strict=True):
        if isinstance(part, MapPart):
            slots[ceil(step.span.end)].append(MapBlock(part.module))
        elif isinstance(part, BlockPart):
            slots[ceil(ends_of(part.kept)[1])].append(part.module)
    blocks = [slot[0] if len(slot) == 1 else InTurn(slot) for slot in slots]
    kept = nn.ModuleList(blocks) if isinstance(backbone.blocks, nn.ModuleList) else nn.Sequential(*blocks)
    return exchanged(backbone.vit, modules={"blocks": kept})


@torch.inference_mode()
def _outputs(vit: Vit, images: Tensor) -> Iterator[Tensor]:
    try:
        yield from _tensors(vit.eval()(images))
    except (IndexError, KeyError, RuntimeError, AssertionError, TypeError):
        return  # of too few blocks


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)


def _agree(found: list[Tensor], wanted: list[Tensor]) -> bool:
    return len(found) == len(wanted) and all(map(_near, found, wanted))


def _near(found: Tensor, wanted: Tensor) -> bool:
    if found.shape != wanted.shape or not wanted.is_floating_point():
        return found.shape == wanted.shape and torch.equal(found, wanted)
    largest = float(wanted.float().abs().max())
    return float((found.float() - wanted.float()).abs().max()) <= _ALLOWED[wanted.dtype] * largest
