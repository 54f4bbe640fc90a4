"""Maps that take the place of blocks: X^(e) ≈ T(X^(s)), fitted in closed form from moments or trained on latents."""

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
