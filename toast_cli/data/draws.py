"""Which images of a split are used: stratified, nested, seeded draws."""

from typing import Any

import numpy as np

from toast_cli.data.streamed import Rows
from toast_cli.errors import ToastError


def stratified(labels: np.ndarray, seed: int) -> np.ndarray:
    """An order (N,) of images with ``labels`` (N,); its first n, for any n, are a random draw with classes in proportion."""
    generator = np.random.default_rng(seed)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + generator.random()) / len(members)
    return np.argsort(place, kind="stable")


def draw(labels: np.ndarray, wanted: int | None, key: str, seed: int) -> np.ndarray:
    """Indices (B,) of ``wanted`` images, stratified by ``labels`` (N,), or of all of them for None.

    Raises ToastError, naming the setting ``key``, for a number that the split does not allow.
    """
    return np.arange(len(labels)) if wanted is None else stratified(labels, seed)[: _count(wanted, len(labels), key)]


def draw_fit(available: int, wanted: int | list[int], order: str, seed: int) -> list[np.ndarray]:
    """Indices (B,) of ``wanted`` of the ``available`` images: the ``first``, or drawn at ``random``.

    Several numbers give several parts, each added to those before it. Raises ToastError for numbers that are not available.
    """
    counts = [
        _count(count, available, "data.fit_images") for count in (wanted if isinstance(wanted, list) else [wanted])
    ]
    orders = {
        "first": lambda: np.arange(available),
        "random": lambda: np.random.default_rng(seed).permutation(available),
    }
    ends = sorted(set(counts))
    return np.split(orders[order]()[: ends[-1]], ends[:-1])


def divide(rows: Rows, test_images: int, seed: int) -> list[Rows]:
    """Two parts of the rows, each in stored order: ``test_images`` of them drawn at random are the second part.

    Raises ToastError for a number that the rows do not allow.
    """
    count = _count(test_images, len(rows) - 1, "data.one_split.test_images")
    order = np.random.default_rng(seed).permutation(len(rows))
    return [rows.select(np.sort(part)) for part in (order[count:], order[:count])]


def _count(wanted: Any, available: int, key: str) -> int:
    if not isinstance(wanted, int) or isinstance(wanted, bool) or not 1 <= wanted <= available:
        raise ToastError(
            f"{key}={wanted} is not available: give a whole number from 1 to {available}, the images of that split."
        )
    return wanted
