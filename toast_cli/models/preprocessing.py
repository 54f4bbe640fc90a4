"""How an image becomes the input of a model, as the model's own data config says."""

from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor

from toast_cli.models.timm_parts import Vit

_GEOMETRY = ("input_size", "interpolation", "crop_pct", "crop_mode")
_SETTINGS = (*_GEOMETRY, "mean", "std")

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
    return create_transform(**{key: settings[key] for key in _GEOMETRY}, normalize=False)


def to_input(settings: Mapping[str, Any]) -> Transform:
    """A transform by ``settings``, PIL image in RGB -> normalised float (3, H, W).

    Raises KeyError, TypeError, ValueError or AttributeError for invalid settings.
    """
    return create_transform(**{key: settings[key] for key in _SETTINGS})
