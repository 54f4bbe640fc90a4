"""Maps that cost nothing: what can be moved into weights that exist, and maps in a row that are one map.

A shift T(x) = x + b disappears into the bias of the layer that ends the block before it. No other map can: it would have to
act on the residual stream, which runs past every layer of a block.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from toast_cli.backbone import output_bias
from toast_cli.layers import Shift, dense

Part = tuple[Any, nn.Module]  # what it is (a block's number, or the spans a map stands for) and the module itself


def fold(parts: Sequence[Part]) -> list[Part]:
    """The same function in fewer parts, for parts (…, D) -> (…, D) of which an int names a block. Folded blocks are copies."""
    done: list[Part] = []
    for name, module in parts:
        if isinstance(module, nn.Identity):
            continue
        if done and (merged := _merge(done[-1], (name, module))) is not None:
            done[-1] = merged
        else:
            done.append((name, module))
    return done


def _merge(first: Part, second: Part) -> Part | None:
    """One part that does what both do in turn; None where there is none."""
    (name, before), (other, after) = first, second
    if isinstance(other, int):
        return None
    if isinstance(name, int):
        return (
            (name, shifted) if isinstance(after, Shift) and (shifted := _shifted(before, after)) is not None else None
        )
    both = f"{name} {other}"
    if isinstance(before, nn.Linear | Shift) and isinstance(after, nn.Linear | Shift):
        return both, _chained(before, after)
    return None


def _shifted(block: nn.Module, shift: Shift) -> nn.Module | None:
    """A copy of ``block`` that adds the shift by itself."""
    copied = copy.deepcopy(block)
    found = output_bias(copied)
    if found is None:
        return None
    bias, scale = found
    if scale is not None and not (scale.abs() > 1e-6).all():
        return None  # LayerScale lets nothing through there
    with torch.no_grad():
        bias += shift.bias if scale is None else shift.bias / scale
    return copied


def _chained(before: nn.Linear | Shift, after: nn.Linear | Shift) -> nn.Module:
    """x -> after(before(x)), in float64 and rounded once."""
    if isinstance(before, Shift) and isinstance(after, Shift):
        return Shift(before.bias + after.bias)
    (w1, b1), (w2, b2) = _affine(before), _affine(after)
    bias = b1 @ w2 + b2
    return dense((w1 @ w2).float(), bias.float() if bias.any() else None)


def _affine(part: nn.Linear | Shift) -> tuple[Tensor, Tensor]:
    """W (D, E) and b (E,) of x W + b, float64."""
    if isinstance(part, Shift):
        return torch.eye(len(part.bias), dtype=torch.float64), part.bias.double()
    bias = torch.zeros(part.out_features) if part.bias is None else part.bias
    return part.weight.T.double(), bias.double()
