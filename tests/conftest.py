"""Shared by all tests: offline, on the CPU, in a folder of their own."""

import os
import pickle

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # tests run side by side
os.environ.pop("TOAST_DEBUG", None)

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from toast_cli import cli
from toast_cli.machine import memory, timing
from toast_cli.models import factory as models
from toast_cli.models.factory import Backbone
from toast_cli.registry import CONF

SMALL = [
    "data.fit_images=40",
    "data.train_images=96",
    "data.test_images=48",
    "spans=[stem-2,9-11,2-3+9-11]",
    "device=cpu",
]
OPTIONS = sorted(
    path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.rglob("*.yaml") if path.parent != CONF
)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """torch has two threads during the test."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def toast(capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, str, str]]:
    """``toast(*argv)`` -> exit status, stdout, stderr."""

    def call(*argv: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            cli.main(list(argv))
            status = 0
        except SystemExit as e:
            status = e.code if isinstance(e.code, int) else int(e.code is not None)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two translators, two seeds, two draws of the data: finished runs that nothing may change."""
    root = tmp_path_factory.mktemp("runs")
    for translator in ("linear", "identity"):
        for draw in (0, 1):
            folder = f"hydra.run.dir={root}/{translator}{draw}"
            cli.main(["run", *SMALL, f"translator={translator}", f"data.seed={draw}", "seeds=[0,1]", folder])
    return root


@pytest.fixture
def short_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """``toast bench`` with at most 8 images at a time, and peak memory without a process for each model."""

    @torch.inference_mode()
    def called(model: torch.nn.Module, shape: tuple[int, ...], device: torch.device) -> float:
        pickle.loads(pickle.dumps(model))(torch.zeros(shape, dtype=next(model.parameters()).dtype))  # as in the process
        return 1.0

    monkeypatch.setattr(memory, "peak_memory", called)
    monkeypatch.setattr(timing, "_LARGEST_BATCH", 8)


@pytest.fixture
def assets() -> Path:
    """Real weights and images, where there are any."""
    if "TOAST_TEST_ASSETS" not in os.environ:
        pytest.skip("TOAST_TEST_ASSETS is not set")
    return Path(os.environ["TOAST_TEST_ASSETS"])


def tiny(name: str = "vit_tiny_patch16_224", depth: int = 3, **options: object) -> Backbone:
    """A random model of three narrow blocks on 32 × 32 pixels, its weights spread so that every part matters."""
    options = {"patch_size": 8, "embed_dim": 32, "depth": depth, "num_heads": 2, **options}
    backbone = models.load("tiny", name, pretrained=False, image_size=32, options=options)
    generator = torch.Generator().manual_seed(0)
    for parameter in backbone.vit.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return backbone


def pixels(count: int = 6, size: int = 32, seed: int = 0) -> torch.Tensor:
    """uint8 (count, 3, size, size)."""
    return torch.randint(
        0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def save_image_folder(root: Path, classes: int = 2, per_class: int = 6, size: int = 12, mode: str = "RGB") -> Path:
    """<root>/<split>/<class>/<i>.png, each class of its own brightness."""
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in range(classes):
            folder = root / split / f"kind{label}"
            folder.mkdir(parents=True)
            for i in range(per_class):
                shape = (size, size) if mode == "L" else (size, size, 3)
                values = generator.integers(100 * label, 100 * label + 80, shape).astype(np.uint8)
                Image.fromarray(values, mode).save(folder / f"{i}.png")
    return root
