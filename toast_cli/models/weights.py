"""Weights from a file become a model's own, once it is clear that they are this model's: shapes are compared first.

Shapes: D width, F features, C classes.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import Mlp
from timm.models import adapt_input_conv, vision_transformer
from timm.models.eva import Eva
from torch import nn

from toast_cli.errors import ToastError
from toast_cli.models.checkpoints import config_beside
from toast_cli.models.encoders import encoder_in
from toast_cli.models.layouts import Layout, Weights
from toast_cli.models.timm_parts import Vit

# A checkpoint may have these although the encoder does not.
_HEADS = ("head.", "head_dist.")
# The same part under the names that timm's filters take.
_KERNELS = ("patch_embed.proj.weight", "visual.conv1.weight")
_POSITIONS = ("pos_embed", "visual.positional_embedding")
_CHANNELS = 3  # of the images that models are trained on, unless they say otherwise


@dataclass(frozen=True)
class Wanted:
    """The model that weights are for: its architecture's name, and whether another patch size was asked for.

    ``antialias``: whether position embeddings that have to be resized are smoothed.
    """

    vit: Vit
    architecture: str
    any_patch: bool = False
    antialias: bool = True


def take(wanted: Wanted, tensors: Weights, given: str, file: Path | None = None) -> tuple[nn.Linear | None, list[str]]:
    """Make the encoder among ``tensors`` the model's weights; returns its classifier, if there is one, and notes.

    ``given`` is the setting that named them, and ``file`` where they lie. Raises ToastError if they are another model's.
    """
    vit = wanted.vit
    encoder = encoder_in(tensors, vit.state_dict().keys(), given)
    _check_kind(encoder.weights, given)
    weights = {name: each.float() if each.is_floating_point() else each for name, each in encoder.weights.items()}
    notes = [*encoder.notes, *_resampled(wanted, weights, given)]
    notes += _of_config(wanted, encoder.layout, {} if file is None else config_beside(file), given)
    try:
        fitting = _filter(wanted)(_for_filter(wanted.vit, weights, given), vit)
        notes += _channels(vit, fitting, given)
        _check_shapes(vit, fitting, given)
        missing, unexpected = vit.load_state_dict(fitting, strict=False)
    except (RuntimeError, KeyError, AttributeError, TypeError, ValueError, AssertionError, IndexError) as e:
        raise ToastError(f"{given} does not fit the model: {' '.join(str(e).split())[:300]}") from e
    foreign = [key for key in unexpected if not key.startswith(_HEADS)]
    if missing or foreign:
        named = "; ".join(
            f"{len(keys)} {what}, such as {keys[0] or 'one without a name'}"
            for what, keys in (("weights are missing", missing), ("are unknown", foreign))
            if keys
        )
        what = "choose the model it was saved from"
        if any("lora_" in name.lower() for name in tensors):
            what = "it holds LoRA adapters, so merge them into their model first, as peft's merge_and_unload does, and save that"
        raise ToastError(f"{given} does not fit the model ({named}): {what}.")
    return classifier(vit, fitting), notes


def _check_kind(weights: Weights, given: str) -> None:
    """Raises ToastError for weights in small whole numbers, which mean something else than they say."""
    for name, each in weights.items():
        if each.is_quantized or each.dtype in (torch.int8, torch.uint8):
            raise ToastError(
                f"{given} holds {name} in whole numbers ({str(each.dtype).removeprefix('torch.')}), as quantised models do: give the weights from before "
                "that, or restore them and save these."
            )


def _check_shapes(vit: Vit, fitting: Weights, given: str) -> None:
    """Raises ToastError for a weight of another shape than the model's."""
    for name, own in vit.state_dict().items():
        if name in fitting and fitting[name].shape != own.shape:
            raise ToastError(
                f"{given} does not fit the model: {name} is {_by(tuple(fitting[name].shape))}, and the model's is {_by(tuple(own.shape))}; choose the model "
                "it was saved from, or give its measures with +model.options."
            )


