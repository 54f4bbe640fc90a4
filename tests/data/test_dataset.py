import hashlib
import resource

import datasets
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.conftest import save_image_folder
from toast_cli.data import dataset as data
from toast_cli.data.images import Images, PixelCache, Split, to_rgb
from toast_cli.data.sources import DIGITS
from toast_cli.errors import ToastError


def transform(image: Image.Image) -> torch.Tensor:
    """RGB image -> uint8 (3, H, W)."""
    assert image.mode == "RGB"
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def digits(**settings: object) -> data.Data:
    return data.load("digits", DIGITS, image_column="image", label_column="label", **{"fit_images": 50, **settings})


def folder(path: object, **settings: object) -> data.Data:
    return data.load("folder", None, path=str(path), **{"fit_images": 4, **settings})


def all_pixels(images: Images, **settings: object) -> torch.Tensor:
    return torch.cat([batch.pixels for batch in images.batches(transform, 5, **settings)])


class TestStreaming:
    """Parquet files that are read in place: 23 train and 4 test images, three rows in a row group, two files."""

    @pytest.fixture
    def stored(self, tmp_path):
        features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b", "c"]))
        for name, count in (("train-00000-of-00002", 14), ("train-00001-of-00002", 9), ("test", 4)):
            images = [Image.new("RGB", (4, 4), (i, len(name), 0)) for i in range(count)]
            rows = datasets.Dataset.from_dict({"image": images, "label": [i % 3 for i in range(count)]}, features)
            rows.to_parquet(str(tmp_path / f"{name}.parquet"), batch_size=3)
        return tmp_path

    @pytest.mark.parametrize("settings", [{}, {"train_images": 9, "fit_images": [3, 7]}, {"workers": 2}])
    def test_gives_what_a_copy_gives(self, stored, settings: dict):
        workers = settings.pop("workers", 0)
        plain, streamed = (folder(stored, streaming=streaming, **settings) for streaming in (False, True))
        for one, other in zip(
            (*plain.fit, plain.train, plain.test), (*streamed.fit, streamed.train, streamed.test), strict=True
        ):
            assert (one.labels == other.labels).all()
            assert torch.equal(all_pixels(one), all_pixels(other, workers=workers))
        assert streamed.classes == ("a", "b", "c")

    def test_reads_each_row_group_once_in_order(self, stored, monkeypatch: pytest.MonkeyPatch):
        loaded, read = folder(stored, streaming=True), []
        monkeypatch.setattr(pq.ParquetFile, "read_row_group", _counting(pq.ParquetFile.read_row_group, read))
        all_pixels(loaded.train)
        assert len(read) == 5 + 3
        read.clear()
        assert loaded.fingerprint() == folder(stored, streaming=True).fingerprint()
        assert read == [], "a fingerprint reads no images"

    def test_one_split_divided_as_the_paper_does(self, stored):
        asked = {"one_split": {"name": "train", "test_images": 5}, "splits": "paper"}
        plain, streamed = (folder(stored, streaming=streaming, **asked) for streaming in (False, True))
        assert torch.equal(all_pixels(plain.test), all_pixels(streamed.test))
        assert (plain.train.labels == streamed.train.labels).all()

    def _hub(self, monkeypatch: pytest.MonkeyPatch, files: dict) -> None:
        builder = type("", (), {"config": type("", (), {"data_files": files})})
        monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_: builder)

    def test_from_the_hub(self, stored, monkeypatch: pytest.MonkeyPatch):
        self._hub(monkeypatch, {name: sorted(map(str, stored.glob(f"{name}*"))) for name in ("train", "test")})
        loaded = data.load("hub", "someone/something", streaming=True, fit_images=4)
        assert torch.equal(all_pixels(loaded.train), all_pixels(folder(stored).train))
        with pytest.raises(ToastError, match=r"has no split 'val' \(it has train, test\): set data.train_split or"):
            data.load("hub", "someone/something", streaming=True, test_split="val")

    def test_what_the_hub_does_not_store_as_parquet(self, monkeypatch: pytest.MonkeyPatch):
        self._hub(monkeypatch, {"train": ["hf://datasets/x/y/train.zip"]})
        with pytest.raises(
            ToastError, match="x/y is not stored as parquet files, which data.streaming=true reads: use data.str"
        ):
            data.load("hub", "x/y", streaming=True)

    def test_a_file_that_is_cut_off(self, stored):
        file = stored / "test.parquet"
        file.write_bytes(file.read_bytes()[:-20])
        with pytest.raises(ToastError, match="cannot be read as a data set"):
            folder(stored, streaming=True)


