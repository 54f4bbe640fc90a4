"""A file becomes an image, upright, in RGB and opaque or in four bands as they are stored, or a reason why it does not; large ones are
refused unread."""

import logging
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image

MAX_PIXELS = 100_000_000
logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it logs is told as the reason of a bad image
_LONGEST = 1000  # times the shorter side; resized to a model's input, a thin line of pixels would become huge
_TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_ONE_IMAGE = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")  # opened, they read their header only
# What Pillow raises for a file that is not an image: its readers stumble over whatever a crafted file makes them read.
UNDECODABLE = (
    OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, RuntimeError,
    SyntaxError, struct.error, zlib.error, *_TOO_LARGE,
)  # fmt: skip
# What brings an image upright, by its orientation in EXIF; 1 is upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def reason(error: Exception) -> str:
    """The error in one line, without the name of our own buffer."""
    told = " ".join(str(error).split()) if any(error.args) else type(error).__name__
    return re.sub(r" <_io\.BytesIO object at \w+>", "", told)


def read_image(file: Path | IO[bytes], max_pixels: int, key: str, bands: int = 3) -> Image.Image:
    """The image in ``file`` as ``to_rgb`` gives it, or as ``four_bands`` does for 4 ``bands``, or the first frame of several.

    Nothing with more than ``max_pixels``, which ``key`` sets, is decoded, not even an image inside another (icons hold
    PNGs): a small file can unpack to gigabytes. Raises one of UNDECODABLE for a larger image or none.
    """
    if isinstance(file, Path) and not file.is_file():
        raise OSError("it is not a file")  # reading from a pipe would not end
    try:
        with pillows_limit(max_pixels), Image.open(file) as image:
            if image.format == "EPS":
                raise ValueError("it is PostScript, a program, which toast does not execute")
            short, long = sorted(image.size)
            if long > _LONGEST * short:
                raise ValueError(f"it has {_sides(image)} pixels, and one side is more than {_LONGEST} times the other")
            return four_bands(image) if bands == 4 else to_rgb(image)
    except _TOO_LARGE as e:
        raise ValueError(f"it has {_sides_in(file)} pixels, more than {key}{max_pixels}") from e


@contextmanager
def pillows_limit(pixels: int | None) -> Iterator[None]:
    """Let Pillow raise one of _TOO_LARGE for an image of more ``pixels``, as soon as it knows its sides."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata, which a picture can do without
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _sides_in(file: Path | IO[bytes]) -> str:
    """``4000 × 3000``, from the header of a file in a format that has one image, or ``too many``."""
    try:
        with pillows_limit(None), Image.open(file, formats=_ONE_IMAGE) as image:
            return _sides(image)
    except UNDECODABLE:
        return "too many"


def _sides(image: Image.Image) -> str:
    return f"{image.width} × {image.height}"


def to_rgb(image: Image.Image) -> Image.Image:
    """The image upright, with three channels of 8 bits; 16-bit grey is scaled, and what is transparent lies on white.

    Raises ValueError for pixels without a fixed range.
    """
    image.load()  # TIFFs are turned by Pillow while they are loaded
    if image.format == "PPM" and image.mode == "I":  # Pillow has scaled these by the range that the file states
        image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    image = _upright(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels have mode {image.mode}, which has no fixed range")
    if image.has_transparency_data:
        return _on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")  # a large image is not copied for nothing


def four_bands(image: Image.Image) -> Image.Image:
    """The image upright, its four bands of 8 bits as they are stored: the fourth may be near infrared or depth as well as opacity.

    Raises ValueError for other pixels.
    """
    image.load()
    if image.mode != "RGBA":
        raise ValueError(
            f"its pixels have mode {image.mode}, and the model takes pictures with four channels of 8 bits (RGBA)"
        )
    return _upright(image)


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF asks. The rest of the EXIF, which may be damaged, is neither read nor written."""
    try:
        stated = image.getexif().get(ExifTags.Base.Orientation)
    except UNDECODABLE:
        return image
    return image.transpose(_TURNS[stated]) if stated in _TURNS else image


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode in ("La", "RGBa"):  # colours that are multiplied by their opacity
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    image = image.convert("RGBA")
    alpha = image.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return image.convert("RGB")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=alpha)
    return white
