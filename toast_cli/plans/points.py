"""The points of a model that spans run between, and the blocks and half blocks that lie between two of them.

A point is a latent. X^(i), the output of block i, is the number i, and −1 is the *stem*. X^(i−½), between the attention and
the MLP of block i, is the number i − 0.5 and written ``ia``: ``9a`` is 8.5. So points lie in the order of their numbers:
8, ``9a``, 9.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

STEM = -1
ATTENTION, MLP = "attention", "mlp"
Point: TypeAlias = float  # whole ones are ints
_HALF = re.compile(rf"(\d{{1,9}})\.({ATTENTION}|{MLP})", re.ASCII)


@dataclass(frozen=True)
class Half:
    """One branch of a block that stays without the other: ``part`` is ``attention`` or ``mlp``. Written ``9.mlp``."""

    block: int
    part: str

    def __str__(self) -> str:
        return f"{self.block}.{self.part}"

    @classmethod
    def parse(cls, text: str) -> "Half":
        """The inverse of ``str``. Raises ValueError for other text."""
        match = _HALF.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no half block")
        return cls(int(match[1]), match[2])


Kept: TypeAlias = int | Half  # a block that stays, or half of one


def ends_of(kept: Kept) -> tuple[Point, Point]:
    """The points between which a block or a half block lies."""
    if isinstance(kept, int):
        return kept - 1, kept
    return (kept.block - 1, kept.block - 0.5) if kept.part == ATTENTION else (kept.block - 0.5, kept.block)


def kept_between(start: Point, end: Point) -> list[Kept]:
    """What leads from X^(``start``) to X^(``end``) in the untouched model: blocks, with half a block at an end inside one."""
    first, last = math.ceil(start), math.floor(end)
    before = [Half(first, MLP)] if first > start and end > start else []
    behind = [Half(last + 1, ATTENTION)] if last < end and end > start else []
    return [*before, *range(first + 1, last + 1), *behind]


def is_point(number: float) -> bool:
    """Whether a number is whole, or half of a whole number."""
    return (2 * number) % 1 == 0


def whole(number: float) -> float:
    """The number, as an int if it is whole."""
    return int(number) if number % 1 == 0 else number


def point_text(point: Point) -> str:
    """``stem``, ``9`` or ``9a``."""
    if point == STEM:
        return "stem"
    return str(int(point)) if point % 1 == 0 else f"{math.ceil(point)}a"


def parse_point(text: str) -> Point:
    """The inverse of ``point_text``, for text that is one of these."""
    if text == "stem":
        return STEM
    return int(text[:-1]) - 0.5 if text.endswith("a") else int(text)


def place_of(layer: object) -> str:
    """Where a latent lies, in words: ``after block 8``, or ``inside block 9`` for 8.5."""
    return f"inside block {math.ceil(layer)}" if isinstance(layer, float) else f"after block {layer}"


def middles(points: Iterable[Point]) -> set[int]:
    """The blocks that some of the ``points`` lie inside."""
    return {math.ceil(point) for point in points if point % 1}