def classifier(vit: Vit, weights: Weights) -> nn.Linear | None:
    """The classifier among a model's ``weights``, (N, F) -> (N, C); None if there is none for the model's features.

    DeiT's distilled models have two, one for each of two tokens, and their classes are the mean of both: this is one
    classifier for the two tokens side by side, (N, 2F) -> (N, C).
    """
    if "head.weight" not in weights:
        return None
    both = ["head", *(["head_dist"] if "head_dist.weight" in weights else [])]
    matrices = [weights[f"{name}.weight"] / len(both) for name in both]
    if any(each.ndim != 2 or each.shape != (len(matrices[0]), vit.head_hidden_size) for each in matrices):
        return None
    biases = [weights[f"{name}.bias"] / len(both) for name in both if f"{name}.bias" in weights]
    matrix = torch.cat(matrices, dim=1)
    head = nn.Linear(matrix.shape[1], len(matrix), bias=bool(biases))
    head.load_state_dict({"weight": matrix} | ({"bias": sum(biases[1:], biases[0])} if biases else {}))
    return head


def _filter(wanted: Wanted) -> Callable[[Weights, Vit], Weights]:
    """timm's own filter of the architecture's checkpoints, as its constructor would call it."""
    module: Any = inspect.getmodule(timm.model_entrypoint(wanted.architecture))
    own: Callable[..., Weights] = getattr(module, "checkpoint_filter_fn", vision_transformer.checkpoint_filter_fn)
    known = inspect.signature(own).parameters
    asked: dict[str, Any] = {"antialias": wanted.antialias, "adapt_layer_scale": True}  # DeiT III has names of its own
    if "flexivit" in wanted.architecture:
        asked |= {"antialias": False, "interpolation": "bilinear"}
    chosen = {key: value for key, value in asked.items() if key in known}
    return lambda weights, vit: own(dict(weights), vit, **chosen)


def _for_filter(vit: Vit, weights: Weights, given: str) -> Weights:
    """``weights`` with what timm's filter recognises DINOv2 by, which some files lack.

    Raises ToastError where the filter would leave out biases that are not 0.
    """
    if not isinstance(vit, Eva):
        if "register_tokens" in weights or any(".mlp.w12." in name for name in weights):
            return {"mask_token": torch.zeros(1), **weights}
        return weights
    biases = [each for name, each in weights.items() if name.endswith("attn.qkv.bias")]
    queries_and_values = [part for each in biases for part in (each.chunk(3)[0], each.chunk(3)[2])]
    bare = getattr(vit.blocks[0].attn, "q_bias", None) is None
    if "storage_tokens" in weights and bare and any(part.any() for part in queries_and_values):
        raise ToastError(
            f"{given} does not fit the model: its queries and values have biases, and the model has none; choose the one with _qkvb in its name."
        )
    return weights


def _resampled(wanted: Wanted, weights: Weights, given: str) -> Iterator[str]:
    """What will be resampled to fit the model. Raises ToastError for patches of another size that nobody asked for."""
    vit, patches = wanted.vit, wanted.vit.patch_embed
    kernel = next((weights[name] for name in _KERNELS if name in weights), None)
    own: Any = getattr(patches, "proj", None)
    if kernel is not None and kernel.ndim == 4 and isinstance(own, nn.Conv2d):
        sides, wants = tuple(kernel.shape[2:]), tuple(own.weight.shape[2:])
        if sides != wants and not (wanted.any_patch or "flexivit" in wanted.architecture):
            raise ToastError(
                f"{given} has patches of {_by(sides)} pixels, and the model takes {_by(wants)}: choose the model it was saved from, or resample "
                f"them with +model.options.patch_size={wants[0]}."
            )
        if sides != wants:
            yield f"{given} has patches of {_by(sides)} pixels, which were resampled to {_by(wants)}"
    positions = next((weights[name] for name in _POSITIONS if name in weights), None)
    if positions is None or vit.pos_embed is None:
        return
    tokens = positions.shape[-2]
    grid = next((math.isqrt(tokens - extra) for extra in range(3) if _square(tokens - extra)), None)
    wanted_grid = tuple(patches.grid_size)
    if grid is not None and (grid, grid) != wanted_grid:
        yield f"{given} has position embeddings for {_by((grid, grid))} patches, which were resized to {_by(wanted_grid)}"


