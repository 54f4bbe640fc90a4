"""What every translator X^(e) ≈ T(X^(s)) has in common, and the contract of those in closed form.

There are three contracts. Two are closed forms: a ``Translator`` maps each token on its own and is fitted to one group of
tokens, ``fit(moments) -> self``; an ``ImageTranslator`` sees the other tokens of the image too and is fitted to all groups,
``fit(groups, prefix) -> self``. A ``TrainedTranslator`` (trained.py) is fitted by gradient steps on latents. All follow
scikit-learn's conventions: the constructor only stores its arguments, ``fit`` sets every learned name, and each learned
name ends in ``_``.

Shapes: D width; x is a row of X^(s), y of X^(e), m the mean of an image's patches in X^(s); sums Σ are over the tokens of
the fit images.
"""

import copy
from collections.abc import Sequence
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from toast_cli.moments.pair import PairMoments, r2
from toast_cli.translators.allowed import check


class FittedMap(Protocol):
    """A fitted map: a fitted translator, or several, one for each group of tokens."""

    error_: float
    r2_: float
    rank_: int
    held_out_r2_: float | None

    def to_module(self) -> nn.Module:
        """The map as a module of a deployed model, (…, D) -> (…, D)."""

    def learned(self) -> dict[str, Any]:
        """Everything that the fit has learned: tensors and plain numbers by name."""


class BaseTranslator:
    """Base of all translators. ``tokens`` says which tokens share a map (see by_token.py), ``solver`` how the map is found.

    Raises ToastError for an unknown ``tokens``.

    Learned:
        error_: Σ ‖y − T(x)‖².
        r2_: share of the target's variation that the map explains, see ``PairMoments.r2``.
        rank_: number of directions of the source that the map uses; D if none had to be cut off.
        held_out_r2_: R² of such a map on a fifth of the fit images, fitted to the other four; None if it was not asked
            for or cannot be told, see sums.py. The map itself is fitted to all of them.
    """

    name: str
    solver = "exact"
    tokens = "shared"
    error_: float
    r2_: float
    rank_: int
    held_out_r2_: float | None = None

    def __init__(self, tokens: str = "shared") -> None:
        check(tokens=tokens)
        self.tokens = tokens

    def scored(self, error: float, variation: float, rank: int) -> Self:
        """Keep the error Σ ‖y − T(x)‖², R² from it and the target's ``variation``, and the rank; returns the translator."""
        self.error_, self.r2_, self.rank_ = error, r2(error, variation), rank
        return self

    def to_module(self) -> nn.Module:
        """The map as a module of a deployed model, (…, D) -> (…, D)."""
        raise NotImplementedError

    def example(self, width: int) -> nn.Module:
        """A map of width D = ``width`` with meaningless weights, for measuring its size and its time."""
        raise NotImplementedError

    def learned(self) -> dict[str, Any]:
        """Everything that ``fit`` has learned: tensors and plain numbers by name."""
        return {name: value for name, value in vars(self).items() if name.endswith("_")}

    def restore(self, learned: dict[str, Any]) -> Self:
        """Set what ``learned()`` has returned; returns the translator."""
        vars(self).update(learned)
        return self


class ClosedForm(BaseTranslator):
    """A translator that is fitted to streamed sums.

    One with ``held_out`` above 0 asks for that share of the fit images to be kept apart; their sums are in
    ``moments.held_out``.
    """

    held_out = 0.0


class Translator(ClosedForm):
    """A closed form of single tokens. A new one is a subclass with a ``name``, ``fit`` and ``to_module``, and one YAML file."""

    def fit(self, moments: PairMoments) -> Self:
        """Learn the map from the sums over all tokens, then end with ``return self.scored(...)``."""
        raise NotImplementedError

    def refitted(self, moments: PairMoments) -> Self:
        """A copy of this fitted translator, fitted to other ``moments`` with the settings that its own fit has chosen."""
        return copy.copy(self).fit(moments)

    def as_affine(self, width: int) -> tuple[Tensor, Tensor] | None:
        """W (D, D) and b (D,) of the fitted map T(x) = x W + b, D = ``width``; None for a map that is not of this form."""
        return None

    def error_on(self, moments: PairMoments) -> float:
        """Σ ‖y − T(x)‖² over the tokens of any ``moments``. Raises ValueError for a map that is not affine."""
        mean_x, _ = moments.means
        affine = self.as_affine(len(mean_x))
        if affine is None:
            raise ValueError(f"moments do not tell the error of a {self.name} map")
        weight, bias = (each.double() for each in affine)
        return moments.around(mean_x, mean_x @ weight + bias).residual(weight)

    def example(self, width: int) -> nn.Module:
        """The map fitted to latents whose dimensions are uncorrelated, (…, D) -> (…, D)."""
        return self.fit(white(width, width)).to_module()


class ImageTranslator(ClosedForm):
    """A closed form that sees the mean of the image's patches beside each token, and keeps prefix tokens and patches apart.

    It has no ``tokens`` setting: its grouping is its own.
    """

    tokens = "split"

    def __init__(self) -> None:
        super().__init__(self.tokens)

    def fit(self, groups: Sequence[PairMoments], prefix: int) -> Self:
        """Learn the map from the sums of each group, with the source [x, m] of width 2D.

        Args:
            groups: of the ``prefix`` class and register tokens if there are any, then of the patches.
        """
        raise NotImplementedError

    def refitted(self, groups: Sequence[PairMoments], prefix: int) -> Self:
        """A copy of this fitted translator, fitted to other ``groups`` with the settings that its own fit has chosen."""
        raise NotImplementedError

    def error_on(self, groups: Sequence[PairMoments]) -> float:
        """Σ ‖y − T(x, m)‖² over the tokens of any ``groups``."""
        raise NotImplementedError

    def example(self, width: int, prefix: int = 0) -> nn.Module:
        """The map fitted to latents whose dimensions are uncorrelated, (N, T, D) -> (N, T, D)."""
        groups = [white(2 * width, width)] * (1 + bool(prefix))
        return self.fit(groups, prefix).to_module()


def white(source: int, target: int) -> PairMoments:
    """The sums of ``source`` uncorrelated dimensions, the first ``target`` of which are the target's too."""
    zeros, ones = torch.zeros(source, dtype=torch.float64), torch.eye(source, dtype=torch.float64)
    return PairMoments(source, zeros, zeros[:target], ones, ones[:, :target], ones[:target, :target])
