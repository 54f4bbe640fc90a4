"""One body over every model family that timm's VisionTransformer and Eva classes cover, at tiny size."""

import pickle
from unittest.mock import MagicMock

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors.torch import load_file, save_file

from tests.conftest import pixels, tiny
from toast_cli.errors import ToastError
from toast_cli.models import factory as models
from toast_cli.moments import Moments
from toast_cli.plans import Plan, parse_plans
from toast_cli.stages.walk import Encoder, latents
from toast_cli.surgery import shorten
from toast_cli.translators.closed_form import Linear

FAMILIES = {
    "class token": ("vit_tiny_patch16_224", {}),
    "distillation token": ("deit_tiny_distilled_patch16_224", {}),
    "layer scale": ("vit_small_patch14_dinov2", {}),
    "registers": ("vit_small_patch14_reg4_dinov2", {}),
    "position embedding beside the class token": ("deit3_small_patch16_224", {}),
    "average pooling, no class token": ("vit_base_patch16_gap_224", {}),
    "average pooling, several registers": ("vit_medium_patch16_reg4_gap_256", {}),
    "attention pooling": ("vit_base_patch16_siglip_224", {}),
    "norm before the blocks": ("vit_base_patch32_clip_224", {}),
    "norm of queries and keys": ("vit_tiny_patch16_224", {"qk_norm": True}),
    "no bias": ("vit_tiny_patch16_224", {"qkv_bias": False}),
    "parallel blocks": ("vit_small_patch16_18x2_224", {}),
    "rotary embeddings, DINOv3": ("vit_small_patch16_dinov3", {}),
    "rotary embeddings, EVA-02": ("eva02_tiny_patch14_224", {}),
}


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


def test_preprocessing_is_the_models_own_at_the_size_it_runs_at():
    backbone = models.load("d", "vit_small_patch14_dinov2", pretrained=False, image_size=56, options={"depth": 1})
    from PIL import Image

    assert backbone.transform(Image.new("RGB", (90, 70))).shape == (3, 56, 56)
    assert backbone.transform(Image.new("RGB", (90, 70))).dtype == torch.uint8
    expected = torch.tensor([0.485, 0.456, 0.406])
    assert torch.allclose(backbone.mean.flatten(), expected)
    white = backbone.normalise(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).flatten()
    assert torch.allclose(white, (1 - expected) / torch.tensor([0.229, 0.224, 0.225]))


