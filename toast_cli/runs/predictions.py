"""What each probe predicted for each test image, so that runs can be compared: one safetensors file per run."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from toast_cli.files import write_arrays


@dataclass(frozen=True)
class Predictions:
    """Class numbers: ``truth`` (M,) and, for each seed, ``by_seed`` (P, M), its rows in the order of the run's plans.

    ``images`` (M,) are the test images' numbers in their split.
    """

    truth: np.ndarray
    images: np.ndarray
    by_seed: dict[int, np.ndarray]


def add(path: Path, seed: int, predicted: np.ndarray, truth: np.ndarray, images: np.ndarray) -> None:
    """Add the classes ``predicted`` (P, M) with a seed; ``truth`` (M,) and ``images`` (M,) as in ``Predictions``."""
    stored = load_file(path) if path.is_file() else {}
    stored |= {f"seed{seed}": predicted.astype("<i4"), "truth": truth.astype("<i4"), "images": images.astype("<i8")}
    write_arrays(path, stored)


def read(path: Path) -> Predictions:
    """The inverse of ``add``."""
    stored = load_file(path)
    by_seed = {int(key.removeprefix("seed")): value for key, value in stored.items() if key.startswith("seed")}
    return Predictions(stored["truth"], stored["images"], by_seed)
