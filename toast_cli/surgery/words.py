"""The layers of maps and heads in plain words: enough to build them without running code."""

import reprlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from toast_cli.errors import ToastError, is_number
from toast_cli.layers import ByPosition, Context, Residual, Shift, UnitLength, blank_context

_PLAIN: dict[str, type[nn.Module]] = {
    "identity": nn.Identity,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "unit_length": UnitLength,
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
    if type(module) is Context:
        return {"kind": "context", "sizes": [module.own[0].in_features], "prefix": module.prefix}
    if type(module) is ByPosition:
        groups = [[group.start, group.stop] for group in module.groups]
        return {"kind": "by_position", "groups": groups, "inside": [describe(part) for part in module.parts]}
    raise ToastError(
        f"A {type(module).__name__} cannot be described in an export: use a translator made of linear layers, norms and activations, or "
        "format=onnx."
    )


# What the words of each kind hold beside "kind", and "of", which says in an export where a map comes from.
_WORDS: dict[str, set[str]] = {
    **{kind: set() for kind in _PLAIN},
    "linear": {"sizes", "bias"},
    "layer_norm": {"sizes", "eps"},
    "shift": {"sizes"},
    "residual": {"inside"},
    "sequential": {"inside"},
    "by_position": {"groups", "inside"},
    "context": {"sizes", "prefix"},
}
_WIDEST, _DEEPEST = 2**24, 16  # far more than any map has


def build(words: Any) -> nn.Module:
    """The inverse of ``describe``, weights still to be loaded. Raises ToastError for words that describe no module.

    The words may come from a stranger. On torch's meta device, modules of any size take no memory.
    """
    return _build(words, _DEEPEST)


def _build(words: Any, levels: int) -> nn.Module:
    """A module of up to so many ``levels``, one inside the other."""
    kind = words.get("kind") if isinstance(words, dict) else None
    if not isinstance(kind, str) or levels == 0:
        raise _cannot_be_built(words)
    if kind not in _WORDS:
        raise ToastError(
            f"The recipe names a layer {reprlib.repr(kind)} that this version of toast does not know: use the version that wrote it."
        )
    inside = words.get("inside", [])
    if words.keys() - {"kind", "of"} != _WORDS[kind] or not isinstance(inside, list):
        raise _cannot_be_built(words)
    parts = [_build(part, levels - 1) for part in inside]
    try:
        return _module(kind, words, parts)
    except (ValueError, TypeError, RuntimeError) as e:
        raise _cannot_be_built(words) from e


def _module(kind: str, words: Mapping[str, Any], parts: list[nn.Module]) -> nn.Module:
    """A module of a known ``kind`` around its ``parts``. Raises ValueError or TypeError for words that do not fit it."""
    if kind == "linear":
        source, target = _sizes(words)
        if not isinstance(words["bias"], bool):
            raise ValueError("bias is neither true nor false")
        return nn.Linear(source, target, bias=words["bias"])
    if kind == "layer_norm":
        if not is_number(words["eps"]) or words["eps"] < 0:
            raise ValueError("eps is not a small number")
        return nn.LayerNorm(_sizes(words), eps=words["eps"])
    if kind == "shift":
        (width,) = _sizes(words)
        return Shift(torch.zeros(width))
    if kind == "residual":
        (part,) = parts
        return Residual(part)
    if kind == "sequential":
        return nn.Sequential(*parts)
    if kind == "context":
        (width,) = _sizes(words)
        if type(words["prefix"]) is not int or not 0 <= words["prefix"] <= _WIDEST:
            raise ValueError("prefix is not a number of tokens")
        return blank_context(words["prefix"], width)
    if kind == "by_position":
        return ByPosition(parts, _groups(words["groups"], len(parts)))
    return _PLAIN[kind]()


def _sizes(words: Mapping[str, Any]) -> list[int]:
    """The sizes in ``words``. Raises ValueError if they are not whole numbers that a map may have."""
    sizes = words["sizes"]
    if (
        not isinstance(sizes, list)
        or not sizes
        or not all(type(size) is int and 1 <= size <= _WIDEST for size in sizes)
    ):
        raise ValueError("sizes are whole numbers from 1")
    return sizes


def _groups(pairs: Any, count: int) -> list[slice]:
    """So many groups, which begin at token 0 and leave none out. Raises ValueError or TypeError for other ``pairs``."""
    groups = [slice(start, stop) for start, stop in pairs]
    bounds = [0, *(group.stop for group in groups)]
    if not all(type(bound) is int for bound in bounds) or [group.start for group in groups] != bounds[:-1]:
        raise ValueError("groups follow one another")
    if len(groups) != count or bounds != sorted(set(bounds)):
        raise ValueError("each part has a group")
    return groups


def _cannot_be_built(words: Any) -> ToastError:
    return ToastError(f"The recipe describes a map that cannot be built ({reprlib.repr(words)}): export it again.")
