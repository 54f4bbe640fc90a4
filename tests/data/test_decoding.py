"""A file becomes an image in RGB: upright, opaque, 8 bits."""

import contextlib
import io
import random
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.pictures import png
from toast_cli.data.decoding import MAX_PIXELS, UNDECODABLE, read_image, to_rgb

QUARTERS = np.zeros((24, 16, 3), np.uint8)  # four colours, so that every turn and flip shows
QUARTERS[:12, :8], QUARTERS[:12, 8:], QUARTERS[12:, :8], QUARTERS[12:, 8:] = (
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 0),
)
# How a camera stores an upright scene for each orientation (EXIF 2.3, tag 274), as functions of its rows and columns.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[::-1],
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a.transpose(1, 0, 2)[:, ::-1],
}


def decoded(content: bytes) -> np.ndarray:
    return np.asarray(read_image(io.BytesIO(content), MAX_PIXELS, "")).astype(int)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_stands_upright(orientation: int, kind: str):
    exif, file = Image.Exif(), io.BytesIO()
    exif[274] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    Image.fromarray(np.ascontiguousarray(STORED[orientation](QUARTERS))).save(file, kind, exif=exif, **options)
    seen = decoded(file.getvalue())
    assert seen.shape == QUARTERS.shape
    assert abs(seen - QUARTERS).max() <= 12, "noise of JPEG"


def ifd(*entries: bytes, extra: bytes = b"") -> bytes:
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + b"\0\0\0\0" + extra


SIX = struct.pack("<HHIHH", 0x112, 3, 1, 6, 0)
DAMAGED = {  # EXIF, and whether it still says that the picture lies on its side
    "rational -1/0": (ifd(SIX, struct.pack("<HHII", 0x11A, 10, 1, 38), extra=struct.pack("<ii", -1, 0)), True),
    "two rationals": (ifd(SIX, struct.pack("<HHII", 0x11A, 5, 2, 38), extra=struct.pack("<IIII", 72, 1, 0, 0)), True),
    "text for a rational": (ifd(SIX, struct.pack("<HHII", 0x131, 5, 1, 38), extra=struct.pack("<II", 1, 0)), True),
    "a folder beyond the end": (ifd(SIX, struct.pack("<HHII", 0x8769, 4, 1, 0xFFFFFF)), True),
    "a type that there is not": (ifd(SIX, struct.pack("<HHII", 0x9999, 99, 1, 5)), True),
    "a header twice": (b"Exif\0\0" + ifd(SIX), True),
    "an orientation in letters": (ifd(struct.pack("<HHI4s", 0x112, 2, 2, b"6\0\0\0")), False),
    "an orientation as bytes": (ifd(struct.pack("<HHI4s", 0x112, 7, 4, b"6666")), False),
    "orientation 9": (ifd(struct.pack("<HHIHH", 0x112, 3, 1, 9, 0)), False),
    "cut": (ifd(SIX)[:14], False),
    "none": (b"", False),
    "noise": (bytes(range(200)), False),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_exif_is_no_reason_to_refuse_a_picture(name: str):
    exif, sideways = DAMAGED[name]
    file = io.BytesIO()
    stored = np.ascontiguousarray(STORED[6](QUARTERS))
    Image.fromarray(stored).save(file, "JPEG", quality=100, subsampling=0)
    raw, segment = file.getvalue(), b"Exif\0\0" + exif
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = decoded(raw[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + raw[2:])
    assert seen.shape == ((24, 16, 3) if sideways else (16, 24, 3))
    assert abs(seen - (QUARTERS if sideways else stored)).max() <= 12


RAMP = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (8, 1))


@pytest.mark.parametrize("most", [255, 1023, 4095, 65535])
def test_a_portable_graymap_is_scaled_by_the_range_that_it_states(most: int):
    kind = ">u1" if most < 256 else ">u2"
    content = b"P5\n32 8\n%d\n" % most + np.round(RAMP / 255 * most).astype(kind).tobytes()
    assert np.array_equal(decoded(content)[..., 0], RAMP)


@pytest.mark.parametrize("order", "<>")
def test_sixteen_bits_in_both_byte_orders(order: str):
    data = (RAMP.astype(np.uint16) * 257).astype(f"{order}u2").tobytes()
    tags = [
        (256, 4, 32),
        (257, 4, 8),
        (258, 3, 16),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, 8),
        (279, 4, len(data)),
    ]
    values = [struct.pack(f"{order}I", v) if kind == 4 else struct.pack(f"{order}HH", v, 0) for _, kind, v in tags]
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, kind, 1) + v for (tag, kind, _), v in zip(tags, values, strict=True)
    )
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8 + len(data))
    content = head + data + struct.pack(f"{order}H", len(tags)) + entries + b"\0\0\0\0"
    assert np.array_equal(decoded(content)[..., 0], RAMP)


