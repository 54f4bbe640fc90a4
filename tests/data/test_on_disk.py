"""What lies in a folder: images, parquet files as several programs write them, saved sets."""

import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import save_image_folder
from tests.data.conftest import all_pixels, folder
from toast_cli.data import dataset as data
from toast_cli.errors import ToastError


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
    with pytest.raises(
        ToastError, match=r"has no split 'test' \(it has train, val\): toast looks for test.parquet, a folder"
    ):
        folder(tmp_path / "set")


def test_paths_that_hold_nothing_are_named(tmp_path):
    with pytest.raises(ToastError, match="data.path=.*nowhere is not a folder: give one with an image folder"):
        folder(tmp_path / "nowhere")
    with pytest.raises(ToastError, match="There is no data.path to read images from: give data.path=<dir>"):
        data.load("folder", None)
    (tmp_path / "train.parquet").write_bytes(b"garbage")
    (tmp_path / "test.parquet").write_bytes(b"garbage")
    with pytest.raises(ToastError, match=r"data.path=.* cannot be read as a data set: "):
        folder(tmp_path)


def tables(root: Path, name: str, label: object = None) -> Path:
    """The images of ``save_image_folder`` in a table for each split, at ``root / name`` with ``{split}`` filled in."""
    if not (root / "set").is_dir():
        save_image_folder(root / "set")
    for split in ("train", "test"):
        files = sorted((root / "set" / split).rglob("*.png"))
        labels = [file.parent.name if label is None else label(int(file.parent.name[-1])) for file in files]
        path = root / name.format(split=split)
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"image": [file.read_bytes() for file in files], "label": labels}).to_parquet(path)
    return root / name.partition("/")[0]


