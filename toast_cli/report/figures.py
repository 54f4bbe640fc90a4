"""Draw the figures of a report with matplotlib, in colours that colour-blind readers can tell apart, in print too."""

import io
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import ArrayLike

from toast_cli.files import write_atomically
from toast_cli.machine.console import visible
from toast_cli.plans import STEM, Plan, point_text
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
_SEQUENTIAL, _DIVERGING = "viridis", "RdBu"
_LONGEST = 200  # letters of a text that are drawn: more would leave the axes no room
_ANNOTATED = 16  # matrices up to this side show their numbers


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
    for text in figure.findobj(Text):
        drawn = _drawn(text.get_text())
        text.set(text=drawn, parse_math=False, fontfamily=families(drawn))  # a $ in a label begins no formula
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # such a letter is drawn as a box
        figure.savefig(buffer, format=kind, dpi=150, metadata=dates)
    return buffer.getvalue()


def _drawn(text: str) -> str:
    """How a text that may hold a stranger's label is drawn: on one line, and not all of it if it is very long."""
    text = visible(text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def spans(deltas: dict[str, float], depth: int, title: str) -> Figure:
    """Accuracy change of every single span, start × end. ``deltas``: plan text -> change.

    With spans that end inside blocks among them, there is a row and a column for each half block.
    """
    plans = {Plan.parse(text): delta for text, delta in deltas.items()}
    single = {plan.spans[0]: delta for plan, delta in plans.items() if len(plan.spans) == 1}
    parts = 2 if any(span.start % 1 or span.end % 1 for span in single) else 1  # of a block
    side = depth * parts
    points = [STEM + number / parts for number in range(side + 1)]
    matrix = np.full((side, side), np.nan)  # row: the start's place among the points; column: the end's, less 1
    for span, delta in single.items():
        matrix[points.index(span.start), points.index(span.end) - 1] = delta
    inches = 1.8 + 0.46 * side
    figure = Figure(figsize=(inches + 0.9, inches), layout="constrained")
    axes = figure.add_subplot()
    reach = max(float(np.nanquantile(np.abs(matrix), 0.75)), 0.01)  # a few ruinous spans must not wash out the others
    picture = axes.imshow(matrix, cmap=_DIVERGING, norm=TwoSlopeNorm(0, -reach, reach))
    names = [point_text(point) for point in points]
    axes.set(xlabel="end e", ylabel="start s", title=title, xticks=range(side), yticks=range(side))
    axes.set(xticklabels=names[1:], yticklabels=names[:-1])
    _annotate(axes, matrix, np.abs(matrix) > 0.55 * reach, lambda value: f"{100 * value:+.1f}", side)
    figure.colorbar(picture, ax=axes, label="accuracy change (points in the cells)", shrink=0.8, extend="both")
    return figure


def _annotate(axes: Axes, matrix: np.ndarray, on_dark: np.ndarray, text: Any, side: int) -> None:
    """Write the numbers in the cells, white on dark cells, in a size that fits."""
    for (row, column), value in np.ndenumerate(matrix):
        if np.isfinite(value):
            colour = "white" if on_dark[row, column] else "black"
            axes.text(
                column, row, text(value), ha="center", va="center", color=colour, fontsize=7.5 if side <= 13 else 5
            )


def trade_offs(series: dict[str, list[tuple[float, float, float]]], original: float, title: str) -> Figure:
    """Accuracy against FLOPs and parameters. ``series``: name -> (GFLOPs ratio, params ratio, accuracy)."""
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, 2, sharey=True)
    for panel, (axes, label) in enumerate(zip(panels, ("GFLOPs", "parameters"), strict=True)):
        for number, (name, points) in enumerate(series.items()):
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
            costs = [point[0] if panel == 0 else point[1] for point in points]
            accuracies = [point[2] for point in points]
            axes.scatter(costs, accuracies, s=16, color=colour, marker=marker, alpha=0.35, linewidths=0)
            front = _front(list(zip(costs, accuracies, strict=True)))
            axes.plot(*zip(*front, strict=True), color=colour, marker=marker, markersize=4, linewidth=1.3, label=name)
        axes.axhline(original, color="0.4", linewidth=0.9, linestyle="--")
        axes.annotate(
            "original", (0.01, original), xycoords=("axes fraction", "data"), va="bottom", fontsize=8, color="0.3"
        )
        axes.set_xlabel(f"{label}, ratio to the original's")
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("accuracy")
    panels[0].legend(loc="lower right", fontsize=8, title="best trade-offs", title_fontsize=8)
    return figure


