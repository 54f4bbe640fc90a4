"""The layer of a map that sees the image: each token, and the mean of the patches of the same image.

Shapes: N images, T tokens, D width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


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


def blank(prefix: int, width: int) -> Context:
    """A layer for latents of width D = ``width`` whose weights are still to be loaded."""
    groups = range(1 + bool(prefix))
    own = [nn.Linear(width, width, bias=False) for _ in groups]
    return Context(prefix, own, [nn.Linear(width, width) for _ in groups])


def leading(module: nn.Module, latent: Tensor, rows: int | None) -> Tensor:
    """The first ``rows`` tokens (N, rows, D) that a map makes of ``latent`` (N, T, D), or all T if it is None.

    A map that sees the image has a method ``leading`` and is given all tokens, any other only those it is asked for.
    """
    own = getattr(module, "leading", None)
    return module(latent[:, :rows]) if own is None else own(latent, rows)