def _counting(function, calls: list):
    def counted(self, number: int, **settings: object):
        calls.append(number)
        return function(self, number, **settings)

    return counted


class TestDigits:
    def test_held_out_digits_are_fixed_whatever_the_seed(self):
        one, other = digits(), digits(seed=7)
        assert (len(one.train), len(one.test), one.classes) == (1437, 360, tuple("0123456789"))
        assert (one.test.labels == other.test.labels).all()
        assert one.test.split.encoded(0) == other.test.split.encoded(0)
        counts = np.bincount(one.test.labels)
        assert counts.min() >= 34
        assert counts.max() <= 37

    def test_grey_becomes_rgb(self):
        pixels = next(digits().test.batches(transform, 8)).pixels
        assert pixels.shape == (8, 3, 8, 8)
        assert pixels.dtype == torch.uint8
        assert torch.equal(pixels[:, 0], pixels[:, 2])
        assert pixels.max() == 255

    def test_held_out_digits_are_those_the_embedded_model_never_saw(self):
        """If this fails, the draw has changed and the shipped weights were trained on what is now test: train them again."""
        test = digits().test
        seen = np.concatenate([batch.pixels.numpy().ravel() for batch in test.batches(transform, 360)])
        assert (
            hashlib.sha256(seen.tobytes() + test.labels.astype("<i8").tobytes()).hexdigest()[:16] == "b592472da1f0e4dd"
        )


class TestDraws:
    def test_a_smaller_draw_is_part_of_a_larger_one_and_stratified(self):
        small, large = digits(train_images=100), digits(train_images=400)
        assert set(small.train.indices) < set(large.train.indices)
        for images in (small.train, large.train):
            counts = np.bincount(images.labels, minlength=10)
            assert counts.max() - counts.min() <= 0.04 * len(images)
            assert (np.diff(images.indices) > 0).all(), "stored order"

    def test_the_seed_decides(self):
        assert (digits(train_images=100).train.indices != digits(train_images=100, seed=1).train.indices).any()
        assert (digits().fit[0].indices != digits(seed=1).fit[0].indices).any()
        assert (digits().fit[0].indices == digits().fit[0].indices).all()
        assert digits().fingerprint() == digits().fingerprint() != digits(seed=1).fingerprint()

    def test_fit_images_do_not_move_with_train_images(self):
        assert (digits().fit[0].indices == digits(train_images=60).fit[0].indices).all()

    def test_first_is_stored_order(self):
        assert digits(fit_order="first").fit[0].indices.tolist() == list(range(50))

    @pytest.mark.parametrize(
        ("settings", "sentence"),
        [
            (
                {"fit_images": 1438},
                "data.fit_images=1438 cannot be had: give a whole number from 1 to 1437, the images of that split.",
            ),
            ({"fit_images": 0}, "data.fit_images=0 cannot be had"),
            ({"train_images": 2.5}, "data.train_images=2.5 cannot be had"),
            ({"test_images": "many"}, "data.test_images=many cannot be had: give a whole number from 1 to 360"),
            (
                {"fit_order": "frist"},
                "data.fit_order=frist is not an order (did you mean first?): use random or first.",
            ),
        ],
    )
    def test_what_cannot_be_drawn(self, settings: dict, sentence: str):
        with pytest.raises(ToastError) as error:
            digits(**settings)
        assert str(error.value).startswith(sentence)


