"""Shorten any timm vision transformer in memory, without a config or files.

Shapes: N images, T tokens, D width.
"""

import copy
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from toast_cli.errors import ToastError, out_of_memory
from toast_cli.models.backbone import Backbone
from toast_cli.models.halves import require_halves
from toast_cli.models.timm_parts import FAMILIES
from toast_cli.models.watched import watched
from toast_cli.moments.streamed import Layer
from toast_cli.plans import HEALED, INDEPENDENT, STEM, Map, Plan, Span, Variant, middles, variants
from toast_cli.stages.chain import Chain
from toast_cli.stages.originals import Originals
from toast_cli.surgery.faithful import shortened
from toast_cli.translators.base import ClosedForm, ImageTranslator
from toast_cli.translators.named import by_name
from toast_cli.translators.sums import Sums, Wanted

_AT_ONCE = 64  # images
_WRAPPED = ("module", "_orig_mod")  # where wrappers for several devices and for compiling have the model
_FEW = 4  # images that a shortened model is tried on
_FIT = 0  # how many images a plan is fitted on is not known before, and there is only one fit


def compress(
    model: nn.Module,
    plan: str | Plan,
    images: Tensor | Iterable[Tensor],
    translator: str | ClosedForm = "linear",
    heal: bool = False,
) -> nn.Module:
    """A shortened copy of ``model``: maps fitted on ``images`` replace the spans of ``plan``.

    Args:
        model: any timm vision transformer (``VisionTransformer`` or ``Eva``), or one of a class derived from these whose
            forward runs the blocks one after the other; it is not changed.
        plan: such as ``"9-11"`` or ``"2-3+9-11:identity"``; see ``toast_cli.Plan``.
        images: (N, C, H, W), normalised as the model expects, or batches of such images; about 500 are enough.
        translator: the name of a translator in closed form, or one of your own (``Translator`` or ``ImageTranslator``).
        heal: refit the last layers of the blocks behind the first map to what they receive there, and further maps too.
            Meanwhile latents of all images are in a temporary folder, some megabytes for each image.

    Returns an ordinary timm module with the model's own head, device, precision and mode; every weight can be trained.
    Maps are folded into other weights where possible, as in ``toast export``. Raises ToastError for arguments that
    cannot be used.
    """
    if not isinstance(model, FAMILIES):
        inside = next((name for name in _WRAPPED if isinstance(getattr(model, name, None), FAMILIES)), None)
        given = f", such as its .{inside}" if inside else ""
        raise ToastError(f"A {type(model).__name__} cannot be compressed: give a timm VisionTransformer or Eva{given}.")
    if not isinstance(plan, str | Plan):
        raise ToastError(
            f'plan={plan} is not a plan: give text such as "9-11" or "2-3+9-11:identity", or a toast_cli.Plan.'
        )
    plan = Plan.parse(plan) if isinstance(plan, str) else plan
    plan.operations(len(model.blocks))
    require_halves([plan], model.blocks)
    chosen = {span: _translator(span.translator or translator) for span in plan.spans}
    own = copy.deepcopy(model)
    if heal:
        own = own.float()  # what is missing is small beside what is there
    backbone = Backbone(own, type(model).__name__, model.patch_embed.img_size[0])
    variant = variants([plan], [_FIT], backbone.depth, [HEALED if heal else INDEPENDENT])[-1]
    with tempfile.TemporaryDirectory(prefix="toast-") as folder:
        originals = Originals(Path(folder), backbone, [variant], None) if variant.healed else None
        maps, few = _fitted(backbone, variant, images, chosen, originals) if plan.spans else ({}, None)
    short = shortened(backbone, variant, maps, few).to(next(model.parameters()))
    return short.requires_grad_(True).train(model.training)


@torch.inference_mode()
def _fitted(
    backbone: Backbone,
    variant: Variant,
    images: Tensor | Iterable[Tensor],
    chosen: Mapping[Span, ClosedForm],
    originals: Originals | None,
) -> tuple[dict[Any, nn.Module], Tensor | None]:
    """The modules of the variant's maps and healed blocks, fitted on all images (N, C, H, W), of however many tokens.

    With them come a few of the images.
    """
    first = {key: Wanted(key.span.start, key.span.end, chosen[key.span]) for key in variant.maps if not key.after.spans}
    inside = middles(variant.plan.points) | (set() if originals is None else originals.inside)
    sums, seen, few = Sums(first.values(), backbone.prefix_tokens, None), 0, None
    for batch in _batches(images):
        few = batch[:_FEW] if few is None else few
        found = {layer: each.float() for layer, each in _latents(backbone, batch, inside).items()}
        numbers = np.arange(seen, seen + len(batch))
        _add(sums, numbers, found)
        if originals is not None:
            _check_healable(backbone, batch, found)
            originals.add(numbers, found)
        seen += len(batch)
    if not seen:
        raise ToastError("compress was given no images: give about 500 training images as the model expects them.")

    def solved(sums: Sums, wanted: Wanted) -> nn.Module:
        with _all_finite():
            parts = sums.of(wanted, backbone.width)
        fitted = sums.fitted(wanted.translator, parts)
        return fitted.to_module().to(backbone.mean.device)

    def fit_map(key: Map, pairs: Iterator[tuple[np.ndarray, Tensor, Tensor]]) -> nn.Module:
        wanted = Wanted("healed", key.span.end, chosen[key.span])
        after = Sums([wanted], backbone.prefix_tokens, None)
        for numbers, x, y in pairs:
            _add(after, numbers, {wanted.source: x, wanted.target: y})
        return solved(after, wanted)

    maps = {key: solved(sums, wanted) for key, wanted in first.items()}
    if originals is None:
        return dict(maps), few
    chain = Chain(originals, backbone, maps, {}, fit_map, lambda key, tensors: None)
    chain.follow([variant], seen, _AT_ONCE)
    return {**chain.maps, **chain.modules()}, few


def _check_healable(backbone: Backbone, images: Tensor, found: Mapping[Layer, Tensor]) -> None:
    """Raises ToastError for images (N, C, H, W) of another size than the model was built for, and for a stem of its own."""
    timms = backbone.embed(images.to(next(backbone.parameters())))[0].float()
    own = found[STEM]
    if own.shape != timms.shape or not torch.allclose(own, timms, rtol=1e-3, atol=1e-3 * float(timms.abs().max())):
        raise ToastError(
            f"heal=True was given a {type(backbone.vit).__name__}, whose forward makes tokens in its own way: use heal=False."
        )
    if found[backbone.depth - 1].shape[1] != backbone.tokens:
        raise ToastError(
            f"heal=True was given images of shape {tuple(images.shape)}, and the model was built for {backbone.image_size} pixels a side: give "
            "them in that size."
        )


def _add(sums: Sums, numbers: np.ndarray, found: Mapping[Layer, Tensor]) -> None:
    with _all_finite():
        sums.update(numbers, found)


@contextmanager
def _all_finite() -> Iterator[None]:
    try:
        yield
    except FloatingPointError as e:
        raise ToastError(f"{e} are not finite: look for images with such values.".capitalize()) from e


def _latents(backbone: Backbone, images: Tensor, inside: set[int]) -> dict[Layer, Tensor]:
    """Normalised images (N, C, H, W) -> X^(i) (N, T, D) for i = −1 … L−1, and X^(i−½) for the blocks ``inside``."""
    try:
        pixels = images.to(next(backbone.parameters()))
        return dict(watched(backbone.vit, pixels, inside))
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
