"""toast predict: the classes of image files, by an export."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.verbs.conftest import digits_tested_on, picture
from toast_cli import cli
from toast_cli.runs import predictions


@pytest.fixture(scope="module")
def made(finished: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export, and five pictures of the digits that its run was tested on."""
    root = tmp_path_factory.mktemp("made")
    cli.main(["export", str(finished("plain")), "plan=4-6", f"out={root / 'it'}"])
    (root / "pictures").mkdir()
    images = digits_tested_on()
    for i in range(5):
        picture(images, i).save(root / "pictures" / f"{i}.png")
    return root


@pytest.fixture
def exported(made: Path, tmp_path: Path) -> None:
    """What was made, in the folder of the test, which may change it."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)


def test_files_are_given_the_classes_that_the_run_predicted(finished, exported, toast, tmp_path):
    (tmp_path / "pictures" / "bad.png").write_bytes(b"no image")
    status, out, err = toast("predict", "it", "pictures", "--top", "2")
    assert status == 0
    lines = [line for line in out.splitlines() if ".png" in line]
    stored = predictions.read(finished("plain") / "predictions.safetensors").by_seed[0][2]
    assert [line.split("│")[2].split()[0] for line in lines] == [str(value) for value in stored[:5]]
    assert "bad.png cannot be decoded and is left out" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["it", "nowhere"], "nowhere does not exist"),
        (["it", "it/model.safetensors"], "None of the 1 files is an image"),
        (["pictures", "pictures"], "pictures is not an export"),
        (["it", "pictures", "--top", "0"], "--top 0 cannot be used"),
    ],
)
def test_what_cannot_be_predicted_is_a_sentence(exported, toast, words: list[str], sentence: str):
    status, _, err = toast("predict", *words)
    assert status == 1
    assert sentence in err


def test_nothing_that_can_execute_is_opened(exported, toast, tmp_path, monkeypatch):
    recipe = json.loads((tmp_path / "it" / "recipe.json").read_text())
    (tmp_path / "it" / "recipe.json").write_text(json.dumps({**recipe, "file": "model.pt2"}))
    (tmp_path / "it" / "model.pt2").write_bytes(b"anything")
    monkeypatch.setattr(torch.export, "load", lambda *_: pytest.fail("it was opened"))
    status, _, err = toast("predict", "it", "pictures")
    assert status == 1
    assert "it/model.pt2 is not opened" in err