def _by(sides: tuple[int, ...]) -> str:
    return " × ".join(map(str, sides))


def _square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number


def _channels(vit: Vit, fitting: Weights, given: str) -> Iterator[str]:
    """Sum or repeat the first layer's weights for a model that takes other images than RGB, as timm does."""
    config: Any = vit.pretrained_cfg
    first = config.get("first_conv") or "patch_embed.proj"
    for name in [first] if isinstance(first, str) else first:
        own, stored = vit.get_parameter(f"{name}.weight"), fitting.get(f"{name}.weight")
        if stored is None or stored.ndim != 4 or stored.shape[1] == own.shape[1]:
            continue
        if stored.shape[1] != _CHANNELS:
            raise ToastError(
                f"{given} takes images of {stored.shape[1]} channels, and the model takes {own.shape[1]}: add +model.options.in_chans={stored.shape[1]}."
            )
        fitting[f"{name}.weight"] = adapt_input_conv(own.shape[1], stored)
        yield f"{given} takes images in RGB, and its first layer was changed to take {own.shape[1]} channel{'s' * (own.shape[1] > 1)}"


def _of_config(wanted: Wanted, layout: Layout, config: dict[str, Any], given: str) -> Iterator[str]:
    """What the ``config.json`` beside the weights says of the model: what the shapes of weights cannot tell.

    Raises ToastError for another number of heads.
    """
    vision = config.get("vision_config")
    inside = vision if isinstance(vision, dict) else config
    attention: Any = wanted.vit.blocks[0].attn if hasattr(wanted.vit.blocks[0], "attn") else None
    heads, own = inside.get("num_attention_heads"), getattr(attention, "num_heads", None)
    if layout.name == "transformers" and type(heads) is int and own is not None and heads != own:
        raise ToastError(
            f"{given} has {heads} attention heads in its config.json, and the model has {own}: choose the model it was saved from, or add "
            f"+model.options.num_heads={heads}."
        )
    told = config.get("architecture")
    if isinstance(told, str) and told != wanted.architecture and timm.is_model(told):
        yield f"{given} is a {told}, as the config.json beside it says, and is used as a {wanted.architecture}"
    yield from _of_activation(wanted, layout, inside.get("hidden_act"), given)


# What transformers calls an activation, by timm's name for it and by the name of its class.
_ACTIVATIONS = {
    "gelu": ("gelu", "GELU"),
    "quick_gelu": ("quick_gelu", "QuickGELU"),
    "gelu_pytorch_tanh": ("gelu_tanh", "GELUTanh"),
}


def _of_activation(wanted: Wanted, layout: Layout, told: object, given: str) -> Iterator[str]:
    """What to note of the activation, as a config beside the weights has ``told``; a file of weights alone does not tell."""
    mlp: Any = getattr(wanted.vit.blocks[0], "mlp", None)
    kind = type(mlp.act).__name__ if type(mlp) is Mlp else ""
    own = next((name for name, (_, made) in _ACTIVATIONS.items() if made == kind), None)
    if own is None or (told is None and not layout.clip) or (told is not None and told not in _ACTIVATIONS):
        return
    name = wanted.architecture
    if told is None and own != "quick_gelu":
        yield f"{given} does not say its activation: if it is OpenAI's own CLIP, use {_with('quick_gelu', name)}, or its features will be off"
    elif told is not None and told != own:
        yield f"{given} was trained with {told}, and {name} has {own}: use {_with(str(told), name)}, or its features will be off"


def _with(activation: str, architecture: str) -> str:
    """The settings with which an architecture has another activation."""
    plain = architecture.replace("_quickgelu", "")
    other = plain.replace("clip_", "clip_quickgelu_") if activation == "quick_gelu" else plain
    if other != architecture and activation in ("gelu", "quick_gelu") and timm.is_model(other):
        return f"model.name={other}"
    return f"+model.options.act_layer={_ACTIVATIONS[activation][0]}"
