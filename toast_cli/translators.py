"""Translators X^(e) ≈ T(X^(s)), fitted from moments.

The contract: the constructor only stores its arguments; ``fit(moments) -> self`` sets every learned name, each of which
ends in ``_``; ``to_module()`` is the map as a deployed model holds it. A new translator is one class here and one YAML.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn

from toast_cli.files import write_atomically
from toast_cli.moments import PairMoments
from toast_cli.plans import Span


class Translator:
    """Base of all translators.

    Learned:
        r2_: share of the target's variation that the map explains on the fit tokens, see ``PairMoments.r2``.
        rank_: number of directions of the source that the map uses; D where nothing had to be cut off.
    """

    name: str
    r2_: float
    rank_: int

    def fit(self, moments: PairMoments) -> Self:
        raise NotImplementedError

    def to_module(self) -> nn.Module:
        """(…, D) -> (…, D)."""
        raise NotImplementedError

    def learned(self) -> dict[str, Any]:
        """Everything that ``fit`` has set: tensors and plain numbers by name."""
        return {name: value for name, value in vars(self).items() if name.endswith("_")}

    def restore(self, learned: dict[str, Any]) -> Self:
        """The inverse of ``learned``."""
        vars(self).update(learned)
        return self


class Identity(Translator):
    """T(x) = x: the blocks leave and nothing takes their place."""

    name = "identity"

    def fit(self, moments: PairMoments) -> Self:
        width = len(moments.sum_x)
        self.r2_ = moments.r2(torch.eye(width))
        self.rank_ = width
        return self

    def to_module(self) -> nn.Module:
        return nn.Identity()


class Linear(Translator):
    """T(x) = x W, W = argmin Σ ‖y − x W‖² over the fit tokens; no bias, one map for all tokens.

    Learned:
        weight_: W (D, D), in the precision of the latents.
    """

    name = "linear"
    weight_: Tensor

    def fit(self, moments: PairMoments) -> Self:
        weight, self.rank_ = least_squares(moments.xx, moments.xy, moments.dtype)
        self.weight_ = weight.to(moments.dtype).contiguous()
        self.r2_ = moments.r2(self.weight_)
        return self

    def to_module(self) -> nn.Module:
        source, target = self.weight_.shape
        module = nn.Linear(source, target, bias=False, dtype=self.weight_.dtype).requires_grad_(False)
        module.weight.copy_(self.weight_.T)
        return module


def least_squares(xx: Tensor, xy: Tensor, dtype: torch.dtype) -> tuple[Tensor, int]:
    """W (D, E) with xx W = xy, of smallest norm, and the rank that was used, for xx = XᵀX (D, D), xy = XᵀY (D, E) in float64.

    Columns of X are first scaled to unit length, W = S (S xx S)⁺ S xy with S = diag(xx)^(−1/2), so that a few massive
    activations do not hide the rest. Then Cholesky; where its pivots show that X is rank-deficient to within the
    rounding of ``dtype``, the precision X was computed in, an eigendecomposition that keeps the eigenvalues above
    D·max(eps², eps_64)·λ_max. Directions below are rounding noise: a map that used them would amplify it.
    """
    scale = torch.where(xx.diagonal() > 0, xx.diagonal(), 1.0).rsqrt()  # (D,)
    correlation = scale[:, None] * xx * scale  # (D, D)
    target = scale[:, None] * xy  # (D, E)
    tolerance = len(xx) * max(torch.finfo(dtype).eps ** 2, torch.finfo(torch.float64).eps)
    factor, failed = torch.linalg.cholesky_ex(correlation)
    if not failed and factor.diagonal().square().min() > tolerance * len(xx):
        return scale[:, None] * torch.cholesky_solve(target, factor), len(xx)
    values, vectors = torch.linalg.eigh(correlation)
    kept = values > tolerance * values[-1].clamp(min=0)
    vectors = vectors[:, kept]
    return scale[:, None] * (vectors @ ((vectors.T @ target) / values[kept, None])), int(kept.sum())


def save(path: Path, fitted: Mapping[Span, Translator]) -> None:
    """What the translators of all spans have learned, as one safetensors file; plain numbers go into its metadata."""
    learned = {f"{span}/{name}": value for span, fit in fitted.items() for name, value in fit.learned().items()}
    tensors = {key: value for key, value in learned.items() if isinstance(value, Tensor)}
    numbers = {key: value for key, value in learned.items() if key not in tensors}
    write_atomically(path, safetensors.torch.save(tensors, metadata={"learned": json.dumps(numbers)}))


def load(path: Path, prototype: Translator) -> dict[Span, Translator]:
    """The inverse of ``save``: a copy of ``prototype`` for every span."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        learned = {**json.loads(file.metadata()["learned"]), **tensors}
    spans: dict[str, dict[str, Any]] = {}
    for key, value in learned.items():
        span, _, name = key.partition("/")
        spans.setdefault(span, {})[name] = value
    return {Span.parse(span): copy.deepcopy(prototype).restore(values) for span, values in spans.items()}
