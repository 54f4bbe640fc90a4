"""Shorten any timm vision transformer in memory, without a config or files.

Shapes: N images, T tokens, D width.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from toast_cli.errors import ToastError, out_of_memory
from toast_cli.models.backbone import Backbone
from toast_cli.models.timm_parts import FAMILIES
from toast_cli.plans import Plan
from toast_cli.stages.walk import latents_of
from toast_cli.surgery.shortened import shorten
from toast_cli.translators.base import ClosedForm, ImageTranslator
from toast_cli.translators.named import by_name
from toast_cli.translators.sums import Sums, Wanted

_AT_ONCE = 64  # images


def compress(
    model: nn.Module, plan: str | Plan, images: Tensor | Iterable[Tensor], translator: str | ClosedForm = "linear"
) -> nn.Module:
    """A shortened copy of ``model``: maps fitted on ``images`` replace the spans of ``plan``.

    Args:
        model: any timm vision transformer (``VisionTransformer`` or ``Eva``); it is not changed.
        plan: such as ``"9-11"`` or ``"2-3+9-11:identity"``; see ``toast_cli.Plan``.
        images: (N, 3, H, W), normalised as the model expects, or batches of such images; about 500 are enough.
        translator: the name of a translator in closed form, or one of your own (``Translator`` or ``ImageTranslator``).

    Returns an ordinary timm module with the model's own head, device, precision and mode; every weight can be trained.
    Maps are folded into other weights where possible, as in ``toast export``. Raises ToastError for arguments that
    cannot be used.
    """
    if not isinstance(model, FAMILIES):
        raise ToastError(f"A {type(model).__name__} cannot be compressed: give a timm VisionTransformer or Eva.")
    if not isinstance(plan, str | Plan):
        raise ToastError(
            f'plan={plan} is not a plan: give text such as "9-11" or "2-3+9-11:identity", or a toast_cli.Plan.'
        )
    plan = Plan.parse(plan) if isinstance(plan, str) else plan
    plan.operations(len(model.blocks))
    chosen = {span: _translator(span.translator or translator) for span in plan.spans}
    own = copy.deepcopy(model)
    backbone = Backbone(own, type(model).__name__, model.patch_embed.img_size[0])
    maps = {}
    if plan.spans:
        wanted = {span: Wanted(span.start, span.end, each) for span, each in chosen.items()}
        sums = _sums(backbone, list(wanted.values()), images)
        for span, each in wanted.items():
            maps[span] = sums.fitted(each.translator, sums.of(each, backbone.width)).to_module()
    short = shorten(backbone, plan, maps).to(next(own.parameters()))
    return short.requires_grad_(True).train(model.training)


@torch.inference_mode()
def _sums(backbone: Backbone, wanted: Sequence[Wanted], images: Tensor | Iterable[Tensor]) -> Sums:
    """The sums for the maps ``wanted`` over all images (N, 3, H, W), of however many tokens."""
    sums, seen = Sums(wanted, backbone.prefix_tokens, None), 0
    layers = {layer for each in wanted for layer in (each.source, each.target)}
    for batch in _batches(images):
        found = _latents(backbone, batch)
        try:
            sums.update(np.arange(seen, seen + len(batch)), {layer: found[layer].float() for layer in layers})
        except FloatingPointError as e:
            raise ToastError(f"{e} are not finite: look for images with such values.".capitalize()) from e
        seen += len(batch)
    if not seen:
        raise ToastError("compress was given no images: give about 500 training images as the model expects them.")
    return sums


def _latents(backbone: Backbone, images: Tensor) -> dict[int, Tensor]:
    """Normalised images (N, 3, H, W) -> X^(i) (N, T, D) for i = −1 … L−1."""
    try:
        return latents_of(backbone, *backbone.embed(images.to(next(backbone.parameters()))))
    except (AssertionError, RuntimeError) as e:
        if out_of_memory(e):
            raise
        raise ToastError(
            f"The model does not take images of shape {tuple(images.shape)} ({' '.join(str(e).split())[:200]}): give them in the shape it was built for."
        ) from e


def _batches(images: Any) -> Iterator[Tensor]:
    """A few images (N, 3, H, W) at a time. Raises ToastError for anything else."""
    for batch in [images] if isinstance(images, Tensor) or not isinstance(images, Iterable) else images:
        if not isinstance(batch, Tensor) or batch.ndim != 4 or not batch.is_floating_point():
            given = (
                f"{batch.dtype} of shape {tuple(batch.shape)}" if isinstance(batch, Tensor) else type(batch).__name__
            )
            raise ToastError(
                f"compress was given {given} for images: give float tensors (N, 3, H, W), normalised as the model expects, or "
                "batches of them, as in (images for images, _ in loader)."
            )
        yield from batch.split(_AT_ONCE)


def _translator(given: str | ClosedForm) -> ClosedForm:
    """The translator ``given``. Raises ToastError unless it is in closed form, and sees the image or has one map for all tokens."""
    found: Any = by_name(given) if isinstance(given, str) else given
    if not hasattr(found, "tokens"):
        raise ToastError(
            f"translator={found} is not a translator: give a name such as linear, or a toast_cli.translators.Translator."
        )
    if not isinstance(found, ClosedForm) or not (isinstance(found, ImageTranslator) or found.tokens == "shared"):
        raise ToastError(
            f"compress takes closed-form translators with one map for all tokens, and {found.name} is not one: use toast run for others."
        )
    return found
