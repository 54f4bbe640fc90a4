"""Which images of a split are used: stratified, nested, seeded draws."""

from typing import Any

import numpy as np

from toast_cli.data.streamed import Rows
from toast_cli.errors import ToastError, did_you_mean


def stratified(labels: np.ndarray, seed: int) -> np.ndarray:
    """An order (N,) of the images with these ``labels`` (N,); its first n are a random draw with each class in proportion, for any n."""
    generator = np.random.default_rng(seed)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + generator.random()) / len(members)
    return np.argsort(place, kind="stable")


def draw(labels: np.ndarray, wanted: int | None, key: str, seed: int) -> np.ndarray:
    """Indices of ``wanted`` images, a stratified draw by ``labels`` (N,); all of them for None. ``key`` is the setting's name in an error."""
    return np.arange(len(labels)) if wanted is None else stratified(labels, seed)[: _count(wanted, len(labels), key)]


def draw_fit(available: int, wanted: int | list[int], order: str, seed: int) -> list[np.ndarray]:
    """Indices of ``wanted`` of the ``available`` images: the ``first``, or drawn at ``random``.

    Several numbers give several parts, each of which adds to those before it.
    """
    _check_seed(seed)
    counts = [
        _count(count, available, "data.fit_images") for count in (wanted if isinstance(wanted, list) else [wanted])
    ]
    orders = {
        "first": lambda: np.arange(available),
        "random": lambda: np.random.default_rng(seed).permutation(available),
    }
    if order not in orders:
        raise ToastError(f"data.fit_order={order} is not an order{did_you_mean(order, orders)}: use random or first.")
    if not counts:
        raise ToastError("data.fit_images=[] is empty: give a number of images or a list of numbers.")
    ends = sorted(set(counts))
    return np.split(orders[order]()[: ends[-1]], ends[:-1])


def divide(rows: Rows, test_images: int, seed: int) -> list[Rows]:
    """Two parts in stored order: ``test_images`` rows drawn at random come second, the others first."""
    _check_seed(seed)
    count = _count(test_images, len(rows) - 1, "data.one_split.test_images")
    order = np.random.default_rng(seed).permutation(len(rows))
    return [rows.select(np.sort(part)) for part in (order[count:], order[:count])]


def _check_seed(seed: Any) -> None:
    if type(seed) is not int or seed < 0:
        raise ToastError(f"data.seed={seed} is not a seed: use a whole number from 0.")


def _count(wanted: Any, available: int, key: str) -> int:
    if not isinstance(wanted, int) or isinstance(wanted, bool) or not 1 <= wanted <= available:
        raise ToastError(
            f"{key}={wanted} is not available: give a whole number from 1 to {available}, the images of that split."
        )
    return wanted
