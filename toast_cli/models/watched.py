"""A model's own forward pass, watched by hooks: people derive classes from timm's and give them tokens and steps of their own.

Shapes: N images, T tokens, D width.
"""

from collections.abc import Callable, Container, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from toast_cli.errors import ToastError
from toast_cli.models.timm_parts import Vit


def watched(vit: Vit, images: Tensor, middles: Container[int] = ()) -> dict[float, Tensor]:
    """Normalised images (N, C, H, W) -> X^(i) (N, T, D) for i = −1 … L−1, as the model's own forward pass makes them.

    For a block i in ``middles``, X^(i−½) is what lies between its two branches. Raises ToastError unless each block is
    called once and takes what the block before has given: a model with fewer blocks would do something else.
    """
    found: dict[float, Tensor] = {}
    with ExitStack() as hooks:
        for i, block in enumerate(vit.blocks):
            hooks.callback(block.register_forward_pre_hook(_enters(found, i, vit)).remove)
            hooks.callback(block.register_forward_hook(_leaves(found, i, vit)).remove)
            if i in middles:
                hooks.callback(block.norm2.register_forward_pre_hook(_passes(found, i)).remove)  # type: ignore[union-attr]
        vit(images)
    if len([layer for layer in found if layer == int(layer)]) != len(vit.blocks) + 1:
        raise _unusual(vit)
    return found


def _enters(found: dict[float, Tensor], i: int, vit: Vit) -> Callable[[nn.Module, Sequence[Any]], None]:
    def hook(_: nn.Module, inputs: Sequence[Any]) -> None:
        latent = inputs[0] if inputs else None
        if i in found or not isinstance(latent, Tensor) or latent.ndim != 3:
            raise _unusual(vit)
        if i == 0:
            found[-1] = latent
        elif found.get(i - 1) is not latent and not _same(found.get(i - 1), latent):
            raise _unusual(vit)

    return hook


def _leaves(found: dict[float, Tensor], i: int, vit: Vit) -> Callable[[nn.Module, Any, Any], None]:
    def hook(_: nn.Module, __: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            raise _unusual(vit)
        found[i] = output

    return hook


def _passes(found: dict[float, Tensor], i: int) -> Callable[[nn.Module, Sequence[Any]], None]:
    return lambda _, inputs: found.update({i - 0.5: inputs[0]})


def _same(one: Tensor | None, other: Tensor) -> bool:
    return one is not None and one.shape == other.shape and torch.equal(one, other)


def _unusual(vit: Vit) -> ToastError:
    return ToastError(
        f"The forward of {type(vit).__name__} does not run its blocks once each, one after the other, as timm's does: such a model cannot be compressed."
    )
