"""What the settings of data sets may be, whatever images there are. No torch and no datasets are needed to say so: a mistyped one
is refused before they are imported."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from toast_cli.errors import Check, ToastError, check_settings, require_flag, require_seed, require_whole, require_word


def require_pixels(value: object, key: str) -> int:
    """``value``. Raises ToastError unless it is a number of pixels; ``key`` is what a person sets it with."""
    if type(value) is not int or value < 1:
        raise ToastError(f"{key}{value} is not a number of pixels: give a whole number from 1.")
    return value


def _require_counts(value: Any, key: str) -> None:
    if value == []:
        raise ToastError(f"{key}=[] is empty: give a number of images or a list of numbers.")
    for count in value if isinstance(value, list) else [value]:
        require_whole(count, key)


def _require_count_or_all(value: Any, key: str) -> None:
    if value is not None:
        require_whole(value, key)


CHECKS: Mapping[str, Check] = {
    "splits": partial(require_word, words=("standard", "paper"), use="standard, or paper for the paper's own division"),
    "fit_images": _require_counts,
    "train_images": _require_count_or_all,
    "test_images": _require_count_or_all,
    "fit_order": partial(require_word, words=("random", "first"), use="random or first", otherwise="is not an order"),
    "streaming": require_flag,
    "skip_bad_images": require_flag,
    "max_pixels": lambda value, key: require_pixels(value, f"{key}="),
    "seed": partial(require_seed, below=float("inf")),  # NumPy's
}


def check(**settings: Any) -> None:
    """Raises ToastError for a setting of a data set that cannot be used."""
    check_settings("data", settings, CHECKS)
