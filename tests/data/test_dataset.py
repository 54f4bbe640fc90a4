"""Columns, classes and labels, whatever the rows come from."""

import datasets
import pytest
from PIL import Image

from tests.data.conftest import folder
from toast_cli.errors import ToastError


def test_columns_are_read_or_named(tmp_path):
    features = datasets.Features(
        photo=datasets.Image(),
        fine=datasets.ClassLabel(names=["a", "b"]),
        coarse=datasets.ClassLabel(names=["c"]),
        word=datasets.Value("string"),
    )
    image = Image.new("RGB", (4, 4))
    rows = datasets.Dataset.from_dict(
        {"photo": [image] * 4, "fine": [0, 1, 1, 0], "coarse": [0] * 4, "word": ["x", "y", "z", "x"]},
        features=features,
    )
    datasets.DatasetDict(train=rows, test=rows).save_to_disk(str(tmp_path / "set"))
    assert folder(tmp_path / "set", label_column="fine").classes == ("a", "b")
    words = folder(tmp_path / "set", label_column="word")
    assert words.classes == ("x", "y", "z")
    assert words.train.labels.tolist() == [0, 1, 2, 0]
    for settings, sentence in (
        ({}, "of which 2 are marked as label: name one with data.label_column."),
        (
            {"label_column": "fin"},
            "data.label_column=fin is not a column (did you mean fine?): the data set has photo (Image), fine",
        ),
        (
            {"image_column": "word", "label_column": "fine"},
            "data.image_column=word holds no images: the data set has photo (Image)",
        ),
        ({"label_column": "photo"}, "data.label_column=photo holds Image("),
    ):
        with pytest.raises(ToastError) as error:
            folder(tmp_path / "set", **settings)
        assert sentence in str(error.value)


def test_unlabelled_and_empty_splits_are_named(tmp_path):
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"]))
    image = Image.new("RGB", (4, 4))
    full = datasets.Dataset.from_dict({"image": [image] * 4, "label": [0, 1, 1, 0]}, features=features)
    unlabelled = datasets.Dataset.from_dict({"image": [image] * 2, "label": [-1, -1]}, features=features)
    datasets.DatasetDict(train=full, test=unlabelled).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(
        ToastError,
        match="has the label -1 for 2 of its 2 images, outside the 2 classes of split 'train': choose a labelled split",
    ):
        folder(tmp_path / "set")
    (tmp_path / "parquet").mkdir()
    full.to_parquet(str(tmp_path / "parquet" / "train.parquet"))
    full.select([]).to_parquet(str(tmp_path / "parquet" / "test.parquet"))
    with pytest.raises(ToastError, match='has an empty split .*"test".*: it must hold at least one image.'):
        folder(tmp_path / "parquet")
    with pytest.raises(
        ToastError, match="has no split 'nope' .it has test, train.: set data.train_split or data.test_split."
    ):
        folder(tmp_path / "set", test_split="nope")


def test_labels_are_matched_by_name(tmp_path):
    image = Image.new("RGB", (4, 4))
    for split, names, labels in (("train", ["a", "b", "c"], [0, 1, 2, 1]), ("test", ["c", "a"], [0, 1, 1, 0])):
        features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=names))
        rows = datasets.Dataset.from_dict({"image": [image] * 4, "label": labels}, features=features)
        rows.save_to_disk(str(tmp_path / "saved" / split))
        (tmp_path / "parquet").mkdir(exist_ok=True)
        rows.to_parquet(str(tmp_path / "parquet" / f"{split}.parquet"))
    for kind in ("saved", "parquet"):
        assert folder(tmp_path / kind).test.labels.tolist() == [2, 0, 0, 2]
    with pytest.raises(ToastError, match="Split 'train' has the label b for 2 of its 4 images, outside the 2 classes"):
        folder(tmp_path / "saved", train_split="test", test_split="train")
