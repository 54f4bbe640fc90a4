"""One suite over every translator that conf/translator lists, then what is particular to each."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from toast_cli.moments import Moments, PairMoments
from toast_cli.moments.solvers import least_squares
from toast_cli.plans import Map, Span
from toast_cli.registry import CONF
from toast_cli.translators import Affine, Identity, Linear, LowRank, Orthogonal, Ridge, Translator
from toast_cli.translators import stored as maps
from toast_cli.translators.by_token import example
from toast_cli.translators.trained import LatentFile, TrainedTranslator

NAMES = sorted(path.stem for path in (CONF / "translator").glob("*.yaml"))


def load(name: str) -> Translator:
    return instantiate(OmegaConf.load(CONF / "translator" / f"{name}.yaml"))


def pair(x: Tensor, y: Tensor) -> PairMoments:
    moments = Moments([(0, 1)])
    moments.update({0: x, 1: y})
    return moments.pair(0, 1)


def fitted(name: str, x: Tensor, y: Tensor, folder: Path) -> Translator:
    """From moments, or for trained ones from latents on disk, in few steps."""
    if issubclass(type(load(name)), TrainedTranslator):
        return fit_for((name, 20), x, y, folder)
    return load(name).fit(pair(x, y))


def data(dtype: torch.dtype = torch.float32, width: int = 8) -> tuple[Tensor, Tensor]:
    """Latents (N, T, D) with one massive activation, as real ones have, and a nonlinear target."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 9, width, generator=generator, dtype=dtype)
    x[:, 0, 3] += 300
    y = x + (x @ torch.randn(width, width, generator=generator, dtype=dtype)).tanh() + 0.5
    return x, y


@pytest.mark.parametrize("name", NAMES)
class TestContract:
    def test_name_is_the_options(self, name: str):
        assert load(name).name == name

    def test_fit_returns_self_and_changes_no_argument(self, name: str, tmp_path):
        arguments = dict(vars(load(name)))
        assert not load(name).learned()
        translator = fitted(name, *data(), tmp_path)
        assert isinstance(translator, type(load(name)))
        after = {key: value for key, value in vars(translator).items() if not key.endswith("_")}
        assert after | {"steps": None} == arguments | {"steps": None}

    def test_module_maps_width_to_width_without_gradients(self, name: str, tmp_path):
        module = fitted(name, *data(), tmp_path).to_module()
        assert isinstance(module, nn.Module)
        assert module(data()[0]).shape == (40, 9, 8)
        assert not any(parameter.requires_grad for parameter in module.parameters())

    def test_r2_is_that_of_the_module(self, name: str, tmp_path):
        x, y = data()
        translator = fitted(name, x, y, tmp_path)
        residual = (y - translator.to_module()(x)).double().square().sum()
        variation = (y.double() - y.double().mean((0, 1))).square().sum()
        assert translator.r2_ == pytest.approx(1 - (residual / variation).item(), abs=1e-5)
        assert 1 <= translator.rank_ <= 8

    def test_saved_reads_back(self, name: str, tmp_path):
        x, y = data()
        stored = {Map(Span(-1, 2), 40): fitted(name, x, y, tmp_path), Map(Span(4, 5), 40): fitted(name, y, x, tmp_path)}
        maps.save(tmp_path / "t.safetensors", stored)
        again = maps.load(tmp_path / "t.safetensors", lambda key, learned: load(name).restore(learned))
        assert set(again) == set(stored)
        for span, translator in stored.items():
            assert torch.equal(again[span].to_module()(x), translator.to_module()(x))
            assert (again[span].r2_, again[span].rank_) == (translator.r2_, translator.rank_)

    @pytest.mark.parametrize("kind", ["shared", "split", "per_position"])
    def test_an_example_for_timing_is_of_the_same_make(self, name: str, kind: str, tmp_path):
        translator = load(name)
        translator.tokens = kind
        module = example(translator, 8, 2, 9)
        assert module(torch.ones(4, 9, 8)).shape == (4, 9, 8)
        if kind == "shared":
            fit = fitted(name, *data(), tmp_path).to_module()
            kinds = [[type(part) for part in made.modules()] for made in (fit, module)]
            assert kinds[0] == kinds[1]

    def test_constant_and_zero_latents_give_numbers(self, name: str, tmp_path):
        for x in (torch.ones(4, 3, 8), torch.zeros(4, 3, 8)):
            module = fitted(name, x, data()[1][:4, :3], tmp_path).to_module()
            assert torch.isfinite(module(x)).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-4)])
def test_linear_is_exact_least_squares(dtype: torch.dtype, tolerance: float):
    x, y = data(dtype)
    ours = Linear().fit(pair(x, y)).to_module()(x).flatten(0, 1).double()
    rows = x.flatten(0, 1).double()
    theirs = rows @ torch.linalg.lstsq(rows, y.flatten(0, 1).double(), driver="gelsd").solution
    assert ((ours - theirs).norm() / theirs.norm()).item() < tolerance


def test_linear_recovers_a_linear_map():
    x, _ = data(torch.float64)
    weight = torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    translator = Linear().fit(pair(x, x @ weight))
    assert torch.allclose(translator.weight_, weight, atol=1e-9)
    assert translator.r2_ == pytest.approx(1, abs=1e-9)
    assert translator.rank_ == 8


