"""Weights from checkpoints, from the hub or from nowhere; what does not serve is named."""

import pickle

import pytest
import timm
import torch
from safetensors.torch import save_file

from tests.conftest import pixels, tiny
from toast_cli.errors import ToastError
from toast_cli.models import factory as models
from toast_cli.stages.walk import latents


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
        "folder.safetensors": (lambda p: p.mkdir(), "is a folder without model.safetensors"),
        "garbage.safetensors": (lambda p: p.write_bytes(b"garbage" * 9), "cannot be read as weights"),
        "garbage.pt": (lambda p: p.write_bytes(b"garbage" * 9), "cannot be read as weights"),
        "code.pt": (lambda p: p.write_bytes(pickle.dumps(Boom())), "executes no pickle"),
        "zip.pt": (lambda p: torch.save(Boom(), p), "executes no pickle"),
        "truncated.safetensors": (
            lambda p: (save_file(weights, p), p.write_bytes(p.read_bytes()[:-99])),
            "is cut off, its end is missing",
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
            "does not fit the model: norm.weight is 7, and the model's is 32; choose the model it was saved from, or give its",
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
        ("vit_tiny_patch16_224", "does not hold timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"),
    ],
)
def test_names_that_do_not_serve_are_told_why(name: str, sentence: str):
    with pytest.raises(ToastError, match="model.name=|timm/vit_tiny") as error:
        models.load("t", name)
    assert sentence in str(error.value)


def test_options_that_timm_does_not_take_are_named():
    with pytest.raises(ToastError, match="timm cannot build vit_tiny_patch16_224 with"):
        models.load("t", "vit_tiny_patch16_224", pretrained=False, options={"wings": 2})
