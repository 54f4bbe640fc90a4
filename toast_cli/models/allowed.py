"""What the settings of models may be. No torch and no timm are needed to say so: a mistyped one is refused before they are imported."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from toast_cli.errors import Check, ToastError, check_settings, require_flag, require_word


def require_readout(value: Any, key: str = "readout") -> str:
    """``value``. Raises ToastError unless it is a readout."""
    use = "model (its own pooling), or paper (a random dense layer and tanh after it, for ViT and DeiT)"
    return require_word(value, key, ("model", "paper"), use)


def _require_size(value: Any, key: str) -> None:
    if value is not None and (type(value) is not int or value < 1):
        raise ToastError(f"{key}={value} is not a size: give a whole number of pixels, or null for the model's own.")


def _require_arguments(value: Any, key: str) -> None:
    if value is not None and not isinstance(value, Mapping):
        raise ToastError(f"{key}={value} are not arguments: write {key}={{depth:6}}, or {{}} for none.")


CHECKS: Mapping[str, Check] = {
    "preprocessing": partial(require_word, words=("timm", "paper"), use="timm, or paper for the paper's own"),
    "image_size": _require_size,
    "options": _require_arguments,
    "pretrained": require_flag,
}


def check(**settings: Any) -> None:
    """Raises ToastError for a setting of a model that cannot be used."""
    check_settings("model", settings, CHECKS)
