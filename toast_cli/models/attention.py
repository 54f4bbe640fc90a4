"""Attention for fused blocks: torch's own, or its parts one by one where these are faster.

Shapes: N images, H heads, T tokens, d dimensions of a head.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from toast_cli.layers import multiplied_by_onednn

_SCORES = 2**19  # at a time: in fp32 2 MB, what a core's own cache holds


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q kᵀ / √d) v of each head, for queries, keys and values (N, H, T, d) -> (N, T, H·d)."""
    if _multiplies_faster(query):
        return _by_products(query, key, value)
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def _multiplies_faster(tensor: Tensor) -> bool:
    """Whether products of this ``tensor`` leave torch's fused attention behind.

    With AVX512-BF16 alone torch's attention takes as long in bf16 as in fp32, and oneDNN's products half as long. With AMX
    neither was measured (docs/engine.md).
    """
    return (
        tensor.dtype == torch.bfloat16
        and multiplied_by_onednn(tensor)
        and torch.cpu._is_avx512_bf16_supported()
        and not torch.cpu._is_amx_tile_supported()
    )


def _by_products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """``attention`` in bf16, a few heads at a time, with scores of 16 bits instead of bf16's 8.

    A product gives bf16, too coarse for scores. What it rounds off is the product again less its rounded self, for oneDNN
    subtracts before it rounds. The base is 2, for 2^x takes a quarter of the time of e^x. Scores have their memory to
    themselves: asked for anew each time, it would come from the system and take longer than the products.
    """
    images, heads, tokens, width = query.shape
    bits = width**-0.5 * math.log2(math.e)
    query, key, value = (part.flatten(0, 1).contiguous() for part in (query, key, value))  # (N·H, T, d)
    mixed = torch.empty_like(query)
    size = max(min(_SCORES // tokens**2, len(query)), 1)
    all_rounded = torch.empty(size, tokens, tokens, dtype=query.dtype)
    all_scores = torch.empty(size, tokens, tokens)
    for start in range(0, len(query), size):
        q, k, v, found = (part[start : start + size] for part in (query, key, value, mixed))
        rounded, scores = all_rounded[: len(q)], all_scores[: len(q)]
        torch.baddbmm(q.new_zeros(()), q, k.mT, beta=0, alpha=bits, out=rounded)
        scores.copy_(rounded)
        scores.add_(rounded.baddbmm_(q, k.mT, beta=-1, alpha=bits))
        shares = scores.sub_(scores.amax(-1, keepdim=True)).exp2_()
        torch.bmm(rounded.copy_(shares), v, out=found)
        found.copy_(found / shares.sum(-1, keepdim=True))
    return mixed.unflatten(0, (images, heads)).transpose(1, 2).flatten(2)
