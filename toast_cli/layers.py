"""The layers of maps and heads, and their description in plain words: enough to build them without running code.

Shapes: N images, T tokens, D and E widths.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from toast_cli.errors import ToastError


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


_PLAIN: dict[str, type[nn.Module]] = {
    "identity": nn.Identity,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def describe(module: nn.Module) -> dict[str, Any]:
    """A module in plain words: its kind, sizes and what is inside it. Raises ToastError for other kinds of modules."""
    for kind, known in _PLAIN.items():
        if type(module) is known:
            return {"kind": kind}
    if type(module) is nn.Linear:
        return {"kind": "linear", "sizes": [module.in_features, module.out_features], "bias": module.bias is not None}
    if type(module) is nn.LayerNorm:
        return {"kind": "layer_norm", "sizes": [*module.normalized_shape], "eps": module.eps}
    if type(module) is Shift:
        return {"kind": "shift", "sizes": [len(module.bias)]}
    if type(module) is Residual:
        return {"kind": "residual", "inside": [describe(module.inside)]}
    if type(module) is nn.Sequential:
        return {"kind": "sequential", "inside": [describe(part) for part in module]}
    if type(module) is ByPosition:
        groups = [[group.start, group.stop] for group in module.groups]
        return {"kind": "by_position", "groups": groups, "inside": [describe(part) for part in module.parts]}
    raise ToastError(
        f"A {type(module).__name__} cannot be described in an export: use a translator made of linear layers, norms and activations, or "
        "format=onnx."
    )


def build(words: Mapping[str, Any]) -> nn.Module:
    """The inverse of ``describe``, weights still to be loaded. Raises ToastError for words that describe no module."""
    try:
        kind, inside = words["kind"], [build(part) for part in words.get("inside", [])]
        if kind in _PLAIN:
            return _PLAIN[kind]()
        if kind == "linear":
            source, target = words["sizes"]
            return nn.Linear(source, target, bias=words["bias"])
        if kind == "layer_norm":
            return nn.LayerNorm(words["sizes"], eps=words["eps"])
        if kind == "shift":
            return Shift(torch.zeros(words["sizes"][0]))
        if kind == "residual":
            return Residual(inside[0])
        if kind == "sequential":
            return nn.Sequential(*inside)
        if kind == "by_position":
            return ByPosition(inside, [slice(start, stop) for start, stop in words["groups"]])
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError, AttributeError) as e:
        raise ToastError(
            f"The recipe describes a map that cannot be built ({str(words)[:80]}): export it again."
        ) from e
    raise ToastError(
        f"The recipe names a layer '{kind}' that this version of toast does not know: use the version that wrote it."
    )