class TestPaths:
    def test_image_folder(self, tmp_path):
        loaded = folder(save_image_folder(tmp_path / "set"))
        assert loaded.classes == ("kind0", "kind1")
        assert (len(loaded.train), len(loaded.test)) == (12, 12)
        brightness = all_pixels(loaded.test).float().mean((1, 2, 3))
        assert ((brightness > 90).numpy() == (loaded.test.labels == 1)).all()

    def test_parquet_and_saved_sets_give_the_same(self, tmp_path):
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

    def test_other_split_names(self, tmp_path):
        save_image_folder(tmp_path / "set")
        (tmp_path / "set" / "test").rename(tmp_path / "set" / "val")
        assert len(folder(tmp_path / "set", test_split="val").test) == 12
        with pytest.raises(
            ToastError, match="has no split 'test': toast looks for test.parquet, a folder test/<class>/"
        ):
            folder(tmp_path / "set")

    def test_columns_are_read_or_named(self, tmp_path):
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

    def test_unlabelled_and_empty_splits(self, tmp_path):
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

    def test_labels_are_matched_by_name(self, tmp_path):
        image = Image.new("RGB", (4, 4))
        for split, names, labels in (("train", ["a", "b", "c"], [0, 1, 2, 1]), ("test", ["c", "a"], [0, 1, 1, 0])):
            features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=names))
            rows = datasets.Dataset.from_dict({"image": [image] * 4, "label": labels}, features=features)
            rows.save_to_disk(str(tmp_path / "saved" / split))
            (tmp_path / "parquet").mkdir(exist_ok=True)
            rows.to_parquet(str(tmp_path / "parquet" / f"{split}.parquet"))
        for kind in ("saved", "parquet"):
            assert folder(tmp_path / kind).test.labels.tolist() == [2, 0, 0, 2]
        with pytest.raises(
            ToastError, match="Split 'train' has the label b for 2 of its 4 images, outside the 2 classes"
        ):
            folder(tmp_path / "saved", train_split="test", test_split="train")

    def test_parquet_without_the_hubs_schema(self, tmp_path):
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

    def test_paths_that_hold_nothing(self, tmp_path):
        with pytest.raises(ToastError, match="data.path=.*nowhere is not a folder: give one with an image folder"):
            folder(tmp_path / "nowhere")
        with pytest.raises(ToastError, match="data=folder has no data.path: give data.path=<dir>"):
            data.load("folder", None)
        (tmp_path / "train.parquet").write_bytes(b"garbage")
        (tmp_path / "test.parquet").write_bytes(b"garbage")
        with pytest.raises(ToastError, match=r"data.path=.* cannot be read as a data set: "):
            folder(tmp_path)

    def test_hub_that_is_out_of_reach(self):
        with pytest.raises(
            ToastError, match=r"uoft-cs/cifar10 could not be fetched from the hub .*: give data.path=<dir> with a copy"
        ):
            data.load("cifar10", "uoft-cs/cifar10", image_column="img", label_column="label")

    def test_gated_set_says_how_to_get_in(self, monkeypatch: pytest.MonkeyPatch):
        def gated(*_: object, **__: object) -> None:
            raise datasets.exceptions.DatasetNotFoundError(
                "Dataset 'ILSVRC/imagenet-1k' is a gated dataset on the Hub."
            )

        monkeypatch.setattr(datasets, "load_dataset", gated)
        with pytest.raises(
            ToastError,
            match="accept them on its hub page, then set HF_TOKEN to a token with read access; or give data.path",
        ):
            data.load("imagenet1k", "ILSVRC/imagenet-1k")


class TestBadImages:
    @pytest.fixture
    def broken(self, tmp_path):
        """Image 1 of train is cut short."""
        root = save_image_folder(tmp_path / "set", size=40)
        file = root / "train" / "kind0" / "1.png"
        file.write_bytes(file.read_bytes()[:-200])
        return root

    def test_named_with_index_and_path(self, broken):
        with pytest.raises(
            ToastError,
            match=r"^train image 1 \(.*kind0/1.png\) cannot be decoded \(.*truncated.*\): mend or remove it, or set ",
        ):
            all_pixels(folder(broken).train)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_left_out_where_asked(self, broken, workers: int):
        images = folder(broken, skip_bad_images=True).train
        batches = list(images.batches(transform, 5, workers))
        assert [position for batch in batches for position in batch.positions] == [0, *range(2, 12)]
        assert [batch.size for batch in batches] == [5, 5, 2]
        assert len(all_pixels(images, workers=workers)) == 11

    def test_in_a_worker_too(self, broken):
        with pytest.raises(ToastError, match="^train image 1 "):
            all_pixels(folder(broken).train, workers=1)


