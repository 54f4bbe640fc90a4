"""What timm's constructors may be given: plain numbers and words that shape a model, whoever wrote them."""

import inspect
import reprlib
from collections.abc import Mapping
from typing import Any

from toast_cli.errors import ToastError, is_number
from toast_cli.models.timm_parts import FAMILIES

# The arguments of timm's models that shape them. timm takes others, which say where weights come from or wrap the model.
_SHAPING = {name for family in FAMILIES for name in inspect.signature(family).parameters} - {"device", "dtype"}
# The least and the largest size, far beyond any model: timm makes loops and tables of these.
_SIZES = {
    "depth": (1, 128),
    "embed_dim": (1, 2**15),
    "num_heads": (1, 2**10),
    "patch_size": (1, 2**10),
    "img_size": (1, 2**14),
    "in_chans": (1, 2**10),
    "num_classes": (0, 2**20),
    "reg_tokens": (0, 2**12),
    "num_reg_tokens": (0, 2**12),
    "mlp_ratio": (0, 2**6),
}


def check_arguments(name: str, arguments: Mapping[Any, Any]) -> None:
    """Check what timm is to be given. Raises ToastError for what does not shape a model, and for sizes that no model has."""
    for key, value in arguments.items():
        values = value if isinstance(value, list | tuple) else [value]
        plain = all(isinstance(each, str | bool | None) or is_number(each) for each in values)
        if key not in _SHAPING or not plain:
            raise ToastError(
                f"timm cannot build {name} with {reprlib.repr(key)}: {reprlib.repr(value)}: give only arguments that shape its VisionTransformer and "
                "Eva models, such as depth and embed_dim, as plain numbers and words."
            )
        least, most = _SIZES.get(key, (float("-inf"), float("inf")))
        sizes = [each for each in values if isinstance(each, int | float)] if key in _SIZES else []
        if not all(least <= each <= most and type(each) is not bool for each in sizes):
            raise ToastError(
                f"timm cannot build {name} with {key}={reprlib.repr(value)}: give a number from {least} to {most}."
            )
