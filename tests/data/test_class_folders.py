"""The class of an image is the first folder below its split; what is no image is left out, and counted."""

import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import save_image_folder
from tests.data.conftest import all_pixels, folder
from toast_cli.data.class_folders import read_class_folders
from toast_cli.data.class_names import in_order
from toast_cli.data.image_warnings import warnings_of
from toast_cli.errors import ToastError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return save_image_folder(tmp_path / "set")


def test_folders_below_a_class_belong_to_it(root: Path):
    expected = folder(root)
    pixels = all_pixels(expected.train)
    for split in ("train", "test"):
        for file in sorted((root / split).rglob("*.png")):
            (file.parent / ("2023", "2024/May")[int(file.stem) % 2]).mkdir(parents=True, exist_ok=True)
            file.rename(file.parent / ("2023", "2024/May")[int(file.stem) % 2] / file.name)
    loaded = folder(root)
    assert loaded.classes == ("kind0", "kind1")
    assert loaded.test.labels.tolist() == expected.test.labels.tolist()
    order = [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]  # 2023 before 2024
    assert torch.equal(all_pixels(loaded.train), pixels[order])


def test_only_one_class_has_a_folder_inside(root: Path):
    (root / "train" / "kind1" / "extra").mkdir()
    (root / "train" / "kind1" / "5.png").rename(root / "train" / "kind1" / "extra" / "5.png")
    assert np.bincount(folder(root).train.labels).tolist() == [6, 6]


def test_files_are_in_the_order_of_their_paths(tmp_path: Path):
    """As in earlier versions, so that draws are the same: by code points of the whole path, where - and . come before /."""
    names = ["B/x.png", "a b/x.png", "a-b/10.png", "a-b/9.png", "a.b/X.PNG", "a/X.png", "a/x.png", "é/x.png"]
    for name in reversed(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    rows = read_class_folders(tmp_path)
    assert [rows.value(i, "image")["path"] for i in range(len(rows))] == [f"{tmp_path}/{name}" for name in names]
    assert rows.features["label"].names == ["B", "a", "a b", "a-b", "a.b", "é"]


@pytest.mark.parametrize("what", ["train", "train/kind1", "train/kind1/0.png"])
def test_links_are_followed(what: str, root: Path, tmp_path: Path):
    expected = folder(root)
    (root / what).rename(tmp_path / "elsewhere")
    (root / what).symlink_to(tmp_path / "elsewhere")
    loaded = folder(root)
    assert loaded.train.labels.tolist() == expected.train.labels.tolist()
    assert torch.equal(all_pixels(loaded.train), all_pixels(expected.train))


def test_two_links_to_one_folder_are_no_circle(root: Path):
    (root / "train" / "kind2").symlink_to(root / "train" / "kind1")
    assert folder(root).classes == ("kind0", "kind1", "kind2")


def test_a_link_back_is_named(root: Path):
    (root / "train" / "kind1" / "all").symlink_to(root / "train")
    with pytest.raises(
        ToastError, match=r"train/kind1/all is a link back to .*/train, so that .* no end: remove the link"
    ):
        folder(root)


def test_a_broken_link_is_a_bad_image(root: Path):
    (root / "train" / "kind0" / "0.png").unlink()
    (root / "train" / "kind0" / "0.png").symlink_to("gone.png")
    (root / "train" / "kind0" / "00.png").symlink_to("00.png")
    with pytest.raises(ToastError, match=r"train image 0 \(.*kind0/0.png\) cannot be decoded \(.*No such file"):
        all_pixels(folder(root).train)
    assert len(all_pixels(folder(root, skip_bad_images=True).train)) == 11


def test_every_ending_that_pillow_opens_in_any_case(root: Path):
    picture = Image.open(root / "train" / "kind1" / "0.png").copy()
    for name in ("a.avif", "b.QOI", "c.JPEG", "d.jfif", "e.TIF", "f.Png", "g.webp"):
        picture.save(root / "train" / "kind1" / name, format="JPEG" if name.endswith("jfif") else None)
    loaded = folder(root)
    assert np.bincount(loaded.train.labels).tolist() == [6, 13]
    assert len(all_pixels(loaded.train)) == 19


def test_a_numbers_classes_are_in_the_order_of_numbers(tmp_path: Path):
    root = tmp_path / "set"
    for split in ("train", "test"):
        for k in range(12):
            (root / split / str(k)).mkdir(parents=True)
            Image.new("L", (4, 4), 20 * k).save(root / split / str(k) / "0.png")
    loaded = folder(root)
    assert loaded.classes == tuple(map(str, range(12)))
    assert [int(p[0, 0, 0]) // 20 for p in all_pixels(loaded.train)] == loaded.train.labels.tolist()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["10", "9", "-1"], ["-1", "9", "10"]),
        (["1.5", "10", "2"], ["1.5", "2", "10"]),
        (["010", "9"], ["9", "010"]),
        (["10", "9", "x"], ["10", "9", "x"]),
        (["²", "1"], ["1", "²"]),
        (["1e3", "20"], ["1e3", "20"]),
    ],
)
def test_the_order_of_classes(names: list[str], expected: list[str]):
    assert in_order(names) == expected


