import pickle

import pytest
import torch

from toast_cli.moments import Moments


def stacked(latent: torch.Tensor) -> torch.Tensor:
    return latent.double().flatten(0, 1)


@pytest.fixture
def latents() -> dict[int, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 7, 5, generator=generator)
    return {-1: x, 0: x @ torch.randn(5, 5, generator=generator) + 3, 2: torch.randn(20, 7, 5, generator=generator)}


def test_sums_are_those_of_the_stacked_tokens(latents: dict):
    moments = Moments([(-1, 2), (0, 2), (-1, 2)])
    moments.update(latents)
    pair = moments.pair(-1, 2)
    x, y = stacked(latents[-1]), stacked(latents[2])
    assert pair.count == 140
    for sums, expected in ((pair.sum_x, x.sum(0)), (pair.xx, x.T @ x), (pair.xy, x.T @ y), (pair.yy, y.T @ y)):
        assert sums.dtype == torch.float64
        assert torch.allclose(sums, expected, rtol=1e-13)


def test_batches_do_not_matter(latents: dict):
    whole, parts = Moments([(0, 2)]), Moments([(0, 2)])
    whole.update(latents)
    for start in range(0, 20, 6):
        parts.update({layer: x[start : start + 6] for layer, x in latents.items()})
    assert whole.pair(0, 2).count == parts.pair(0, 2).count
    assert torch.allclose(whole.pair(0, 2).xy, parts.pair(0, 2).xy, rtol=1e-13)


def test_r2_is_one_minus_residual_over_variation(latents: dict):
    moments = Moments([(0, 2)])
    moments.update(latents)
    x, y = stacked(latents[0]), stacked(latents[2])
    weight = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    residual = (y - x @ weight).square().sum()
    assert moments.pair(0, 2).residual(weight) == pytest.approx(residual.item(), rel=1e-12)
    assert moments.pair(0, 2).r2(weight) == pytest.approx(
        1 - (residual / (y - y.mean(0)).square().sum()).item(), rel=1e-12
    )
    assert moments.pair(0, 2).r2(weight) < 0, "worse than a constant"


def test_memory_is_constant_in_images(latents: dict):
    moments = Moments([(0, 2)])
    sizes = set()
    for _ in range(5):
        moments.update(latents)
        sizes.add(len(pickle.dumps(moments)))
    assert max(sizes) - min(sizes) < 8, "but for the digits of the count"