def test_many_images_in_workers_take_few_file_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        loaded = digits(fit_images=400)
        split, cache = loaded.fit[0].split, PixelCache(loaded.fit[0].split, range(1437))
        batches = loaded.fit[0].batches(transform, 64, workers=2, cache=cache, keep=True)
        assert len(torch.cat([batch.pixels for batch in batches])) == 400
        assert all(cache.get(split, int(index)) is not None for index in loaded.fit[0].indices)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_sixteen_bit_grey_is_scaled_and_photographs_stand_upright():
    ramp = Image.fromarray((np.arange(256, dtype=np.uint16) * 257).reshape(16, 16))
    assert np.asarray(to_rgb(ramp))[:, :, 0].ravel().tolist() == list(range(256))
    wide = Image.new("RGB", (8, 4))
    wide.getexif()[0x0112] = 6
    assert to_rgb(wide).size == (4, 8)
    with pytest.raises(ValueError, match="mode F, whose range is not fixed"):
        to_rgb(Image.new("F", (2, 2)))


def test_kept_pixels_are_not_decoded_again(monkeypatch: pytest.MonkeyPatch):
    loaded = digits(train_images=400)
    decoded: list[int] = []
    monkeypatch.setattr(Split, "encoded", lambda self, index: decoded.append(index) or original(self, index))
    cache = PixelCache(loaded.train.split, loaded.train.indices.tolist())
    fit = all_pixels(loaded.fit[0], cache=cache, keep=True)
    train = all_pixels(loaded.train, cache=cache)
    assert len(decoded) == len(set(decoded)) == len(set(loaded.fit[0].indices) | set(loaded.train.indices))
    shared = set(loaded.fit[0].indices) & set(loaded.train.indices)
    assert {i for i in range(1437) if cache.get(loaded.train.split, i) is not None} == shared
    assert shared
    for index in shared:
        assert torch.equal(fit[loaded.fit[0].indices == index], train[loaded.train.indices == index])


original = Split.encoded


def test_the_papers_division_of_one_split():
    both = {name: digits(splits=name, one_split={"name": "test", "test_images": 90}) for name in ("standard", "paper")}
    assert (len(both["standard"].train), len(both["standard"].test)) == (1437, 360)
    assert (len(both["paper"].train), len(both["paper"].test)) == (270, 90)
    stored = digits(train_split="test", fit_images=10).train.split
    whole = [stored.encoded(i) for i in range(360)]
    parts = [part.split.encoded(i) for part in (both["paper"].train, both["paper"].test) for i in range(len(part))]
    assert sorted(parts) == sorted(whole), "every image once"
    again = digits(splits="paper", one_split={"name": "test", "test_images": 90}, seed=1)
    assert again.fingerprint() != both["paper"].fingerprint()
    assert len(digits(splits="paper").test) == 360, "nothing to divide"
    with pytest.raises(ToastError, match="data.splits=papr is not known"):
        digits(splits="papr")


def test_several_numbers_of_fit_images_are_nested():
    nested = digits(fit_images=[50, 10, 200])
    assert nested.fit_sizes == [10, 50, 200]
    drawn = [set(part.indices) for part in nested.fit]
    assert set().union(*drawn) == set(digits(fit_images=200).fit[0].indices)
    assert drawn[0] | drawn[1] == set(digits(fit_images=50).fit[0].indices)
    with pytest.raises(ToastError, match="data.fit_images=.. is empty"):
        digits(fit_images=[])
    with pytest.raises(ToastError, match="data.fit_images=5000 cannot be had"):
        digits(fit_images=[10, 5000])
