"""Parquet files that are read in place: 23 train and 4 test images, three rows in a row group, two files."""

import datasets
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.data.conftest import all_pixels, folder
from toast_cli.errors import ToastError


@pytest.fixture
def stored(tmp_path):
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b", "c"]))
    for name, count in (("train-00000-of-00002", 14), ("train-00001-of-00002", 9), ("test", 4)):
        images = [Image.new("RGB", (4, 4), (i, len(name), 0)) for i in range(count)]
        rows = datasets.Dataset.from_dict({"image": images, "label": [i % 3 for i in range(count)]}, features)
        rows.to_parquet(str(tmp_path / f"{name}.parquet"), batch_size=3)
    return tmp_path


@pytest.mark.parametrize("settings", [{}, {"train_images": 9, "fit_images": [3, 7]}, {"workers": 2}])
def test_files_read_in_place_give_what_a_copy_gives(stored, settings: dict):
    workers = settings.pop("workers", 0)
    plain, streamed = (folder(stored, streaming=streaming, **settings) for streaming in (False, True))
    for one, other in zip(
        (*plain.fit, plain.train, plain.test), (*streamed.fit, streamed.train, streamed.test), strict=True
    ):
        assert (one.labels == other.labels).all()
        assert torch.equal(all_pixels(one), all_pixels(other, workers=workers))
    assert streamed.classes == ("a", "b", "c")


def test_each_row_group_is_read_once_in_order(stored, monkeypatch: pytest.MonkeyPatch):
    loaded, read = folder(stored, streaming=True), []
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", _counting(pq.ParquetFile.read_row_group, read))
    all_pixels(loaded.train)
    assert len(read) == 5 + 3
    read.clear()
    assert loaded.fingerprint() == folder(stored, streaming=True).fingerprint()
    assert read == [], "a fingerprint reads no images"


def test_one_split_is_divided_as_the_paper_does(stored):
    asked = {"one_split": {"name": "train", "test_images": 5}, "splits": "paper"}
    plain, streamed = (folder(stored, streaming=streaming, **asked) for streaming in (False, True))
    assert torch.equal(all_pixels(plain.test), all_pixels(streamed.test))
    assert (plain.train.labels == streamed.train.labels).all()


def test_a_file_that_is_cut_off_is_named(stored):
    file = stored / "test.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ToastError, match="cannot be read as a data set"):
        folder(stored, streaming=True)


def _counting(function, calls: list):
    def counted(self, number: int, **settings: object):
        calls.append(number)
        return function(self, number, **settings)

    return counted
