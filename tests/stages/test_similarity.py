"""Every measure of similarity from its definition."""

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import pixels, tiny
from toast_cli.plans import parse_plans
from toast_cli.stages.similarity import Alike, of_blocks, of_plan
from toast_cli.stages.walk import Encoder, latents
from toast_cli.surgery import shorten
from toast_cli.translators.closed_form import Linear


@pytest.fixture
def measured() -> tuple[dict[int, torch.Tensor], Alike]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 5, 6, generator=generator)
    found = {0: x, 1: x @ torch.randn(6, 6, generator=generator) + 1, 2: torch.randn(30, 5, 6, generator=generator)}
    alike = Alike([(0, 1), (0, 2), (1, 2)])
    for start in range(0, 30, 10):
        alike.update({layer: value[start : start + 10] for layer, value in found.items()})
    return found, alike


def test_every_measure_from_its_definition(measured):
    found, alike = measured
    values = {(measure, source, target): value for measure, source, target, value in of_blocks(alike)}
    assert len(values) == 5 * 9
    rows = {layer: value.double().flatten(0, 1) for layer, value in found.items()}
    for i in range(3):
        for j in range(3):
            x, y = rows[i], rows[j]
            assert values["cosine", i, j] == pytest.approx(F.cosine_similarity(x, y).mean().item(), abs=1e-6)
            assert values["mse", i, j] == pytest.approx((x - y).square().mean().item(), abs=1e-6)
            residual = (y - x @ torch.linalg.lstsq(x, y).solution).square().sum()
            expected = 1 - (residual / (y - y.mean(0)).square().sum()).item()
            assert values["r2", i, j] == pytest.approx(expected, abs=1e-5)
            expected = 1 - ((y - x).square().sum() / (y - y.mean(0)).square().sum()).item()
            assert values["r2_identity", i, j] == pytest.approx(expected, abs=1e-5)
            a, b = x - x.mean(0), y - y.mean(0)
            cka = ((a.T @ b).square().sum() / ((a.T @ a).norm() * (b.T @ b).norm())).item()
            assert values["cka", i, j] == pytest.approx(cka, abs=1e-6)


def test_the_walk_gives_the_last_latents_of_the_shortened_models():
    backbone, plans = tiny(), parse_plans(["0-1", "stem-0"], 3)
    moments = {plan.spans[0]: Linear() for plan in plans[1:]}
    stored = latents(backbone, pixels())
    alike = Alike([(s.start, s.end) for s in moments])
    alike.update(stored)
    maps = {s: Linear().fit(alike.moments.pair(s.start, s.end)).to_module() for s in moments}
    last = Encoder(backbone, plans, maps, whole=True)(pixels())
    assert torch.equal(last[:, 0], stored[2])
    for number, plan in enumerate(plans[1:], start=1):
        model = shorten(backbone, plan, maps)
        seen = []
        model.norm.register_forward_pre_hook(lambda _, arguments, seen=seen: seen.append(arguments[0]))
        model(backbone.normalise(pixels()))
        assert torch.allclose(last[:, number], seen[0], atol=1e-4)


def test_of_a_plan_r2_is_the_share_of_the_originals_variation_that_its_latent_explains(measured):
    found, alike = measured
    _, _, pair, cosine = next(alike.pairs())
    original, plan = (found[layer].double().flatten(0, 1) for layer in (0, 1))
    variation = (original - original.mean(0)).square().sum()
    mapped = plan @ torch.linalg.lstsq(plan, original).solution
    values = of_plan(pair, cosine)
    assert values["r2"] == pytest.approx(1 - ((original - mapped).square().sum() / variation).item(), abs=1e-5)
    assert values["r2_identity"] == pytest.approx(1 - ((original - plan).square().sum() / variation).item(), abs=1e-5)
