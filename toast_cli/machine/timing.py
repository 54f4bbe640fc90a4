"""How long models take, measured side by side."""

import itertools
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from toast_cli.errors import out_of_memory

_LARGEST_BATCH = 1024
_LONGEST_CALL = 20.0  # seconds; a batch that takes longer is not doubled


def call(model: nn.Module, images: Tensor) -> Callable[[], None]:
    """A function that runs ``model`` on ``images`` (N, 3, H, W) and returns when the device has finished."""

    @torch.inference_mode()
    def forward() -> None:
        model(images)
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)
        elif images.device.type == "mps":
            torch.mps.synchronize()

    return forward


def rounds(calls: list[Callable[[], None]], seconds: float, least: int = 5, most: int = 1000) -> list[list[float]]:
    """Seconds of each call, about ``seconds`` for each: taken in turn, so that a machine that slows down affects all alike."""
    for call in calls * 3:  # warm-up
        call()
    times: list[list[float]] = [[] for _ in calls]
    begun = time.perf_counter()
    while len(times[0]) < least or (len(times[0]) < most and time.perf_counter() - begun < seconds * len(calls)):
        for call, seen in zip(calls, times, strict=True):
            before = time.perf_counter()
            call()
            seen.append(time.perf_counter() - before)
    return times


def best_batch(model: nn.Module, images: Callable[[int], Tensor]) -> int:
    """The batch size, a power of two, with the highest rate; ``images(N)`` makes a batch (N, 3, H, W).

    Stops when memory runs out, or when two doublings in a row hardly raise the rate.
    """
    best, best_rate, in_vain = 1, 0.0, 0
    for size in itertools.takewhile(lambda size: size <= _LARGEST_BATCH, (2**i for i in itertools.count())):
        try:
            took = min(rounds([call(model, images(size))], 0, least=5)[0])
        except Exception as e:
            if not out_of_memory(e):
                raise
            break
        in_vain = 0 if size / took > 1.02 * best_rate else in_vain + 1
        if size / took > best_rate:
            best, best_rate = size, size / took
        if in_vain == 2 or took > _LONGEST_CALL:
            break
    return best


def quartiles(times: list[float]) -> tuple[float, float, float]:
    """First quartile, median and third quartile."""
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return low, middle, high


def ratio(times: list[float], others: list[float]) -> float:
    """``times`` divided by ``others`` of the same rounds: the median over rounds."""
    return statistics.median(one / other for one, other in zip(times, others, strict=True))
