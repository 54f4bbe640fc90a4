"""toast predict: the classes of image files, by an export."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.pictures import png
from tests.verbs.conftest import digits_tested_on, picture
from toast_cli import cli
from toast_cli.data.decoding import MAX_PIXELS
from toast_cli.files import sealed
from toast_cli.runs import predictions
from toast_cli.surgery.recipe import checksum


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
        (
            ["it", "pictures", "--max-pixels", "0"],
            "--max-pixels 0 is not a number of pixels: give a whole number from 1.",
        ),
        (["it", "pictures", "--max-pixels", "63"], "None of the 5 files is an image"),
    ],
)
def test_what_cannot_be_predicted_is_a_sentence(exported, toast, words: list[str], sentence: str):
    status, _, err = toast("predict", *words)
    assert status == 1
    assert sentence in err


def test_a_large_picture_is_left_out(exported, toast, tmp_path):
    (tmp_path / "pictures" / "large.png").write_bytes(png(13_300, 13_300))
    status, out, err = toast("predict", "it", "pictures")
    assert status == 0
    assert (
        "large.png cannot be decoded and is left out: it has 13300 × 13300 pixels, more than --max-pixels 100000000"
        in err
    )
    assert "large.png" not in out
    assert f"(default: {MAX_PIXELS})" in " ".join(toast("predict", "--help")[1].split())


def test_a_folder_is_read_as_a_data_set_is(exported, toast, tmp_path):
    """Links are followed, every ending that Pillow opens counts, and clutter is said."""
    album = tmp_path / "al[b]um"
    (album / "2023" / "May").mkdir(parents=True)
    with Image.open(tmp_path / "pictures" / "0.png") as image:
        image.save(album / "2023" / "May" / "[bold]0.AVIF")
        image.save(album / "2023" / "x[.qoi")
    (album / "linked").symlink_to(tmp_path / "pictures")
    for clutter in ("._0.png", "0.png.json", ".cache/0.png", "@eaDir/0.png", "2023/0.heic"):
        (album / clutter).parent.mkdir(exist_ok=True)
        shutil.copy(tmp_path / "pictures" / "0.png", album / clutter)
    status, out, err = toast("predict", "it", "al[b]um")
    assert status == 0
    assert [line.split("│")[1].strip() for line in out.splitlines() if "al[b]um" in line] == [
        "al[b]um/2023/May/[bold]0.AVIF", "al[b]um/2023/x[.qoi", *(f"al[b]um/linked/{i}.png" for i in range(5))
    ]  # fmt: skip
    assert "al[b]um: 3 files are left out, since toast does not read them as images (1 ._*, 1 .heic, 1 .json)" in err
    assert "al[b]um: 1 images in hidden folders are left out, .cache/0.png among them" in err
    (album / "2023" / "back").symlink_to(album)
    assert "2023/back is a link back to al[b]um, so that the folder has no end" in toast("predict", "it", "al[b]um")[2]


def test_pictures_that_make_pillow_stumble_are_left_out(exported, toast, tmp_path, monkeypatch):
    """A real one of these is in tests/bad_input/test_images.py."""
    for i, error in enumerate(
        [NotImplementedError(), struct.error("unpack"), IndexError(), ZeroDivisionError("by zero")]
    ):
        (tmp_path / "pictures" / f"crafted{i}.png").write_bytes(bytes([i]))
        errors[f"crafted{i}.png"] = error
    monkeypatch.setattr(
        Image, "open", lambda file, **_: _raise(errors[file.name]) if file.name in errors else opened(file)
    )
    status, out, err = toast("predict", "it", "pictures")
    assert status == 0
    assert out.count(".png") == 5
    assert err.count("cannot be decoded and is left out: ") == 4
    assert "crafted1.png cannot be decoded and is left out: unpack" in err


def _raise(error: Exception) -> None:
    raise error


errors: dict[str, Exception] = {}
opened = Image.open


def change(recipe: Path, **entries: object) -> None:
    """Change entries of a recipe, and seal it as if toast had written it."""
    recipe.write_text(json.dumps(sealed({**json.loads(recipe.read_text()), **entries})))


@pytest.mark.parametrize("content", [b"garbage", b"", b"\x08\x07\x12\x04test" * 9])
def test_what_is_no_onnx_is_a_sentence(exported, toast, tmp_path, content: bytes):
    pytest.importorskip("onnxruntime")
    (tmp_path / "it" / "model.onnx").write_bytes(content)
    change(tmp_path / "it" / "recipe.json", file="model.onnx")
    refused(toast, "it/model.onnx is not the file that recipe.json was written for")
    change(tmp_path / "it" / "recipe.json", weights=checksum(tmp_path / "it" / "model.onnx"))
    refused(toast, "it/model.onnx cannot be used by onnxruntime (")
    (tmp_path / "it" / "model.onnx").unlink()
    refused(toast, "it/model.onnx is missing: restore it, or export the model again.")


def refused(toast, sentence: str) -> None:
    status, out, err = toast("predict", "it", "pictures")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert sentence in err


@pytest.mark.parametrize(
    ("inputs", "outputs", "operation", "sentence"),
    [
        ("images", [None, 10], "Constant", "does not give one finite number for each of its 10 classes"),
        ("images", [None, 3, 8, 8], "Identity", "does not give one finite number for each of its 10 classes"),
        ("pixels", [None, 3, 8, 8], "Identity", "cannot be used by onnxruntime ("),
    ],
)
def test_another_model_in_onnx_is_a_sentence(
    exported, toast, tmp_path, inputs: str, outputs: list, operation: str, sentence: str
):
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node("Identity", [inputs], ["outputs"])
    if operation == "Constant":
        numbers = onnx.helper.make_tensor("v", onnx.TensorProto.FLOAT, [5, 10], [float("nan")] * 50)
        node = onnx.helper.make_node("Constant", [], ["outputs"], value=numbers)
    takes = onnx.helper.make_tensor_value_info(inputs, onnx.TensorProto.FLOAT, [None, 3, 8, 8])
    gives = onnx.helper.make_tensor_value_info("outputs", onnx.TensorProto.FLOAT, outputs)
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", [takes], [gives]),
        ir_version=9,
        opset_imports=[onnx.helper.make_opsetid("", 17)],
    )
    (tmp_path / "it" / "model.onnx").write_bytes(model.SerializeToString())
    change(tmp_path / "it" / "recipe.json", file="model.onnx", weights=checksum(tmp_path / "it" / "model.onnx"))
    refused(toast, sentence)


@pytest.mark.slow
def test_an_onnx_file_that_was_cut_short(finished, exported, toast, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert toast("export", str(finished("plain")), "plan=4-6", "format=onnx", "out=small")[0] == 0
    assert toast("predict", "small", "pictures")[0] == 0
    shutil.rmtree(tmp_path / "it")
    (tmp_path / "small").rename(tmp_path / "it")
    content = (tmp_path / "it" / "model.onnx").read_bytes()
    for length in (len(content) - 1, len(content) // 2, 100):
        (tmp_path / "it" / "model.onnx").write_bytes(content[:length])
        change(tmp_path / "it" / "recipe.json", weights=checksum(tmp_path / "it" / "model.onnx"))
        refused(toast, "it/model.onnx cannot be used by onnxruntime (")
    change(tmp_path / "it" / "recipe.json", weights=None)  # as earlier versions wrote it
    (tmp_path / "it" / "model.onnx").write_bytes(content)
    assert toast("predict", "it", "pictures")[0] == 0


def test_nothing_that_can_execute_is_opened(exported, toast, tmp_path, monkeypatch):
    change(tmp_path / "it" / "recipe.json", file="model.pt2")
    (tmp_path / "it" / "model.pt2").write_bytes(b"anything")
    monkeypatch.setattr(torch.export, "load", lambda *_: pytest.fail("it was opened"))
    status, _, err = toast("predict", "it", "pictures")
    assert status == 1
    assert "it/model.pt2 is not opened" in err
