"""A block as residual branches, each of which ends in a linear layer that can be fitted again.

A pre-norm block is two branches in a row: x + s·proj(attention(norm(x))), then x + s·fc2(activation(fc1(norm(x)))), with
LayerScale s. Whatever comes before the last layer, gated or not, is the branch's *hidden layer* h.

Shapes: N images, T tokens, D width, F width of a hidden layer (D or the MLP's).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from toast_cli.errors import ToastError
from toast_cli.layers import exact
from toast_cli.models.halves import HalfBlock
from toast_cli.models.timm_parts import exchanged


@dataclass(frozen=True)
class Branch:
    """x + scale · last(h), h = inside(norm(x)). ``name`` and ``scale_name`` are those of the tensors in the block."""

    name: str
    norm: nn.Module
    inside: nn.Module
    last: nn.Linear
    scale: Tensor | None  # LayerScale (D,)
    scale_name: str
    mixes_tokens: bool  # attention, which also takes the extras

    @property
    def names(self) -> list[str]:
        """The names of the block's tensors that ``refitted`` gives."""
        own = [f"{self.name}.weight", *([] if self.last.bias is None else [f"{self.name}.bias"])]
        return own if self.scale is None else [*own, self.scale_name]

    def hidden(self, latent: Tensor, extras: Mapping[str, Any]) -> Tensor:
        """(N, T, D) -> h (N, T, F)."""
        return self.inside(self.norm(latent), **(extras if self.mixes_tokens else {}))

    def end(self, latent: Tensor, hidden: Tensor) -> Tensor:
        """x (N, T, D) and h (N, T, F) -> x + scale · last(h) (N, T, D)."""
        out = self.last(hidden)
        return latent + (out if self.scale is None else self.scale * out)

    def refitted(self, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
        """The block's tensors by name, on the CPU, that add h W + b to the branch, for ``weight`` W (F, D) and ``bias`` b (D,) in float64.

        LayerScale is multiplied into the last layer and becomes 1, since where it is close to 0 nothing could be added
        before it. Without a bias in the last layer, b is not used.
        """
        weight, bias = weight.cpu(), bias.cpu()
        scale = torch.ones(len(bias), dtype=torch.float64) if self.scale is None else exact(self.scale)
        like = self.last.weight
        found = [scale[:, None] * exact(like) + weight.T]
        if self.last.bias is not None:
            found.append(scale * exact(self.last.bias) + bias)
        if self.scale is not None:
            found.append(torch.ones_like(bias))
        return {name: each.to(like.dtype).contiguous() for name, each in zip(self.names, found, strict=True)}

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> "Branch":
        """The branch with what ``refitted`` has returned."""
        own = {name: tensors[f"{self.name}.{name}"] for name in ("weight", "bias") if f"{self.name}.{name}" in tensors}
        return replace(self, last=exchanged(self.last, tensors=own), scale=None)


def branches_of(block: nn.Module) -> list[Branch]:
    """The two branches of a pre-norm block in order, or the one of a half block. Raises ToastError for a block that is
    built in another way."""
    parts = [(1, "attn", "proj"), (2, "mlp", "fc2")]
    if isinstance(block, HalfBlock):
        parts = [parts[block.number - 1]]
    known = type(block) is Block or type(block) is EvaBlock or isinstance(block, HalfBlock)
    ends = [getattr(getattr(block, part, None), last, None) for _, part, last in parts]
    if not known or not all(isinstance(end, nn.Linear) for end in ends):
        raise ToastError(
            f"fit.heal=true refits the last linear layer of a block's attention and of its MLP, and a {type(block).__name__} does not end "
            "in such layers: use fit.heal=false."
        )
    return [_branch(block, part, last, number) for number, part, last in parts]


def require_branches(blocks: Iterable[nn.Module]) -> None:
    """Raises ToastError if one of the ``blocks`` cannot be healed."""
    for block in blocks:
        branches_of(block)


def _branch(block: Any, part: str, last: str, number: int) -> Branch:
    """The branch of a block that runs through ``part`` and ends in its layer ``last``."""
    eva = hasattr(block, f"gamma_{number}")
    scale = getattr(block, f"gamma_{number}") if eva else getattr(getattr(block, f"ls{number}"), "gamma", None)
    module = getattr(block, part)
    return Branch(
        name=f"{part}.{last}",
        norm=getattr(block, f"norm{number}"),
        inside=exchanged(module, modules={last: nn.Identity()}),
        last=getattr(module, last),
        scale=scale,
        scale_name=f"gamma_{number}" if eva else f"ls{number}.gamma",
        mixes_tokens=part == "attn",
    )


def example_tensors(block: nn.Module) -> dict[str, Tensor]:
    """What the branches of ``block`` would be refitted to if nothing were missing, by name: LayerScale multiplied in, no more."""
    found: dict[str, Tensor] = {}
    for branch in branches_of(block):
        out, inside = branch.last.weight.shape
        found |= branch.refitted(torch.zeros(inside, out, dtype=torch.float64), torch.zeros(out, dtype=torch.float64))
    return found


def are_refitted(block: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Whether ``tensors`` can be what the branches of ``block`` have been refitted to: all of them, of the same kind, finite."""
    own = dict(block.named_parameters())
    names = {name for branch in branches_of(block) for name in branch.names}
    return tensors.keys() == names and all(
        each.shape == own[name].shape and each.dtype == own[name].dtype and bool(each.isfinite().all())
        for name, each in tensors.items()
    )


def with_tensors(block: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A copy of ``block`` with ``tensors`` by name in place of its own; it shares all others with the original."""
    inside: dict[str, dict[str, Tensor]] = {}
    own: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        first, dot, rest = name.partition(".")
        if dot:
            inside.setdefault(first, {})[rest] = tensor
        else:
            own[name] = tensor
    modules = {first: with_tensors(getattr(block, first), rest) for first, rest in inside.items()}
    return exchanged(block, modules=modules, tensors=own)
