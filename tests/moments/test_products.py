"""Products of rows, by whichever code multiplies them."""

import pytest
import torch

from toast_cli.layers import multiplied_by_onednn
from toast_cli.moments.products import inner


@pytest.mark.parametrize(("source", "target"), [(8, 8), (192, 192), (192, 384), (576, 192)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_of_any_width_are_those_of_float64(source: int, target: int, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2051, width, generator=generator, dtype=dtype) for width in (source, target))
    found, exact = inner(x[::2], y[::2]), x[::2].double().T @ y[::2].double()
    assert found.dtype == dtype
    tolerance = 100 * torch.finfo(dtype).eps
    assert (found - exact).abs().max() < tolerance * exact.diagonal().abs().max()


@pytest.mark.parametrize("width", [8, 128])
def test_no_rows_have_products_of_zeros(width: int):
    assert inner(torch.empty(0, width), torch.empty(0, width)).equal(torch.zeros(width, width))


@pytest.mark.skipif(not multiplied_by_onednn(torch.ones(1)), reason="this processor or torch has no such products")
def test_wide_rows_are_multiplied_by_onednn():
    x = torch.ones(4, 128)
    with torch.profiler.profile() as profile:
        inner(x, x)
    assert any("_linear_pointwise" in event.name for event in profile.events())