def test_rank_deficient_latents_are_cut_at_their_rank():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 9, 3, generator=generator) @ torch.randn(3, 8, generator=generator)
    y = torch.randn(50, 9, 8, generator=generator)
    translator = Linear().fit(pair(x, y))
    assert translator.rank_ == 3
    rows, target = x.flatten(0, 1).double(), y.flatten(0, 1).double()
    best = rows @ torch.linalg.lstsq(rows, target, rcond=1e-6, driver="gelsd").solution
    ours = rows @ translator.weight_.double()
    assert ((ours - best).norm() / best.norm()).item() < 1e-4
    assert translator.weight_.abs().max() < 10, "noise directions must not be used"


def test_both_branches_of_the_solver_agree(monkeypatch: pytest.MonkeyPatch):
    moments = pair(*data(torch.float64))
    cholesky, rank = least_squares(moments.xx, moments.xy, torch.float64)
    monkeypatch.setattr(torch.linalg, "cholesky_ex", lambda a: (a, torch.tensor(1)))
    eigen, same = least_squares(moments.xx, moments.xy, torch.float64)
    assert rank == same == 8
    assert torch.allclose(cholesky, eigen, rtol=1e-8)


def test_identity_takes_no_place():
    assert not list(Identity().fit(pair(*data())).to_module().parameters())


def rows(latent: Tensor) -> Tensor:
    return latent.double().flatten(0, 1)


def test_affine_is_least_squares_with_a_column_of_ones():
    x, y = data(torch.float64)
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

    x, y = data(torch.float64)
    weight = Orthogonal().fit(pair(x, y)).weight_
    assert torch.allclose(weight @ weight.T, torch.eye(8, dtype=torch.float64), atol=1e-10)
    expected = orthogonal_procrustes(rows(x).numpy(), rows(y).numpy())[0]
    assert np.allclose(weight.numpy(), expected, atol=1e-8)


def test_low_rank_beats_the_truncated_svd_of_the_affine_map():
    x, y = data(torch.float64)
    affine = Affine().fit(pair(x, y))
    u, s, v = torch.linalg.svd(affine.weight_)
    for rank in (1, 2, 5):
        translator = LowRank(rank).fit(pair(x, y))
        assert translator.rank_ == rank == translator.to_module()[0].out_features
        cut = (u[:, :rank] * s[:rank]) @ v[:rank]
        centred_x, centred_y = (rows(side) - rows(side).mean(0) for side in (x, y))
        assert translator.error_ < 0.999 * (centred_y - centred_x @ cut).square().sum().item()
    assert LowRank(8).fit(pair(x, y)).r2_ == pytest.approx(affine.r2_, abs=1e-9)


def test_low_rank_by_share_of_the_predictions_variance():
    x, y = data(torch.float64)
    predicted = rows(x) @ Affine().fit(pair(x, y)).weight_
    spread = torch.linalg.svdvals(predicted - predicted.mean(0)).square()
    for share in (0.5, 0.99):
        rank = LowRank(share).fit(pair(x, y)).rank_
        assert spread[:rank].sum() >= share * spread.sum() > spread[: rank - 1].sum()


def test_gelsy_is_what_lstsq_does_in_fp32_on_cpus():
    """Directions of 1e-1 to 1e-4 of the largest on 20 000 rows: the default driver's cutoff, eps times rows, is 2.4e-3."""
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(16, 16, generator=generator))[0]
    x = (torch.randn(20_000, 16, generator=generator) * torch.logspace(0, -4, 16)) @ turn
    y = x @ torch.randn(16, 16, generator=generator) * 10 + torch.randn(20_000, 16, generator=generator)
    theirs = torch.linalg.lstsq(x, y)
    ours = Linear(solver="gelsy").fit(pair(x[:, None], y[:, None]))
    assert abs(ours.rank_ - int(theirs.rank)) <= 2, (
        "where exactly it cuts differs between the LAPACKs that torch comes with"
    )
    assert max(ours.rank_, int(theirs.rank)) < 16
    if ours.rank_ == int(theirs.rank):
        assert ((x @ ours.weight_ - x @ theirs.solution).norm() / (x @ theirs.solution).norm()).item() < 1e-3
    exact = Linear().fit(pair(x[:, None], y[:, None]))
    assert exact.rank_ == 16
    assert exact.r2_ > ours.r2_


def test_a_trained_map_learns_and_its_seed_decides(tmp_path):
    x, y = data()
    for side in (x, y):
        side[:, 0, 3] -= 300  # full-batch Adam needs more than a few hundred steps for a massive activation
    few, many = (fit_for(name_steps, x, y, tmp_path, 0.02) for name_steps in (("mlp", 5), ("mlp", 400)))
    assert many.r2_ > few.r2_ + 0.3
    again = fit_for(("mlp", 5), x, y, tmp_path, 0.02)
    assert torch.equal(again.to_module()(x), few.to_module()(x))


def fit_for(name_steps: tuple[str, int], x: Tensor, y: Tensor, folder: Path, rate: float = 1e-3) -> Translator:
    name, steps = name_steps
    translator = load(name)
    translator.steps, translator.learning_rate = steps, rate
    sides = []
    for side, latent in (("x", x), ("y", y)):
        (folder / side).write_bytes(latent.float().numpy().tobytes())
        sides.append(LatentFile(folder / side, tuple(latent.shape), torch.device("cpu")))
    return translator.fit(*sides)


def test_chunks_do_not_matter(tmp_path, monkeypatch):
    x, y = data()
    whole = fit_for(("deep_mlp", 10), x, y, tmp_path)
    monkeypatch.setattr("toast_cli.translators.trained._CHUNK", 9 * 8 * 7)
    parts = fit_for(("deep_mlp", 10), x, y, tmp_path)
    assert torch.allclose(whole.to_module()(x), parts.to_module()(x), atol=1e-3)
    assert parts.error_ == pytest.approx(whole.error_, rel=1e-4)
