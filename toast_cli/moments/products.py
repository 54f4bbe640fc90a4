"""The products of rows that sums are made of."""

import torch
from torch import Tensor

from toast_cli.layers import multiplied_by_onednn

_WIDE = 128  # from this width on, oneDNN's product is the faster one (docs/engine.md)


def inner(x: Tensor, y: Tensor) -> Tensor:
    """xᵀy (D, E) for rows x (n, D) and y (n, E) of one precision on one device."""
    wide = min(x.shape[1], y.shape[1]) >= _WIDE
    if wide and len(x) and x.dtype == torch.float32 and multiplied_by_onednn(x):
        return torch.ops.mkldnn._linear_pointwise(x.T, y.T, None, "none", [], "")
    return x.T @ y
