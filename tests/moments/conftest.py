"""Latents, and the moments of a pair of them."""

import torch
from torch import Tensor

from toast_cli.moments import Moments, PairMoments


def pair(x: Tensor, y: Tensor) -> PairMoments:
    moments = Moments([(0, 1)])
    moments.update({0: x, 1: y})
    return moments.pair(0, 1)


def some_latents(dtype: torch.dtype = torch.float32, width: int = 8) -> tuple[Tensor, Tensor]:
    """Latents (N, T, D) with one massive activation, as real ones have, and a nonlinear target."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 9, width, generator=generator, dtype=dtype)
    x[:, 0, 3] += 300
    y = x + (x @ torch.randn(width, width, generator=generator, dtype=dtype)).tanh() + 0.5
    return x, y
