"""Where rows come from: digits, folders of images, parquet files, saved sets, the hub."""

import hashlib
import shutil

import datasets
import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import save_image_folder
from tests.data.conftest import all_pixels, digits, folder, transform
from toast_cli.data import dataset as data
from toast_cli.errors import ToastError


def test_held_out_digits_are_fixed_whatever_the_seed():
    one, other = digits(), digits(seed=7)
    assert (len(one.train), len(one.test), one.classes) == (1437, 360, tuple("0123456789"))
    assert (one.test.labels == other.test.labels).all()
    assert one.test.split.encoded(0) == other.test.split.encoded(0)
    counts = np.bincount(one.test.labels)
    assert counts.min() >= 34
    assert counts.max() <= 37


def test_held_out_digits_are_those_the_embedded_model_never_saw():
    """If this fails, the draw has changed and the shipped weights were trained on what is now test: train them again."""
    test = digits().test
    seen = np.concatenate([batch.pixels.numpy().ravel() for batch in test.batches(transform, 360)])
    assert hashlib.sha256(seen.tobytes() + test.labels.astype("<i8").tobytes()).hexdigest()[:16] == "b592472da1f0e4dd"


def test_an_image_folder_is_a_data_set(tmp_path):
    loaded = folder(save_image_folder(tmp_path / "set"))
    assert loaded.classes == ("kind0", "kind1")
    assert (len(loaded.train), len(loaded.test)) == (12, 12)
    brightness = all_pixels(loaded.test).float().mean((1, 2, 3))
    assert ((brightness > 90).numpy() == (loaded.test.labels == 1)).all()


def test_parquet_and_saved_sets_give_the_same(tmp_path):
    expected = folder(save_image_folder(tmp_path / "set"))
    rows = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "set"))
    rows.save_to_disk(str(tmp_path / "saved"))
    rows = rows.cast_column("image", datasets.Image(decode=False)).map(
        lambda row: {"image": {"bytes": open(row["image"]["path"], "rb").read(), "path": None}},  # noqa: PTH123, SIM115
        features=datasets.Features(image=datasets.Image(), label=rows["train"].features["label"]),
    )
    (tmp_path / "parquet").mkdir()
    for split in ("train", "test"):
        rows[split].to_parquet(str(tmp_path / "parquet" / f"{split}.parquet"))
    for kind, streaming in (("saved", False), ("parquet", False), ("parquet", True)):
        loaded = folder(tmp_path / kind, streaming=streaming)
        assert loaded.classes == expected.classes
        assert torch.equal(all_pixels(loaded.train), all_pixels(expected.train))
        assert (loaded.test.labels == expected.test.labels).all()


def test_parquet_without_the_hubs_schema_is_read(tmp_path):
    save_image_folder(tmp_path / "set")
    for split in ("train", "test"):
        files = sorted((tmp_path / "set" / split).rglob("*.png"))
        frame = pd.DataFrame(
            {"picture": [file.read_bytes() for file in files], "kind": [file.parent.name for file in files]}
        )
        (tmp_path / "hub" / "plain_text").mkdir(parents=True, exist_ok=True)
        frame.to_parquet(tmp_path / "hub" / "plain_text" / f"{split}-00000-of-00001.parquet")
    loaded = folder(tmp_path / "hub", label_column="kind")
    assert loaded.classes == ("kind0", "kind1")
    assert torch.equal(all_pixels(loaded.train), all_pixels(folder(tmp_path / "set").train))


def test_splits_may_have_other_names(tmp_path):
    save_image_folder(tmp_path / "set")
    (tmp_path / "set" / "test").rename(tmp_path / "set" / "val")
    assert len(folder(tmp_path / "set", test_split="val").test) == 12
    with pytest.raises(ToastError, match="has no split 'test': toast looks for test.parquet, a folder test/<class>/"):
        folder(tmp_path / "set")


def test_paths_that_hold_nothing_are_named(tmp_path):
    with pytest.raises(ToastError, match="data.path=.*nowhere is not a folder: give one with an image folder"):
        folder(tmp_path / "nowhere")
    with pytest.raises(ToastError, match="data=folder has no data.path: give data.path=<dir>"):
        data.load("folder", None)
    (tmp_path / "train.parquet").write_bytes(b"garbage")
    (tmp_path / "test.parquet").write_bytes(b"garbage")
    with pytest.raises(ToastError, match=r"data.path=.* cannot be read as a data set: "):
        folder(tmp_path)


@pytest.mark.parametrize("name", [".cat", "__cat", "kind0/.more"])
def test_a_class_that_would_be_left_out_is_named(name: str, tmp_path):
    root = save_image_folder(tmp_path / "set")
    shutil.copytree(root / "train" / "kind1", root / "train" / name)
    with pytest.raises(
        ToastError,
        match=rf"train/{name} holds images, but a folder whose name begins with a dot or two .*: rename it, or move",
    ):
        folder(root)


@pytest.mark.parametrize("name", ["a\\b/0.png", "kind0/a\\b.png", "a::b/0.png"])
def test_a_name_that_would_be_misread_is_named(name: str, tmp_path):
    root = save_image_folder(tmp_path / "set")
    (root / "test" / name).parent.mkdir(exist_ok=True)
    shutil.copy(root / "test" / "kind1" / "0.png", root / "test" / name)
    with pytest.raises(
        ToastError, match=r"test/.* has a backslash or :: in its name, which is not read as such: rename"
    ):
        folder(root)


def test_clutter_is_no_class(tmp_path):
    root = save_image_folder(tmp_path / "set")
    for clutter in (
        ".git/x/0.png",
        ".ipynb_checkpoints/0-checkpoint.png",
        "__MACOSX/kind0/._0.png",
        ".idea/it.xml",
        "kind0/._0.png",
        ".DS_Store",
    ):
        (root / "train" / clutter).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / "train" / "kind0" / "0.png", root / "train" / clutter)
    loaded = folder(root)
    assert (loaded.classes, len(loaded.train)) == (("kind0", "kind1"), 12)
