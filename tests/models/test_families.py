"""One body over every model family that timm's VisionTransformer and Eva classes cover, at tiny size."""

import pytest
import torch

from tests.conftest import pixels, tiny
from tests.models.families import FAMILIES
from toast_cli.models import factory as models
from toast_cli.moments import Moments
from toast_cli.plans import Plan, parse_plans
from toast_cli.stages.walk import Encoder, latents
from toast_cli.surgery import shorten
from toast_cli.translators.closed_form import Linear


@pytest.mark.parametrize("family", FAMILIES)
def test_family(family: str):
    name, options = FAMILIES[family]
    backbone, images = tiny(name, **options), pixels()
    plans = parse_plans("all", backbone.depth)
    spans = sorted({span for plan in plans for span in plan.spans})
    moments = Moments((span.start, span.end) for span in spans)
    moments.update(latents(backbone, images))
    maps = {span: Linear().fit(moments.pair(span.start, span.end)).to_module() for span in spans}
    walked = Encoder(backbone, plans, maps)(images)  # (N, P, F)

    with torch.inference_mode():
        untouched = features(backbone.vit, backbone, images)
        assert torch.equal(walked[:, 0], untouched), "a plan without spans is the untouched model, bit for bit"
        assert torch.equal(features(shorten(backbone, Plan(), {}), backbone, images), untouched)
        for number, plan in enumerate(plans):
            short = features(shorten(backbone, plan, maps), backbone, images)
            assert relative(walked[:, number], short) < 1e-5
    assert walked.shape == (6, len(plans), backbone.feature_width)
    assert backbone.tokens == backbone.stem(images)[0].shape[1]
    assert (relative(walked[:, 1:], untouched[:, None]) > 1e-3).item(), "the plans must do something"


def features(vit: torch.nn.Module, backbone: models.Backbone, images: torch.Tensor) -> torch.Tensor:
    """timm's own way to them."""
    return vit.forward_head(vit.forward_features(backbone.normalise(images)), pre_logits=True)


def relative(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (one - other).norm() / other.norm()


def test_a_shortened_model_is_smaller_and_its_own():
    backbone = tiny()
    short = shorten(backbone, Plan.parse("0-2"), {Plan.parse("0-2").spans[0]: torch.nn.Identity()})
    assert len(short.blocks) == 1, "an identity is nothing"
    assert len(backbone.blocks) == 3
    short.blocks[0].norm1.weight.data.zero_()
    assert backbone.blocks[0].norm1.weight.abs().sum() > 0
