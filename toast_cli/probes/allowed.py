"""What the settings of probes may be. No torch is needed to say so: a mistyped one is refused before it is imported."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from toast_cli.errors import (
    Check,
    check_settings,
    require_not_negative,
    require_part,
    require_positive,
    require_strengths,
    require_whole,
)

CHECKS: Mapping[str, Check] = {
    "learning_rate": require_positive,
    "epochs": require_whole,
    "batch_size": require_whole,
    "weight_decay": require_not_negative,
    "dropout": require_part,
    "iterations": require_whole,
    "strengths": partial(require_strengths, example="[1e-3,1e-2]"),
    "neighbours": require_whole,
    "temperature": require_positive,
}


def check(**settings: Any) -> None:
    """Raises ToastError for a setting of a probe that cannot be used."""
    check_settings("probe", settings, CHECKS)
