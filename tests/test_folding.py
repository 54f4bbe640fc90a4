import pytest
import torch

from tests.conftest import pixels, tiny
from toast_cli.encode import latents
from toast_cli.folding import fold
from toast_cli.layers import Shift, dense
from toast_cli.moments import Moments
from toast_cli.plans import Plan
from toast_cli.surgery import join, parts, shorten
from toast_cli.translators import Shift as ShiftTranslator


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
    made = parts(backbone, plan, maps, folded=True)
    assert [name for name, _ in made] == [0, 2]
    folded, plain = join(backbone, made), shorten(backbone, plan, maps)
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
    assert [name for name, _ in fold([("stem-0", shift), (1, tiny().blocks[1])])] == ["stem-0", 1]
    scaled.blocks[0].ls2.gamma[3] = 0
    assert [name for name, _ in fold([(0, scaled.blocks[0]), ("0-1", shift)])] == [0, "0-1"]
    assert len(fold([(0, torch.nn.Linear(4, 4)), ("0-1", Shift(torch.ones(4)))])) == 2, "a block of another kind"


def test_maps_in_a_row_are_one_map():
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(8, 8, generator=generator) for _ in range(2)]
    maps = [("0-1", dense(weights[0])), ("1-2", Shift(torch.arange(8.0))), ("2-4", dense(weights[1], torch.ones(8)))]
    x = torch.randn(3, 5, 8, generator=generator)
    ((name, module),) = fold([*maps, ("4-5", torch.nn.Identity())])
    assert name == "0-1 1-2 2-4"
    assert torch.allclose(module(x), maps[2][1](maps[1][1](maps[0][1](x))), atol=1e-4)
    ((_, plain),) = fold([maps[0], ("1-2", dense(weights[1]))])
    assert plain.bias is None
