"""Whole commands with models that people bring: grey images, two heads, weights in parts."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms.functional import pil_to_tensor

import toast_cli
from tests.conftest import save_image_folder
from toast_cli.runs import contents
from toast_cli.runs.features import FeatureFile

SIZE = {"embed_dim": 24, "depth": 3, "num_heads": 3, "patch_size": 8}
OPTIONS = [f"+model.options.{key}={value}" for key, value in SIZE.items()]
RUN = [
    "run",
    "model=timm",
    *OPTIONS,
    "model.image_size=32",
    "data=folder",
    "data.fit_images=8",
    "spans=[0-1]",
    "precision=fp32",
]


def seen(file: Path, mode: str) -> torch.Tensor:
    """A picture of 32 pixels as timm's config has it: uint8 (C, 32, 32)."""
    return pil_to_tensor(resized(Image.open(file).convert(mode)))


def resized(picture: Image.Image) -> Image.Image:
    """To 35 pixels, and cropped to 32."""
    return picture.resize((35, 35), Image.Resampling.BICUBIC).crop((2, 2, 34, 34))


def made(name: str, **options: object) -> torch.nn.Module:
    vit = timm.create_model(name, img_size=32, **SIZE, **options).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3, generator=generator)
    return vit


@pytest.mark.slow
@pytest.mark.usefixtures("short_bench")
def test_a_grey_model_from_run_to_predict(toast, tmp_path: Path):
    """Pictures in colour become grey as Pillow does it, before they are resized."""
    photos = save_image_folder(tmp_path / "photos", size=32)
    vit = made("vit_tiny_patch16_224", in_chans=1, num_classes=0)
    save_file(vit.state_dict(), tmp_path / "grey.safetensors")
    words = [
        *RUN,
        "+model.options.in_chans=1",
        "model.name=vit_tiny_patch16_224",
        "model.checkpoint=grey.safetensors",
        f"data.path={photos}",
    ]
    status, out, told = toast(*words, "keep_features=true", "probe=logistic", "hydra.run.dir=run")
    assert status == 0, told
    files = sorted((photos / "test").rglob("*.png"))
    images = torch.stack([seen(file, "L") for file in files])
    with torch.inference_mode():
        wanted = vit((images / 255 - 0.5) / 0.5)
    features = FeatureFile(Path("run") / contents.features("test"), len(files), 2, 24).read()[:][:, 0]
    assert np.abs(features - wanted.numpy()).max() < 1e-5 * wanted.abs().max().item()
    assert toast("export", "run", "plan=0-1", "out=small")[0] == 0
    small = toast_cli.load("small")
    assert small.pretrained_cfg["input_size"] == (1, 32, 32)
    status, out, _ = toast("predict", "small", str(files[0]), "--top", "1")
    assert status == 0
    with torch.inference_mode():
        chance = small((images[:1] / 255 - 0.5) / 0.5).softmax(-1).max().item()
    assert f"{100 * chance:.1f}%" in out
    for verb in (["bench", "seconds=0.01"], ["similarity"], ["finetune", "tune.epochs=1"]):
        rest = [word for word in words[1:] if verb[0] != "bench" or not word.startswith("data")]
        assert toast(*verb, *rest)[0] == 0, verb


