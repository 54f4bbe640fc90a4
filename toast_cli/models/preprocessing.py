"""How an image becomes the input of a model, as the model's own data config says."""

from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor
from torchvision.transforms import Compose, Grayscale

from toast_cli.models.timm_parts import Vit, channels_of

CHANNELS = (1, 3)  # of an image's pixels: grey, or RGB
_GEOMETRY = ("input_size", "interpolation", "crop_pct", "crop_mode")
_SETTINGS = (*_GEOMETRY, "mean", "std")

_LONGEST = 20  # times the shorter side: far more than any crop keeps

Transform = Callable[[Image.Image], Tensor]


def settings_of(vit: Vit, image_size: int, resize: int | None = None) -> dict[str, Any]:
    """The settings of a model's preprocessing for square images of ``image_size`` pixels.

    A model of grey images whose config has a mean and a deviation for each of three colours gets their averages.

    ``resize`` is the short side of an image in pixels before the crop; None leaves it to the model's own config.
    """
    channels = channels_of(vit)
    asked = {"input_size": (channels, image_size, image_size), **({"crop_pct": image_size / resize} if resize else {})}
    config = resolve_data_config(asked, model=vit)
    for key in ("mean", "std"):
        values = tuple(config[key])
        config[key] = values if len(values) == channels else (sum(values) / len(values),) * channels
    return {key: config[key] for key in _SETTINGS}


def to_pixels(settings: Mapping[str, Any]) -> Transform:
    """A transform by ``settings``, PIL image in RGB -> uint8 (C, H, W): RGB, or grey for a model of one channel."""
    return _prepared(settings, create_transform(**{key: settings[key] for key in _GEOMETRY}, normalize=False))


def to_input(settings: Mapping[str, Any]) -> Transform:
    """A transform by ``settings``, PIL image in RGB -> normalised float (C, H, W): RGB, or grey for a model of one channel.

    Raises KeyError, TypeError, ValueError or AttributeError for invalid settings.
    """
    return _prepared(settings, create_transform(**{key: settings[key] for key in _SETTINGS}))


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
