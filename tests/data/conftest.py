"""Data sets as toast loads them, and the pixels in them."""

import numpy as np
import torch
from PIL import Image

from toast_cli.data import dataset as data
from toast_cli.data.images import Images
from toast_cli.data.sources import DIGITS


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
