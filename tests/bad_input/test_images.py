"""Images that cannot be decoded stop a run and are named; images of an unusual kind do not."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bad_input.conftest import Check, Toast
from tests.conftest import save_image_folder
from tests.pictures import png
from toast_cli.data.decoding import to_rgb
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row

# These show only when images are decoded: a run has begun then, and says so before it says this.
STOPPED = {
    "run data=folder data.path=@all_empty data.fit_images=2 spans=none data.skip_bad_images=true": (
        "None of the train or none of the test images can be decoded: repair them, or give another data.path."
    ),
    "run data=folder data.path=@all_empty data.fit_images=2 spans=[9-11] data.skip_bad_images=true": (
        "None of the fit images can be decoded: repair them, or draw others with data.seed."
    ),
}


@pytest.mark.parametrize("command", STOPPED)
def test_the_last_line_says_why_it_stopped(command: str, check_last_line: Check):
    check_last_line(command, STOPPED[command])


def _truncated(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "JPEG", quality=90)
    path.write_bytes(path.read_bytes()[:2000])


def _bomb(path: Path) -> None:
    """A PNG of a few bytes that says it is 20 000 pixels wide and high."""
    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    framed = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))


def _texture(path: Path) -> None:
    """A DDS file in a format that Pillow has no code for: it raises a NotImplementedError."""
    header = struct.pack("<7I44x", 124, 0x1007, 8, 8, 0, 0, 0) + struct.pack("<2I4s5I", 32, 4, b"XXXX", 0, 0, 0, 0, 0)
    path.write_bytes(b"DDS " + header + b"\0" * 200)


BAD_IMAGES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no bytes": ("0.png", lambda p: p.write_bytes(b""), "cannot identify image file"),
    "noise": ("0.png", lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 40), "*"),
    "truncated JPEG": ("0.jpg", _truncated, "*"),
    "text": ("0.png", lambda p: p.write_text("no picture"), "cannot identify image file"),
    "SVG": ("0.png", lambda p: p.write_text("<svg/>"), "cannot identify image file"),
    "decompression bomb": (
        "0.png",
        _bomb,
        "it has 20000 × 20000 pixels, more than data.max_pixels=100000000",
    ),
    "texture of another kind": ("0.dds", _texture, "*"),
    "floats": (
        "0.tif",
        lambda p: Image.fromarray(np.ones((8, 8), np.float32)).save(p),
        "its pixels have mode F, which has no fixed range",
    ),
}


def one_image(root: Path, name: str, write: Callable[[Path], object]) -> list[str]:
    """A set of eight images, the first of them written by ``write``; the command that runs it."""
    save_image_folder(root, per_class=2)
    (root / "train" / "kind0" / "0.png").unlink()
    write(root / "train" / "kind0" / name)
    small = ["data.fit_images=4", "spans=[9-11]", "probe.epochs=1", "device=cpu", "hydra.run.dir=run"]
    return ["run", "data=folder", f"data.path={root}", *small]


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_a_bad_image_is_named(kind: str, toast: Toast, tmp_path):
    name, write, reason = BAD_IMAGES[kind]
    command = one_image(tmp_path / "set", name, write)
    status, out, err = toast(*command)
    assert (status, out) == (1, "")
    begin = f"toast: train image 0 ({tmp_path}/set/train/kind0/{name}) cannot be decoded ("
    end = "): repair or remove it, or set data.skip_bad_images=true to leave such images out."
    last = err.splitlines()[-1]
    assert (last.startswith(begin) and last.endswith(end)) if reason == "*" else last == begin + reason + end


@pytest.mark.parametrize("value", ["0", "-1", "true", "1e8", "many", "null"])
def test_a_number_of_pixels(value: str, toast: Toast):
    status, _, err = toast("run", f"data.max_pixels={value}", "device=cpu")
    assert status == 1
    assert err.endswith("is not a number of pixels: give a whole number from 1.\n")
    assert err.startswith("toast: data.max_pixels=")


def test_larger_images_are_left_out_where_asked(toast: Toast, tmp_path):
    command = [*one_image(tmp_path / "set", "0.png", lambda p: p.write_bytes(png(60, 50))), "data.max_pixels=2999"]
    told = "0.png) cannot be decoded (it has 60 × 50 pixels, more than data.max_pixels=2999): repair or remove it"
    assert told in toast(*command)[2]
    status, _, err = toast(*command, "data.skip_bad_images=true", "fresh=true")
    assert status == 0, err
    assert {row.train_images for row in read_csv(tmp_path / "run" / "results.csv", Row)} == {3}
    fit_only = [
        "run",
        "data=digits",
        "fit_data=folder",
        f"fit_data.path={tmp_path / 'set'}",
        *command[3:],
        "hydra.run.dir=fit",
    ]
    assert told in toast(*fit_only)[2], "fit images of another set too"


def _palette(path: Path) -> None:
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) % 4, "P")
    image.putpalette([0, 0, 0, 90, 90, 90, 180, 180, 180, 255, 0, 0])
    image.save(path, bits=2, transparency=b"\0\x80\xff\xff")


def _animated(path: Path) -> None:
    Image.new("L", (8, 8), 30).save(path, save_all=True, append_images=[Image.new("L", (8, 8), 200)])


GOOD_IMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "animated GIF": ("0.gif", _animated),
    "CMYK JPEG": ("0.jpg", lambda p: Image.new("CMYK", (8, 8), (9, 80, 3, 1)).save(p)),
    "16-bit PNG": ("0.png", lambda p: Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000).save(p)),
    "1 x 1": ("0.png", lambda p: Image.new("RGB", (1, 1)).save(p)),
    "2-bit palette with transparency": ("0.png", _palette),
}


@pytest.mark.parametrize("kind", GOOD_IMAGES)
def test_an_unusual_image_runs(kind: str, toast: Toast, tmp_path):
    status, _, err = toast(*one_image(tmp_path / "set", *GOOD_IMAGES[kind]))
    assert status == 0, err
    rows = read_csv(tmp_path / "run" / "results.csv", Row)
    assert [row.plan for row in rows] == ["none", "9-11"]
    assert all(row.train_images == 4 and np.isfinite([row.accuracy, row.fit_r2 or 0]).all() for row in rows)


def test_of_an_animation_the_first_frame_is_seen(tmp_path):
    _animated(tmp_path / "it.gif")
    with Image.open(tmp_path / "it.gif") as image:
        assert np.unique(np.asarray(to_rgb(image))).tolist() == [30]
