"""A pre-norm transformer block in as few passes over memory as possible, for the tails of the walk.

It holds the block's own weights, converted once: to the dtype it multiplies in, with LayerScale multiplied into the
projection before it, and on x86 in the layout that oneDNN multiplies fastest. Tests compare it with the plain block.

Shapes: N images, T tokens, D width, H heads of d dimensions.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from toast_cli.layers import multiplied_by_onednn
from toast_cli.models.attention import attention
from toast_cli.models.halves import HalfBlock


class Dense:
    """x (…, D) -> x Wᵀ + b (…, E) for W (E, D), in ``dtype``, with what follows in the same pass if oneDNN can do it."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self.weight = weight.detach().to(dtype)
        self.bias = None if bias is None else bias.detach().to(dtype)
        self.packed = multiplied_by_onednn(self.weight)
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight)

    def __call__(self, x: Tensor) -> Tensor:
        if not self.packed:
            return F.linear(x, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")

    def gelu(self, x: Tensor) -> Tensor:
        """x (N, T, D) -> exact GELU(x Wᵀ + b) (N, T, E)."""
        if not self.packed:
            return F.gelu(self(x))
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "gelu", [], "none")

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """x (N, T, D) -> residual + x Wᵀ + b (N, T, E), in the precision of the residual (N, T, E)."""
        if not self.packed or residual.dtype != x.dtype:
            return self(x).to(residual.dtype).add_(residual)  # in place: new memory costs as much as the sum
        return torch.ops.mkldnn._linear_pointwise.binary(x, residual, self.weight, self.bias, "add")


@dataclass(frozen=True)
class BlockLayers:
    """The parts of a pre-norm block: x + scale1·proj(attention(norm1(x))), then x + scale2·fc2(activation(fc1(norm2(x))))."""

    norm1: nn.LayerNorm
    qkv: nn.Linear  # D -> 3·H·d: queries, keys, values
    heads: int
    proj: nn.Linear
    scale1: Tensor | None  # LayerScale (D,)
    norm2: nn.LayerNorm
    fc1: nn.Linear
    activation: Callable[[Tensor], Tensor]
    fc2: nn.Linear
    scale2: Tensor | None