def test_a_model_of_four_channels_sees_the_bands_as_they_are_stored(toast, tmp_path: Path):
    """Nothing lies on white, and a band is resized on its own: here the fourth is 0 where the others are bright."""
    photos, generator = tmp_path / "photos", np.random.default_rng(0)
    for split in ("train", "test"):
        for label in ("dark", "light"):
            (photos / split / label).mkdir(parents=True)
            for i in range(6):
                values = generator.integers(0, 256, (48, 48, 4)).astype(np.uint8)
                values[:24, :, 3], values[:24, :, :3] = 0, 200 if label == "light" else 20
                Image.fromarray(values, "RGBA").save(photos / split / label / f"{i}.png")
    vit = made("vit_tiny_patch16_224", in_chans=4, num_classes=0)
    save_file(vit.state_dict(), tmp_path / "four.safetensors")
    words = [*RUN, "+model.options.in_chans=4", "model.name=vit_tiny_patch16_224", "model.checkpoint=four.safetensors"]
    words += [f"data.path={photos}", "keep_features=true", "probe=logistic"]
    status, _, told = toast(*words, "hydra.run.dir=run")
    assert status == 0, told
    assert toast("export", "run", "plan=0-1", "out=small")[0] == 0
    small = toast_cli.load("small")
    assert small.pretrained_cfg["input_size"] == (4, 32, 32)
    files = sorted((photos / "test").rglob("*.png"))
    pixels = [[pil_to_tensor(resized(band)) for band in Image.open(file).split()] for file in files]
    pixels = torch.stack([torch.cat(each) for each in pixels])
    images = (pixels / 255 - 0.5) / 0.5
    features = FeatureFile(Path("run") / contents.features("test"), len(files), 2, 24).read()[:][:, 0]
    with torch.inference_mode():
        wanted = vit(images)
        chance = small(images[:1]).softmax(-1).max().item()
    assert np.abs(features - wanted.numpy()).max() < 1e-5 * wanted.abs().max().item()
    assert f"{100 * chance:.1f}%" in toast("predict", "small", str(files[0]), "--top", "1")[1]
    Image.open(files[0]).convert("RGB").save(files[0])
    status, _, told = toast(*words, "hydra.run.dir=other")
    assert status == 1
    assert "its pixels have mode RGB, and the model takes pictures with four channels of 8 bits (RGBA)" in told


def test_the_pretrained_head_of_a_distilled_model_is_the_mean_of_both(toast, tmp_path: Path):
    photos = save_image_folder(tmp_path / "photos", size=32, per_class=20)
    vit = made("deit_tiny_distilled_patch16_224", num_classes=2)
    torch.save({"model": vit.state_dict()}, "distilled.pth")
    words = [
        *RUN,
        "model.name=deit_tiny_distilled_patch16_224",
        "model.checkpoint=distilled.pth",
        f"data.path={photos}",
        "probe=pretrained_head",
    ]
    assert toast(*words, "hydra.run.dir=run")[0] == 0
    files = sorted((photos / "test").rglob("*.png"))
    mean, std = (torch.tensor(vit.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    images = torch.stack([(seen(file, "RGB") / 255 - mean) / std for file in files])
    with torch.inference_mode():
        classes = vit(images).argmax(-1)
    right = torch.tensor([int(file.parent.name[-1]) for file in files])
    table = pd.read_csv("run/results.csv")
    assert table.accuracy[table.plan == "none"].item() == pytest.approx((classes == right).float().mean().item())
    assert toast("export", "run", "plan=0-1", "out=small")[0] == 0
    small = toast_cli.load("small")
    assert torch.allclose(small.head.weight, vit.head.weight, atol=1e-6)
    assert torch.allclose(small.head_dist.weight, vit.head_dist.weight, atol=1e-6)
    assert torch.allclose(small.head.bias + small.head_dist.bias, vit.head.bias + vit.head_dist.bias, atol=1e-6)
    with torch.inference_mode():
        found = (small(images).argmax(-1) == right).float().mean().item()
    assert found == pytest.approx(table.accuracy[table.plan == "0-1"].item())


def test_what_was_resampled_is_said_and_kept_in_the_record(toast, tmp_path: Path):
    photos = save_image_folder(tmp_path / "photos", size=32)
    vit = made("vit_tiny_patch16_224", num_classes=0)
    keys = list(vit.state_dict())
    (tmp_path / "parts").mkdir()
    index = {}
    for number, part in enumerate((keys[:5], keys[5:])):
        file = f"model-0000{number + 1}-of-00002.safetensors"
        save_file({key: vit.state_dict()[key] for key in part}, tmp_path / "parts" / file)
        index |= dict.fromkeys(part, file)
    (tmp_path / "parts" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    words = [
        *RUN,
        "model.name=vit_tiny_patch16_224",
        "model.checkpoint=parts",
        f"data.path={photos}",
        "model.image_size=48",
        "hydra.run.dir=run",
    ]
    status, out, told = toast(*words)
    assert status == 0, told
    assert "note" not in out
    note = "model.checkpoint=parts has position embeddings for 4 × 4 patches, which were resized to 6 × 6"
    assert f"note: {note}" in told
    assert note in json.loads(Path("run/run.json").read_text())["oddities"]
    (tmp_path / "parts" / "model-00001-of-00002.safetensors").touch()
    assert toast(*words)[0] == 0
