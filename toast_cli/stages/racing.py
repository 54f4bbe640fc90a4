"""The settings of a race, checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from toast_cli.errors import Check, ToastError, check_settings, require_group, require_number, require_whole

_CHECKS: Mapping[str, Check] = {
    "test_images": require_whole,
    "confidence": partial(
        require_number, holds=lambda number: 0 < number < 1, allowed="a share between 0 and 1, such as 0.95"
    ),
    "keep": partial(
        require_number, holds=lambda number: 0 < number <= 1, allowed="a share above 0 and up to 1, such as 0.5"
    ),
}


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
        check_settings("sweep", given, _CHECKS)
        return cls(**given)
