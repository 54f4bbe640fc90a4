"""What the settings of translators may be. No torch is needed to say so: a mistyped one is refused before it is imported."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from toast_cli.errors import (
    Check,
    check_settings,
    require_number,
    require_positive,
    require_seed,
    require_strengths,
    require_whole,
    require_word,
)

CHECKS: Mapping[str, Check] = {
    "tokens": partial(
        require_word,
        words=("shared", "split", "per_position"),
        use="shared (one map for all tokens), split (one for class and register tokens, one for patches) or per_position",
    ),
    "solver": partial(
        require_word,
        words=("exact", "gelsy"),
        use="exact, or gelsy for what torch.linalg.lstsq does on CPUs",
        otherwise="is not a solver",
    ),
    "rank": partial(
        require_number,
        holds=lambda rank: 0 < rank < 1 or (isinstance(rank, int) and rank >= 1),
        allowed="a whole number of directions from 1, or a share of variance such as 0.99",
    ),
    "strengths": partial(require_strengths, example="[1e-4,1e-2]"),
    "learning_rate": require_positive,
    "steps": require_whole,
    "seed": require_seed,
}


def check(**settings: Any) -> None:
    """Raises ToastError for a setting of a translator that cannot be used."""
    check_settings("translator", settings, CHECKS)
