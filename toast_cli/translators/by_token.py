"""Which tokens share a map: all of them, prefix tokens and patches separately, or each position on its own."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from toast_cli.layers import ByPosition
from toast_cli.moments.pair import r2
from toast_cli.translators.allowed import check
from toast_cli.translators.base import BaseTranslator, FittedMap, ImageTranslator


def groups_of(kind: str, prefix: int, tokens: int | None) -> list[slice]:
    """The groups of the T ``tokens``, the first ``prefix`` of which are class and register tokens.

    Without ``tokens`` the last group is of all that follow; ``per_position`` needs their number. Raises ToastError for an unknown ``kind``.
    """
    check(tokens=kind)
    if kind == "per_position":
        if tokens is None:
            raise TypeError("per_position needs the number of tokens")
        return [slice(i, i + 1) for i in range(tokens)]
    if kind == "split" and prefix:
        return [slice(0, prefix), slice(prefix, tokens)]
    return [slice(0, tokens)]


@dataclass
class ByToken:
    """Several fitted maps used as one, ``parts_[i]`` for the tokens in ``groups[i]``."""

    parts_: list[FittedMap]
    groups: Sequence[slice]
    error_: float
    r2_: float
    rank_: int
    held_out_r2_: float | None = None

    def to_module(self) -> nn.Module:
        """(N, T', D) -> (N, T', D) for the first T' tokens."""
        return ByPosition([part.to_module() for part in self.parts_], self.groups)

    def learned(self) -> dict[str, Any]:
        """Everything that the fits have learned, with that of part ``i`` under ``i/<name>``."""
        own = {name: getattr(self, name) for name in ("error_", "r2_", "rank_", "held_out_r2_")}
        return own | {
            f"{i}/{name}": value for i, part in enumerate(self.parts_) for name, value in part.learned().items()
        }


def joined(parts: Sequence[FittedMap], groups: Sequence[slice], variation: float) -> ByToken:
    """One map of the fitted ``parts``, one for each of the ``groups``; ``variation`` is the target's over all tokens."""
    error = sum(part.error_ for part in parts)
    return ByToken(list(parts), groups, error, r2(error, variation), min(part.rank_ for part in parts))


def restored(translator: BaseTranslator, groups: Sequence[slice], learned: dict[str, Any]) -> FittedMap:
    """The fitted map whose ``learned()`` is given: a copy of ``translator``, or one for each of the ``groups``."""
    if len(groups) == 1 or isinstance(translator, ImageTranslator):
        return copy.deepcopy(translator).restore(learned)
    inside: list[dict[str, Any]] = [{} for _ in groups]
    own = {}
    for key, value in learned.items():
        number, nested, name = key.partition("/")
        if nested:
            inside[int(number)][name] = value
        else:
            own[key] = value
    return ByToken([copy.deepcopy(translator).restore(values) for values in inside], groups, **own)


def example(translator: BaseTranslator, width: int, prefix: int, tokens: int) -> nn.Module:
    """A map of ``translator``'s kind for a model of this shape, (N, T, D) -> (N, T, D), with meaningless weights."""
    if isinstance(translator, ImageTranslator):
        return copy.deepcopy(translator).example(width, prefix)
    groups = groups_of(translator.tokens, prefix, tokens)
    parts = [copy.deepcopy(translator).example(width) for _ in groups]
    return parts[0] if len(groups) == 1 else ByPosition(parts, groups)
