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
    latents = {-1: x, 0: x @ torch.randn(5, 5, generator=generator) + 3, 2: torch.randn(20, 7, 5, generator=generator)}
    return {layer: x.double() for layer, x in latents.items()}


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


def test_products_in_fp32_serve_as_well_as_in_float64():
    """Directions of 1e-5 of the largest spread and a large mean, as after early blocks: fp32 products alone would lose them."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.logspace(0, -5, 32)
    turn = torch.linalg.qr(torch.randn(32, 32, generator=generator))[0]
    x = (torch.randn(40, 50, 32, generator=generator) * spread) @ turn + 3
    y = x @ torch.randn(32, 32, generator=generator) + 0.1 * torch.randn(40, 50, 32, generator=generator)
    single, double = Moments([(0, 1)]), Moments([(0, 1)])
    for batch in range(0, 40, 8):
        part = {0: x[batch : batch + 8], 1: y[batch : batch + 8]}
        single.update(part)
        double.update({layer: value.double() for layer, value in part.items()})
    one, other = single.pair(0, 1), double.pair(0, 1)
    weight, exact = (torch.linalg.solve(pair.xx, pair.xy) for pair in (one, other))
    rows = stacked(x)
    moved = (rows @ (weight - exact)).norm() / (rows @ exact).norm()
    assert moved < 1e-5
    assert one.r2(weight) == pytest.approx(other.r2(exact), abs=1e-6)
    assert one.cka() == pytest.approx(other.cka(), abs=1e-6)
    naive = (stacked(x).float().T @ stacked(x).float()).double()
    lost = torch.linalg.solve(naive, other.xy)
    assert (rows @ (lost - exact)).norm() / (rows @ exact).norm() > 100 * moved, "or the test shows nothing"


def test_cka_is_that_of_the_centred_gram_matrices(latents: dict):
    moments = Moments([(-1, 0), (-1, 2)])
    moments.update(latents)
    x, y = (stacked(latents[layer]) - stacked(latents[layer]).mean(0) for layer in (-1, 0))
    one, other = x @ x.T, y @ y.T  # (n, n)
    expected = ((one * other).sum() / (one.norm() * other.norm())).item()
    assert moments.pair(-1, 0).cka() == pytest.approx(expected, rel=1e-9)
    assert moments.pair(-1, 2).cka() < moments.pair(-1, 0).cka() <= 1


def test_latents_that_are_not_finite_are_named():
    with pytest.raises(FloatingPointError, match="after block 1"):
        Moments([(0, 1)]).update({0: torch.ones(1, 2, 3), 1: torch.full((1, 2, 3), float("nan"))})


def test_latents_of_a_later_batch_that_are_not_finite_are_named_when_sums_are_asked_for():
    moments, good = Moments([(0, 1), (0, 2)]), {i: torch.ones(2, 2, 3) for i in range(3)}
    moments.update(good)
    moments.update({**good, 1: torch.tensor([1.0, float("inf"), 1.0]).expand(2, 2, 3)})
    moments.update(good)
    with pytest.raises(FloatingPointError, match="after block 1"):
        moments.pair(0, 1)
    assert moments.pair(0, 2).count == 12


def test_constant_latents_do_no_harm():
    moments = Moments([(0, 1)])
    moments.update({0: torch.zeros(2, 3, 4), 1: torch.ones(2, 3, 4)})
    assert torch.equal(moments.pair(0, 1).yy, torch.full((4, 4), 6.0, dtype=torch.float64))
