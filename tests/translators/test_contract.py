"""What holds for every translator that conf/translator lists."""

import pytest
import torch
from torch import nn

from tests.moments.conftest import some_latents
from tests.translators.conftest import NAMES, fitted, load
from toast_cli.plans import Map, Span
from toast_cli.translators import stored as maps
from toast_cli.translators.by_token import example


@pytest.mark.parametrize("name", NAMES)
class TestContract:
    def test_name_is_the_options(self, name: str):
        assert load(name).name == name

    def test_fit_returns_self_and_changes_no_argument(self, name: str, tmp_path):
        arguments = dict(vars(load(name)))
        assert not load(name).learned()
        translator = fitted(name, *some_latents(), tmp_path)
        assert isinstance(translator, type(load(name)))
        after = {key: value for key, value in vars(translator).items() if not key.endswith("_")}
        assert after | {"steps": None} == arguments | {"steps": None}

    def test_module_maps_width_to_width_without_gradients(self, name: str, tmp_path):
        module = fitted(name, *some_latents(), tmp_path).to_module()
        assert isinstance(module, nn.Module)
        assert module(some_latents()[0]).shape == (40, 9, 8)
        assert not any(parameter.requires_grad for parameter in module.parameters())

    def test_r2_is_that_of_the_module(self, name: str, tmp_path):
        x, y = some_latents()
        translator = fitted(name, x, y, tmp_path)
        residual = (y - translator.to_module()(x)).double().square().sum()
        variation = (y.double() - y.double().mean((0, 1))).square().sum()
        assert translator.r2_ == pytest.approx(1 - (residual / variation).item(), abs=1e-5)
        assert 1 <= translator.rank_ <= 8

    def test_saved_reads_back(self, name: str, tmp_path):
        x, y = some_latents()
        stored = {Map(Span(-1, 2), 40): fitted(name, x, y, tmp_path), Map(Span(4, 5), 40): fitted(name, y, x, tmp_path)}
        (tmp_path / "t.safetensors").write_bytes(maps.encoded(stored))
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
            fit = fitted(name, *some_latents(), tmp_path).to_module()
            kinds = [[type(part) for part in made.modules()] for made in (fit, module)]
            assert kinds[0] == kinds[1]

    def test_constant_and_zero_latents_give_numbers(self, name: str, tmp_path):
        for x in (torch.ones(4, 3, 8), torch.zeros(4, 3, 8)):
            module = fitted(name, x, some_latents()[1][:4, :3], tmp_path).to_module()
            assert torch.isfinite(module(x)).all()
