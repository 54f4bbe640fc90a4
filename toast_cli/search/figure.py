"""The figure of a search: what was measured and found, and how well it was predicted."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toast_cli.report.figures import COLOURS, scatter
from toast_cli.runs.rows import Candidate, Found


def picture(measured: Sequence[Candidate], found: Sequence[Found]) -> Figure:
    """Held-out loss against GFLOPs, and predicted against measured loss."""
    figure = Figure(figsize=(10.5, 4.7), layout="constrained")
    figure.suptitle(f"{found[0].model} on {found[0].data}, {measured[0].held_out_images} held-out train images")
    cost, foretold = figure.subplots(1, 2)
    _sizes(cost, measured, found)
    _predictions(foretold, [row for row in measured if row.loss_predicted is not None])
    for axes in (cost, foretold):
        axes.grid(alpha=0.25)
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13), "ncols": 4}  # where it covers no point
        axes.legend(fontsize=8, frameon=False, **below)
    return figure


def _sizes(axes: Axes, measured: Sequence[Candidate], found: Sequence[Found]) -> None:
    for number, name in enumerate(("one span", "several spans")):
        rows = [row for row in measured if ("+" in row.plan) == (number == 1)]
        scatter(axes, [row.gflops_ratio for row in rows], [row.loss for row in rows], number, name)
    line = sorted((row.gflops_ratio, row.loss) for row in found if row.best_trade_off)
    axes.plot(*zip(*line, strict=True), color=COLOURS[2], marker="D", markersize=4, linewidth=1.3, label="found")
    original = found[0].loss_original
    axes.axhline(original, color="0.4", linewidth=0.9, linestyle="--", label="original")
    low, high = min(original, *(loss for _, loss in line)), max(loss for _, loss in line)
    reach = max(high - low, 0.01)
    axes.set_ylim(low - 0.1 * reach, high + reach)  # a few ruinous spans are above that
    axes.set(xlabel="GFLOPs, ratio to the original's", ylabel="held-out loss")


def _predictions(axes: Axes, rows: Sequence[Candidate]) -> None:
    for number, which in enumerate(dict.fromkeys(row.round for row in rows)):
        own = [row for row in rows if row.round == which]
        scatter(axes, [row.loss_predicted or 0.0 for row in own], [row.loss for row in own], number, f"round {which}")
    if rows:
        ends = [limit(row.loss for row in rows) for limit in (min, max)]
        axes.plot(ends, ends, color="0.4", linewidth=0.9, linestyle="--", label="as predicted")
    axes.set(xlabel="predicted loss", ylabel="measured loss")
