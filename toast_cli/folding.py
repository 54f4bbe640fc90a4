"""Maps that cost nothing: what can be moved into weights that exist, and maps in a row that are one map.

A shift T(x) = x + b disappears into the bias of the layer that ends the block before it. A dense map T(x) = x W + b behind the
stem disappears into the patch projection, the prefix tokens and the position embeddings. Behind a block only a shift can: any
other map would have to act on the residual stream, which runs past every layer of a block.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from toast_cli.layers import Shift, dense, exact
from toast_cli.plans import STEM
from toast_cli.timm_parts import block_then_shift, stem_then_affine

# What it is (STEM, a block's number, or what a map stands for) and the module itself: for STEM the whole timm model.
Part = tuple[Any, nn.Module]


def merge(first: Part, second: Part) -> Part | None:
    """One part that does what both do in turn; None where there is none. Shares what it can with them."""
    (name, before), (other, after) = first, second
    if isinstance(other, int) or not isinstance(after, nn.Linear | Shift):
        return None
    if not isinstance(name, int):
        return (f"{name} {other}", _chained(before, after)) if isinstance(before, nn.Linear | Shift) else None
    changed: nn.Module | None = None
    if name == STEM:
        changed = stem_then_affine(before, *_affine(after))  # type: ignore[arg-type]
    elif isinstance(after, Shift):
        changed = block_then_shift(before, after.bias)
    return None if changed is None else (name, changed)


def fold(parts: Sequence[Part], merge: Callable[[Part, Part], Part | None] = merge) -> list[Part]:
    """The same function in fewer parts."""
    done: list[Part] = []
    for part in parts:
        if isinstance(part[1], nn.Identity):
            continue
        merged = merge(done[-1], part) if done else None
        if merged is None:
            done.append(part)
        else:
            done[-1] = merged
    only_a_stem = len(done) == 1 and done[0][0] == STEM  # timm's models have at least one block
    return list(parts) if only_a_stem else done


def _chained(before: nn.Linear | Shift, after: nn.Linear | Shift) -> nn.Module:
    """x -> after(before(x)), in float64 and rounded once."""
    if isinstance(before, Shift) and isinstance(after, Shift):
        return Shift(before.bias + after.bias)
    (w1, b1), (w2, b2) = _affine(before), _affine(after)
    bias = b1 @ w2 + b2
    like = next(after.parameters())
    return dense((w1 @ w2).to(like), bias.to(like) if bias.any() else None)


def _affine(part: nn.Linear | Shift) -> tuple[Tensor, Tensor]:
    """W (D, E) and b (E,) of x W + b, float64 on the CPU."""
    if isinstance(part, Shift):
        return torch.eye(len(part.bias), dtype=torch.float64), exact(part.bias)
    bias = torch.zeros(part.out_features, dtype=torch.float64) if part.bias is None else exact(part.bias)
    return exact(part.weight).T, bias
