"""Models in timm's own format: in a folder, or in a repository on the hub, of which only the cache is there."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import pixels
from tests.models.by_hand import SIZE, forward, weights
from toast_cli.errors import ToastError
from toast_cli.models import factory as models

CONFIG = {
    "architecture": "vit_tiny_patch16_224",
    "num_classes": 3,
    "model_args": {"img_size": 32, **SIZE},
    "pretrained_cfg": {
        "input_size": [3, 32, 32],
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "crop_pct": 0.8,
        "url": "http://nowhere",
        "custom_load": True,
        "file": "/etc/passwd",
    },
}


def saved(folder: Path, **changed: object) -> Path:
    folder.mkdir(parents=True)
    save_file(weights() | {"head.weight": torch.ones(3, 24), "head.bias": torch.zeros(3)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG | changed))
    return folder


def is_as_saved(backbone: models.Backbone) -> None:
    assert (backbone.preprocessing["mean"], backbone.preprocessing["crop_pct"]) == ((0.1, 0.2, 0.3), 0.8)
    assert backbone.recipe == {"name": "vit_tiny_patch16_224", "arguments": {**SIZE, "img_size": 32}}
    images = (pixels() / 255 - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.4, 0.5, 0.6]).view(
        3, 1, 1
    )
    wanted = forward(weights(), images)[:, 0].sum(1, keepdim=True).expand(-1, 3)
    assert torch.allclose(backbone(pixels()), wanted, rtol=1e-4, atol=1e-4)


def test_a_folder_as_timm_saves_it(tmp_path: Path):
    is_as_saved(models.load("m", f"local-dir:{saved(tmp_path / 'mine')}"))
    dry = models.load("m", f"local-dir:{tmp_path / 'mine'}", pretrained=False)
    assert dry.head is None
    assert dry.preprocessing["crop_pct"] == 0.8


@pytest.mark.parametrize("prefix", ["hf-hub:", "hf_hub:"])
def test_a_repository_in_the_hubs_cache(prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    repository = tmp_path / "models--someone--my-vit"
    saved(repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    is_as_saved(models.load("m", f"{prefix}someone/my-vit"))
    with pytest.raises(
        ToastError,
        match="HF_HUB_OFFLINE is set, so nothing is fetched, and the cache .* does not hold someone/other: unset it; or run",
    ):
        models.load("m", "hf-hub:someone/other")


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"architecture": "nobodys_vit"},
            "names no model that timm .* knows: give timm's own name for its architecture as model.name, and model",
        ),
        ({"architecture": None, "model_type": "vit"}, "names no model that timm"),
        ({"architecture": "resnet18"}, "is a ResNet: only models of timm's"),
        ({"model_args": {"checkpoint_path": "/etc/passwd"}}, "with 'checkpoint_path': '/etc/passwd': give only"),
        ({"model_args": {"depth": 10**9}}, "with depth=1000000000: give a number from"),
        ({"model_args": [1]}, "the model_args in its config.json are no arguments"),
        ({"model_args": {"img_size": 32, **SIZE, "depth": 3}}, "12 weights are missing, such as blocks.2.norm1.weight"),
    ],
)
def test_what_a_config_of_a_stranger_may_not_say(changed: dict, sentence: str, tmp_path: Path):
    with pytest.raises(ToastError, match=sentence) as error:
        models.load("m", f"local-dir:{saved(tmp_path / 'mine', **changed)}")
    assert str(error.value).count("\n") == 0


def test_names_that_look_like_places_are_told_from_mistakes(tmp_path: Path):
    for name, sentence in (
        (
            "timm/vit_tiny_patch16_224.augreg_in21k",
            "for a repository on the hub write model.name=hf-hub:timm/vit_tiny_patch16_224.augreg_in21k.",
        ),
        (str(tmp_path), f"for a folder write model.name=local-dir:{tmp_path}."),
        (f"local-dir:{tmp_path}", "has no config.json: give a folder as timm saves it for the hub."),
        ("hf-hub:a/b/c", "is not known: give a name of timm's, local-dir:<folder> or hf-hub:<owner>/<name>."),
        (
            "hf-hub:https://huggingface.co/a/b",
            "is not known: give a name of timm's, local-dir:<folder> or hf-hub:<owner>/",
        ),
        ("hf-hub:../../etc", "is not known: give a name of timm's, local-dir:<folder> or hf-hub:<owner>/<name>."),
        ("local-dir:", "is not known: give a name of timm's, local-dir:<folder> or hf-hub:<owner>/<name>."),
        ("gs:x/y", "is not known: give a name of timm's, local-dir:<folder> or hf-hub:<owner>/<name>."),
        ("VIT_TINY_PATCH16_224", "did you mean vit_tiny_patch16_224"),
    ):
        with pytest.raises(ToastError) as error:
            models.load("m", name)
        assert sentence in str(error.value)
