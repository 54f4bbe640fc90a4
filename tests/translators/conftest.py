"""The translators that conf/translator lists, and their fits."""

from pathlib import Path

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from tests.moments.conftest import pair
from toast_cli.registry import CONF
from toast_cli.translators import ImageTranslator, Translator
from toast_cli.translators.sums import Sums, Wanted
from toast_cli.translators.trained import LatentFile, TrainedTranslator

NAMES = sorted(path.stem for path in (CONF / "translator").glob("*.yaml"))


def load(name: str) -> Translator:
    return instantiate(OmegaConf.load(CONF / "translator" / f"{name}.yaml"))


def fitted(name: str, x: Tensor, y: Tensor, folder: Path) -> Translator:
    """From moments, for one that sees the image with two prefix tokens, or for trained ones from latents on disk, in few steps."""
    if issubclass(type(load(name)), TrainedTranslator):
        return fit_for((name, 20), x, y, folder)
    if issubclass(type(load(name)), ImageTranslator):
        wanted = Wanted(0, 1, load(name))
        sums = Sums([wanted], 2, x.shape[1])
        sums.update(np.arange(len(x)), {0: x, 1: y})
        return sums.fitted(wanted.translator, sums.of(wanted, x.shape[2]))
    return load(name).fit(pair(x, y))


def fit_for(name_steps: tuple[str, int], x: Tensor, y: Tensor, folder: Path, rate: float = 1e-3) -> Translator:
    name, steps = name_steps
    translator = load(name)
    translator.steps, translator.learning_rate = steps, rate
    sides = []
    for side, latent in (("x", x), ("y", y)):
        (folder / side).write_bytes(latent.float().numpy().tobytes())
        sides.append(LatentFile(folder / side, tuple(latent.shape), torch.device("cpu")))
    return translator.fit(*sides)


def rows(latent: Tensor) -> Tensor:
    return latent.double().flatten(0, 1)
