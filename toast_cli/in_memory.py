"""The method on any timm vision transformer in memory: no config, no files."""

import copy
import operator
from collections.abc import Iterable, Iterator
from functools import reduce
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from toast_cli.backbone import Backbone
from toast_cli.compute import out_of_memory
from toast_cli.draws import held_apart
from toast_cli.encode import latents_of
from toast_cli.errors import ToastError, did_you_mean
from toast_cli.moments import Moments, PairMoments
from toast_cli.plans import Plan
from toast_cli.registry import CONF, options
from toast_cli.surgery import shorten
from toast_cli.timm_parts import FAMILIES
from toast_cli.translators import Translator


def compress(
    model: nn.Module, plan: str | Plan, images: Tensor | Iterable[Tensor], translator: str | Translator = "linear"
) -> nn.Module:
    """A shortened copy of ``model``: the spans of ``plan`` are gone, maps fitted on ``images`` stand in their place.

    Args:
        model: any timm vision transformer (``VisionTransformer`` or ``Eva``); it stays as it is.
        plan: such as ``"9-11"`` or ``"2-3+9-11:identity"``; see ``toast_cli.Plan``.
        images: (N, 3, H, W) as the model takes them, normalised, or batches of such; about 500 are enough.
        translator: the name of one in closed form, or such a translator.

    Returns an ordinary timm module with the model's own head, device, precision and mode; every weight can be trained. Maps
    that cost nothing are folded, as ``toast export`` does. Raises ToastError for what cannot be used.
    """
    if not isinstance(model, FAMILIES):
        raise ToastError(f"A {type(model).__name__} cannot be compressed: give a timm VisionTransformer or Eva.")
    if not isinstance(plan, str | Plan):
        raise ToastError(
            f'plan={plan} is no plan: give text such as "9-11" or "2-3+9-11:identity", or a toast_cli.Plan.'
        )
    plan = Plan.parse(plan) if isinstance(plan, str) else plan
    plan.operations(len(model.blocks))
    chosen = {span: _translator(span.translator or translator) for span in plan.spans}
    own = copy.deepcopy(model)
    backbone = Backbone(own, type(model).__name__, model.patch_embed.img_size[0])
    sums = _moments(backbone, plan, images, max((each.held_out for each in chosen.values()), default=0.0))
    maps = {span: _fitted(chosen[span], [each.pair(span.start, span.end) for each in sums]) for span in plan.spans}
    short = shorten(backbone, plan, maps).to(next(own.parameters()))
    return short.requires_grad_(True).train(model.training)


@torch.inference_mode()
def _moments(backbone: Backbone, plan: Plan, images: Tensor | Iterable[Tensor], held_out: float) -> list[Moments]:
    """Of the plan's spans, those of the share of the images that is held out apart; no empty ones."""
    pairs, seen = [(span.start, span.end) for span in plan.spans], 0
    kept, apart = Moments(pairs), Moments(pairs)
    for batch in _batches(images):
        try:
            found = latents_of(backbone, backbone.embed(batch.to(next(backbone.parameters()))))
        except (AssertionError, RuntimeError) as e:
            if out_of_memory(e):
                raise
            raise ToastError(
                f"The model takes no images of shape {tuple(batch.shape)} ({' '.join(str(e).split())[:200]}): give them as it was built for."
            ) from e
        out = torch.from_numpy(held_apart(np.arange(seen, seen + len(batch)), held_out))
        seen += len(batch)
        for moments, which in ((kept, ~out), (apart, out)):
            if which.any():
                try:
                    moments.update({layer: found[layer][which].float() for layer in moments.layers})
                except FloatingPointError as e:
                    raise ToastError(f"{e} are not finite: look for images that are not.".capitalize()) from e
    if plan.spans and not seen:
        raise ToastError("compress was given no images: give about 500 training images as the model takes them.")
    return [moments for moments in (kept, apart) if moments.count]


def _batches(images: Any) -> Iterator[Tensor]:
    """A few images (N, 3, H, W) at a time. Raises ToastError for anything else."""
    for batch in [images] if isinstance(images, Tensor) or not isinstance(images, Iterable) else images:
        if not isinstance(batch, Tensor) or batch.ndim != 4 or not batch.is_floating_point():
            given = (
                f"{batch.dtype} of shape {tuple(batch.shape)}" if isinstance(batch, Tensor) else type(batch).__name__
            )
            raise ToastError(
                f"compress was given {given} for images: give float tensors (N, 3, H, W), normalised as the model takes them, or batches "
                "of such, as in (images for images, _ in loader)."
            )
        yield from batch.split(_AT_ONCE)


_AT_ONCE = 64


def _translator(given: str | Translator) -> Translator:
    found = _by_name(given) if isinstance(given, str) else given
    if not isinstance(found, Translator):
        raise ToastError(
            f"translator={found} is none: give a name such as linear, or a toast_cli.translators.Translator."
        )
    if found.trained or found.tokens != "shared":
        raise ToastError(
            f"compress takes closed forms with one map for all tokens, and {found.name} is none: use toast run for others."
        )
    return found


def _by_name(name: str) -> Translator:
    known = options("translator", [CONF])
    if name not in known:
        raise ToastError(f"translator={name} is not known{did_you_mean(name, known)}: use {', '.join(known)}.")
    return instantiate(OmegaConf.load(known[name]))


def _fitted(translator: Translator, pairs: list[PairMoments]) -> nn.Module:
    own = copy.deepcopy(translator)
    return (own.fit(*pairs) if own.held_out else own.fit(reduce(operator.add, pairs))).to_module()
