"""The settings of a race, checked."""

from dataclasses import dataclass
from typing import Any

from toast_cli.errors import ToastError, is_number, require_group


@dataclass(frozen=True)
class Settings:
    """The group ``sweep`` of ``conf/sweep/race.yaml``."""

    test_images: int
    confidence: float
    keep: float

    @classmethod
    def check(cls, given: Any) -> "Settings | None":
        """The settings of a race; None for ``sweep=full``. Raises ToastError for a value that cannot be used."""
        if given is None or given == {}:
            return None
        if isinstance(given, str):
            raise ToastError(f"sweep={given} is not a way to sweep: use sweep=full or sweep=race.")
        given = require_group(given, "sweep", cls.__dataclass_fields__)
        images, confidence, keep = (given[key] for key in cls.__dataclass_fields__)
        if type(images) is not int or images < 1:
            raise ToastError(f"sweep.test_images={images} cannot be used: give a whole number from 1.")
        if not is_number(confidence) or not 0 < confidence < 1:
            raise ToastError(
                f"sweep.confidence={confidence} cannot be used: give a share between 0 and 1, such as 0.95."
            )
        if not is_number(keep) or not 0 < keep <= 1:
            raise ToastError(f"sweep.keep={keep} cannot be used: give a share above 0 and up to 1, such as 0.5.")
        return cls(**given)
