"""A small set with masks in parquet files, laid out as Pascal VOC is: pictures in JPEG, masks as indices of a palette in PNG."""

import io
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

CLASSES = 3
BORDER = 255  # around every object, as in VOC
_FEATURES = datasets.Features(image=datasets.Image(), mask=datasets.Image())


def scene(generator: np.random.Generator, width: int, height: int) -> tuple[Image.Image, Image.Image]:
    """A picture of a bright and a dark box on grey noise, and its mask: 0 behind, 1 bright, 2 dark, BORDER around them."""
    values = generator.integers(100, 140, (height, width)).astype(np.uint8)
    mask = np.zeros((height, width), np.uint8)
    for number, least in ((1, 200), (2, 0)):
        high, wide = (int(generator.integers(side // 3, side // 2)) for side in (height, width))
        top, left = int(generator.integers(0, height - high)), int(generator.integers(0, width - wide))
        mask[top : top + high, left : left + wide] = BORDER
        inside = (slice(top + 1, top + high - 1), slice(left + 1, left + wide - 1))
        mask[inside], values[top : top + high, left : left + wide] = number, least
        values[inside] = generator.integers(least, least + 50, values[inside].shape)
    shown = Image.fromarray(mask, "P")
    shown.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, *[77] * (3 * 252), 224, 224, 192])
    return Image.fromarray(np.stack([values] * 3, 2)), shown


def encoded(image: Image.Image, kind: str, **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def save_scenes(root: Path, train: int = 20, test: int = 8, size: tuple[int, int] = (24, 18)) -> Path:
    """``root``/train.parquet and test.parquet."""
    root.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        pairs = [scene(generator, *size) for _ in range(count)]
        columns = {
            "image": [{"bytes": encoded(image, "JPEG", quality=95), "path": None} for image, _ in pairs],
            "mask": [{"bytes": encoded(mask, "PNG"), "path": None} for _, mask in pairs],
        }
        datasets.Dataset.from_dict(columns, _FEATURES).to_parquet(str(root / f"{split}.parquet"))
    return root
