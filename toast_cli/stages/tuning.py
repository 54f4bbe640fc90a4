"""How a shortened model is trained: the settings of fine-tuning."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from toast_cli.errors import (
    Check,
    check_settings,
    require_flag,
    require_group,
    require_not_negative,
    require_number,
    require_part,
    require_positive,
    require_whole,
)

_CHECKS: Mapping[str, Check] = {
    "epochs": require_whole,
    "learning_rate": require_positive,
    "weight_decay": require_not_negative,
    "warmup_epochs": require_not_negative,
    "label_smoothing": require_part,
    "clip_norm": require_positive,
    "batch_size": require_whole,
    "held_out": partial(require_number, holds=lambda number: 0 < number < 1, allowed="a share between 0 and 1"),
    "train_maps": require_flag,
    "flip": require_flag,
}


@dataclass(frozen=True)
class Settings:
    """The group ``tune`` of ``conf/finetune.yaml``."""

    epochs: int
    learning_rate: float
    encoder_learning_rate: float | None
    weight_decay: float
    warmup_epochs: float
    label_smoothing: float
    clip_norm: float
    batch_size: int
    held_out: float
    train_maps: bool
    flip: bool

    @property
    def encoder_rate(self) -> float:
        """The learning rate of everything but the head."""
        return self.learning_rate if self.encoder_learning_rate is None else self.encoder_learning_rate

    @classmethod
    def check(cls, given: Any) -> "Settings":
        """The settings, checked. Raises ToastError for a value that cannot be used."""
        given = require_group(given, "tune", cls.__dataclass_fields__)
        check_settings("tune", given, _CHECKS)
        if given["encoder_learning_rate"] is not None:
            require_positive(given["encoder_learning_rate"], "tune.encoder_learning_rate")
        return cls(**given)
