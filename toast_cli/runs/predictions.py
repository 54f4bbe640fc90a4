"""What each probe predicted for each test image, so that runs can be compared: one safetensors file per run.

The probabilities of all classes, which are large, have a file of their own for each seed, if they are kept.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from toast_cli.errors import ToastError
from toast_cli.files import encode_arrays


@dataclass(frozen=True)
class Predictions:
    """Class numbers: ``truth`` (M,) and, for each seed, ``by_seed`` (P, M), its rows in the order of the run's plans.

    ``images`` (M,) are the test images' numbers in their split.
    """

    truth: np.ndarray
    images: np.ndarray
    by_seed: dict[int, np.ndarray] = field(default_factory=dict)

    def adding(self, seed: int, predicted: np.ndarray) -> "Predictions":
        """These predictions, with the classes ``predicted`` (P, M) by a seed's probe."""
        return replace(self, by_seed={**self.by_seed, seed: predicted})

    def encoded(self) -> bytes:
        """The file."""
        by_seed = {f"seed{seed}": predicted.astype("<i4") for seed, predicted in self.by_seed.items()}
        return encode_arrays(by_seed | {"truth": self.truth.astype("<i4"), "images": self.images.astype("<i8")})


def encoded_probabilities(probabilities: np.ndarray) -> bytes:
    """The file of a seed's ``probabilities`` float32 (P, M, C), plans and images in the order of ``Predictions``."""
    return encode_arrays({"probabilities": probabilities.astype("<f4")})


def read(path: Path) -> Predictions | None:
    """The predictions in a file, None if there is none. Raises ToastError if it holds anything else."""
    if not path.is_file():
        return None
    try:
        stored = load_file(path)
        truth, images = stored.pop("truth"), stored.pop("images")
        by_seed = {int(key.removeprefix("seed")): value for key, value in stored.items()}
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as e:
        raise ToastError(
            f"{path} cannot be read as predictions ({type(e).__name__}): restore it, or run it again with fresh=true."
        ) from e
    arrays = [truth, images, *by_seed.values()]
    if truth.ndim != 1 or any(array.dtype.kind != "i" for array in arrays):
        raise ToastError(f"{path} holds no class numbers: restore it, or run it again with fresh=true.")
    if truth.shape != images.shape or any(value.shape[1:] != truth.shape for value in by_seed.values()):
        raise ToastError(f"{path} holds predictions for different images: restore it, or run it again with fresh=true.")
    return Predictions(truth, images, by_seed)
