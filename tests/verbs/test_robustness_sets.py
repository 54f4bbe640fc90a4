"""A whole run on images that are only a test: fit images from elsewhere, some of the classes of the model's own head."""

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
from toast_cli.data import dataset as data
from toast_cli.data.image_warnings import warnings_of
from toast_cli.errors import ToastError
from toast_cli.search.measured import unseen

SIZE = {"embed_dim": 24, "depth": 3, "num_heads": 3, "patch_size": 8}
IDS = ["n01498041", "n01531178", "n03840681"]  # three of ImageNet-A's
PLACES = [6, 11, 684]  # in ImageNet-1k


def save_test_set(root: Path) -> Path:
    """<root>/imagenet-a/<WordNet id>/<i>.png, as the archive has it, with a text beside the folders."""
    generator = np.random.default_rng(0)
    for name in IDS:
        (root / "imagenet-a" / name).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(generator.integers(0, 256, (32, 32, 3)).astype(np.uint8)).save(
                root / "imagenet-a" / name / f"{i}.png"
            )
    (root / "imagenet-a" / "README.txt").write_text("ImageNet-A")
    return root


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A run of a tiny model with ImageNet's 1 000 classes on such images, and its weights."""
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=1000, **SIZE)
    generator = torch.Generator().manual_seed(0)
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3, generator=generator)
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    photos = save_image_folder(tmp_path / "photos", size=32)
    return [
        "run", "model=timm", "model.name=vit_tiny_patch16_224", "model.checkpoint=vit.safetensors", "model.image_size=32",
        *(f"+model.options.{key}={value}" for key, value in SIZE.items()), "precision=fp32", "spans=[0-1,1-2]",
        "data=imagenet_a", f"data.path={save_test_set(tmp_path / 'sets')}", "data.test_split=imagenet-a",
        "fit_data=folder", f"fit_data.path={photos}", "data.fit_images=8", "probe=pretrained_head", "hydra.run.dir=run",
    ]  # fmt: skip


@pytest.mark.slow
def test_from_run_to_export(toast, words: list[str]):
    status, _, told = toast(*words, "dry=true")
    assert (status, "0 train, 36 test" in told) == (0, True), told
    status, _, told = toast(*words)
    assert status == 0, told
    assert "the head's 1 000 classes were restricted to the data's 3, by WordNet id" in told
    assert "have no train image" not in told
    files = sorted(Path("sets/imagenet-a").rglob("*.png"))
    right = np.array([IDS.index(file.parent.name) for file in files])
    # The model's config resizes to 35 pixels and crops to 32.
    pictures = [Image.open(f).resize((35, 35), Image.Resampling.BICUBIC).crop((2, 2, 34, 34)) for f in files]
    images = (torch.stack(list(map(pil_to_tensor, pictures))) / 255 - 0.5) / 0.5
    vit = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, num_classes=1000, checkpoint_path="vit.safetensors", **SIZE
    ).eval()
    with torch.inference_mode():
        logits = vit(images).numpy()
    assert logits.argmax(1).tolist() != [PLACES[i] for i in logits[:, PLACES].argmax(1)], "the other classes would win"
    table = pd.read_csv("run/results.csv").set_index("plan")
    assert table.accuracy["none"] == pytest.approx((logits[:, PLACES].argmax(1) == right).mean())
    assert (set(table.train_images), set(table.test_images), set(table.fit_data)) == ({0}, {36}, {"photos"})
    assert toast("export", "run", "plan=1-2", "out=small")[0] == 0
    small = toast_cli.load("small")
    assert torch.equal(small.head.weight, vit.head.weight[PLACES])
    with torch.inference_mode():
        assert (small(images).argmax(1).numpy() == right).mean() == pytest.approx(table.accuracy["1-2"])


def test_a_race_goes_without_train_images_too(toast, words: list[str]):
    status, _, told = toast(*words, "sweep=race", "sweep.test_images=9")
    assert status == 0, told
    assert set(pd.read_csv("run/race.csv").train_images) == {0}


def test_data_without_a_train_split(tmp_path: Path):
    loaded = data.load(
        "a", None, path=str(save_test_set(tmp_path)), train_split=None, test_split="imagenet-a", train_images=5
    )
    assert (loaded.classes, len(loaded.train), loaded.fit, len(loaded.test)) == (tuple(IDS), 0, (), 36)
    assert loaded.fingerprint() == loaded.fingerprint()
    assert [note.partition(": ")[2] for note in warnings_of(loaded)] == [
        "1 file is left out, since toast does not read it as an image (1 .txt)"
    ]
    with pytest.raises(ToastError, match="toast search measures plans on train images, and data=a has none: search on"):
        unseen(loaded, 10)
