"""Weights are compared with the model before anything is resampled, and what is resampled is said."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from tests.conftest import pixels
from tests.models.by_hand import DIM, SIZE, forward, weights
from tests.models.test_checkpoints import load
from toast_cli.errors import ToastError
from toast_cli.models import factory as models


def stored(folder: Path, found: dict[str, torch.Tensor]) -> str:
    save_file(found, folder / "w.safetensors")
    return str(folder / "w.safetensors")


def test_patches_of_another_size_are_another_model(tmp_path: Path):
    own = weights() | {"patch_embed.proj.weight": torch.randn(DIM, 3, 16, 16)}
    path = stored(tmp_path, own)
    options = {key: value for key, value in SIZE.items() if key != "patch_size"}
    with pytest.raises(
        ToastError,
        match=r"has patches of 16 × 16 pixels, and the model takes 32 × 32: .* with \+model\.options\.patch_size=32\.",
    ):
        models.load("m", "vit_base_patch32_224", path, image_size=128, options=options)
    asked = models.load("m", "vit_base_patch32_224", path, image_size=128, options=options | {"patch_size": 32})
    assert asked.notes == (f"model.checkpoint={path} has patches of 16 × 16 pixels, which were resampled to 32 × 32",)
    small = stored(tmp_path, weights() | {"pos_embed": torch.randn(1, 16, DIM)})
    flexible = models.load("m", "flexivit_small", small, image_size=64, options=options)
    assert flexible.notes == (f"model.checkpoint={path} has patches of 8 × 8 pixels, which were resampled to 16 × 16",)


def test_resized_position_embeddings_are_said(tmp_path: Path):
    path = stored(tmp_path, weights())
    found = models.load("m", "vit_tiny_patch16_224", path, image_size=48, options=SIZE)
    assert found.notes == (
        f"model.checkpoint={path} has position embeddings for 4 × 4 patches, which were resized to 6 × 6",
    )
    assert not load(path).notes


def test_deit_iii_has_its_own_names_of_layer_scale(tmp_path: Path):
    own = weights(scale=True)
    own["pos_embed"] = own["pos_embed"][:, 1:]
    meta = {key.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): value for key, value in own.items()}
    torch.save({"model": meta}, tmp_path / "deit_3.pth")
    backbone = load(tmp_path / "deit_3.pth", "deit3_small_patch16_224")
    zero = torch.zeros(1, 1, DIM)  # the class token has no position
    wanted = forward(own | {"pos_embed": torch.cat([zero, own["pos_embed"]], 1)}, backbone.normalise(pixels()))[:, 0]
    assert (backbone(pixels()) - wanted).abs().max() < 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("own_channels", [1, 3])
def test_a_grey_model_takes_grey_weights_and_rgb_ones(own_channels: int, tmp_path: Path):
    kernel = torch.randn(DIM, own_channels, 8, 8)
    path = stored(tmp_path, weights() | {"patch_embed.proj.weight": kernel})
    backbone = load(path, in_chans=1)
    images = torch.randint(0, 256, (4, 1, 32, 32), dtype=torch.uint8)
    grey = backbone.normalise(images)
    assert torch.allclose(grey, (images / 255 - 0.5) / 0.5)
    wanted = forward(weights() | {"patch_embed.proj.weight": kernel}, grey.expand(-1, own_channels, -1, -1))[:, 0]
    assert (backbone(images) - wanted).abs().max() < 1e-5 * wanted.abs().max()
    told = f"model.checkpoint={path} takes images in RGB, and its first layer was changed to take 1 channel"
    assert backbone.notes == ((told,) if own_channels == 3 else ())


def test_weights_of_other_channels_are_named(tmp_path: Path):
    path = stored(tmp_path, weights() | {"patch_embed.proj.weight": torch.randn(DIM, 1, 8, 8)})
    with pytest.raises(
        ToastError, match=r"takes images of 1 channels, and the model takes 3: add \+model\.options\.in_chans=1\."
    ):
        load(path)


def test_the_classes_of_a_distilled_model_are_the_mean_of_both_heads(tmp_path: Path):
    torch.manual_seed(0)
    vit = timm.create_model("deit_tiny_distilled_patch16_224", img_size=32, num_classes=3, **SIZE).eval()
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, 0, 0.2)
    torch.save({"model": vit.state_dict()}, tmp_path / "distilled.pth")
    backbone = load(tmp_path / "distilled.pth", "deit_tiny_distilled_patch16_224")
    with torch.inference_mode():
        wanted = vit(backbone.normalise(pixels()))
    assert torch.allclose(backbone(pixels()), wanted, atol=1e-5)
    plain = backbone.on(torch.device("cpu"), torch.float32, with_head=False)
    assert (backbone.feature_width, plain.feature_width) == (2 * DIM, DIM)
    both = backbone.readout(backbone.stem(pixels())[0])
    assert torch.allclose(plain.readout(backbone.stem(pixels())[0]), both.unflatten(1, (2, DIM)).mean(1), atol=1e-6)


def test_a_classifier_of_other_features_is_left_out(tmp_path: Path):
    head = {"head.weight": torch.ones(5, 2 * DIM), "head.bias": torch.zeros(5)}
    assert load(stored(tmp_path, weights() | head)).head is None
    found = load(stored(tmp_path, weights() | {"head.weight": torch.ones(5, DIM)}))
    assert torch.equal(
        found(pixels()),
        F.linear(found.on(torch.device("cpu"), torch.float32, with_head=False)(pixels()), torch.ones(5, DIM)),
    )
