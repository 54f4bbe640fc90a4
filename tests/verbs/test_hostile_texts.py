"""Class names, file names, records and configs come from strangers: their control characters do not reach the terminal."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.machine.test_console import HOSTILE, SHOWN
from tests.test_pinned import PINNED


def test_predict(toast, tmp_path: Path):
    shutil.copytree(PINNED / "outputs/export/digits_vit-digits-0-10-safetensors", "it")
    recipe = json.loads(Path("it/recipe.json").read_text())
    recipe["pretrained_cfg"]["label_names"] = [HOSTILE] * len(recipe["pretrained_cfg"]["label_names"])
    Path("it/recipe.json").write_text(json.dumps(recipe))
    Image.new("RGB", (8, 8)).save(tmp_path / "good\x1b[2J.png")
    (tmp_path / "bad\x1b[2J\nb.png").write_bytes(b"no image")
    status, out, err = toast("predict", "it", "good\x1b[2J.png", "bad\x1b[2J\nb.png", "--top", "1")
    assert status == 0
    assert not {"\x1b", "\x07", "\u202e"} & set(out + err)
    assert SHOWN in out
    assert r"good\x1b[2J.png" in out
    assert err.splitlines() == [
        r"bad\x1b[2J\nb.png cannot be decoded and is left out: cannot identify image file 'bad\x1b[2J\nb.png'"
    ]


def test_status(toast, tmp_path: Path):
    (tmp_path / "outputs" / "a\x1b[2J").mkdir(parents=True)
    record = {"weights": "w", "failed": "It \x1b[2J[red] failed."}
    (tmp_path / "outputs" / "a\x1b[2J" / "run.json").write_text(json.dumps(record))
    status, out, _ = toast("status")
    assert status == 0
    assert "\x1b" not in out
    assert r"outputs/a\x1b[2J" in out
    assert r"It \x1b[2J[red] failed." in out


def test_list(toast, tmp_path: Path):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "own.yaml").write_text("# Mine\x9b2J\n")
    status, out, _ = toast("list", "models", "--config-dir", "mine")
    assert status == 0
    assert r"own" in out
    assert r"Mine\x9b2J" in out


@pytest.mark.parametrize("words", [["\x1b[2J"], ["report", "\x1b[2J"], ["list", "\x1b[2J"]])
def test_an_error(words: list[str], toast):
    status, _, err = toast(*words)
    assert status == 1
    assert "\x1b" not in err
    assert r"\x1b[2J" in err


def test_an_error_of_several_lines_keeps_them(capsys: pytest.CaptureFixture):
    from toast_cli.cli import _complain

    _complain("2 of 3 runs failed:\n  a\x1b: b\n  c: d")
    assert capsys.readouterr().err == "toast: 2 of 3 runs failed:\n  a\\x1b: b\n  c: d\n"
