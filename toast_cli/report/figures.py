"""What all figures share: colours that colour-blind readers can tell apart, in print too; titles, legends and files."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import ArrayLike

from toast_cli.files import write_atomically
from toast_cli.machine.console import visible
from toast_cli.report.fonts import families

# Okabe & Ito (2008), without the yellow that vanishes on paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999")
MARKERS = "osD^vPX*"
NAMES = {
    "cka": "linear CKA",
    "cosine": "cosine",
    "mse": "MSE",
    "r2": "R² of the linear map",
    "r2_identity": "R² without a map",
}
_DPI = 150  # pixels of an inch
_LONGEST = 200  # letters of a text that are drawn: more would leave the axes no room
_TITLE, _WORD = 12.0, 80  # points of a title, and letters of a word in it
_NAME, _LETTER = 60, 5.0  # letters of a series' name at most, and points that one takes


def save(figure: Figure, path: Path) -> None:
    """Save ``figure`` as PNG and, for papers, as PDF; ``path`` has no suffix."""
    for name, content in files_of(figure, path.name).items():
        write_atomically(path.with_name(name), content)


def files_of(figure: Figure, name: str) -> dict[str, bytes]:
    """The files of a ``figure`` by their names: a PNG and, for papers, a PDF."""
    return {f"{name}.{kind}": encoded(figure, kind) for kind in ("png", "pdf")}


def encoded(figure: Figure, kind: str = "png") -> bytes:
    """The bytes of the figure as a file; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    dates = {"CreationDate": None} if kind == "pdf" else {"Software": None}
    laid_out(figure)
    with _lettered(figure):
        figure.savefig(buffer, format=kind, dpi=_DPI, metadata=dates)
    return buffer.getvalue()


def laid_out(figure: Figure) -> None:
    """Give the figure's axes the places that they have in all its files from then on: what was placed beside them stays there."""
    figure.set_dpi(_DPI)
    with _lettered(figure):
        figure.draw_without_rendering()
    figure.set_layout_engine("none")


@contextmanager
def _lettered(figure: Figure) -> Iterator[None]:
    """The figure with all its texts as they are drawn, in fonts that have their letters."""
    for text in figure.findobj(Text):
        written = drawn(text.get_text())
        text.set(text=written, parse_math=False, fontfamily=families(written))  # a $ in a label begins no formula
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # such a letter is drawn as a box
        yield


def drawn(text: str, most: int = _LONGEST) -> str:
    """How a text that may hold a stranger's label is drawn: on one line, and of a very long one ``most`` letters.

    It keeps its end, which often is what tells it from others.
    """
    text = visible(text)
    end = most // 3
    return text if len(text) <= most else f"{text[: most - end - 1]}…{text[len(text) - end :]}"


def titled(figure: Figure, title: str) -> None:
    """Write the ``title`` above the whole figure, on as many lines as it takes there and small enough for its longest word."""
    title = drawn(title)
    wrap = "$" not in title  # matplotlib takes what is between two for a formula wherever it wraps a text
    words = [drawn(word, _WORD) for word in title.split()] if wrap else [title]
    longest = figure.text(0, 0, max(words, key=len, default=""), fontsize=_TITLE, parse_math=False)
    with _lettered(figure):
        width = longest.get_window_extent().width
    longest.remove()
    size = _TITLE * min(0.95 * figure.bbox.width / max(width, 1.0), 1.0)
    figure.suptitle(" ".join(words), wrap=wrap, fontsize=size)


def style(number: int) -> tuple[str, str]:
    """The colour and the marker of series ``number``: no two of the first 64 share both."""
    return COLOURS[number % len(COLOURS)], MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]


def scatter(axes: Axes, x: ArrayLike, y: ArrayLike, number: int, label: str) -> None:
    """Draw points in the colour and with the marker of series ``number``."""
    colour, marker = style(number)
    axes.scatter(x, y, s=18, color=colour, marker=marker, alpha=0.75, linewidths=0, label=label)


def name_series(figure: Figure, axes: Axes, title: str | None = None) -> None:
    """A legend of ``axes`` below all of a figure, where it covers no point, in as many columns as its names leave room for."""
    handles, labels = axes.get_legend_handles_labels()
    labels = [drawn(label, _NAME) for label in labels]
    letters = int(figure.get_figwidth() * 72 / _LETTER)
    columns = max(min(letters // (max(map(len, labels)) + 8), len(labels)), 1)
    figure.set_figheight(figure.get_figheight() + 0.17 * max(-(-len(labels) // columns) - 2, 0))
    figure.legend(handles, labels, ncols=columns, fontsize=8, title=title, title_fontsize=8, frameon=False, loc="outside lower center")  # fmt: skip
