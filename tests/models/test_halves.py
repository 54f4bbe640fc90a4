"""Plans that cut blocks between attention and MLP, over all families that have a latent there."""

import math
import pickle

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import ResPostBlock
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.conftest import pixels, tiny
from tests.models.families import FAMILIES
from tests.models.test_families import features, relative
from toast_cli import compress
from toast_cli.errors import ToastError
from toast_cli.layers import Shift
from toast_cli.models.halves import HalfBlock
from toast_cli.moments import Moments
from toast_cli.plans import ATTENTION, MLP, Half, Map, Plan, Span, Variant, middles
from toast_cli.stages.walk import Encoder, latents
from toast_cli.surgery import shorten
from toast_cli.surgery.costs import Costs
from toast_cli.surgery.folding import fold
from toast_cli.surgery.parts import BlockPart, MapPart, join, parts_of
from toast_cli.translators.closed_form import Linear

TEXTS = (
    "stem-0a",
    "0a-0",
    "0-1a",
    "1a-1",
    "1-2a",
    "2a-2",
    "0a-1a",
    "1a-2",
    "0-1a+1-2",
    "0a-0+1a-2",
    "stem-0a+0a-1a",
    "0-1",
)
CUT = [family for family in FAMILIES if family != "parallel blocks"]


@pytest.mark.parametrize("family", CUT)
def test_the_walk_is_the_shortened_model(family: str):
    name, options = FAMILIES[family]
    backbone, images = tiny(name, **options), pixels(24)  # more tokens than a map has unknowns, in every family
    plans = [Plan(), *map(Plan.parse, TEXTS)]
    spans = sorted({span for plan in plans for span in plan.spans})
    moments = Moments((span.start, span.end) for span in spans)
    moments.update(latents(backbone, images, middles(point for plan in plans for point in plan.points)))
    maps = {span: Linear().fit(moments.pair(span.start, span.end)).to_module() for span in spans}
    walked = Encoder(backbone, plans, maps)(images)  # (N, P, F)
    with torch.inference_mode():
        untouched = features(backbone.vit, backbone, images)
        assert torch.equal(walked[:, 0], untouched), "middles are taken without touching the model"
        for number, plan in enumerate(plans):
            assert relative(walked[:, number], features(shorten(backbone, plan, maps), backbone, images)) < 1e-5, str(
                plan
            )
    alone = Encoder(backbone, plans[2:3], maps)(images)
    assert relative(alone[:, 0], walked[:, 2]) < 1e-6, "half a block is computed without the other half too"
    assert all(relative(walked[:, number], untouched) > 1e-3 for number in range(1, len(plans)))


def by_hand(backbone, latent: Tensor, part: str) -> Tensor:
    """One branch of block 1 of a plain ViT, written out in float64."""
    state = {name: each.double() for name, each in backbone.blocks[1].state_dict().items()}

    def dense(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    x = latent.double()
    number = 1 if part == ATTENTION else 2
    norm = getattr(backbone.blocks[1], f"norm{number}")
    centred = x - x.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    normed = normed * state[f"norm{number}.weight"] + state[f"norm{number}.bias"]
    if part == MLP:
        hidden = dense(normed, "mlp.fc1")
        added = dense(0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2))), "mlp.fc2")
    else:
        query, key, value = dense(normed, "attn.qkv").chunk(3, -1)
        heads = []
        for own in (slice(0, 16), slice(16, 32)):
            share = torch.softmax(query[..., own] @ key[..., own].mT / 4, -1)
            heads.append(share @ value[..., own])
        added = dense(torch.cat(heads, -1), "attn.proj")
    return x + added * state.get(f"ls{number}.gamma", 1.0)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch14_dinov2"])
@pytest.mark.parametrize("part", [ATTENTION, MLP])
def test_a_half_block_by_hand(name: str, part: str):
    backbone = tiny(name)
    found = latents(backbone, pixels(), {1})
    source, target = (found[0], found[0.5]) if part == ATTENTION else (found[0.5], found[1])
    expected, half = by_hand(backbone, source, part), backbone.part(Half(1, part))
    assert relative(half(source).double(), expected) < 1e-5
    assert relative(target.double(), expected) < 1e-5
    fast = backbone.fused_blocks(1, {part: half})[part]
    for rows in (None, 1, 2):
        assert relative(fast(source, {}, rows).double(), expected[:, :rows]) < 1e-5