@pytest.mark.parametrize(
    "name",
    [
        "a/default/{split}/0000.parquet",  # what the hub converts
        "a/{split}/0000.parquet",
        "a/{split}/part-00000-c2.c000.snappy.parquet",  # Spark
        "a/{split}.parquet/part-00000-c2.c000.snappy.parquet",
        "a/data/{split}-00000-of-00001-1f2e3d4c5b6a7980.parquet",
        "a/data/{split}-00000-of-00001.parquet",
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_parquet_files_as_programs_write_them(name: str, streaming: bool, tmp_path: Path):
    root = tables(tmp_path, name)
    for folder_of_parts in {file.parent for file in root.rglob("*.parquet")}:
        (folder_of_parts / "_SUCCESS").touch()
        (folder_of_parts / "._x.parquet").write_bytes(b"clutter")
    loaded = folder(root, streaming=streaming)
    assert torch.equal(all_pixels(loaded.train), all_pixels(folder(tmp_path / "set").train))
    assert loaded.classes == ("kind0", "kind1")


def test_parts_are_read_in_the_order_of_their_names(tmp_path: Path):
    tables(tmp_path, "a/{split}/part-00001.parquet", label=lambda kind: kind + 2)
    root = tables(tmp_path, "a/{split}/part-00000.parquet")
    frames = [pd.read_parquet(file) for file in sorted((root / "train").glob("*.parquet"))]
    frames[1]["label"] = frames[1]["label"].map({2: "kind0", 3: "kind1"})
    frames[1].to_parquet(root / "train" / "part-00001.parquet")
    (root / "test" / "part-00001.parquet").unlink()
    loaded = folder(root, label_column="label")
    assert len(loaded.train) == 24
    expected = pd.concat(frames)["label"].map({"kind0": 0, "kind1": 1}).tolist()
    assert loaded.train.labels.tolist() == expected


@pytest.mark.parametrize("name", ["a [v1]", "what?", "st*r", "a b", "50% & #1", "{x}", "écru", "[12]"])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_name_is_no_pattern(name: str, streaming: bool, tmp_path: Path):
    tables(tmp_path, name.replace("{", "{{").replace("}", "}}") + "/{split}.parquet")
    shutil.copytree(tmp_path / "set", tmp_path / name / "pictures")
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "train.parquet").write_bytes(b"what [12] as a pattern means")
    assert len(folder(tmp_path / name, label_column="label", streaming=streaming).train) == 12
    assert len(folder(tmp_path / name / "pictures", streaming=streaming).train) == 12


@pytest.mark.parametrize(
    ("label", "classes"),
    [
        (bool, ("False", "True")),
        (lambda kind: 2.0 * kind, ("0", "2")),
        (lambda kind: str(10 - kind), ("9", "10")),
        (lambda kind: f"{10 - kind}.5", ("9.5", "10.5")),
        (lambda kind: ["b", "10"][kind], ("10", "b")),
    ],
)
def test_labels_of_every_plain_kind(label: object, classes: tuple[str, ...], tmp_path: Path):
    loaded = folder(tables(tmp_path, "a/{split}.parquet", label), label_column="label")
    assert loaded.classes == classes
    shown = [str(label(kind)).removesuffix(".0") for kind in folder(tmp_path / "set").train.labels]
    assert [loaded.classes[i] for i in loaded.train.labels] == shown


def test_labels_without_a_value_are_counted(tmp_path: Path):
    root = tables(tmp_path, "a/{split}.parquet", lambda kind: [None, 1][kind])
    with pytest.raises(ToastError, match="data.label_column=label is empty in 6 of 12 rows: give these rows a label"):
        folder(root, label_column="label")


def test_labels_are_compared_composed(tmp_path: Path):
    root = tables(tmp_path, "a/{split}.parquet", lambda kind: ["caf\u00e9", "tea"][kind])
    tables(tmp_path, "b/{split}.parquet", lambda kind: ["cafe\u0301", "tea"][kind])
    shutil.copy(tmp_path / "b" / "test.parquet", root / "test.parquet")
    loaded = folder(root, label_column="label")
    assert loaded.classes == ("café", "tea")
    assert np.bincount(loaded.test.labels).tolist() == [6, 6]


def test_images_with_the_hubs_table_of_them(tmp_path: Path):
    """`datasets` decides then; a table without file names is something else."""
    root = save_image_folder(tmp_path / "a")
    for split in ("train", "test"):
        (root / split / "metadata.csv").write_text("patient,age\n1,2\n")
    assert folder(root).classes == ("kind0", "kind1")
    for split in ("train", "test"):
        names = [file.relative_to(root / split) for file in (root / split).rglob("*.png")]
        lines = [json.dumps({"file_name": str(name), "size": "ab"[int(name.stem) % 2]}) for name in names]
        (root / split / "metadata.csv").unlink()
        (root / split / "metadata.jsonl").write_text("\n".join(lines))
    assert folder(root, label_column="size").classes == ("a", "b")
    with pytest.raises(
        ToastError, match=r"size \(Value\), of which none is marked as label: name one with data.label_col"
    ):
        folder(root)


def test_a_split_under_another_name_is_suggested(tmp_path: Path):
    root = save_image_folder(tmp_path / "a")
    (root / "test").rename(root / "Tests")
    with pytest.raises(ToastError, match=r"has no split 'test' \(did you mean Tests\?\): toast looks for test.parquet"):
        folder(root)


def test_a_folder_too_high_and_one_too_low(tmp_path: Path):
    """As archives are unpacked: photos/photos/train/…"""
    inner = save_image_folder(tmp_path / "photos" / "photos")
    for given in (tmp_path / "photos", inner / "train"):
        with pytest.raises(
            ToastError, match=rf"has no split 'train' \(did you mean data.path={inner}\?\): toast looks"
        ):
            folder(given)
    (inner / "test").rename(inner / "holdout")
    with pytest.raises(
        ToastError, match=r"has no split 'test' \(it has holdout, train\): toast looks for test.parquet"
    ):
        folder(inner)


def test_the_default_folder_of_a_user_that_there_is_not(tmp_path: Path):
    save_image_folder(tmp_path / "~nobody-of-that-name")
    assert len(folder("~nobody-of-that-name").train) == 12
