"""How an image becomes the input of a model, as the model's own data config says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor
from torchvision.transforms import Compose, Grayscale

from toast_cli.models.timm_parts import Vit, channels_of

CHANNELS = (1, 3, 4)  # of an image's pixels: grey, RGB, or four bands as they are stored
_GEOMETRY = ("input_size", "interpolation", "crop_pct", "crop_mode")
_SETTINGS = (*_GEOMETRY, "mean", "std")

_LONGEST = 20  # times the shorter side: far more than any crop keeps

Transform = Callable[[Image.Image], Tensor]


def settings_of(vit: Vit, image_size: int, resize: int | None = None) -> dict[str, Any]:
    """The settings of a model's preprocessing for square images of ``image_size`` pixels.

    If the config has a mean and a deviation for each of three colours, a model of grey images gets their averages, and one of four
    channels these for the fourth.

    ``resize`` is the short side of an image in pixels before the crop; None leaves it to the model's own config.
    """
    channels = channels_of(vit)
    asked = {"input_size": (channels, image_size, image_size), **({"crop_pct": image_size / resize} if resize else {})}
    config = resolve_data_config(asked, model=vit)
    for key in ("mean", "std"):
        values = tuple(config[key])
        average = sum(values) / len(values)
        if (len(values), channels) == (3, 4):
            config[key] = (*values, average)
        else:
            config[key] = values if len(values) == channels else (average,) * channels
    return {key: config[key] for key in _SETTINGS}


def to_pixels(settings: Mapping[str, Any]) -> Transform:
    """A transform by ``settings``, PIL image in RGB -> uint8 (C, H, W): RGB, or grey for a model of one channel.

    For a model of four channels, it takes an image of four bands.
    """
    return _EachBand(_resized(settings)) if settings["input_size"][0] == 4 else _resized(settings)


def to_input(settings: Mapping[str, Any]) -> Transform:
    """A transform by ``settings``, PIL image as in ``to_pixels`` -> normalised float (C, H, W).

    Raises KeyError, TypeError, ValueError or AttributeError for invalid settings.
    """
    if settings["input_size"][0] == 4:
        return _EachBand(_resized(settings), tuple(settings["mean"]), tuple(settings["std"]))
    return _prepared(settings, create_transform(**{key: settings[key] for key in _SETTINGS}))


def to_mask(settings: Mapping[str, Any]) -> Transform:
    """A transform in the same geometry for a mask, PIL image in grey -> uint8 (1, H, W): each value is one of the mask's own, or 255 beyond it."""
    nearest = {key: settings[key] for key in _GEOMETRY} | {"interpolation": "nearest"}
    nearest["input_size"] = (3, *settings["input_size"][1:])  # a mask needs no conversion to grey
    return _prepared(nearest, create_transform(**nearest, mean=(1.0,), normalize=False))


@dataclass(frozen=True)
class _EachBand:
    """``transform`` of each of four bands on its own: Pillow would take the fourth for opacity, and multiply by it while it resizes.

    With a ``mean`` and a ``std`` of each band, the result is normalised.
    """

    transform: Transform
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    bands: int = 4  # that an image must have

    def __call__(self, image: Image.Image) -> Tensor:
        """(H, W) in four bands -> (4, H, W), uint8, or float where it is normalised."""
        pixels = torch.cat([self.transform(band) for band in image.split()])
        if not self.mean:
            return pixels
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (pixels.float() / 255 - mean) / std


def _resized(settings: Mapping[str, Any]) -> Transform:
    return _prepared(settings, create_transform(**{key: settings[key] for key in _GEOMETRY}, normalize=False))


def _prepared(settings: Mapping[str, Any], transform: Transform) -> Transform:
    """``transform`` of a grey image, for a model of one channel, and of the middle of a very long one, if it crops there."""
    first = [_middle] if settings["crop_mode"] == "center" else []
    first += [Grayscale()] if settings["input_size"][0] == 1 else []
    return Compose([*first, transform]) if first else transform


def _middle(image: Image.Image) -> Image.Image:
    """The middle of a very long image; a panorama of 1 000 times its height would be resized to hundreds of megabytes."""
    width, height = image.size
    longest = _LONGEST * min(width, height)
    if max(width, height) <= longest:
        return image
    left, top = max(width - longest, 0) // 2, max(height - longest, 0) // 2
    return image.crop((left, top, width - left, height - top))
