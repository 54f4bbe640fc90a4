"""Maps that take the place of blocks: X^(e) ≈ T(X^(s)), fitted in closed form from moments or trained on latents."""

from typing import TYPE_CHECKING

from toast_cli import when_used

if TYPE_CHECKING:
    from toast_cli.translators.base import BaseTranslator, ImageTranslator, Translator
    from toast_cli.translators.closed_form import Affine, Identity, Linear, LowRank, Orthogonal, Ridge, Shift
    from toast_cli.translators.context import Context
    from toast_cli.translators.trained import DeepMlp, Mlp, TrainedTranslator

__all__ = [
    "Affine",
    "BaseTranslator",
    "Context",
    "DeepMlp",
    "Identity",
    "ImageTranslator",
    "Linear",
    "LowRank",
    "Mlp",
    "Orthogonal",
    "Ridge",
    "Shift",
    "TrainedTranslator",
    "Translator",
]
__getattr__ = when_used(
    __name__,
    {
        "BaseTranslator": "base",
        "ImageTranslator": "base",
        "Translator": "base",
        "Affine": "closed_form",
        "Identity": "closed_form",
        "Linear": "closed_form",
        "LowRank": "closed_form",
        "Orthogonal": "closed_form",
        "Ridge": "closed_form",
        "Shift": "closed_form",
        "Context": "context",
        "DeepMlp": "trained",
        "Mlp": "trained",
        "TrainedTranslator": "trained",
    },
)
