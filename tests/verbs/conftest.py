"""Finished runs that exports are made of."""

import io
from collections.abc import Callable
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
COMMANDS = {
    "plain": ["run", *SMALL, f"spans=[{PLAN},4-6]"],
    "sequential": ["run", *SMALL, "spans=[2-3+9-11]", "fit.sequential=true"],
    "logistic": ["run", *SMALL, "spans=[4-6]", "probe=logistic", "data.fit_images=[20,40]"],
    "mlp": ["run", *SMALL, "spans=[4-6]", "probe=mlp", "probe.epochs=2", "translator=shift"],
    "tuned": ["finetune", *SMALL[:4], "spans=[8-11]", "tune.epochs=1"],
}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a run by its name in COMMANDS; each is run when it is first asked for, and nothing may change it."""
    root = tmp_path_factory.mktemp("finished")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            main([*COMMANDS[name], f"hydra.run.dir={root / name}"])
        return root / name

    return folder


def digits_tested_on() -> Images:
    """The test images of the runs, 64 digits."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return load_data(compose("config", SMALL)).test


def picture(images: Images, i: int) -> Image.Image:
    return Image.open(io.BytesIO(images.split.encoded(int(images.indices[i])))).convert("RGB")
