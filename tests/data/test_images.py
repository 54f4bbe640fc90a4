"""Images are decoded once, in order, to upright RGB; those that cannot be are named or left out."""

import contextlib
import io
import os
import resource
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import save_image_folder
from tests.data.conftest import all_pixels, digits, folder, transform
from tests.pictures import icon, png
from toast_cli.data.decoding import MAX_PIXELS, UNDECODABLE, read_image, to_rgb
from toast_cli.data.images import PixelCache, Split
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


def refusal(content: bytes, max_pixels: int = MAX_PIXELS) -> str:
    with pytest.raises(UNDECODABLE) as caught:
        read_image(io.BytesIO(content), max_pixels, "data.max_pixels=")
    return str(caught.value)


def test_a_large_image_is_not_decoded():
    small_file = png(13_300, 13_300)
    assert len(small_file) < 200_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told = refusal(small_file)
    assert told == "it has 13300 × 13300 pixels, more than data.max_pixels=100000000"
    assert refusal(icon(small_file)) == "it has too many pixels, more than data.max_pixels=100000000"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kilobytes"


def test_as_many_pixels_as_are_allowed():
    assert read_image(io.BytesIO(png(40, 30)), 1200, "").size == (40, 30)
    assert "40 × 30 pixels, more than" in refusal(png(40, 30), 1199)
    assert read_image(io.BytesIO(icon(png(16, 16))), 256, "").size == (16, 16)


def test_a_line_of_pixels_would_become_huge():
    assert read_image(io.BytesIO(png(2000, 2)), MAX_PIXELS, "").size == (2000, 2)
    assert "it has 2001 × 2 pixels, and one side is more than 1000 times the other" in refusal(png(2001, 2))
    assert "pixels" in refusal(png(3, 70_000))


def test_pillows_own_limit_is_as_it_was():
    before = Image.MAX_IMAGE_PIXELS
    for content in (png(8, 8), b"none", png(2000, 1)):
        with contextlib.suppress(*UNDECODABLE):
            read_image(io.BytesIO(content), 100, "")
        assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.slow
def test_a_large_photo_is_held_once(tmp_path):
    """Pillow takes four bytes for a pixel in RGB."""
    Image.new("RGB", (9000, 9000), (1, 2, 3)).save(tmp_path / "it.png")
    script = (
        "import resource, sys; from pathlib import Path; from toast_cli.data.decoding import read_image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert read_image(Path(sys.argv[1]), 10**8, '').size == (9000, 9000)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "it.png")], capture_output=True, text=True, check=True
    )
    assert int(said.stdout) < 1.3 * 4 * 81_000, "kilobytes"


def test_a_pipe_and_a_program_are_no_images(tmp_path):
    os.mkfifo(tmp_path / "it.png")
    with pytest.raises(OSError, match="it is not a file"):
        read_image(tmp_path / "it.png", MAX_PIXELS, "")
    page = io.BytesIO()
    Image.new("RGB", (8, 8)).save(page, "EPS")
    assert "it is PostScript, a program" in refusal(page.getvalue())


RAISED = [OSError, EOFError, ValueError, TypeError, KeyError, IndexError, ZeroDivisionError, OverflowError, AttributeError, AssertionError,
          RuntimeError, NotImplementedError, RecursionError, SyntaxError, struct.error, zlib.error]  # fmt: skip


@pytest.mark.parametrize("kind", RAISED)
def test_whatever_pillow_raises_is_a_bad_image(kind: type[Exception], tmp_path, monkeypatch: pytest.MonkeyPatch):
    def stumble(*_: object) -> None:
        raise kind

    images = folder(save_image_folder(tmp_path / "set")).train
    monkeypatch.setattr(Image, "open", stumble)
    with pytest.raises(
        ToastError,
        match=rf"^train image 0 \(.*0.png\) cannot be decoded \({kind.__name__.rpartition('.')[2]}\): repair",
    ):
        all_pixels(images)


def test_memory_that_runs_out_is_not_the_images_fault(tmp_path, monkeypatch: pytest.MonkeyPatch):
    def run_out(*_: object) -> None:
        raise MemoryError

    images = folder(save_image_folder(tmp_path / "set"), skip_bad_images=True).train
    monkeypatch.setattr(Image, "open", run_out)
    with pytest.raises(MemoryError):
        all_pixels(images)
