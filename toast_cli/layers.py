"""The layers that maps are made of, beside torch's own.

Shapes: N images, T tokens, D and E widths.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class MapBlock(nn.Module):
    """A map where timm expects a block; it ignores what else a block is given (masks, rotary embeddings)."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.map = inside

    def forward(self, latent: Tensor, *unused: Any, **unused_too: Any) -> Tensor:
        """(N, T, D) -> (N, T, D)."""
        return self.map(latent)


class Residual(nn.Module):
    """x + inside(x)."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, D)."""
        return x + self.inside(x)


class Shift(nn.Module):
    """x + b for b (D,)."""

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, D)."""
        return x + self.bias


class UnitLength(nn.Module):
    """x / ‖x‖: every vector has the length 1."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        return nn.functional.normalize(x, dim=-1)


class ByPosition(nn.Module):
    """A module for each group of tokens; a latent may hold only the first tokens."""

    def __init__(self, parts: Sequence[nn.Module], groups: Sequence[slice]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.groups = list(groups)

    def forward(self, latent: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, D), for all tokens or the first T of them."""
        there = [
            (part, group) for part, group in zip(self.parts, self.groups, strict=True) if group.start < latent.shape[1]
        ]
        return torch.cat([part(latent[:, group]) for part, group in there], dim=1)


class Context(nn.Module):
    """x W_g + m V_g + b_g: m is the mean of the image's patches, g the token's group, prefix tokens or patches.

    ``m V_g + b_g`` is computed once an image. Without prefix tokens the patches are the only group.

    Args:
        prefix: how many class and register tokens come before the patches.
        own: W_g for each group, as layers without a bias. context: V_g and b_g.
    """

    def __init__(self, prefix: int, own: Sequence[nn.Linear], context: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.prefix = prefix
        self.own, self.context = nn.ModuleList(own), nn.ModuleList(context)

    def forward(self, latent: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, D)."""
        return self.leading(latent, None)

    def leading(self, latent: Tensor, rows: int | None) -> Tensor:
        """(N, T, D) -> (N, rows, D) for the first ``rows`` tokens, or all T if it is None."""
        wide = torch.promote_types(latent.dtype, torch.float32)  # a sum of patches may be too large for half precision
        mean = latent[:, self.prefix :].mean(1, keepdim=True, dtype=wide).to(latent.dtype)
        wanted = latent[:, :rows]
        groups = [wanted[:, : self.prefix], wanted[:, self.prefix :]] if self.prefix else [wanted]
        needed = groups[:1] if rows is not None and rows <= self.prefix else groups
        parts = [
            own(group) + context(mean) for group, own, context in zip(needed, self.own, self.context, strict=False)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def exact(tensor: Tensor) -> Tensor:
    """``tensor``, such as (D,) or (D, E), in float64 on the CPU, so that sums and products are rounded only once."""
    return tensor.detach().cpu().double()


def dense(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """The linear layer x W + b, for W (D, E) and b (E,) or (1, E)."""
    source, target = weight.shape
    module = nn.Linear(source, target, bias=bias is not None, dtype=weight.dtype).requires_grad_(False)
    module.weight.copy_(weight.T)
    if bias is not None:
        module.bias.copy_(bias.flatten())
    return module


def blank_context(prefix: int, width: int) -> Context:
    """A layer for latents of width D = ``width`` whose weights are still to be loaded."""
    groups = range(1 + bool(prefix))
    own = [nn.Linear(width, width, bias=False) for _ in groups]
    return Context(prefix, own, [nn.Linear(width, width) for _ in groups])


def multiplied_by_onednn(tensor: Tensor) -> bool:
    """Whether products with this ``tensor`` can be oneDNN's own, which torch.compile calls but torch does not make public.

    They multiply small float32 matrices twice as fast as MKL does on AMD's processors, and add what follows in the same pass.
    """
    return (
        tensor.device.type == "cpu"
        and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
        and torch.backends.mkldnn.is_available()
        and all(hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
        and (tensor.dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def times(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b (…, E) for x (…, D), W (E, D) and b (E,), by whatever multiplies fastest, and without gradients."""
    if x.dtype == weight.dtype == torch.float32 and x.numel() and multiplied_by_onednn(x):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return nn.functional.linear(x, weight, bias)


@contextmanager
def rounded_on_gpus(wanted: bool) -> Iterator[None]:
    """If ``wanted``, let GPUs round the factors of fp32 products to TF32, 10 bits of mantissa, and so multiply faster inside."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = wanted or before
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def leading(module: nn.Module, latent: Tensor, rows: int | None) -> Tensor:
    """The first ``rows`` tokens (N, rows, D) that a map makes of ``latent`` (N, T, D), or all T if it is None.

    A map that sees the image has a method ``leading`` and is given all tokens, any other only those it is asked for.
    """
    own = getattr(module, "leading", None)
    if own is not None:
        return own(latent, rows)
    wanted = latent[:, :rows]
    return times(wanted, module.weight, module.bias) if type(module) is nn.Linear else module(wanted)
