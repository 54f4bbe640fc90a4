"""The fast path of a block against timm's own; whole models are in test_models.py."""

import pytest
import torch

from tests.conftest import pixels, tiny
from toast_cli.models import fused
from toast_cli.models.fused import Dense, layers_of
from toast_cli.plans import ATTENTION, MLP, Half

KINDS = {
    "plain": ("vit_tiny_patch16_224", {}),
    "layer scale": ("vit_small_patch14_dinov2", {}),
    "no bias": ("vit_tiny_patch16_224", {"qkv_bias": False}),
    "another activation": ("vit_base_patch32_clip_quickgelu_224", {}),
}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_block(kind: str, packed: bool, monkeypatch: pytest.MonkeyPatch):
    if not packed:  # as on a GPU
        monkeypatch.setattr(fused, "multiplied_by_onednn", lambda weight: False)
    name, options = KINDS[kind]
    backbone = tiny(name, **options)
    latent, extras = backbone.stem(pixels(3))
    for module in backbone.blocks[1].modules():  # LayerScale and biases start out as constants that hide mistakes
        for parameter in module.parameters(recurse=False):
            parameter.add_(
                0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            )
    expected = backbone.block(1, latent, extras)
    before = latent.clone()
    quick = backbone.fused_block(1)
    assert layers_of(backbone.blocks[1]) is not None
    assert relative(quick(latent, extras, None), expected) < 1e-6
    for rows in (1, 2):
        assert quick(latent, extras, rows).shape == (3, rows, 32)
        assert relative(quick(latent, extras, rows), expected[:, :rows]) < 2e-6
    assert torch.equal(latent, before), "siblings in the trie start from the same latent"


def test_bf16_keeps_the_residual_stream_in_fp32():
    backbone = tiny()
    latent, extras = backbone.stem(pixels(3))
    exact = backbone.block(2, latent, extras)
    backbone = backbone.on(latent.device, torch.bfloat16)
    for rows in (None, 1):
        quick = backbone.fused_block(2)(latent, extras, rows)
        assert quick.dtype == torch.float32
        assert 0 < relative(quick, exact[:, :rows]) < 0.01


@pytest.mark.parametrize("kept", [0, 1, Half(1, ATTENTION), Half(1, MLP)])
def test_the_first_blocks_of_a_tail_stay_in_fp32(kept: int | Half):
    backbone = tiny().on(torch.device("cpu"), torch.bfloat16)
    latent, extras = backbone.stem(pixels(3))
    number, part = kept if isinstance(kept, int) else kept.block, backbone.part(kept)
    quick = backbone.fused_blocks(number, {kept: part})[kept]
    assert relative(quick(latent, extras, None), part(latent)) < 1e-6


def test_blocks_of_another_kind_are_computed_as_they_are():
    backbone = tiny(qk_norm=True)
    latent, extras = backbone.stem(pixels(2))
    assert torch.equal(backbone.fused_block(0)(latent, extras, 1), backbone.block(0, latent, extras)[:, :1])


def test_dense_without_bias():
    x, weight = torch.randn(2, 3, 8), torch.randn(5, 8)
    dense = Dense(weight, None, torch.float32)
    assert torch.allclose(dense(x), x @ weight.T, atol=1e-5)
    assert torch.allclose(dense.gelu(x), torch.nn.functional.gelu(x @ weight.T), atol=1e-5)
    assert torch.allclose(dense.plus(x, torch.ones(2, 3, 5)), 1 + x @ weight.T, atol=1e-5)


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()