def test_a_class_in_another_unicode_form_is_the_same(root: Path):
    for split, form in (("train", "NFC"), ("test", "NFD")):
        (root / split / "kind0").rename(root / split / unicodedata.normalize(form, "café"))
    loaded = folder(root)
    assert loaded.classes == ("café", "kind1")
    assert np.bincount(loaded.test.labels).tolist() == [6, 6]


def test_a_split_in_another_unicode_form(root: Path):
    (root / "test").rename(root / unicodedata.normalize("NFD", "été"))
    assert len(folder(root, test_split="été").test) == 12


def test_a_name_that_is_no_text(root: Path):
    """Latin-1, as old archives have it."""
    for split in ("train", "test"):
        os.rename(os.fsencode(root / split / "kind0"), os.fsencode(root / split) + b"/caf\xe9")  # noqa: PTH104
        (root / split / "kind1" / "0.png").rename(root / split / "kind1" / os.fsdecode(b"\xe9t\xe9.png"))
    loaded = folder(root)
    assert loaded.classes == ("caf\\xe9", "kind1")
    assert len(all_pixels(loaded.train)) == 12
    assert len(loaded.fingerprint()) == 16


@pytest.mark.parametrize("name", ["__background__", "a\\b", "a::b", "[x]", "*", "what?", "(1) #2", "-v", "None"])
def test_a_class_is_called_as_its_folder(name: str, root: Path):
    for split in ("train", "test"):
        shutil.copytree(root / split / "kind1", root / split / name)
    loaded = folder(root)
    assert set(loaded.classes) == {"kind0", "kind1", name}
    assert len(all_pixels(loaded.train)) == 18


@pytest.mark.parametrize("name", [".cat", "kind0/.more"])
def test_images_in_a_hidden_folder_are_named(name: str, root: Path):
    shutil.copytree(root / "train" / "kind1", root / "train" / name)
    told = rf"train/{name} holds images, but a folder whose name begins with a dot is not read: rename it, or move"
    with pytest.raises(ToastError, match=told):
        folder(root)


def test_clutter_is_left_out_and_counted(root: Path):
    for clutter in (
        ".git/x/0.png", ".ipynb_checkpoints/0-checkpoint.png", "__MACOSX/kind0/._0.png", "@eaDir/0.png/THUMB.jpg",
        ".Trash-1000/files/0.png", ".idea/it.xml", "kind0/._0.png", "kind0/0.png.json", "kind1/0.png.json", "kind1/README",
        "kind0/backup.zip", "kind1/9.heic", "kind1/x.png.part", ".DS_Store", "kind0/Thumbs.db", "kind1/scan.h5",
    ):  # fmt: skip
        (root / "train" / clutter).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / "train" / "kind0" / "0.png", root / "train" / clutter)
    loaded = folder(root)
    assert (loaded.classes, len(loaded.train)) == (("kind0", "kind1"), 12)
    endings = "2 .json, 1 .DS_Store, 1 ._*, 1 .db, 1 .h5, 1 .heic, 1 .part, 1 .xml, 1 .zip, 1 without an ending"
    assert warnings_of(loaded) == [
        f"{root}/train: 11 files are left out, since toast does not read them as images ({endings})"
    ]


def test_an_image_beside_the_class_folders_is_named(root: Path):
    shutil.copy(root / "train" / "kind0" / "0.png", root / "train" / "overview.png")
    loaded = folder(root)
    assert len(loaded.train) == 12
    assert f"{root}/train/overview.png lies beside the class folders and so in no class: left out" in warnings_of(
        loaded
    )


def test_images_without_class_folders_are_refused(root: Path):
    for file in list((root / "train").rglob("*.png")):
        file.rename(root / "train" / f"{file.parent.name}-{file.name}")
    told = r"train holds no images in class folders \(12 lie in the folder itself\): put them into train/<class>/."
    with pytest.raises(ToastError, match=told):
        folder(root)


def test_an_archive_alone_is_named(root: Path):
    shutil.rmtree(root / "train" / "kind0")
    shutil.rmtree(root / "train" / "kind1")
    (root / "train" / "photos.zip").touch()
    with pytest.raises(
        ToastError, match=r"class folders \(.*: 1 file is left out, since .* \(1 .zip\)\): put them into"
    ):
        folder(root)


def test_one_class_is_enough_for_the_test_split(root: Path):
    shutil.rmtree(root / "test" / "kind0")
    (root / "test" / "kind0").mkdir()
    assert folder(root).test.labels.tolist() == [1] * 6
    shutil.rmtree(root / "train" / "kind1")
    with pytest.raises(
        ToastError, match="train holds images of one class only, kind0: put those of another into train/"
    ):
        folder(root)


def test_a_class_in_another_case_is_suggested(root: Path):
    (root / "test" / "kind0").rename(root / "test" / "Kind0")
    told = r"Split 'test' has the label Kind0 \(did you mean kind0, kind1\?\) for 6 of its 12 images, outside the 2 classes"
    with pytest.raises(ToastError, match=told):
        folder(root)


def test_a_pipe_is_passed_by(root: Path):
    os.mkfifo(root / "train" / "kind0" / "pipe.png")
    assert len(folder(root).train) == 12
