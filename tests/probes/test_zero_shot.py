"""Zero-shot classification against cosines by hand, and a whole run with a tiny CLIP-shaped model."""

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
from toast_cli.errors import ToastError
from toast_cli.models import factory as models
from toast_cli.models.imagenet import ids_of_outputs
from toast_cli.plans import Plan
from toast_cli.probes.zero_shot import ZeroShot
from toast_cli.runs.features import Features
from toast_cli.surgery.costs import Costs

CPU = torch.device("cpu")
NAME = "vit_base_patch16_clip_224.laion2b"
SIZE = {"embed_dim": 24, "depth": 3, "num_heads": 3, "patch_size": 8}


def save_texts(text: np.ndarray, names: list[str] | None = None, scale: float | None = None) -> str:
    tensors = {"text": torch.from_numpy(text).float()} | ({} if scale is None else {"scale": torch.tensor(scale)})
    save_file(tensors, "text.safetensors", metadata=None if names is None else {"classes": json.dumps(names)})
    return "text.safetensors"


def test_the_largest_cosine_wins_for_every_plan():
    generator = np.random.default_rng(0)
    text, features = generator.normal(size=(5, 4)), generator.normal(size=(2500, 3, 6)).astype(np.float32)
    names = list("abcde")
    head = torch.nn.Linear(6, 4)
    probe = ZeroShot(save_texts(text, names, 20.0)).on(CPU, head, 6)
    probe.check("clip")
    assert probe.projection is head
    probe = probe.matched(("e", "b", "a"), None)
    assert probe.notes == ("probe=zero_shot: the data's 3 classes are matched with texts by name",)
    assert not probe.trains
    predicted = probe.fit(Features(features), np.zeros(2500, int), 3, 0).predict(Features(features))
    weight, bias = head.weight.detach().numpy().astype(float), head.bias.detach().numpy().astype(float)
    for plan in range(3):
        projected = features[:, plan] @ weight.T + bias
        cosines = (projected @ text.T) / np.linalg.norm(projected, axis=1)[:, None] / np.linalg.norm(text, axis=1)
        assert (predicted[plan] == cosines[:, [4, 1, 0]].argmax(1)).mean() > 0.999, "up to ties in fp32"
    with torch.inference_mode():
        logits = probe.to_module(2)(torch.from_numpy(features[:, 2])).numpy()
    assert logits == pytest.approx(20 * cosines[:, [4, 1, 0]], abs=1e-4)


def test_without_a_projection_features_are_compared_as_they_are():
    features = np.random.default_rng(0).normal(size=(50, 1, 4)).astype(np.float32)
    probe = ZeroShot(save_texts(np.eye(4)[:3])).on(CPU, None, 4)
    probe.check("siglip")
    probe = probe.matched(("x", "y", "z"), None)
    assert (probe.predict(Features(features))[0] == features[:, 0, :3].argmax(1)).all()
    assert [note.partition(", ")[0] for note in probe.notes] == [
        "probe=zero_shot: the texts have no names", "probe=zero_shot: the model has no projection",
    ]  # fmt: skip
    assert probe.projection is None


def test_imagenets_classes_are_matched_by_wordnet_id():
    ids = ids_of_outputs(1000)
    probe = ZeroShot(save_texts(np.random.default_rng(0).normal(size=(1000, 4)), ids[::-1])).on(CPU, None, 4)
    text = probe.texts.directions
    by_id = probe.matched((ids[7], ids[3]), None)
    assert torch.equal(by_id.to_module(0)[-1].weight, text[[992, 996]])
    by_number = probe.matched(tuple(sorted(map(str, range(1000)))), None)  # 0, 1, 10, 100, …, as text is sorted
    assert torch.equal(by_number.to_module(0)[-1].weight[[2, 999]], text[[999 - 10, 0]])
    assert by_number.notes[0].endswith("by WordNet id")


@pytest.mark.parametrize(
    ("names", "classes", "told"),
    [
        (
            ["cat", "dog"],
            ("cat", "dgo"),
            r"no text for 1 of the data's 2 classes, dgo \(did you mean dog\?\): add them",
        ),
        (
            ["cat", "dog"],
            tuple("abcdefg"),
            "no text for 7 of the data's 7 classes, a, b, c, d, e, …: add them, or name",
        ),
        (None, ("a", "b", "c"), "names no classes and has 2, and the data set has 3: give names in its metadata"),
    ],
)
def test_classes_without_a_text_are_named(names: list[str] | None, classes: tuple[str, ...], told: str):
    with pytest.raises(ToastError, match=told):
        ZeroShot(save_texts(np.eye(2), names)).on(CPU, None, 2).matched(classes, None)


