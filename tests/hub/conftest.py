"""The stand-in for the hub with a model and a data set under their real names, and toast pointed at it."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import HfFileSystem
from PIL import Image

from tests.hub.stand_in import Hub, running

WEIGHTS = "timm/vit_base_patch14_dinov2.lvd142m"
CIFAR = "datasets/uoft-cs/cifar100"
TINY = {"depth": 3, "embed_dim": 32, "num_heads": 2}
# dinov2_b in everything but its size: two cores have other things to do than a ViT-B.
MODEL = ["model=dinov2_b", *(f"+model.options.{name}={value}" for name, value in TINY.items()), "model.image_size=28"]
SMALL = ["data.fit_images=20", "spans=[0-1,1-2]", "device=cpu", "precision=fp32", "hydra.run.dir=run"]
RUN = ["run", *MODEL, "data=cifar100", *SMALL]
TRAIN, TEST = 200, 100
_TIMES = "toast_cli.hub.fetching._PAUSES"

_README = """\
---
dataset_info:
  config_name: cifar100
  features:
  - {{name: img, dtype: image}}
  - name: fine_label
    dtype:
      class_label:
        names: {{{fine}}}
  - name: coarse_label
    dtype:
      class_label:
        names: {{{coarse}}}
  splits:
  - {{name: train, num_bytes: {bytes}, num_examples: {train}}}
  - {{name: test, num_bytes: {bytes}, num_examples: {test}}}
  download_size: {bytes}
  dataset_size: {bytes}
configs:
- config_name: cifar100
  data_files:
  - {{split: train, path: cifar100/train-*}}
  - {{split: test, path: cifar100/test-*}}
  default: true
---
# CIFAR-100
"""


def cifar(pictures: int = 1, train: int = TRAIN, test: int = TEST) -> dict[str, bytes]:
    """The files of a data set as CIFAR-100 lies on the hub, with noise for photographs, in row groups of 50."""
    features = datasets.Features(
        img=datasets.Image(),
        fine_label=datasets.ClassLabel(names=[f"fine {i}" for i in range(100)]),
        coarse_label=datasets.ClassLabel(names=[f"coarse {i}" for i in range(20)]),
    )
    generator, files = np.random.default_rng(0), {}
    for split, count in (("train", train), ("test", test)):
        columns = {
            "img": [
                Image.fromarray(generator.integers(0, 256, (32 * pictures, 32, 3), dtype=np.uint8))
                for _ in range(count)
            ],
            "fine_label": [i % 100 for i in range(count)],
            "coarse_label": [i % 20 for i in range(count)],
        }
        buffer = io.BytesIO()
        datasets.Dataset.from_dict(columns, features).to_parquet(buffer, batch_size=50)
        files[f"cifar100/{split}-00000-of-00001.parquet"] = buffer.getvalue()
    named = {
        kind: ", ".join(f"'{i}': {kind} {i}" for i in range(count)) for kind, count in (("fine", 100), ("coarse", 20))
    }
    card = _README.format(**named, bytes=sum(map(len, files.values())), train=train, test=test)
    return {"README.md": card.encode(), ".gitattributes": b"", **files}


@pytest.fixture(scope="session")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a model's repository: a tiny DINOv2 whose position embeddings are those of 518 pixels."""
    torch.manual_seed(0)
    model = timm.create_model("vit_base_patch14_dinov2", num_classes=0, **TINY)
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter) * 0.05
    return {
        "config.json": b'{"architecture": "vit_base_patch14_dinov2"}',
        "model.safetensors": safetensors.torch.save(model.state_dict()),
    }


@pytest.fixture(scope="session")
def cifar100() -> dict[str, bytes]:
    return cifar()


def point_at(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT, HF_HOME and no HF_HUB_OFFLINE would do to a new process."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.endpoint)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache / "datasets")
    monkeypatch.setattr(datasets.config, "USE_PARQUET_EXPORT", False)  # another server, which is not asked here
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # another protocol, which the stand-in does not speak
    offline(False, monkeypatch)
    monkeypatch.delenv("HF_TOKEN", raising=False)


def offline(value: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_HUB_OFFLINE would do to a new process."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", value)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", value)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", value)


def environment(hub: Hub, cache: Path) -> dict[str, str]:
    """The environment of a process that knows this hub alone."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return {**kept, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(cache), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that holds nothing, an empty cache, and short pauses between two tries."""
    with running() as hub:
        HfFileSystem.clear_instance_cache()
        point_at(hub, tmp_path / "cache", monkeypatch)
        monkeypatch.setattr(_TIMES, (0.01, 0.02, 0.04, 0.08))
        yield hub
    HfFileSystem.clear_instance_cache()


@pytest.fixture
def hub(empty_hub: Hub, dinov2: dict[str, bytes], cifar100: dict[str, bytes]) -> Hub:
    """The same with dinov2_b and cifar100."""
    empty_hub.add(WEIGHTS, dict(dinov2))
    empty_hub.add(CIFAR, dict(cifar100))
    return empty_hub