def _front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other beats in both cost and accuracy, by cost."""
    best, front = -math.inf, []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if accuracy > best:
            best = accuracy
            front.append((cost, accuracy))
    return front


def sample_sizes(lines: dict[str, list[tuple[int, float, float]]], original: float, title: str) -> Figure:
    """Accuracy against the number of fit images. ``lines``: name -> (images, mean, standard deviation)."""
    figure = Figure(figsize=(6.8, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for number, (name, points) in enumerate(lines.items()):
        images, means, spreads = (np.array(values) for values in zip(*sorted(points), strict=True))
        colour = COLOURS[number % len(COLOURS)]
        axes.fill_between(images, means - spreads, means + spreads, color=colour, alpha=0.15, linewidth=0)
        axes.plot(images, means, color=colour, marker=MARKERS[number % len(MARKERS)], markersize=4, label=name)
    axes.axhline(original, color="0.4", linewidth=0.9, linestyle="--", label="original")
    sizes = sorted({point[0] for points in lines.values() for point in points})
    axes.set(xscale="log", xlabel="fit images", ylabel="accuracy", title=title)
    axes.set_xticks(sizes, list(map(str, sizes)))
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def matrices(
    panels: dict[str, tuple[np.ndarray, list[str]]],
    label: str,
    title: str,
    axes_names: tuple[str, str],
    text: Callable[[float], str] | None = None,
) -> Figure:
    """Square matrices on one colour scale: name -> (values (K, K), K ticks). ``text`` writes a cell's value."""
    side = max(len(ticks) for _, ticks in panels.values())
    each = 1.6 + min(0.4 * side, 7)
    figure = Figure(figsize=(each * len(panels) + 1.2, each + 0.3), layout="constrained")
    figure.suptitle(title)
    everything = np.concatenate([values[np.isfinite(values)] for values, _ in panels.values()])
    low, high = float(everything.min()), float(everything.max())
    low = max(low, -1.0) if label.startswith(("R²", "cosine")) else low  # all values far below −1 are equally useless
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, (values, ticks)) in zip(all_axes, panels.items(), strict=True):
        picture = axes.imshow(values, cmap=_SEQUENTIAL, vmin=low, vmax=max(high, low + 1e-9))
        places = range(len(ticks))
        axes.set(title=name, xticks=places, yticks=places, xlabel=axes_names[1], ylabel=axes_names[0])
        long = max(map(len, ticks)) > 5
        ticks = list(map(_drawn, ticks))  # matplotlib sets the texts of ticks when it draws
        axes.set_xticklabels(ticks, rotation=45 if long else 0, ha="right" if long else "center", fontsize=8)
        axes.set_yticklabels(ticks, fontsize=8)
        if len(ticks) <= _ANNOTATED:
            _annotate(axes, values, values < low + 0.6 * (high - low), text or _short, len(ticks))
    figure.colorbar(picture, ax=list(all_axes), label=label, shrink=0.85)
    return figure


def _short(value: float) -> str:
    """Two significant digits where they are enough, no leading zero: .93, 1, −3.1, 120."""
    if abs(value) >= 9.95:
        return f"{value:.0f}"
    text = f"{value:.1f}" if abs(value) >= 0.995 else f"{value:.2f}"
    return text.removesuffix(".0").replace("0.", ".", 1)


def similarities(panels: dict[str, dict[tuple[str, str], float]], measure: str, model: str) -> Figure:
    """Block-by-block similarity of one model, a panel for each data set: name -> (source, target) -> value."""
    filled = {}
    for name, values in panels.items():
        layers = sorted(
            {layer for pair in values for layer in pair}, key=lambda text: STEM if text == "stem" else int(text)
        )
        filled[name] = (np.array([[values[row, column] for column in layers] for row in layers]), layers)
    return matrices(filled, NAMES[measure], f"{model}: {NAMES[measure]} between blocks", ("source", "target"))


