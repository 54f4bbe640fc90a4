"""Pixels as a model was trained to see them, or as the paper prepared them."""

import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform

from toast_cli.errors import ToastError
from toast_cli.models import factory as models
from toast_cli.models.preprocessing import to_pixels


def test_preprocessing_is_the_models_own_at_the_size_it_runs_at():
    backbone = models.load("d", "vit_small_patch14_dinov2", pretrained=False, image_size=56, options={"depth": 1})
    assert backbone.transform(Image.new("RGB", (90, 70))).shape == (3, 56, 56)
    assert backbone.transform(Image.new("RGB", (90, 70))).dtype == torch.uint8
    expected = torch.tensor([0.485, 0.456, 0.406])
    assert torch.allclose(backbone.mean.flatten(), expected)
    white = backbone.normalise(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).flatten()
    assert torch.allclose(white, (1 - expected) / torch.tensor([0.229, 0.224, 0.225]))


def dinov2(tmp_path, **arguments) -> models.Backbone:
    """A tiny DINOv2 whose checkpoint has position embeddings for 8 × 8 patches, at 4 × 4."""
    options = {"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    if not (tmp_path / "w.safetensors").exists():
        large = models.load("d", "vit_small_patch14_dinov2", pretrained=False, image_size=64, options=options)
        large.vit.pos_embed.data.normal_()
        save_file(large.vit.state_dict(), tmp_path / "w.safetensors")
    path = str(tmp_path / "w.safetensors")
    return models.load(
        "d", "vit_small_patch14_dinov2", path, image_size=32, options=options, paper_resize=40, **arguments
    )


def test_the_papers_preprocessing_of_dinov2(tmp_path):
    ours, papers = dinov2(tmp_path), dinov2(tmp_path, preprocessing="paper")
    stored = load_file(tmp_path / "w.safetensors")["pos_embed"][:, 1:]
    grid = stored.reshape(1, 8, 8, 32).permute(0, 3, 1, 2)
    for backbone, antialias in ((ours, True), (papers, False)):
        resized = F.interpolate(grid, (4, 4), mode="bicubic", align_corners=False, antialias=antialias)
        assert torch.allclose(backbone.vit.pos_embed[:, 1:], resized.permute(0, 2, 3, 1).reshape(1, 16, 32), atol=1e-5)
    image = Image.effect_noise((80, 60), 90).convert("RGB")
    resized = image.resize((53, 40), Image.Resampling.BICUBIC).crop((10, 4, 42, 36))
    difference = papers.transform(image).float() - torch.from_numpy(np.array(resized)).permute(2, 0, 1)
    assert difference.abs().max() <= 1
    assert ours.transform(image).shape == papers.transform(image).shape
    assert (ours.transform(image) != papers.transform(image)).any()
    with pytest.raises(ToastError, match="model.preprocessing=papr is not known"):
        dinov2(tmp_path, preprocessing="papr")


SETTINGS = {"input_size": (3, 32, 32), "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center"}


@pytest.mark.parametrize("turned", [False, True])
def test_a_very_long_image_is_cropped_before_it_is_resized(turned: bool):
    """Its middle is seen, and as much memory is taken as for one of twenty squares."""
    line = np.zeros((60_000, 60, 3), np.uint8)
    line[29_970:30_030] = (10, 200, 30)
    line = np.ascontiguousarray(line.transpose(1, 0, 2)) if turned else line
    resized: list[tuple[int, int]] = []
    original = Image.Image.resize

    def spy(image: Image.Image, *args: object, **options: object) -> Image.Image:
        resized.append(image.size)
        return original(image, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "resize", spy)
        seen = to_pixels(SETTINGS)(Image.fromarray(line))
    assert {max(size) for size in resized} == {1200}
    assert seen.float().mean((1, 2)).round().tolist() == [10, 200, 30]


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_an_image_of_usual_shape_is_seen_as_timm_sees_it(mode: str):
    settings = {**SETTINGS, "crop_mode": mode}
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 800, 3), dtype=np.uint8))
    assert torch.equal(to_pixels(settings)(image), create_transform(**settings, normalize=False)(image))
    assert pickle.loads(pickle.dumps(to_pixels(settings)))(image).shape == (3, 32, 32)
