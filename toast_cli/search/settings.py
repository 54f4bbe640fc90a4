"""The settings of a search, checked."""

from dataclasses import dataclass
from typing import Any

from toast_cli.errors import ToastError, did_you_mean, require_flag, require_group, require_number, require_whole

BASELINES = ("last", "influence", "random")


@dataclass(frozen=True)
class Settings:
    """The group ``search`` of ``conf/search.yaml``."""

    beside: tuple[str, ...]
    blocks: int | None
    images: int
    beam: int
    rounds: int
    baselines: tuple[str, ...]
    refits: int | None
    halves: bool
    penalty: float | None

    @classmethod
    def check(cls, given: Any) -> "Settings":
        """The settings, checked. Raises ToastError for a value that cannot be used."""
        given = require_group(given, "search", cls.__dataclass_fields__)
        for key, least in {"images": 1, "beam": 1, "rounds": 1, "blocks": 1, "refits": 0}.items():
            if key not in ("blocks", "refits") or given[key] is not None:
                require_whole(given[key], f"search.{key}", least)
        beside = given["beside"]
        if not isinstance(beside, list) or not all(isinstance(name, str) for name in beside):
            raise ToastError(
                f"search.beside={beside} is not a list of translators: write search.beside=[identity], or [] for none."
            )
        require_flag(given["halves"], "search.halves")
        if given["penalty"] is not None:
            allowed = "a number above 0, or null for the one that suits the original best"
            require_number(given["penalty"], "search.penalty", lambda penalty: penalty > 0, allowed)
        baselines = check_names(given["baselines"])
        return cls(**{**given, "beside": tuple(dict.fromkeys(beside)), "baselines": baselines})


def check_names(given: Any) -> tuple[str, ...]:
    """The baselines of ``search.baselines``, each once. Raises ToastError for anything but a list of known names."""
    if not isinstance(given, list):
        raise ToastError(
            f"search.baselines={given} is not a list of baselines: write search.baselines=[last,influence], or [] for none."
        )
    for name in given:
        if name not in BASELINES:
            raise ToastError(
                f"search.baselines=[{name}] is not known{did_you_mean(name, BASELINES)}: use {', '.join(BASELINES)}, or [] for none."
            )
    return tuple(dict.fromkeys(given))