def test_both_widths_are_named():
    probe = ZeroShot(save_texts(np.eye(5)))
    with pytest.raises(ToastError, match="has embeddings of 5 numbers, and the projection of clip has 4: give the"):
        probe.on(CPU, torch.nn.Linear(6, 4), 6).check("clip")
    with pytest.raises(ToastError, match="has embeddings of 5 numbers, and the features of siglip have 6: give the"):
        probe.on(CPU, None, 6).check("siglip")


def clip(path: Path) -> torch.nn.Module:
    """A tiny vision tower of CLIP with random weights, saved, its projection in its head as timm has it."""
    vit = timm.create_model(NAME, img_size=32, num_classes=8, **SIZE).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3, generator=generator)
    save_file(vit.state_dict(), path)
    return vit


def seen(file: Path, vit: torch.nn.Module) -> torch.Tensor:
    """A picture of 32 pixels as this model takes it, whole and normalised."""
    mean, std = (torch.tensor(vit.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    return (pil_to_tensor(Image.open(file).convert("RGB")) / 255 - mean) / std


@pytest.mark.slow
def test_from_run_to_predict(toast, tmp_path: Path):
    photos, vit = (
        save_image_folder(tmp_path / "photos", classes=3, size=32, per_class=20),
        clip(tmp_path / "clip.safetensors"),
    )
    text = np.random.default_rng(1).normal(size=(4, 2, 8))
    save_texts(text, ["kind2", "other", "kind0", "kind1"], 10.0)
    words = ["run", "model=timm", f"model.name={NAME}", "model.checkpoint=clip.safetensors"]
    words += ["model.image_size=32", *(f"+model.options.{key}={value}" for key, value in SIZE.items())]
    words += ["data=folder", f"data.path={photos}", "data.fit_images=8", "precision=fp32", "spans=[0-1,1-2]"]
    status, _, told = toast(*words, "probe=zero_shot", "probe.text=text.safetensors", "hydra.run.dir=run")
    assert status == 0, told
    assert "note: probe=zero_shot: the data's 3 classes are matched with texts by name" in told
    files = sorted((photos / "test").rglob("*.png"))
    images = torch.stack([seen(file, vit) for file in files])
    right = np.array([int(file.parent.name[-1]) for file in files])
    unit = text / np.linalg.norm(text, axis=-1, keepdims=True)
    unit = unit.mean(1)[[2, 3, 0]]
    unit /= np.linalg.norm(unit, axis=-1, keepdims=True)
    with torch.inference_mode():
        projected = vit(images).double().numpy()
    cosines = projected / np.linalg.norm(projected, axis=1, keepdims=True) @ unit.T
    table = pd.read_csv("run/results.csv").set_index("plan")
    assert table.accuracy["none"] == pytest.approx((cosines.argmax(1) == right).mean())
    assert table.params["none"] == sum(p.numel() for p in vit.parameters()), "its projection counts"
    bare = Costs(models.load("clip", NAME, pretrained=False, image_size=32, options=SIZE), {}).of(Plan())
    assert round(1e9 * table.gflops["none"]) - bare.flops == 2 * 24 * 8

    assert toast("export", "run", "plan=1-2", "out=small")[0] == 0
    small = toast_cli.load("small")
    with torch.inference_mode():
        logits = small(images)
    assert (logits.argmax(1).numpy() == right).mean() == pytest.approx(table.accuracy["1-2"])
    assert logits.abs().max() <= 10 + 1e-4, "a cosine, times the scale"
    kept = small.forward_features(images)
    with torch.inference_mode():
        again = vit.head(small.forward_head(kept, pre_logits=True)).double().numpy()
    wanted = 10 * (again / np.linalg.norm(again, axis=1, keepdims=True)) @ unit.T
    assert logits.numpy() == pytest.approx(wanted, abs=1e-4)
    assert Path("small/modeling.py").is_file(), "it loads without toast"
    status, out, _ = toast("predict", "small", str(files[0]), "--top", "1")
    assert status == 0
    assert f"kind{logits[0].argmax()} {100 * logits[:1].softmax(-1).max():.1f}%" in out

    save_texts(text + 1, ["kind2", "other", "kind0", "kind1"], 10.0)
    status, _, told = toast("export", "run", "plan=0-1", "out=other")
    assert (status, "The texts that run was made from have changed since" in told) == (1, True)
