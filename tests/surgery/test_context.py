"""Models with a map that sees the image: every format reads them back, and nothing folds it or counts it wrongly."""

import copy
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.conftest import pixels, tiny
from tests.exports import damage, saved
from tests.models.families import FAMILIES
from toast_cli import load
from toast_cli.errors import ToastError
from toast_cli.layers import Context, Shift, blank_context
from toast_cli.plans import Map, Plan, Span, Variant
from toast_cli.stages.exported import TOLERANCES
from toast_cli.stages.tune import Student
from toast_cli.surgery import shorten
from toast_cli.surgery.costs import Costs
from toast_cli.surgery.folding import fold
from toast_cli.surgery.formats import FORMATS
from toast_cli.surgery.parts import MapPart, parts_of
from toast_cli.surgery.recipe import checksum


def some_map(prefix: int) -> Context:
    """A map of width 32 with random weights, not far from one that passes latents on."""
    torch.manual_seed(0)
    module = blank_context(prefix, 32).requires_grad_(False)
    for layer in module.own:
        layer.weight.add_(torch.eye(32))
    return module


@pytest.mark.parametrize("family", FAMILIES)
def test_family_reads_back(family: str, tmp_path: Path):
    name, options = FAMILIES[family]
    backbone = tiny(name, **options)
    vit = saved(tmp_path, backbone, layer=lambda: some_map(backbone.prefix_tokens))
    again, images = load(tmp_path), backbone.normalise(pixels())
    with torch.inference_mode():
        assert torch.allclose(again(images), vit(images), atol=1e-6)
        assert torch.equal(again.forward_head(again.forward_features(images)), again(images))
        without = copy.deepcopy(vit)
        for layer in without.blocks[1].map.context:
            layer.weight.zero_()
        assert not torch.allclose(without(images), vit(images), atol=1e-3), "the image's mean matters"
    assert isinstance(again.blocks[1].map, Context)
    assert timm.data.resolve_model_data_config(again)["input_size"] == (3, 32, 32)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["registers", "average pooling, no class token", "rotary embeddings, DINOv3"])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("kind", FORMATS)
def test_every_format(kind: str, dtype: str, family: str, tmp_path: Path):
    if dtype not in FORMATS[kind].dtypes:
        pytest.skip(f"{kind} does not compute in {dtype}")
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    name, options = FAMILIES[family]
    backbone = tiny(name, **options)
    vit = saved(tmp_path, backbone, layer=lambda: some_map(backbone.prefix_tokens))
    vit.pretrained_cfg = {"input_size": [3, 32, 32]}
    images = backbone.normalise(pixels(3))
    with torch.inference_mode():
        expected = vit(images)
    FORMATS[kind].write(tmp_path, copy.deepcopy(vit), dtype)
    damage(tmp_path, lambda recipe: recipe.update(weights=checksum(tmp_path / FORMATS[kind].file)))
    found = FORMATS[kind].read(tmp_path)(images)
    assert ((found - expected).abs().max() / expected.abs().max()).item() < TOLERANCES[dtype]


def test_a_recipe_whose_map_takes_other_tokens_for_patches_is_refused(tmp_path: Path):
    saved(tmp_path, tiny(), layer=lambda: some_map(1))
    assert load(tmp_path)(torch.zeros(2, 3, 32, 32)).isfinite().all()
    for prefix in (2, 17, 2**20):
        damage(tmp_path, lambda recipe, prefix=prefix: recipe["blocks"][1].update(prefix=prefix))
        with pytest.raises(ToastError, match="a map takes other tokens for the patches than the model has"):
            load(tmp_path)


def test_folding_leaves_it_alone():
    backbone = tiny(depth=6)
    plan = Plan.parse("stem-0:context+0-1:shift+2-3:context+3-4:linear")
    maps = {span: {"context": some_map(1), "shift": Shift(torch.ones(32)), "linear": nn.Linear(32, 32)}[span.translator]
            for span in plan.spans}  # fmt: skip
    parts = parts_of(backbone, plan, maps)
    folded = fold(parts)
    assert [str(part) for part in folded if isinstance(part, MapPart)] == [
        "stem-0:context", "0-1:shift", "2-3:context", "3-4:linear",
    ]  # fmt: skip
    assert sum(isinstance(part, MapPart) and isinstance(part.module, Context) for part in folded) == 2


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2", "vit_base_patch16_gap_224"])
def test_costs_are_those_of_the_shortened_model_itself(name: str):
    backbone = tiny(name)
    maps = {Span(0, 1): some_map(backbone.prefix_tokens)}
    plan, costs = Plan.parse("0-1"), Costs(backbone, maps)
    short = shorten(backbone, plan, maps)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        short(torch.zeros(1, 3, 32, 32))
    assert costs.of(plan).params == sum(p.numel() for p in short.parameters())
    assert costs.of(plan).flops == counter.get_total_flops()
    groups = 1 + bool(backbone.prefix_tokens)
    assert costs.operations[Span(0, 1)].flops == 2 * 32**2 * (backbone.tokens + groups)
    assert costs.operations[Span(0, 1)].params == groups * (2 * 32**2 + 32)


def test_fine_tuning_trains_it():
    backbone = tiny()
    key = Map(Span(0, 1), 9)
    for train_maps in (True, False):
        student = Student(backbone, Variant(Plan((Span(0, 1),)), 9), {key: some_map(1)}, nn.Linear(32, 5), train_maps)
        student.model(pixels()).square().sum().backward()
        weights = dict(student.model.vit.blocks[1].map.named_parameters())
        assert len(weights) == 6
        for name, weight in weights.items():
            # The class token is the only one that the last block hands on, and all others reach it by attention.
            assert (weight.grad is not None and bool(weight.grad.any())) == train_maps, name
