"""The products of rows that sums are made of."""

from torch import Tensor

from toast_cli.layers import times

_WIDE = 128  # from this width on, oneDNN's product is the faster one (docs/engine.md)


def inner(x: Tensor, y: Tensor) -> Tensor:
    """xᵀy (D, E) for rows x (n, D) and y (n, E) of one precision on one device."""
    return times(x.T, y.T) if min(x.shape[1], y.shape[1]) >= _WIDE else x.T @ y
