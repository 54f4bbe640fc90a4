import pytest
import torch

from tests.conftest import pixels, tiny
from tests.models.families import FAMILIES
from toast_cli.layers import Shift, dense
from toast_cli.moments import Moments
from toast_cli.plans import STEM, Plan, Span
from toast_cli.stages.walk import latents
from toast_cli.surgery import shorten
from toast_cli.surgery.folding import fold
from toast_cli.surgery.parts import BlockPart, MapPart, Part, StemPart, join, parts_of
from toast_cli.translators.closed_form import Shift as ShiftTranslator


def names(parts: list[Part]) -> list[object]:
    """STEM, blocks by number, maps by their text."""
    return [STEM if isinstance(p, StemPart) else p.kept if isinstance(p, BlockPart) else str(p) for p in parts]


def run(vit: torch.nn.Module, backbone, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return vit(backbone.normalise(images))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch14_dinov2", "vit_small_patch16_dinov3"])
def test_a_shift_costs_nothing_and_changes_nothing(name: str):
    backbone, images = tiny(name, depth=4), pixels()
    plan = Plan.parse("0-1+2-3")
    moments = Moments((span.start, span.end) for span in plan.spans)
    moments.update(latents(backbone, images))
    maps = {span: ShiftTranslator().fit(moments.pair(span.start, span.end)).to_module() for span in plan.spans}
    made = fold(parts_of(backbone, plan, maps))
    assert names(made) == [STEM, 0, 2]
    folded, plain = join(made), shorten(backbone, plan, maps, folded=False)
    assert torch.allclose(run(folded, backbone, images), run(plain, backbone, images), atol=1e-5)
    assert not torch.allclose(run(folded, backbone, images), run(backbone.vit, backbone, images), atol=1e-2)
    kept = sum(p.numel() for i in (0, 2) for p in backbone.blocks[i].parameters())
    assert sum(p.numel() for p in folded.blocks.parameters()) == kept
    assert torch.equal(backbone.blocks[0].mlp.fc2.bias, tiny(name, depth=4).blocks[0].mlp.fc2.bias), (
        "the original stays"
    )


def test_a_shift_is_the_difference_of_the_means():
    backbone, images = tiny(), pixels()
    found = latents(backbone, images)
    moments = Moments([(0, 2)])
    moments.update(found)
    bias = ShiftTranslator().fit(moments.pair(0, 2)).bias_
    assert torch.allclose(bias, (found[2] - found[0]).mean((0, 1)), atol=1e-5)


def test_a_shift_stays_where_nothing_can_take_it():
    shift, scaled = Shift(torch.ones(32)), tiny("vit_small_patch14_dinov2")
    assert names(fold([MapPart(("stem-0",), shift), BlockPart(1, tiny().blocks[1])])) == ["stem-0", 1]
    scaled.blocks[0].ls2.gamma[3] = 0
    assert names(fold([BlockPart(0, scaled.blocks[0]), MapPart(("0-1",), shift)])) == [0, "0-1"]
    assert len(fold([BlockPart(0, torch.nn.Linear(4, 4)), MapPart(("0-1",), Shift(torch.ones(4)))])) == 2, (
        "a block of another kind"
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["linear", pytest.param("affine", marks=pytest.mark.slow), "shift"])
def test_a_map_behind_the_stem_costs_nothing_and_changes_nothing(family: str, kind: str):
    name, options = FAMILIES[family]
    backbone, images = tiny(name, **options), pixels()
    generator = torch.Generator().manual_seed(1)
    bias = torch.randn(32, generator=generator)
    map_ = (
        Shift(bias)
        if kind == "shift"
        else dense(torch.randn(32, 32, generator=generator), bias if kind == "affine" else None)
    )
    plan, maps = Plan.parse("stem-0"), {Span(STEM, 0): map_}
    made = fold(parts_of(backbone, plan, maps))
    if family in (
        "norm before the blocks",
        "attention pooling, Perception Encoder",
        "gated MLP, no biases",
        "convolutions before the blocks",
    ):
        assert names(made) == [STEM, "stem-0", 1, 2], "a norm lies between, or more than one layer"
        return
    assert names(made) == [STEM, 1, 2]
    folded, plain = join(made), shorten(backbone, plan, maps, folded=False)
    wanted = run(plain, backbone, images)
    assert (run(folded, backbone, images) - wanted).norm() / wanted.norm() < 1e-5
    assert sum(p.numel() for p in folded.parameters()) == sum(
        p.numel() for name, p in backbone.vit.named_parameters() if not name.startswith("blocks.0.")
    )
    assert all(
        torch.equal(p, q)
        for p, q in zip(backbone.vit.parameters(), tiny(name, **options).vit.parameters(), strict=True)
    )


def test_a_model_keeps_a_block():
    backbone = tiny()
    for text in ("stem-2", "stem-2:identity", "stem-0+0-2"):
        plan = Plan.parse(text)
        maps = {span: torch.nn.Identity() if span.translator else dense(torch.eye(32)) for span in plan.spans}
        short = shorten(backbone, plan, maps)
        assert len(short.blocks) == len(plan.spans)
        assert len(short.forward_intermediates(torch.zeros(1, 3, 32, 32), indices=1, intermediates_only=True)) == 1


def test_maps_in_a_row_are_one_map():
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(8, 8, generator=generator) for _ in range(2)]
    modules = [dense(weights[0]), Shift(torch.arange(8.0)), dense(weights[1], torch.ones(8))]
    maps = [MapPart((name,), module) for name, module in zip(("0-1", "1-2", "2-4"), modules, strict=True)]
    x = torch.randn(3, 5, 8, generator=generator)
    (part,) = fold([*maps, MapPart(("4-5",), torch.nn.Identity())])
    assert str(part) == "0-1 1-2 2-4"
    assert torch.allclose(part.module(x), modules[2](modules[1](modules[0](x))), atol=1e-4)
    (plain,) = fold([maps[0], MapPart(("1-2",), dense(weights[1]))])
    assert plain.module.bias is None
