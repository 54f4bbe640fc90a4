"""A translator by name, with the settings of its file in conf/translator."""

from typing import Any

from omegaconf import OmegaConf

from toast_cli.errors import ToastError, did_you_mean
from toast_cli.registry import CONF, options
from toast_cli.translators.base import BaseTranslator, ImageTranslator
from toast_cli.translators.closed_form import Affine, Identity, Linear, LowRank, Orthogonal, Ridge, Shift
from toast_cli.translators.context import Context
from toast_cli.translators.trained import DeepMlp, Mlp

_KINDS: dict[str, type[BaseTranslator]] = {
    kind.name: kind for kind in (Identity, Linear, Affine, Ridge, Orthogonal, LowRank, Shift, Context, Mlp, DeepMlp)
}


def by_name(name: str, tokens: str = "shared") -> BaseTranslator:
    """The translator that ``translator=<name>`` chooses, with the settings of its file but these ``tokens``.

    They do not apply to one that sees the image. Raises ToastError for an unknown name.
    """
    known = options("translator", [CONF])
    if name not in known:
        raise ToastError(f"translator={name} is not known{did_you_mean(name, known)}: use one of {', '.join(known)}.")
    stored: Any = OmegaConf.to_container(OmegaConf.load(known[name]))
    del stored["_target_"]
    kind = _KINDS[name]
    return kind(**stored) if issubclass(kind, ImageTranslator) else kind(**{**stored, "tokens": tokens})
