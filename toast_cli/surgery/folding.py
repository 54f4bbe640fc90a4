"""Fold maps so that they cost less or nothing: into existing weights, or several maps in a row into one.

A shift T(x) = x + b disappears into the bias of the layer that ends the block, or half block, before it. A dense map T(x) = x W + b
after the stem disappears into the patch projection, the prefix tokens and the position embeddings. After a block, only
a shift can be folded: any other map would have to act on the residual stream, which bypasses every layer of a block.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from toast_cli.layers import Shift, dense, exact
from toast_cli.models.timm_parts import block_then_shift, stem_then_affine
from toast_cli.surgery.parts import BlockPart, MapPart, Part, StemPart


def merge(first: Part, second: Part) -> Part | None:
    """One part that does what both do in turn and shares their weights where it can; None if there is no such part."""
    if not isinstance(second, MapPart) or not isinstance(second.module, nn.Linear | Shift):
        return None
    if isinstance(first, StemPart):
        vit = stem_then_affine(first.vit, *_affine(second.module))
        return None if vit is None else StemPart(vit)
    if isinstance(first, BlockPart):
        block = block_then_shift(first.module, second.module.bias) if isinstance(second.module, Shift) else None
        return None if block is None else BlockPart(first.kept, block)
    if not isinstance(first.module, nn.Linear | Shift):
        return None
    return MapPart((*first.keys, *second.keys), _chained(first.module, second.module))


def fold(parts: Sequence[Part], merge: Callable[[Part, Part], Part | None] = merge) -> list[Part]:
    """The same function in fewer parts, each pair of neighbours merged where possible."""
    done: list[Part] = []
    for part in parts:
        if isinstance(part, MapPart) and isinstance(part.module, nn.Identity):
            continue
        merged = merge(done[-1], part) if done else None
        if merged is None:
            done.append(part)
        else:
            done[-1] = merged
    only_a_stem = len(done) == 1 and isinstance(done[0], StemPart)  # timm's models have at least one block
    return list(parts) if only_a_stem else done


def _chained(before: nn.Linear | Shift, after: nn.Linear | Shift) -> nn.Module:
    """x -> after(before(x)), computed in float64 and rounded once."""
    if isinstance(before, Shift) and isinstance(after, Shift):
        return Shift(before.bias + after.bias)
    (w1, b1), (w2, b2) = _affine(before), _affine(after)
    bias = b1 @ w2 + b2
    like = next(after.parameters())
    return dense((w1 @ w2).to(like), bias.to(like) if bias.any() else None)


def _affine(part: nn.Linear | Shift) -> tuple[Tensor, Tensor]:
    """W (D, E) and b (E,) of x W + b, in float64 on the CPU."""
    if isinstance(part, Shift):
        return torch.eye(len(part.bias), dtype=torch.float64), exact(part.bias)
    bias = torch.zeros(part.out_features, dtype=torch.float64) if part.bias is None else exact(part.bias)
    return exact(part.weight).T, bias
