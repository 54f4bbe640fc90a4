"""A model in timm's format from a repository on the hub: model.name=hf-hub:<owner>/<name>."""

import json
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.conftest import pixels
from tests.hub.conftest import SMALL, offline
from tests.hub.stand_in import Hub
from tests.models.by_hand import SIZE, forward, weights
from toast_cli.errors import ToastError
from toast_cli.hub.listening import asking_only, listening
from toast_cli.models import factory as models
from toast_cli.room import in_words

NAME = "someone/my-vit"
CONFIG = {
    "architecture": "vit_tiny_patch16_224",
    "num_classes": 3,
    "model_args": {"img_size": 32, **SIZE},
    "pretrained_cfg": {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]},
}
WEIGHTS = safetensors.torch.save(weights() | {"head.weight": torch.ones(3, 24), "head.bias": torch.zeros(3)})


def in_parts() -> dict[str, bytes]:
    """The same weights in two files with an index."""
    tensors = safetensors.torch.load(WEIGHTS)
    files = {f"model-0000{i + 1}-of-00002.safetensors": dict(list(tensors.items())[i::2]) for i in range(2)}
    index = {"weight_map": {name: file for file, part in files.items() for name in part}}
    return {
        "model.safetensors.index.json": json.dumps(index).encode(),
        **{file: safetensors.torch.save(part) for file, part in files.items()},
    }


LAYOUTS = {"one file": {"model.safetensors": WEIGHTS}, "parts": in_parts()}


def add(hub: Hub, files: dict[str, bytes]) -> int:
    """Put a model on the hub. The bytes of its weights."""
    hub.add(NAME, {"config.json": json.dumps(CONFIG).encode(), **files})
    return sum(len(content) for file, content in files.items() if file.endswith(".safetensors"))


def loaded() -> list[str]:
    """Load the model, which must be the one on the hub. What was said meanwhile."""
    said: list[str] = []
    with listening(said.append):
        backbone = models.load("m", f"hf-hub:{NAME}")
    wanted = forward(weights(), pixels() / 255)[:, 0].sum(1, keepdim=True).expand(-1, 3)
    assert torch.allclose(backbone(pixels()), wanted, rtol=1e-4, atol=1e-4)
    return said


@pytest.mark.parametrize("files", LAYOUTS.values(), ids=LAYOUTS)
def test_weights_come_once_and_their_size_is_said(files: dict[str, bytes], hub: Hub, monkeypatch: pytest.MonkeyPatch):
    size = add(hub, files)
    assert [line.partition(" to ")[0] for line in loaded()] == [f"fetching {NAME} from the hub: {in_words(size)}"]
    assert hub.sent("signature=x") == size
    asked = len(hub.asked)
    assert loaded() == []
    assert len(hub.asked) == asked, "a full cache is not asked about"
    offline(True, monkeypatch)
    assert loaded() == []


@pytest.mark.parametrize("files", LAYOUTS.values(), ids=LAYOUTS)
def test_a_dry_run_asks_for_their_size_and_leaves_the_cache_as_it_is(
    files: dict[str, bytes], hub: Hub, toast, tmp_path: Path
):
    size = add(hub, files)
    words = ["run", "dry=true", "model=timm", f"model.name=hf-hub:{NAME}", *SMALL, "spans=[0-1]"]
    status, out, err = toast(*words, "probe=pretrained_head")
    assert status == 1
    assert "3 classes" in err, "the classifier that would come has the classes that its config says"
    status, out, err = toast(*words)
    assert status == 0, err
    assert out.splitlines()[0] == f"fetch {in_words(size)} from the hub ({in_words(size)} {NAME})"
    assert not hub.requests(r"^GET .*\.safetensors\b(?!\.index)")
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


@pytest.mark.parametrize(
    "match", [r"HEAD .*config\.json", r"GET .*config\.json", r"HEAD .*model\.safetensors", r"GET .*safetensors\?sig"]
)
def test_trouble_that_passes_is_waited_out(match: str, hub: Hub):
    add(hub, LAYOUTS["one file"])
    fault = hub.fault(match, times=2, status=503)
    assert sum(f"asking for {NAME} again in" in line for line in loaded()) == 2
    assert fault.times == 0


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            {},
            "The hub has someone/my-vit, but no weights in it (model.safetensors or open_clip_model.safetensors or pyto",
        ),
        (
            {"model.safetensors.index.json": LAYOUTS["parts"]["model.safetensors.index.json"]},
            "The hub has someone/my-vit, but not model-00001-of-00002.safetensors, which its index names: give",
        ),
        ({"model.safetensors.index.json": b"{}"}, "model.safetensors.index.json of someone/my-vit is not an index of"),
        ({"config.json": b"<html>", "model.safetensors": WEIGHTS}, "its config.json names no model that timm"),
    ],
)
def test_what_a_repository_lacks_is_named(files: dict[str, bytes], sentence: str, hub: Hub):
    add(hub, files)
    with pytest.raises(ToastError, match=re.escape(sentence)):
        models.load("m", f"hf-hub:{NAME}")
    with asking_only(), pytest.raises(ToastError, match=re.escape(sentence)):
        models.load("m", f"hf-hub:{NAME}")


def test_a_repository_without_a_config_and_one_that_there_is_not(hub: Hub):
    hub.add(NAME, {"model.safetensors": WEIGHTS})
    with pytest.raises(
        ToastError, match=r"The hub has someone/my-vit, but no config.json in it: give a repository as timm"
    ):
        models.load("m", f"hf-hub:{NAME}")
    with pytest.raises(ToastError, match=r"The hub has no weights called someone/my-vot, or none that it shows you"):
        models.load("m", "hf-hub:someone/my-vot")


def test_there_must_be_room_for_them(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    add(hub, LAYOUTS["one file"])
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 1000}))
    with pytest.raises(ToastError, match=r"someone/my-vit takes \d+ kB in the cache .* has 1.0 kB free: make room"):
        models.load("m", f"hf-hub:{NAME}")
    assert hub.sent("signature=x") == 0
