import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.conftest import tiny
from toast_cli.layers import Shift
from toast_cli.models import factory as models
from toast_cli.plans import Plan, Span, every_span
from toast_cli.surgery import shorten
from toast_cli.surgery.costs import Costs


@pytest.mark.slow
def test_vit_b_at_224():
    backbone = models.load("b", "vit_base_patch16_224", pretrained=False)
    costs = Costs(backbone, {Span(9, 11): torch.nn.Linear(768, 768, bias=False)})
    d, t = 768, 197
    block_macs = t * (3 * d * d + d * d + 8 * d * d) + 2 * t * t * d
    assert costs.of(Plan()).gflops / 2 == pytest.approx(17.56, abs=0.005)
    assert costs.of(Plan()).flops == 2 * (12 * block_macs + 196 * 768 * 768)
    assert costs.operations[0].gflops / 2 == pytest.approx(1.454, abs=0.0005)
    assert costs.operations[0].params == 7_087_872
    assert costs.operations[Span(9, 11)].params == 768 * 768
    assert costs.operations[Span(9, 11)].gflops / 2 == pytest.approx(0.116, abs=0.0005)
    assert costs.of(Plan.parse("9-11")).params == costs.of(Plan()).params - 2 * 7_087_872 + 589_824


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2", "vit_base_patch16_gap_224"])
def test_costs_are_those_of_the_shortened_model_itself(name: str):
    backbone = tiny(name)
    maps = {plan.spans[0]: torch.nn.Linear(32, 32, bias=False) for plan in every_span(3)}
    maps |= {Span(0, 1, "shift"): Shift(torch.ones(32)), Span(1, 2, "shift"): Shift(torch.ones(32))}
    costs = Costs(backbone, maps)
    for text in (
        "stem-0+1-2",
        "0-1:shift",
        "0-1:shift+1-2:shift",
        "0-1+1-2",
        "0-1+1-2:shift",
        "stem-0+0-2",
        *map(str, every_span(3)),
        "none",
    ):
        plan = Plan.parse(text)
        short = shorten(backbone, plan, maps)
        with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            short(torch.zeros(1, 3, 32, 32))
        assert costs.of(plan).params == sum(p.numel() for p in short.parameters())
        assert costs.of(plan).flops == counter.get_total_flops()
        assert costs.columns(plan)["gflops"] == counter.get_total_flops() / 1e9
    block = costs.operations[0].params
    assert costs.of(Plan.parse("0-1:shift")).params == costs.of(Plan()).params - block, "it folds"
    assert costs.of(Plan.parse("stem-0")).params == costs.of(Plan()).params - block
