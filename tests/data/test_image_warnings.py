"""Image warnings."""

import shutil
from pathlib import Path

import pytest

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


def test_the_embedded_set_has_no_warnings():
    assert warnings_of(data.load("digits", DIGITS, fit_images=50)) == []


def test_a_run_says_and_keeps_them(root: Path, toast, tmp_path: Path):
    shutil.copy(root / "train" / "kind0" / "1.png", root / "test" / "kind0" / "1.png")
    words = ["run", "data=folder", f"data.path={root}", "data.fit_images=8", "spans=9-11", "hydra.run.dir=here"]
    status, _, err = toast(*words)
    assert status == 0, err
    assert "note: 1 of 18 test images are also train images" in err
    assert "1 of 18 test images" in (tmp_path / "here" / "run.json").read_text()