def test_a_dry_model_is_the_same_each_time():
    one, other = (models.load("t", "vit_tiny_patch16_224", pretrained=False, options={"depth": 1}) for _ in range(2))
    assert one.fingerprint() == other.fingerprint()


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_checkpoint_reads_back_with_head_and_other_image_size(tmp_path, suffix: str):
    backbone = tiny()
    weights = {**backbone.vit.state_dict(), "head.weight": torch.zeros(10, 32), "head.bias": torch.zeros(10)}
    path = tmp_path / f"w.{suffix}"
    save_file(weights, path) if suffix == "safetensors" else torch.save({"model": weights}, path)
    options = {"patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}
    again = models.load("t", "vit_tiny_patch16_224", checkpoint=str(path), image_size=32, options=options)
    assert again.fingerprint() == backbone.fingerprint()
    larger = models.load("t", "vit_tiny_patch16_224", checkpoint=str(path), image_size=64, options=options)
    assert larger.tokens == 65
    assert torch.equal(larger.vit.pos_embed[:, :1], backbone.vit.pos_embed[:, :1])


def test_weights_come_from_a_hub_cache_without_internet(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """The real way to the hub's weights, with a cache as it leaves one behind."""
    name = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    weights = {
        **tiny(patch_size=16, embed_dim=192, depth=12).vit.state_dict(),
        "head.weight": torch.zeros(1000, 192),
        "head.bias": torch.zeros(1000),
    }
    weights["pos_embed"] = torch.randn(1, 197, 192)
    repository = tmp_path / f"models--timm--{name}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(weights, repository / "snapshots" / ("0" * 40) / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    loaded = models.load("vit_t", name, image_size=224)
    assert torch.equal(loaded.vit.blocks[7].mlp.fc1.weight, weights["blocks.7.mlp.fc1.weight"])
    assert torch.equal(loaded.vit.pos_embed, weights["pos_embed"])


class Boom:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def test_checkpoints_that_do_not_serve_are_named(tmp_path):
    backbone = tiny()
    weights = backbone.vit.state_dict()
    bad = {
        "missing.safetensors": (lambda p: None, "is not a file"),
        "folder.safetensors": (lambda p: p.mkdir(), "is not a file"),
        "garbage.safetensors": (lambda p: p.write_bytes(b"garbage" * 9), "cannot be read as weights"),
        "garbage.pt": (lambda p: p.write_bytes(b"garbage" * 9), "cannot be read as weights"),
        "code.pt": (lambda p: p.write_bytes(pickle.dumps(Boom())), "executes no pickle"),
        "zip.pt": (lambda p: torch.save(Boom(), p), "executes no pickle"),
        "truncated.safetensors": (
            lambda p: (save_file(weights, p), p.write_bytes(p.read_bytes()[:-99])),
            "cannot be read as weights",
        ),
        "half.safetensors": (
            lambda p: save_file({k: v for k, v in weights.items() if "blocks.2" not in k}, p),
            "does not fit the model (12 weights are missing, such as blocks.2.",
        ),
        "more.safetensors": (
            lambda p: save_file({**weights, "blocks.3.x": torch.ones(1)}, p),
            "1 are unknown, such as blocks.3.x",
        ),
        "wide.safetensors": (
            lambda p: save_file({**weights, "norm.weight": torch.ones(7)}, p),
            "does not fit the model: ",
        ),
    }
    for name, (write, sentence) in bad.items():
        write(tmp_path / name)
        with pytest.raises(ToastError) as error:
            models.load(
                "t",
                "vit_tiny_patch16_224",
                checkpoint=str(tmp_path / name),
                image_size=32,
                options={"patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2},
            )
        assert sentence in str(error.value), name
        assert str(error.value).startswith(f"model.checkpoint={tmp_path / name}")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("vit_smal_patch16_224", "is not known to timm"),
        ("vit_smal_patch16_224", "did you mean vit_small_patch16_224"),
        ("vit_small_patch16_224.nobody", "has no weights tagged 'nobody'; it has vit_small_patch16_224.augreg_in1k"),
        ("resnet18", "is a ResNet: only models of timm's VisionTransformer and Eva classes can be used."),
        ("vit_tiny_patch16_224", "could not be fetched from the hub"),
    ],
)
def test_names_that_do_not_serve(name: str, sentence: str):
    with pytest.raises(ToastError, match="model.name=|weights of") as error:
        models.load("t", name)
    assert sentence in str(error.value)


def test_gated_weights_say_how_to_get_in(monkeypatch: pytest.MonkeyPatch):
    vit = tiny().vit

    def gated(*_: object, pretrained: bool, **__: object) -> torch.nn.Module:
        if pretrained:
            raise RepositoryNotFoundError("401", response=MagicMock())
        return vit

    monkeypatch.setattr(models.timm, "create_model", gated)
    with pytest.raises(
        ToastError, match="does not give out the weights of vit_tiny_patch16_224 without permission: accept their terms"
    ):
        models.load("t", "vit_tiny_patch16_224")


def test_options_that_timm_does_not_take():
    with pytest.raises(ToastError, match="timm cannot build vit_tiny_patch16_224 with"):
        models.load("t", "vit_tiny_patch16_224", pretrained=False, options={"wings": 2})


def test_the_papers_readout_is_a_random_dense_layer_and_tanh():
    backbone = models.Backbone(tiny().vit, "tiny", 32, readout="paper")
    plain = tiny()
    latent, _ = backbone.stem(pixels())
    expected = torch.tanh(backbone.pooler[0](plain.readout(latent)))
    assert torch.allclose(backbone.readout(latent), expected)
    assert backbone.pooler[0].weight.std().item() == pytest.approx(0.02, rel=0.1)
    again = models.Backbone(tiny().vit, "tiny", 32, readout="paper")
    assert torch.equal(again.readout(latent), backbone.readout(latent)), "the same in every run"
    assert models.Backbone(tiny("vit_small_patch14_dinov2").vit, "d", 32, readout="paper").pooler is None
    with pytest.raises(ToastError, match="readout=papr is not known .did you mean paper"):
        models.Backbone(tiny().vit, "tiny", 32, readout="papr")


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
    from PIL import Image

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


def test_the_classifier_comes_along_where_there_is_one(tmp_path):
    full = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2, num_classes=7
    )
    save_file(full.state_dict(), tmp_path / "w.safetensors")
    options = {"patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}
    backbone = models.load("t", "vit_tiny_patch16_224", str(tmp_path / "w.safetensors"), image_size=32, options=options)
    with torch.inference_mode():
        expected = full.eval()(backbone.normalise(pixels()))
        found = backbone.head(backbone.readout(latents(backbone, pixels())[2]))
    assert torch.allclose(found, expected, atol=1e-5)
    assert tiny().head is None, "random weights have no classifier worth the name"
