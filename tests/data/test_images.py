"""Images are decoded once, in order, to upright RGB; those that cannot be are named or left out."""

import resource

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import save_image_folder
from tests.data.conftest import all_pixels, digits, folder, transform
from toast_cli.data.images import PixelCache, Split, to_rgb
from toast_cli.errors import ToastError


def test_grey_becomes_rgb():
    pixels = next(digits().test.batches(transform, 8)).pixels
    assert pixels.shape == (8, 3, 8, 8)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels[:, 0], pixels[:, 2])
    assert pixels.max() == 255


def test_sixteen_bit_grey_is_scaled_and_photographs_stand_upright():
    ramp = Image.fromarray((np.arange(256, dtype=np.uint16) * 257).reshape(16, 16))
    assert np.asarray(to_rgb(ramp))[:, :, 0].ravel().tolist() == list(range(256))
    wide = Image.new("RGB", (8, 4))
    wide.getexif()[0x0112] = 6
    assert to_rgb(wide).size == (4, 8)
    with pytest.raises(ValueError, match="mode F, which has no fixed range"):
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


@pytest.fixture
def broken(tmp_path):
    """Image 1 of train is cut short."""
    root = save_image_folder(tmp_path / "set", size=40)
    file = root / "train" / "kind0" / "1.png"
    file.write_bytes(file.read_bytes()[:-200])
    return root


def test_a_bad_image_is_named_with_index_and_path(broken):
    with pytest.raises(
        ToastError,
        match=r"^train image 1 \(.*kind0/1.png\) cannot be decoded \(.*truncated.*\): repair or remove it, or set ",
    ):
        all_pixels(folder(broken).train)


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_are_left_out_where_asked(broken, workers: int):
    images = folder(broken, skip_bad_images=True).train
    batches = list(images.batches(transform, 5, workers))
    assert [position for batch in batches for position in batch.positions] == [0, *range(2, 12)]
    assert [batch.size for batch in batches] == [5, 5, 2]
    assert len(all_pixels(images, workers=workers)) == 11


def test_a_bad_image_in_a_worker_is_named_too(broken):
    with pytest.raises(ToastError, match="^train image 1 "):
        all_pixels(folder(broken).train, workers=1)
