"""Matrices as pictures: what spans cost, how alike latents are, and what maps of another data set cost."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from toast_cli.plans import STEM, Plan, Span, point_text
from toast_cli.report.figures import NAMES, drawn, titled

_NUMBERED = 32  # matrices up to this side have numbers in their cells
_CELL, _SMALL_CELL = 0.42, 0.22  # inches, with and without a number in it
_ACROSS = 3  # panels in a row
_LETTER = 5.2  # points of a letter in the names of rows and columns, which are 8 points high
_LABEL = 30  # letters of such a name


@dataclass(frozen=True)
class Panel:
    """A matrix (R, C) with the names of its rows and columns; ``noise``: the cells (row, column) to be marked with ≈."""

    values: np.ndarray
    rows: Sequence[str]
    columns: Sequence[str]
    noise: Collection[tuple[int, int]] = field(default=())


@dataclass(frozen=True)
class Scale:
    """What the colours mean. ``text`` writes a cell's value, ``extend`` says at which ends values are beyond the colours."""

    label: str
    colours: str
    norm: Normalize
    text: Callable[[float], str]
    extend: str = "neither"

    def dark(self, value: float) -> bool:
        """Whether black letters would be hard to read on the colour of ``value``."""
        red, green, blue, _ = colormaps[self.colours](self.norm(value))
        return bool(0.299 * red + 0.587 * green + 0.114 * blue < 0.5)


def changes(values: np.ndarray, share: float = 0.75) -> Scale:
    """Accuracy changes in points, red for a loss. The ``share`` of the ``values`` that is smallest has colours of its own, up
    to 25 points: ruinous spans must not wash out the others."""
    reach = min(max(float(np.nanquantile(np.abs(values), share)), 1.0), 25.0)
    ends = {(True, True): "both", (True, False): "min", (False, True): "max", (False, False): "neither"}
    extend = ends[bool(np.nanmin(values) < -reach), bool(np.nanmax(values) > reach)]
    return Scale("accuracy change (points)", "RdBu", TwoSlopeNorm(0, -reach, reach), in_points, extend)


def alike(measure: str, values: np.ndarray) -> Scale:
    """Similarities by one of ``MEASURES``; dark means alike, whatever the measure."""
    known = values[np.isfinite(values)]
    low, high = float(known.min()), float(known.max())
    if measure == "mse":  # latents that are alike differ by orders of magnitude from those that are not
        positive = known[known > 1e-12 * high]
        norm = (
            LogNorm(float(positive.min()), high, clip=True) if len(positive) and positive.min() < high else Normalize()
        )
        return Scale(f"{NAMES[measure]}, logarithmic", "viridis", norm, short)
    below = measure.startswith("r2") and low < 0  # worse than a constant: all equally useless
    low = 0.0 if below else low
    norm = Normalize(low, max(high, low + 1e-9), clip=True)
    return Scale(NAMES[measure], "viridis_r", norm, short, "min" if below else "neither")


def spans(deltas: Mapping[str, float], depth: int, title: str, noise: Collection[str] = ()) -> Figure:
    """Accuracy change of every single span, start × end. ``deltas``: plan text -> change, a fraction; ``noise``: plans
    whose interval contains 0.

    With spans that end inside blocks among them, there is a row and a column for each half block.
    """
    single = {text: plan.spans[0] for text in deltas if len((plan := Plan.parse(text)).spans) == 1}
    parts = 2 if any(span.start % 1 or span.end % 1 for span in single.values()) else 1  # of a block
    side = depth * parts
    points = [STEM + number / parts for number in range(side + 1)]

    def cell(span: Span) -> tuple[int, int]:  # row: the start's place among the points; column: the end's, less 1
        return points.index(span.start), points.index(span.end) - 1

    matrix = np.full((side, side), np.nan)
    for text, span in single.items():
        matrix[cell(span)] = 100 * deltas[text]
    names = [point_text(point) for point in points]
    panel = Panel(matrix, names[:-1], names[1:], {cell(span) for text, span in single.items() if text in noise})
    return matrices({"": panel}, changes(matrix), f"{title}: accuracy change of every span", ("start s", "end e"))


