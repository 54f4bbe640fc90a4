"""A shortened vision transformer without toast: this file, recipe.json and model.safetensors in one folder, with torch and timm.

    from modeling import load
    model = load()  # normalised images (N, 3, H, W) -> logits (N, C), or features (N, F) of an export without a head

`model.pretrained_cfg` has the preprocessing: `timm.data.create_transform(**timm.data.resolve_model_data_config(model))`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn


class Map(nn.Module):
    """A map where timm expects a block; it ignores what else a block is given (masks, rotary embeddings)."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.map = inside

    def forward(self, x: Tensor, *unused: Any, **unused_too: Any) -> Tensor:
        return self.map(x)


class Shift(nn.Module):
    """x + b."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


class Residual(nn.Module):
    """x + inside(x)."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inside(x)


class UnitLength(nn.Module):
    """x / |x|."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x, dim=-1)


class ByPosition(nn.Module):
    """A module for each group of tokens."""

    def __init__(self, parts: Sequence[nn.Module], groups: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        groups = [x[:, start:stop] for start, stop in self.groups]
        return torch.cat([part(group) for part, group in zip(self.parts, groups, strict=True)], dim=1)


class Context(nn.Module):
    """x W + m V + b, m the mean of the image's patches; W, V and b are those of the token's group, prefix tokens or patches."""

    def __init__(self, prefix: int, width: int) -> None:
        super().__init__()
        self.prefix = prefix
        groups = range(2 if prefix else 1)
        self.own = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in groups)
        self.context = nn.ModuleList(nn.Linear(width, width) for _ in groups)

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)  # a sum of patches may be too large for half precision
        mean = x[:, self.prefix :].mean(1, keepdim=True, dtype=wide).to(x.dtype)
        groups = [x[:, : self.prefix], x[:, self.prefix :]] if self.prefix else [x]
        layers = zip(groups, self.own, self.context, strict=True)
        return torch.cat([own(group) + context(mean) for group, own, context in layers], dim=1)


class Half(nn.Module):
    """One branch of a block, attention (1) or MLP (2): x + s * inside(norm(x)), with the block's own modules."""

    def __init__(self, block: nn.Module, number: int) -> None:
        super().__init__()
        self.number, self.inside = number, {1: "attn", 2: "mlp"}[number]
        for name in (f"norm{number}", self.inside, f"ls{number}"):
            if hasattr(block, name):
                self.add_module(name, getattr(block, name))
        if hasattr(block, f"gamma_{number}"):
            self.register_parameter(f"gamma_{number}", getattr(block, f"gamma_{number}"))

    def forward(self, x: Tensor, **others: Any) -> Tensor:
        added = getattr(self, f"norm{self.number}")(x)
        added = getattr(self, self.inside)(added, **(others if self.number == 1 else {}))
        if hasattr(self, f"ls{self.number}"):
            added = getattr(self, f"ls{self.number}")(added)
        scale = getattr(self, f"gamma_{self.number}", None)
        return x + (added if scale is None else scale * added)


def layer(words: dict[str, Any]) -> nn.Module:
    """The layer that a recipe describes."""
    kind, sizes, inside = words["kind"], words.get("sizes", []), [layer(each) for each in words.get("inside", [])]
    if kind == "linear":
        return nn.Linear(sizes[0], sizes[1], bias=words["bias"])
    if kind == "layer_norm":
        return nn.LayerNorm(sizes, eps=words["eps"])
    if kind == "context":
        return Context(words["prefix"], sizes[0])
    if kind == "by_position":
        return ByPosition(inside, words["groups"])
    plain = {"identity": nn.Identity, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh, "unit_length": UnitLength}
    others = {"shift": Shift, "residual": Residual, "sequential": nn.Sequential}
    return {**plain, **others}[kind](*sizes, *inside)


def load(folder: str | Path = Path(__file__).parent) -> nn.Module:
    """The model in evaluation mode and fp32. Raises RuntimeError if the weights are not those of the recipe."""
    recipe = json.loads((Path(folder) / "recipe.json").read_text(encoding="utf-8"))
    name, arguments = recipe["architecture"]["name"], recipe["architecture"]["arguments"]
    model: Any = timm.create_model(name, pretrained=False, **{**arguments, "num_classes": 0})
    kept: list[nn.Module] = []
    for word in recipe["blocks"]:
        if isinstance(word, dict):
            kept.append(Map(layer(word)))
        else:
            number, _, part = str(word).partition(".")
            block = model.blocks[int(number)]
            kept.append(Half(block, {"attention": 1, "mlp": 2}[part]) if part else block)
    model.blocks = nn.ModuleList(kept) if isinstance(model.blocks, nn.ModuleList) else nn.Sequential(*kept)
    if recipe["head"] is not None:
        model.num_classes, model.head = recipe["classes"], layer(recipe["head"])
        if hasattr(model, "head_dist"):  # a distilled model's output is the mean of its two heads
            model.head_dist = layer(recipe["head"])
    weights = load_file(Path(folder) / "model.safetensors")
    model.load_state_dict({name: value.float() for name, value in weights.items()})
    model.pretrained_cfg = model.default_cfg = recipe["pretrained_cfg"]
    return model.eval()
