"""How a shortened model is trained: the settings of fine-tuning."""

from dataclasses import dataclass
from typing import Any

from toast_cli.errors import ToastError, is_number, require_flag, require_group


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
        rules = {
            "epochs": (int, lambda v: v >= 1, "a whole number from 1"),
            "learning_rate": (float, lambda v: v > 0, "a number above 0"),
            "weight_decay": (float, lambda v: v >= 0, "a number from 0"),
            "warmup_epochs": (float, lambda v: v >= 0, "a number from 0"),
            "label_smoothing": (float, lambda v: 0 <= v < 1, "a share from 0 to below 1"),
            "clip_norm": (float, lambda v: v > 0, "a number above 0"),
            "batch_size": (int, lambda v: v >= 1, "a whole number from 1"),
            "held_out": (float, lambda v: 0 < v < 1, "a share between 0 and 1"),
        }
        rate = given.get("encoder_learning_rate")
        rules |= {"encoder_learning_rate": rules["learning_rate"]} if rate is not None else {}
        for key, (kind, holds, allowed) in rules.items():
            value = given[key]
            if not is_number(value) or not isinstance(value, kind | int) or not holds(value):
                raise ToastError(f"tune.{key}={value} cannot be used: give {allowed}.")
        for key in ("train_maps", "flip"):
            require_flag(given[key], f"tune.{key}")
        return cls(**given)
