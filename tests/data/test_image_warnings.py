"""Image warnings."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import save_image_folder
from toast_cli.data import dataset as data
from toast_cli.data.image_warnings import warnings_of
from toast_cli.data.sources import DIGITS


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return save_image_folder(tmp_path / "set", classes=3)


def look(root: Path, **settings: object) -> list[str]:
    return warnings_of(data.load("folder", None, path=str(root), fit_images=4, **settings))


def test_a_sound_set_has_no_warnings(root: Path):
    assert look(root) == []


def test_test_images_that_are_train_images_are_counted(root: Path):
    for i in range(2):
        shutil.copy(root / "train" / "kind0" / f"{i}.png", root / "test" / "kind1" / f"{i}.png")
    assert look(root) == ["2 of 18 test images are also train images, byte for byte: the accuracies are too high"]


def test_images_that_repeat_are_counted(root: Path):
    for name in ("x", "y"):
        shutil.copy(root / "train" / "kind0" / "1.png", root / "train" / "kind2" / f"{name}.png")
    assert look(root) == ["2 of 20 train images repeat another one, byte for byte"]


def test_classes_without_images_are_counted(root: Path):
    shutil.rmtree(root / "test" / "kind1")
    assert look(root) == ["1 of 3 classes have no test image: kind1"]


def test_what_is_transparent_is_said_once(root: Path):
    for i in range(3):
        Image.new("LA", (8, 8), (i, 255)).save(root / "train" / "kind1" / f"{i}.png")
    Image.new("RGB", (8, 8)).save(root / "test" / "kind0" / "0.png", transparency=(1, 2, 3))
    Image.new("P", (8, 8), 1).save(root / "test" / "kind0" / "1.png", transparency=0)
    told = "3 train images and 2 test images have an alpha channel: what is transparent is shown on white"
    assert look(root) == [told]


def test_sixteen_bits_that_hold_fewer_are_said(root: Path):
    for split, brightest in (("train", 4095), ("test", 65535)):
        for i in range(3):
            values = np.full((8, 8), brightest if i == 2 else 100 + i, np.uint16)
            Image.fromarray(values).save(root / split / "kind0" / f"{i}.png")
    told = (
        "no value in 3 train images of 16 bits is above 4095 of 65535, so they are nearly black: multiply their values if they "
        "have fewer bits"
    )
    assert [line for line in look(root) if "16 bits" in line] == [told]


def test_the_embedded_set_has_no_warnings():
    assert warnings_of(data.load("digits", DIGITS, fit_images=50)) == []


def test_a_run_says_and_keeps_them(root: Path, toast, tmp_path: Path):
    shutil.copy(root / "train" / "kind0" / "1.png", root / "test" / "kind0" / "1.png")
    words = ["run", "data=folder", f"data.path={root}", "data.fit_images=8", "spans=9-11", "hydra.run.dir=here"]
    status, _, err = toast(*words)
    assert status == 0, err
    assert "note: 1 of 18 test images are also train images" in err
    assert "1 of 18 test images" in (tmp_path / "here" / "run.json").read_text()
