"""The method on any timm vision transformer in memory: no config, no files."""

import copy
from collections.abc import Iterable

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from toast_cli.backbone import FAMILIES, Backbone
from toast_cli.encode import latents_of
from toast_cli.errors import ToastError, did_you_mean
from toast_cli.moments import Moments
from toast_cli.plans import Plan, Span
from toast_cli.registry import CONF, options
from toast_cli.surgery import shorten
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

    Returns an ordinary timm module with the model's own head, device, precision and mode; every weight can be trained.
    Raises ToastError for a model, a plan or a translator that cannot be used.
    """
    if not isinstance(model, FAMILIES):
        raise ToastError(f"A {type(model).__name__} cannot be compressed: give a timm VisionTransformer or Eva.")
    plan = Plan.parse(plan) if isinstance(plan, str) else plan
    plan.operations(len(model.blocks))
    chosen = {span: _translator(span.translator or translator) for span in plan.spans}
    own = copy.deepcopy(model)
    backbone = Backbone(own, type(model).__name__, model.patch_embed.img_size[0])
    moments = Moments((span.start, span.end) for span in plan.spans)
    with torch.inference_mode():
        for batch in [images] if isinstance(images, Tensor) else images:
            for part in batch.split(_AT_ONCE):
                found = latents_of(backbone, backbone.embed(part.to(next(own.parameters()))))
                moments.update({layer: latent.float() for layer, latent in found.items()})
    if plan.spans and not moments.count:
        raise ToastError("compress was given no images: give about 500 training images as the model takes them.")
    maps = {span: _fitted(chosen[span], moments, span) for span in plan.spans}
    short = shorten(backbone, plan, maps).to(next(own.parameters()))
    return short.requires_grad_(True).train(model.training)


_AT_ONCE = 64


def _translator(given: str | Translator) -> Translator:
    found = _by_name(given) if isinstance(given, str) else given
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


def _fitted(translator: Translator, moments: Moments, span: Span) -> nn.Module:
    return copy.deepcopy(translator).fit(moments.pair(span.start, span.end)).to_module()
