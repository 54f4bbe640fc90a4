"""Finished runs that exports are made of."""

import io
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from toast_cli.cli import main
from toast_cli.data.images import Images
from toast_cli.registry import CONF
from toast_cli.runs.naming import register_resolvers
from toast_cli.stages.load import load_data

SMALL = ["data.fit_images=40", "data.train_images=300", "data.test_images=64", "device=cpu", "seeds=[0,1]"]
PLAN = "2-3:identity+9-11"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two plans, one with sequential fits, one by a logistic probe, one by an MLP, and one that was fine-tuned."""
    path = tmp_path_factory.mktemp("runs")
    for name, words in (
        ("plain", [f"spans=[{PLAN},4-6]"]),
        ("sequential", ["spans=[2-3+9-11]", "fit.sequential=true"]),
        ("logistic", ["spans=[4-6]", "probe=logistic", "data.fit_images=[20,40]"]),
        ("mlp", ["spans=[4-6]", "probe=mlp", "probe.epochs=2", "translator=shift"]),
    ):
        main(["run", *SMALL, *words, f"hydra.run.dir={path / name}"])
    main(["finetune", *SMALL[:4], "spans=[8-11]", "tune.epochs=1", f"hydra.run.dir={path / 'tuned'}"])
    return path


def tested_images() -> Images:
    """The test images of the runs, 64 digits."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return load_data(compose("config", SMALL)).test


def picture(images: Images, i: int) -> Image.Image:
    return Image.open(io.BytesIO(images.split.encoded(int(images.indices[i])))).convert("RGB")