class FusedBlock:
    """X^(i−1) (N, T, D) -> X^(i) (N, T, D), or only its leading tokens. The residual stream keeps its own precision."""

    def __init__(self, parts: BlockLayers, dtype: torch.dtype) -> None:
        self.parts = parts
        self.dtype = dtype
        self.qkv = Dense(parts.qkv.weight, parts.qkv.bias, dtype)
        self.proj = _scaled(parts.proj, parts.scale1, dtype)
        self.fc1 = Dense(parts.fc1.weight, parts.fc1.bias, dtype)
        self.fc2 = _scaled(parts.fc2, parts.scale2, dtype)
        self.exact_gelu = isinstance(parts.activation, nn.GELU) and parts.activation.approximate == "none"

    def with_ends(self, parts: BlockLayers) -> "FusedBlock":
        """The block whose branches end as those of ``parts`` do; the other weights are this block's, and shared with it."""
        other = copy.copy(self)
        if parts.proj is not self.parts.proj:
            other.proj = _scaled(parts.proj, parts.scale1, self.dtype)
        if parts.fc2 is not self.parts.fc2:
            other.fc2 = _scaled(parts.fc2, parts.scale2, self.dtype)
        return other

    def __call__(self, latent: Tensor, rows: int | None = None) -> Tensor:
        """X^(i), or with ``rows`` its leading tokens (N, rows, D): all are attended to, only these are computed further."""
        return self.mlp(self.attention(latent, rows))

    def attention(self, latent: Tensor, rows: int | None = None) -> Tensor:
        """The first branch alone, X^(i−1) (N, T, D) -> X^(i−½), or its leading ``rows`` tokens (N, rows, D)."""
        x = self.parts.norm1(latent)
        mixed = self._attend(x) if rows is None else self._attend_from(x, rows)  # (N, rows or T, H·d)
        return self.proj.plus(mixed.to(self.dtype), latent[:, :rows])

    def mlp(self, latent: Tensor, rows: int | None = None) -> Tensor:
        """The second branch alone, X^(i−½) (N, T, D) -> X^(i), or its leading ``rows`` tokens (N, rows, D)."""
        latent = latent[:, :rows]
        x = self.parts.norm2(latent).to(self.dtype)
        hidden = self.fc1.gelu(x) if self.exact_gelu else self.parts.activation(self.fc1(x))
        return self.fc2.plus(hidden, latent)

    def _attend(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        query, key, value = self.qkv(x.to(self.dtype)).view(n, t, 3, self.parts.heads, -1).permute(2, 0, 3, 1, 4)
        return attention(query, key, value)

    def _attend_from(self, x: Tensor, rows: int) -> Tensor:
        """Attention from the leading ``rows`` tokens, without computing a key or value for each token.

        A head's score is q·(W_k x + b_k) = (W_kᵀ q)·x + const, and the constant does not change the softmax. Its value is
        Σ a (W_v x + b_v) = W_v (Σ a x) + b_v. So both projections are applied to ``rows`` tokens instead of T.
        """
        n, _, width = x.shape
        weights = self.parts.qkv.weight.view(3, self.parts.heads, -1, width)  # (3, H, d, D)
        query = F.linear(x[:, :rows], weights[0].flatten(0, 1)).view(n, rows, *weights.shape[1:3])  # (N, rows, H, d)
        if self.parts.qkv.bias is not None:
            query = query + self.parts.qkv.bias.view(3, *weights.shape[1:3])[0]
        towards = torch.einsum("nrhd,hdk->nrhk", query * weights.shape[2] ** -0.5, weights[1]).flatten(1, 2)
        share = torch.softmax(towards @ x.transpose(1, 2), dim=-1)  # (N, rows·H, T)
        mean = (share @ x).view(n, rows, self.parts.heads, width)
        value = torch.einsum("nrhk,hdk->nrhd", mean, weights[2])
        if self.parts.qkv.bias is not None:
            value = value + self.parts.qkv.bias.view(3, *weights.shape[1:3])[2]
        return value.flatten(2)


def _scaled(layer: nn.Linear, scale: Tensor | None, dtype: torch.dtype) -> Dense:
    """``scale`` · layer(x), as one layer."""
    if scale is None:
        return Dense(layer.weight, layer.bias, dtype)
    return Dense(layer.weight * scale[:, None], None if layer.bias is None else layer.bias * scale, dtype)


def fast_block(fused: FusedBlock, module: nn.Module, parts: BlockLayers) -> Callable[[Tensor, Any, int | None], Tensor]:
    """The function of ``module``, which is the block of ``fused`` or half of it, with other last layers or the same."""
    if not isinstance(module, HalfBlock):
        own = fused.with_ends(layers_of(module) or parts)
        return lambda latent, extras, rows: own(latent, rows)
    inside, scale = getattr(module, module.inside), getattr(getattr(module, f"ls{module.number}"), "gamma", None)
    if module.inside == "attn":
        half = fused.with_ends(replace(parts, proj=inside.proj, scale1=scale)).attention
    else:
        half = fused.with_ends(replace(parts, fc2=inside.fc2, scale2=scale)).mlp
    return lambda latent, extras, rows: half(latent, rows)


def layers_of(block: nn.Module) -> BlockLayers | None:
    """The parts of timm's pre-norm ``Block``; None for any other block."""
    if type(block) is not Block or type(block.attn) is not Attention or type(block.mlp) is not Mlp:
        return None
    attention, mlp = block.attn, block.mlp
    between = (attention.q_norm, attention.k_norm, attention.norm, mlp.norm)
    if getattr(attention, "gate", None) is not None or not all(isinstance(module, nn.Identity) for module in between):
        return None
    norm1, norm2, fc1, fc2 = block.norm1, block.norm2, mlp.fc1, mlp.fc2
    if not isinstance(norm1, nn.LayerNorm) or not isinstance(norm2, nn.LayerNorm):
        return None
    if not isinstance(fc1, nn.Linear) or not isinstance(fc2, nn.Linear):
        return None
    scale1, scale2 = (getattr(scale, "gamma", None) for scale in (block.ls1, block.ls2))
    return BlockLayers(
        norm1, attention.qkv, attention.num_heads, attention.proj, scale1, norm2, fc1, mlp.act, fc2, scale2
    )
