"""Weighted sums of rows x and y of different widths, streamed batch by batch, for ridge regression of y on x."""

import torch
from torch import Tensor

from toast_cli.moments.pair import PairMoments
from toast_cli.moments.products import inner


class WeightedSums:
    """Σ w x, Σ w y, Σ w xᵀx, Σ w xᵀy and Σ w yᵀy over rows x (n, F) and y (n, D) with weights w (n,).

    Products are taken in the precision of the rows, sums in float64. Unlike ``Moments``, rows are taken as they are: what
    is lost to rounding is far below the penalty of any ridge that is fitted to them.
    """

    def __init__(self, width_x: int, width_y: int) -> None:
        self._shapes = {"count": (), "sum_x": (width_x,), "sum_y": (width_y,)}
        self._shapes |= {"xx": (width_x, width_x), "xy": (width_x, width_y), "yy": (width_y, width_y)}
        self._sums: dict[str, Tensor] = {}

    def update(self, x: Tensor, y: Tensor, weights: Tensor) -> None:
        """Add rows x (n, F) and y (n, D) with ``weights`` (n,), all float32 on one device."""
        wx, wy = x * weights[:, None], y * weights[:, None]
        new = {"count": weights.sum(), "sum_x": wx.sum(0), "sum_y": wy.sum(0)}
        new |= {"xx": inner(wx, x), "xy": inner(wx, y), "yy": inner(wy, y)}
        for name, value in new.items():
            value = value.cpu() if value.device.type == "mps" else value  # Apple's GPUs have no float64
            self._sums[name] = self._sums[name].add_(value) if name in self._sums else value.double()

    def moments(self) -> PairMoments:
        """The sums so far, on the device that they were taken on."""
        sums = self._sums or {name: torch.zeros(shape, dtype=torch.float64) for name, shape in self._shapes.items()}
        count, sum_x, sum_y, xx, xy, yy = (sums[name] for name in self._shapes)
        return PairMoments(count.item(), sum_x, sum_y, xx, xy, yy)
