"""Write names beside points, where they cover neither each other nor what is drawn."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from toast_cli.report.figures import drawn, laid_out

_SIZE, _LETTERS = 7.5, 26  # points, and letters of a name
_WIDER = 1.06  # letters are rounded to whole pixels, differently in every file
_STEPS = (5.0, 13.0, 24.0, 36.0)  # points from the middle of a point to its name; the far ones with a line to it
_TURNS = ((-1, 1), (1, -1), (0, 1), (0, -1), (1, 1), (-1, -1), (1, 0), (-1, 0))  # a front rises to the right
_ACROSS = {-1: "right", 0: "center", 1: "left"}
_UP = {-1: "top", 0: "center", 1: "bottom"}


@dataclass(frozen=True)
class Named:
    """A point (in data units) that has a name."""

    x: float
    y: float
    name: str


@dataclass(frozen=True)
class _Place:
    """A place for a name: its box, how many points off, to which side, and the line that leads to it (K, 2); in pixels."""

    box: Bbox
    step: float
    turn: tuple[int, int]
    leader: np.ndarray


def place(
    figure: Figure, axes: Axes, points: Sequence[Named], lines: Sequence[np.ndarray], faint: np.ndarray
) -> list[str]:
    """Write the names for which there is room, the first ones first; returns them.

    They keep clear of ``lines``, arrays (K, 2) of places in data units that are joined, and of texts that are there. Of the
    places left, one that covers few of the ``faint`` points (K, 2) and is near is taken. The limits of the axes must be final.
    """
    laid_out(figure)
    taken = [text.get_window_extent() for text in axes.texts if text.get_text()]
    kept_clear = np.concatenate([_along(axes.transData.transform(line)) for line in lines])  # (K, 2) pixels
    soft = axes.transData.transform(faint) if len(faint) else np.zeros((0, 2))
    written = []
    for point in points:
        text = _name(axes, point)
        free = [
            (_covered(found.box, soft) + order / len(_TURNS), order, found)
            for order, found in enumerate(_places(axes, text, point, figure.dpi / 72))
            if not _covered(found.box, kept_clear)
            and not any(found.box.overlaps(other) or _covered(other, found.leader) for other in taken)
        ]
        if not free:
            text.remove()
            continue
        *_, best = min(free, key=lambda found: found[:2])
        text.set(position=np.array(best.turn) * best.step, ha=_ACROSS[best.turn[0]], va=_UP[best.turn[1]])
        if text.arrow_patch is not None:
            text.arrow_patch.set_visible(best.step > _STEPS[0])
        taken.append(best.box)
        kept_clear = np.concatenate([kept_clear, best.leader])
        written.append(point.name)
    return written


def _name(axes: Axes, point: Named) -> Annotation:
    line = {"arrowstyle": "-", "linewidth": 0.5, "color": "0.4", "shrinkA": 0, "shrinkB": 2}
    where = (point.x, point.y)
    text = axes.annotate(
        drawn(point.name, _LETTERS), where, (0, 0), textcoords="offset points", fontsize=_SIZE, arrowprops=line
    )
    text.set_in_layout(False)  # a name must not move what it was placed beside
    return text


def _places(axes: Axes, text: Annotation, point: Named, pixels: float) -> Iterator[_Place]:
    """The places inside the axes that the ``text`` of a ``point`` may have, the nearest first; a point has so many ``pixels``."""
    size = Text.get_window_extent(text)  # without the line to the point
    centre = axes.transData.transform((point.x, point.y))
    for step, turn in product(_STEPS, _TURNS):
        by = np.array(turn) * step * pixels
        left, low = centre + by + (np.array(turn) - 1) / 2 * (_WIDER * size.width, size.height)
        box = Bbox.from_bounds(left, low, _WIDER * size.width, size.height)
        if axes.bbox.contains(*box.min) and axes.bbox.contains(*box.max):
            near = np.clip(centre, box.min, box.max)
            yield _Place(box, step, turn, _along(np.stack([centre, near])) if step > _STEPS[0] else centre[None])


def _along(corners: np.ndarray) -> np.ndarray:
    """Points (K, 2) at most three pixels apart on the line through the ``corners`` (C, 2)."""
    found = [corners]
    for one, other in pairwise(corners):
        count = int(np.hypot(*(other - one)) / 3) + 2
        found.append(np.linspace(one, other, min(count, 4000)))
    return np.concatenate(found)


def _covered(box: Bbox, points: np.ndarray) -> int:
    """How many of the ``points`` (K, 2) the ``box`` covers or nearly touches."""
    near = box.padded(2.0)
    return int(np.count_nonzero(np.all((points >= near.min) & (points <= near.max), axis=1)))