def similarities(panels: Mapping[str, Mapping[tuple[str, str], float]], measure: str, model: str) -> Figure:
    """Block-by-block similarity of one model, a panel for each data set: name -> (source, target) -> value."""
    filled = {}
    for name, values in panels.items():
        layers = sorted(
            {layer for pair in values for layer in pair}, key=lambda text: STEM if text == "stem" else int(text)
        )
        filled[name] = Panel(np.array([[values[row, column] for column in layers] for row in layers]), layers, layers)
    scale = alike(measure, np.concatenate([panel.values.ravel() for panel in filled.values()]))
    return matrices(filled, scale, f"{model}: {NAMES[measure]} between blocks", ("source", "target"))


def matrices(panels: Mapping[str, Panel], scale: Scale, title: str, axes_names: tuple[str, str]) -> Figure:
    """Matrices by name, on one ``scale``, at most three in a row."""
    side = max(max(panel.values.shape) for panel in panels.values())
    cell = _CELL if side <= _NUMBERED else _SMALL_CELL
    across = min(len(panels), _ACROSS)
    down = -(-len(panels) // across)
    longest = max(len(name) for panel in panels.values() for name in [*panel.rows, *panel.columns])
    names = min(longest, _LABEL) * _LETTER / 72  # inches
    each = max(cell * side, 2.2) + names
    figure = Figure(figsize=((each + 0.5) * across + 1.4, (each + 0.7) * down + 0.5), layout="constrained")
    titled(figure, title)
    all_axes = figure.subplots(down, across, squeeze=False).ravel()
    for axes, (name, panel) in zip(all_axes, panels.items(), strict=False):
        picture = axes.imshow(np.ma.masked_invalid(panel.values), cmap=scale.colours, norm=scale.norm)
        axes.set_title(drawn(name, _LABEL), fontsize=10)
        axes.set(xlabel=axes_names[1], ylabel=axes_names[0])
        _name_cells(axes, panel, cell)
        if side <= _NUMBERED:
            _number(axes, panel, scale)
    for axes in all_axes[len(panels) :]:
        axes.remove()
    shown = list(all_axes[: len(panels)])
    bar = figure.colorbar(picture, ax=shown, label=scale.label, shrink=0.85, extend=scale.extend, **_ticks(scale.norm))
    bar.minorticks_off()
    return figure


def _ticks(norm: Normalize) -> dict[str, Any]:
    """Plain numbers as the ticks of a logarithmic scale, whose own ones are formulas, which no text of ours is."""
    if not isinstance(norm, LogNorm):
        return {}
    subs = (1, 2, 5) if (norm.vmax or 1) < 1000 * (norm.vmin or 1) else (1,)
    return {"ticks": LogLocator(subs=subs), "format": FuncFormatter(lambda value, _: f"{value:g}")}


def _name_cells(axes: Axes, panel: Panel, cell: float) -> None:
    """Rows and columns by name; the names of columns stand upright where they would run into each other."""
    rows, columns = ([drawn(name, _LABEL) for name in names] for names in (panel.rows, panel.columns))
    upright = max(map(len, columns)) * _LETTER > 72 * cell
    axes.set_xticks(range(len(columns)), columns, rotation=90 if upright else 0, fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)


def _number(axes: Axes, panel: Panel, scale: Scale) -> None:
    """Write the numbers in the cells, white on dark cells."""
    for (row, column), value in np.ndenumerate(panel.values):
        if np.isfinite(value):
            text = scale.text(value) + "≈" * ((row, column) in panel.noise)
            colour = "white" if scale.dark(value) else "black"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)


def in_points(value: float) -> str:
    """A change in points with its sign and one decimal: +0.8, −86.7, 0.0."""
    text = f"{value:+.1f}".replace("-", "−")
    return text[1:] if text[1:] == "0.0" else text


def short(value: float) -> str:
    """Two significant digits where they are enough, no leading zero: .93, 1, −3.1, 120."""
    if abs(value) >= 9.95:
        text = f"{value:.0f}" if abs(value) < 9999.5 else f"{value:.0e}".replace("e+0", "e")
    else:
        text = f"{value:.1f}" if abs(value) >= 0.995 else f"{value:.2f}"
        text = text.removesuffix(".0").replace("0.", ".", 1)
    return "0" if text in (".00", "-.00") else text.replace("-", "−")