def approximation(points: list[tuple[float, float, float]], measure: str, title: str) -> Figure:
    """The similarity of the last latents with and without each span, against that of the latents at its ends."""
    figure = Figure(figsize=(5.6, 4.4), layout="constrained")
    axes = figure.add_subplot()
    x, y, removed = zip(*points, strict=True)
    picture = axes.scatter(x, y, c=removed, cmap=_SEQUENTIAL, s=26, edgecolors="0.3", linewidths=0.4)
    axes.set(
        xlabel=f"{NAMES[measure]} between the span's two ends",
        ylabel=f"{NAMES[measure]} between the last latents",
        title=title,
    )
    axes.grid(alpha=0.25)
    figure.colorbar(picture, ax=axes, label="blocks removed")
    return figure


def scatter(axes: Axes, x: ArrayLike, y: ArrayLike, number: int, label: str) -> None:
    """Draw points in the colour and with the marker of series ``number``."""
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    axes.scatter(x, y, s=18, color=colour, marker=marker, alpha=0.75, linewidths=0, label=label)


def guide(series: dict[str, list[tuple[float, float]]], measure: str, title: str) -> Figure:
    """Accuracy change of spans against the similarity of their ends. ``series``: translator -> (similarity, change)."""
    from scipy.stats import spearmanr

    figure = Figure(figsize=(6.0, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for number, (name, points) in enumerate(series.items()):
        x, y = (np.array(values) for values in zip(*points, strict=True))
        label = f"{name}: Spearman's ρ = {spearmanr(x, y).statistic:.2f}"
        scatter(axes, x, 100 * y, number, label)
    axes.set(xlabel=f"{NAMES[measure]} between the span's two ends", ylabel="accuracy change, points", title=title)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    return figure


def additivity(series: dict[str, list[tuple[float, float]]], title: str) -> Figure:
    """Accuracy change of plans against the sum for their single blocks. ``series``: kind of plan -> (sum, change)."""
    figure = Figure(figsize=(5.6, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for number, (name, points) in enumerate(series.items()):
        x, y = (100 * np.array(values) for values in zip(*points, strict=True))
        off = f"{name}: mean distance {np.abs(x - y).mean():.1f}"
        scatter(axes, x, y, number, off)
    sums = [100 * point[0] for points in series.values() for point in points]
    ends = (min(sums), max(sums))
    axes.plot(ends, ends, color="0.4", linewidth=0.9, linestyle="--", label="additive")
    axes.set(
        xlabel="sum of the single blocks' changes, points", ylabel="accuracy change of a plan, points", title=title
    )
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    return figure


def projections(panels: dict[str, np.ndarray], labels: np.ndarray, explained: Sequence[float], title: str) -> Figure:
    """Test images, with ``labels`` (N,), in the plane of the original's leading components: name -> points (N, 2)."""
    figure = Figure(figsize=(3.1 * len(panels) + 0.4, 3.7), layout="constrained")
    figure.suptitle(title)
    shown = np.concatenate(list(panels.values()))
    low, high = np.quantile(shown, 0.005, axis=0), np.quantile(shown, 0.995, axis=0)
    margin = 0.06 * (high - low) + 1e-9
    all_axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (name, points) in zip(all_axes, panels.items(), strict=True):
        classes = np.unique(labels)
        for number, label in enumerate(classes):
            colour = COLOURS[number % len(COLOURS)]
            marker = MARKERS[(number // len(COLOURS)) % len(MARKERS)]
            chosen = points[labels == label]
            axes.scatter(chosen[:, 0], chosen[:, 1], s=9, color=colour, marker=marker, alpha=0.65, linewidths=0)
        axes.set(
            title=name, xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1])
        )
        axes.set_xlabel(f"component 1 ({100 * explained[0]:.0f}%)")
    all_axes[0].set_ylabel(f"component 2 ({100 * explained[1]:.0f}%)")
    return figure
