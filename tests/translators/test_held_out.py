"""Maps scored on images that they were not fitted on: against fits and errors written out with all tokens in memory."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.moments.conftest import pair, some_latents
from tests.translators.conftest import NAMES, load, rows
from toast_cli.moments import Moments
from toast_cli.translators import Context, Linear, Translator
from toast_cli.translators.base import FittedMap
from toast_cli.translators.by_token import groups_of
from toast_cli.translators.named import by_name
from toast_cli.translators.sums import GroupSums, Sums, Wanted, held_apart

CLOSED = [name for name in NAMES if getattr(type(load(name)), "as_affine", None) not in (None, Translator.as_affine)]
APART = held_apart(np.arange(40), 0.2)


def added_up(
    x: Tensor, y: Tensor, translator: Translator, scored: bool = True, size: int = 7
) -> tuple[Sums, list[GroupSums]]:
    wanted = Wanted("x", "y", translator)
    sums = Sums([wanted], 2, x.shape[1], scored)
    for start in range(0, len(x), size):
        numbers = np.arange(start, min(start + size, len(x)))
        sums.update(numbers, {"x": x[numbers], "y": y[numbers]})
    return sums, sums.of(wanted, x.shape[-1])


def fitted_to(x: Tensor, y: Tensor, translator: Translator, scored: bool = True) -> FittedMap:
    sums, parts = added_up(x, y, translator, scored)
    return sums.fitted(translator, parts)


def r2_on(modules: list[torch.nn.Module], x: Tensor, y: Tensor, groups: list[slice]) -> float:
    """From the tokens themselves."""
    mapped = torch.cat([module(x[:, group]) for module, group in zip(modules, groups, strict=True)], dim=1)
    error = (rows(y) - rows(mapped)).square().sum()
    return 1 - (error / (rows(y) - rows(y).mean(0)).square().sum()).item()


def fit_to(translator: Translator, x: Tensor, y: Tensor, groups: list[slice]) -> list[torch.nn.Module]:
    return [copy.deepcopy(translator).fit(pair(x[:, group], y[:, group])).to_module() for group in groups]


def learned(fitted: FittedMap) -> dict:
    return {key: value for key, value in fitted.learned().items() if key != "held_out_r2_"}


@pytest.mark.parametrize("kind", ["shared", "split", "per_position"])
@pytest.mark.parametrize("name", CLOSED)
def test_it_is_the_score_of_a_fit_to_the_others(name: str, kind: str):
    x, y = some_latents()
    groups, translator = groups_of(kind, 2, 9), by_name(name, tokens=kind)
    fitted = fitted_to(x, y, translator)
    if name == "ridge":  # its own fit has chosen the strength
        assert kind != "shared" or fitted.strength_ in translator.strengths
        parts = [fitted] if kind == "shared" else fitted.parts_
        modules = [
            fit_to(type(translator)([part.strength_]), x[~APART][:, group], y[~APART][:, group], [slice(None)])[0]
            for part, group in zip(parts, groups, strict=True)
        ]
    else:
        modules = fit_to(translator, x[~APART], y[~APART], groups)
    assert fitted.held_out_r2_ == pytest.approx(r2_on(modules, x[APART], y[APART], groups), abs=1e-5)


@pytest.mark.parametrize("images", [5, 10, 20])
def test_few_images_look_good_only_where_they_were_fitted(images: int):
    x, y = (latent[:images, 1:3] for latent in some_latents())
    fitted = fitted_to(x, y, Linear())
    assert fitted.held_out_r2_ < fitted.r2_ - 0.01


@pytest.mark.parametrize("name", CLOSED)
def test_the_map_itself_does_not_change_by_a_bit(name: str):
    x, y = some_latents()
    for kind in ("shared", "split"):
        with_score, without = (fitted_to(x, y, by_name(name, tokens=kind), scored) for scored in (True, False))
        assert without.held_out_r2_ is None
        assert learned(with_score).keys() == learned(without).keys()
        for key, value in learned(without).items():
            same = torch.equal(learned(with_score)[key], value) if isinstance(value, Tensor) else None
            assert same or learned(with_score)[key] == value, key


@pytest.mark.parametrize("images", [1, 4])
def test_fewer_than_five_images_have_none(images: int):
    x, y = (latent[:images] for latent in some_latents())
    assert fitted_to(x, y, Linear()).held_out_r2_ is None
    assert not APART[:images].any()


def test_nothing_varies():
    x, y = some_latents()
    assert fitted_to(x, torch.ones_like(y), Linear()).held_out_r2_ is None


def test_a_map_that_sees_the_image_is_scored_too():
    """Against the same map fitted to the other images alone, its strengths as chosen."""
    x, y = some_latents()
    translator = by_name("context")
    fitted = fitted_to(x, y, translator)
    plain = dict(zip(("x", "y"), (x[~APART], y[~APART]), strict=True))
    wanted = Wanted("x", "y", Context([1e-3]))
    sums = Sums([wanted], 2, x.shape[1])
    sums.update(np.arange(int((~APART).sum())) * 0, plain)  # image 0 is never held out
    groups = [part.everything for part in sums.of(wanted, x.shape[-1])]
    again = fitted.refitted(groups, 2)
    module = again.to_module()
    assert fitted.held_out_r2_ == pytest.approx(r2_on([module], x[APART], y[APART], [slice(None)]), abs=1e-4)


def test_a_map_that_is_not_affine_has_none():
    class Own(Linear):
        as_affine = Translator.as_affine

    x, y = some_latents()
    sums, parts = added_up(x, y, Own())
    fitted = sums.fitted(Own(), parts)
    assert fitted.held_out_r2_ is None
    with pytest.raises(ValueError, match="moments do not tell the error of a linear map"):
        fitted.error_on(parts[0].held_out)


@pytest.mark.parametrize("rows_at_once", [3, 16])
def test_fp32_products_are_as_good_for_the_difference(rows_at_once: int):
    """Directions of nine orders of magnitude, as after early blocks: the kept tokens' map against one in float64."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(16, 16, generator=generator, dtype=torch.float64)
    mix = mix * torch.logspace(0, -4.5, 16, dtype=torch.float64)[:, None] @ torch.linalg.qr(mix)[0]
    x = (torch.randn(80, 20, 16, generator=generator, dtype=torch.float64) @ mix + 3).float()
    y = x + torch.randn(80, 20, 16, generator=generator) * 1e-3
    apart = held_apart(np.arange(80), 0.2)
    part = added_up(x, y, Linear(), size=rows_at_once)[1][0]
    exact = Moments([("x", "y")])
    for kind in (x, y):
        assert kind.dtype == torch.float32
    exact.update({"x": x[~apart].double(), "y": y[~apart].double()})
    ours, best = (Linear().fit(each) for each in (part.kept, exact.pair("x", "y")))
    kept_x, kept_y = rows(x[~apart]), rows(y[~apart])
    errors = [(kept_y - kept_x @ fitted.weight_.double()).square().sum().item() for fitted in (ours, best)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)
    assert part.kept.count == len(kept_x)
    assert torch.allclose(part.kept.xx, kept_x.T @ kept_x, rtol=1e-5)
