"""Which fit images the ranges of activations are found on."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from toast_cli.errors import ToastError
from toast_cli.stages.quantised import CALIBRATION, calibration


class Part:
    """Images whose only pixel is their number."""

    def __init__(self, numbers: np.ndarray) -> None:
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def only(self, positions: np.ndarray) -> "Part":
        return Part(self.numbers[positions])


def job(parts: list[range], decodable: bool = True) -> SimpleNamespace:
    def batches(images: Part, size: int):
        for start in range(0, len(images), size):
            pixels = torch.tensor(images.numbers[start : start + size]).reshape(-1, 1, 1, 1)
            yield SimpleNamespace(pixels=pixels, positions=range(len(pixels) * decodable))

    data = SimpleNamespace(fit=[Part(np.array(part)) for part in parts])
    return SimpleNamespace(data=data, batches=batches, backbone=SimpleNamespace(normalise=lambda pixels: pixels))


@pytest.mark.parametrize(
    ("parts", "count", "last"),
    [
        ([range(500)], CALIBRATION, 499),
        ([range(20), range(100, 130), range(1000, 1500)], CALIBRATION, 1499),
        ([range(40)], 40, 39),
        ([range(CALIBRATION), range(1000, 1010)], CALIBRATION, CALIBRATION - 1),
    ],
)
def test_they_are_spread_over_the_fit_images(parts: list[range], count: int, last: int):
    """Which may be in the order of their classes."""
    used = torch.cat(calibration(job(parts))).flatten().tolist()  # type: ignore[arg-type]
    assert len(set(used)) == len(used) == count
    assert (used[0], used[-1]) == (0, last)


def test_none_that_can_be_decoded_is_a_sentence():
    with pytest.raises(
        ToastError, match="None of the fit images can be decoded: repair them, or use quantisation=dynamic"
    ):
        calibration(job([range(9)], decodable=False))  # type: ignore[arg-type]
