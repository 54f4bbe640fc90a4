"""How an image becomes the input of a model, as the model's own data config says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor

from toast_cli.models.timm_parts import Vit

_GEOMETRY = ("input_size", "interpolation", "crop_pct", "crop_mode")
_SETTINGS = (*_GEOMETRY, "mean", "std")

_LONGEST = 20  # times the shorter side: far more than any crop keeps

Transform = Callable[[Image.Image], Tensor]


def settings_of(vit: Vit, image_size: int, resize: int | None = None) -> dict[str, Any]:
    """The settings of a model's preprocessing for square images of ``image_size`` pixels.

    ``resize`` is the short side of an image in pixels before the crop; None leaves it to the model's own config.
    """
    asked = {"input_size": (3, image_size, image_size), **({"crop_pct": image_size / resize} if resize else {})}
    config = resolve_data_config(asked, model=vit)
    return {key: config[key] for key in _SETTINGS}


def to_pixels(settings: Mapping[str, Any]) -> Transform:
    """A transform by ``settings``, PIL image in RGB -> uint8 (3, H, W)."""
    return _bounded(settings, create_transform(**{key: settings[key] for key in _GEOMETRY}, normalize=False))


def to_input(settings: Mapping[str, Any]) -> Transform:
    """A transform by ``settings``, PIL image in RGB -> normalised float (3, H, W).

    Raises KeyError, TypeError, ValueError or AttributeError for invalid settings.
    """
    return _bounded(settings, create_transform(**{key: settings[key] for key in _SETTINGS}))


@dataclass(frozen=True)
class _Bounded:
    """A transform of the middle of a very long image. A class, since other processes have to unpickle it."""

    transform: Transform

    def __call__(self, image: Image.Image) -> Tensor:
        return self.transform(_middle(image))


def _bounded(settings: Mapping[str, Any], transform: Transform) -> Transform:
    """``transform``, for which very long images are cropped first if it would crop them after it has resized them."""
    return _Bounded(transform) if settings["crop_mode"] == "center" else transform


def _middle(image: Image.Image) -> Image.Image:
    """The middle of a very long image; a panorama of 1 000 times its height would be resized to hundreds of megabytes."""
    width, height = image.size
    longest = _LONGEST * min(width, height)
    if max(width, height) <= longest:
        return image
    left, top = max(width - longest, 0) // 2, max(height - longest, 0) // 2
    return image.crop((left, top, width - left, height - top))
