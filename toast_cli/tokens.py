"""Which tokens share a map: all of them, prefix tokens apart from patches, or each position for itself."""

import copy
from collections.abc import Sequence
from typing import Any, Self

from torch import nn

from toast_cli.layers import ByPosition
from toast_cli.moments import PairMoments
from toast_cli.translators import Translator, check_tokens


def groups_of(kind: str, prefix: int, tokens: int) -> list[slice]:
    """The groups of the T ``tokens``, of which ``prefix`` (class and register tokens) come before the patches."""
    check_tokens(kind)
    if kind == "per_position":
        return [slice(i, i + 1) for i in range(tokens)]
    if kind == "split" and prefix:
        return [slice(0, prefix), slice(prefix, tokens)]
    return [slice(0, tokens)]


class ByToken(Translator):
    """A translator of its own for each group of tokens.

    Learned:
        parts_: the fitted translators, one a group.
    """

    def __init__(self, part: Translator, groups: Sequence[slice]) -> None:
        super().__init__(part.tokens)
        self.name, self.solver, self.held_out, self.trained = part.name, part.solver, part.held_out, part.trained
        self.groups = list(groups)
        self._blank = part

    def fit_parts(self, parts: list[tuple[Any, ...]], variation: float) -> Self:
        """``parts`` are what ``fit`` of each group's translator takes; ``variation`` is that of all tokens together."""
        self.parts_ = [copy.deepcopy(self._blank).fit(*arguments) for arguments in parts]
        error = sum(part.error_ for part in self.parts_)
        return self.scored(error, variation, min(part.rank_ for part in self.parts_))

    def fit(self, moments: PairMoments) -> Self:
        raise TypeError("moments of all tokens do not tell the groups apart: use fit_parts")

    def to_module(self) -> nn.Module:
        return ByPosition([part.to_module() for part in self.parts_], self.groups)

    def learned(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("error_", "r2_", "rank_")}
        return own | {
            f"{i}/{name}": value for i, part in enumerate(self.parts_) for name, value in part.learned().items()
        }

    def restore(self, learned: dict[str, Any]) -> Self:
        inside: list[dict[str, Any]] = [{} for _ in self.groups]
        for key, value in learned.items():
            number, nested, name = key.partition("/")
            if nested:
                inside[int(number)][name] = value
            else:
                setattr(self, key, value)
        self.parts_ = [copy.deepcopy(self._blank).restore(values) for values in inside]
        return self


def example(translator: Translator, width: int, prefix: int, tokens: int) -> nn.Module:
    """A map such as ``translator`` gives for a model of this shape, with numbers that mean nothing: for its cost in time."""
    groups = groups_of(translator.tokens, prefix, tokens)
    parts = [copy.deepcopy(translator).example(width) for _ in groups]
    return parts[0] if len(groups) == 1 else ByPosition(parts, groups)
