"""Each closed form is the best map of its kind."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.moments.conftest import pair, some_latents
from tests.translators.conftest import rows
from toast_cli.translators import Affine, Identity, Linear, LowRank, Orthogonal, Ridge


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-4)])
def test_linear_is_exact_least_squares(dtype: torch.dtype, tolerance: float):
    x, y = some_latents(dtype)
    ours = Linear().fit(pair(x, y)).to_module()(x).flatten(0, 1).double()
    rows = x.flatten(0, 1).double()
    theirs = rows @ torch.linalg.lstsq(rows, y.flatten(0, 1).double(), driver="gelsd").solution
    assert ((ours - theirs).norm() / theirs.norm()).item() < tolerance


def test_linear_recovers_a_linear_map():
    x, _ = some_latents(torch.float64)
    weight = torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    translator = Linear().fit(pair(x, x @ weight))
    assert torch.allclose(translator.weight_, weight, atol=1e-9)
    assert translator.r2_ == pytest.approx(1, abs=1e-9)
    assert translator.rank_ == 8


def test_identity_takes_no_place():
    assert not list(Identity().fit(pair(*some_latents())).to_module().parameters())


def test_affine_is_least_squares_with_a_column_of_ones():
    x, y = some_latents(torch.float64)
    ones = torch.ones(360, 1, dtype=torch.float64)
    solution = torch.linalg.lstsq(torch.cat([rows(x), ones], 1), rows(y), driver="gelsd").solution
    translator = Affine().fit(pair(x, y))
    assert torch.allclose(translator.to_module()(rows(x)), torch.cat([rows(x), ones], 1) @ solution, atol=1e-8)
    assert translator.r2_ > Linear().fit(pair(x, y)).r2_


def test_ridge_is_scikit_learns_on_standardised_columns_and_its_strength_is_chosen_on_held_out_images():
    from sklearn.linear_model import Ridge as Theirs

    generator = torch.Generator().manual_seed(3)
    x = torch.randn(60, 1, 8, generator=generator, dtype=torch.float64) * torch.logspace(0, 3, 8)
    y = x[..., :2] @ torch.randn(2, 8, generator=generator, dtype=torch.float64)
    y = y + 3 * y.std() * torch.randn(60, 1, 8, generator=generator, dtype=torch.float64)
    strengths = [1e-6, 1e-2, 1.0, 1e4]
    chosen = Ridge(strengths).fit(replace(pair(x[:40], y[:40]), held_out=pair(x[40:], y[40:])))
    errors = []
    for strength in strengths:
        module = Ridge([strength]).fit(pair(x[:40], y[:40])).to_module()
        errors.append((rows(y[40:]) - module(rows(x[40:]))).square().sum().item())
    assert chosen.strength_ == strengths[int(np.argmin(errors))] != 1e-6
    scale = rows(x).std(0, correction=0)
    theirs = Theirs(alpha=chosen.strength_ * 60).fit((rows(x) / scale).numpy(), rows(y).numpy())
    assert np.allclose(chosen.to_module()(rows(x)).numpy(), theirs.predict((rows(x) / scale).numpy()), atol=1e-6)


def test_orthogonal_is_procrustes():
    from scipy.linalg import orthogonal_procrustes

    x, y = some_latents(torch.float64)
    weight = Orthogonal().fit(pair(x, y)).weight_
    assert torch.allclose(weight @ weight.T, torch.eye(8, dtype=torch.float64), atol=1e-10)
    expected = orthogonal_procrustes(rows(x).numpy(), rows(y).numpy())[0]
    assert np.allclose(weight.numpy(), expected, atol=1e-8)


def test_low_rank_beats_the_truncated_svd_of_the_affine_map():
    x, y = some_latents(torch.float64)
    affine = Affine().fit(pair(x, y))
    u, s, v = torch.linalg.svd(affine.weight_)
    for rank in (1, 2, 5):
        translator = LowRank(rank).fit(pair(x, y))
        assert translator.rank_ == rank == translator.to_module()[0].out_features
        cut = (u[:, :rank] * s[:rank]) @ v[:rank]
        centred_x, centred_y = (rows(side) - rows(side).mean(0) for side in (x, y))
        assert translator.error_ < 0.999 * (centred_y - centred_x @ cut).square().sum().item()
    assert LowRank(8).fit(pair(x, y)).r2_ == pytest.approx(affine.r2_, abs=1e-9)


def test_low_rank_keeps_the_share_of_the_predictions_variance():
    x, y = some_latents(torch.float64)
    predicted = rows(x) @ Affine().fit(pair(x, y)).weight_
    spread = torch.linalg.svdvals(predicted - predicted.mean(0)).square()
    for share in (0.5, 0.99):
        rank = LowRank(share).fit(pair(x, y)).rank_
        assert spread[:rank].sum() >= share * spread.sum() > spread[: rank - 1].sum()
