"""One suite over every translator that conf/translator lists, then what is particular to each."""

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from toast_cli import translators
from toast_cli.moments import Moments, PairMoments
from toast_cli.plans import Span
from toast_cli.registry import CONF
from toast_cli.translators import Identity, Linear, Translator, least_squares

NAMES = sorted(path.stem for path in (CONF / "translator").glob("*.yaml"))


def load(name: str) -> Translator:
    return instantiate(OmegaConf.load(CONF / "translator" / f"{name}.yaml"))


def pair(x: Tensor, y: Tensor) -> PairMoments:
    moments = Moments([(0, 1)])
    moments.update({0: x, 1: y})
    return moments.pair(0, 1)


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

    def test_fit_returns_self_and_changes_no_argument(self, name: str):
        translator = load(name)
        arguments = dict(vars(translator))
        assert not translator.learned()
        assert translator.fit(pair(*data())) is translator
        assert {key: value for key, value in vars(translator).items() if not key.endswith("_")} == arguments

    def test_module_maps_width_to_width_without_gradients(self, name: str):
        module = load(name).fit(pair(*data())).to_module()
        assert isinstance(module, nn.Module)
        assert module(data()[0]).shape == (40, 9, 8)
        assert not any(parameter.requires_grad for parameter in module.parameters())

    def test_r2_is_that_of_the_module(self, name: str):
        x, y = data()
        translator = load(name).fit(pair(x, y))
        residual = (y - translator.to_module()(x)).double().square().sum()
        variation = (y.double() - y.double().mean((0, 1))).square().sum()
        assert translator.r2_ == pytest.approx(1 - (residual / variation).item(), abs=1e-5)
        assert 1 <= translator.rank_ <= 8

    def test_saved_reads_back(self, name: str, tmp_path):
        fitted = {Span(-1, 2): load(name).fit(pair(*data())), Span(4, 5): load(name).fit(pair(*reversed(data())))}
        translators.save(tmp_path / "t.safetensors", fitted)
        again = translators.load(tmp_path / "t.safetensors", load(name))
        assert set(again) == set(fitted)
        for span, translator in fitted.items():
            x = data()[0]
            assert torch.equal(again[span].to_module()(x), translator.to_module()(x))
            assert (again[span].r2_, again[span].rank_) == (translator.r2_, translator.rank_)

    def test_constant_and_zero_latents_give_numbers(self, name: str):
        for x in (torch.ones(4, 3, 8), torch.zeros(4, 3, 8)):
            module = load(name).fit(pair(x, data()[1][:4, :3])).to_module()
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