@pytest.mark.parametrize("family", CUT)
def test_two_halves_are_the_block_bit_for_bit_and_cost_as_much(family: str):
    name, options = FAMILIES[family]
    backbone = tiny(name, **options)
    latent, extras = backbone.stem(pixels())
    first, second = (backbone.part(Half(1, part)) for part in (ATTENTION, MLP))
    middle, after = backbone.block_and_middle(1, latent, extras)
    assert torch.equal(first(latent, **extras), middle)
    assert torch.equal(second(middle, **extras), after)
    assert torch.equal(pickle.loads(pickle.dumps(first))(latent, **extras), middle)
    maps = {Span(0, 0.5): torch.nn.Identity(), Span(0.5, 1): torch.nn.Identity(), Span(0, 1): torch.nn.Identity()}
    costs = Costs(backbone, maps)
    whole, without_attention, without_mlp, without_both = (
        costs.of(Plan.parse(text)) for text in ("none", "0-1a", "1a-1", "0-1")
    )
    for what in ("params", "flops"):
        left = getattr(without_attention, what) + getattr(without_mlp, what)
        assert left == getattr(whole, what) + getattr(without_both, what)
        assert getattr(without_both, what) < getattr(without_attention, what) < getattr(whole, what)
    for text in ("0-1a", "1a-1"):
        short = shorten(backbone, Plan.parse(text), maps)
        assert isinstance(short.blocks[1], HalfBlock)
        size = backbone.image_size
        with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            short(torch.zeros(1, 3, size, size))
        assert costs.of(Plan.parse(text)).params == sum(p.numel() for p in short.parameters())
        assert costs.of(Plan.parse(text)).flops == pytest.approx(counter.get_total_flops(), rel=1e-3)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch14_dinov2", "vit_small_patch16_dinov3"])
def test_a_shift_folds_into_the_half_before_it(name: str):
    backbone, images = tiny(name), pixels()
    plan, shift = Plan.parse("0a-0+1a-2a"), Shift(torch.linspace(-1, 1, 32))
    maps = dict.fromkeys(plan.spans, shift)
    parts = fold(parts_of(backbone, plan, maps))[1:]
    assert [part.kept for part in parts] == [Half(0, ATTENTION), Half(1, ATTENTION), Half(2, MLP)]
    folded, plain = shorten(backbone, plan, maps), shorten(backbone, plan, maps, folded=False)
    with torch.inference_mode():
        one, other = (features(vit, backbone, images) for vit in (folded, plain))
    assert relative(one, other) < 1e-5
    kept = fold([BlockPart(Half(1, MLP), backbone.part(Half(1, MLP))), MapPart(("x",), shift)])
    assert [part.kept for part in kept] == [Half(1, MLP)]


def test_a_sequential_map_comes_from_the_latent_inside_a_block():
    plan = Plan.parse("0-1a+2a-3")
    first, second = Variant(plan, 50, sequential=True).maps
    assert str(second) == "2a-3@50~0-1a"
    assert Map.parse(str(second)) == second
    assert second.source(5).steps == (0, first, Half(1, MLP), Half(2, ATTENTION))


@pytest.mark.parametrize("family", CUT)
@pytest.mark.parametrize("text", ["0-1a", "0a-1"])
def test_compress_leaves_half_a_block(family: str, text: str):
    name, options = FAMILIES[family]
    backbone = tiny(name, **options)
    model, images = backbone.vit.train(), backbone.normalise(pixels())
    short = compress(model, text, images).eval()
    map_ = short.blocks[1]
    assert isinstance(short.blocks[2 if text == "0-1a" else 0], HalfBlock)
    seen = latents(backbone, pixels(), {0, 1})
    x, y = (seen[0], seen[0.5]) if text == "0-1a" else (seen[-0.5], seen[1])
    best = (
        x.flatten(0, 1).double()
        @ torch.linalg.lstsq(x.flatten(0, 1).double(), y.flatten(0, 1).double(), driver="gelsd").solution
    )
    with torch.inference_mode():
        error = F.mse_loss(map_(x).flatten(0, 1).double(), y.flatten(0, 1).double())
        assert error < 1.02 * F.mse_loss(best, y.flatten(0, 1).double()) + 1e-9
        assert short(images).isfinite().all()


def test_compress_heals_half_blocks():
    backbone = tiny(depth=5)
    model, images = backbone.vit, backbone.normalise(pixels(60))
    for text in ("0-1a", "0a-1+2a-3"):
        plain, healed = (compress(model, text, images.split(16), "affine", heal=heal) for heal in (False, True))
        assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in healed.parameters())
        with torch.no_grad():
            found = [vit.eval().forward_features(images)[:, 0] for vit in (model, plain, healed)]
        far, near = ((each - found[0]).norm() for each in found[1:])
        assert near < 0.9 * far


def test_a_shortened_model_of_halves_can_be_trained():
    backbone = tiny()
    plan = Plan.parse("0-1a+1-2a")
    vit = join(parts_of(backbone, plan, {span: torch.nn.Linear(32, 32) for span in plan.spans}))
    vit.requires_grad_(True).train()(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in vit.blocks.parameters())
    assert [type(block).__name__ for block in vit.blocks] == ["Block", "MapBlock", "HalfBlock", "MapBlock", "HalfBlock"]


@pytest.mark.parametrize("name", ["vit_small_patch16_18x2_224", "vit_tiny_patch16_224"])
def test_blocks_that_cannot_be_cut_are_named(name: str):
    options = {"block_fn": ResPostBlock} if name == "vit_tiny_patch16_224" else {}
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}
    model = timm.create_model(name, **sizes, **options)
    with pytest.raises(ToastError) as error:
        compress(model, "0-1a", torch.randn(4, 3, 32, 32))
    assert str(error.value) == (
        f"plan 0-1a cuts block 1 between its attention and its MLP, and a {type(model.blocks[1]).__name__} has no latent "
        "there: use plans of whole blocks, such as 9-11."
    )
    compress(model, "0-1", torch.randn(4, 3, 32, 32))