def see_through(mode: str) -> Image.Image:
    """The left half black and opaque, the right half black and transparent, the middle column half of each."""
    alpha = np.zeros((4, 9), np.uint8)
    alpha[:, :4], alpha[:, 4] = 255, 128
    rgba = Image.fromarray(np.dstack([np.zeros((4, 9, 3), np.uint8), alpha]))
    return rgba.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGBa"])
def test_what_is_transparent_lies_on_white(mode: str):
    seen = np.asarray(to_rgb(see_through(mode))).astype(int)
    assert (seen[:, :4] == 0).all()
    assert (seen[:, 4] == 127).all()
    assert (seen[:, 5:] == 255).all()


def test_colours_that_are_transparent():
    palette = Image.fromarray(np.arange(4, dtype=np.uint8).reshape(2, 2), "P")
    palette.putpalette([0, 0, 0, 90, 90, 90, 180, 180, 180, 255, 0, 0])
    file = io.BytesIO()
    palette.save(file, "PNG", transparency=b"\0\xff\xff\x80")
    assert decoded(file.getvalue()).reshape(4, 3).tolist() == [[255] * 3, [90] * 3, [180] * 3, [255, 127, 127]]
    file = io.BytesIO()
    Image.fromarray(np.array([[0, 7]], np.uint8)).save(file, "PNG", transparency=0)
    assert decoded(file.getvalue())[..., 0].tolist() == [[255, 7]]


def test_an_opaque_alpha_channel_changes_nothing():
    colours = np.random.default_rng(0).integers(0, 256, (9, 9, 4), dtype=np.uint8)
    colours[..., 3] = 255
    assert np.array_equal(np.asarray(to_rgb(Image.fromarray(colours))), colours[..., :3])


def test_an_image_is_left_as_it_is(tmp_path: Path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(QUARTERS).save(tmp_path / "it.jpg", exif=exif)
    with Image.open(tmp_path / "it.jpg") as image:
        to_rgb(image)
        assert (image.size, image.getexif()[274]) == ((16, 24), 6)


def test_a_kind_of_picture_in_another():
    """PNG in a file called JPEG, as phones and browsers save it."""
    assert decoded(png(5, 4)).shape == (4, 5, 3)


def test_random_bytes_make_a_picture_or_a_bad_image():
    """Files of every format that Pillow writes, with a few bytes changed or the end cut off."""
    Image.init()
    sound: list[bytes] = []
    for kind in sorted(set(Image.SAVE) & set(Image.OPEN)):
        for mode in ("RGB", "RGBA", "P", "I;16"):
            file = io.BytesIO()
            with contextlib.suppress(Exception):  # not every format has every mode
                Image.new(mode, (17, 9)).save(file, kind)
                sound.append(file.getvalue())
    assert len(sound) > 40
    chance = random.Random(0)
    seen = 0
    for _ in range(6000):
        content = bytearray(chance.choice(sound))
        for _ in range(chance.choice((1, 2, 8))):
            content[chance.randrange(min(len(content), chance.choice((30, 200, 10**6))))] = chance.randrange(256)
        with contextlib.suppress(*UNDECODABLE):
            seen += read_image(io.BytesIO(content[: chance.choice((len(content), 9**9, 40))]), 10**6, "").mode == "RGB"
    assert 1000 < seen < 5000
