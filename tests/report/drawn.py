"""What a figure shows, once it is laid out: its texts, and whether they can be read."""

from itertools import combinations

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from toast_cli.report.figures import laid_out


def boxes(figure: Figure, texts: list[Text]) -> list[Bbox]:
    """Where the texts are, in pixels, without lines that lead to them."""
    laid_out(figure)
    return [Text.get_window_extent(text) for text in texts]


def clipped(figure: Figure) -> list[str]:
    """The sides of the figure beyond which something of it lies."""
    laid_out(figure)
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    sides = {"left": drawn.x0 < 0, "low": drawn.y0 < 0, "right": drawn.x1 > width, "top": drawn.y1 > height}
    return [side for side, out in sides.items() if out]


def overlapping(figure: Figure, texts: list[Text]) -> list[tuple[str, str]]:
    """The pairs of texts that cover each other."""
    found = zip(texts, boxes(figure, texts), strict=True)
    return [(one[0].get_text(), two[0].get_text()) for one, two in combinations(found, 2) if one[1].overlaps(two[1])]
