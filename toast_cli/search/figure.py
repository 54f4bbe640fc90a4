"""The figure of a search: what was measured and found, how well it was predicted, and how it compares on test."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toast_cli.report.figures import COLOURS, MARKERS, scatter
from toast_cli.runs.rows import Baseline, Candidate, Found

# Blocks removed, a mean over seeds and its standard deviation if there is one.
Point = tuple[float, float, float | None]


def picture(measured: Sequence[Candidate], found: Sequence[Found], baselines: Sequence[Baseline]) -> Figure:
    """Held-out loss against GFLOPs, predicted against measured loss, and test accuracy against blocks removed."""
    figure = Figure(figsize=(15.5, 4.9), layout="constrained")
    figure.suptitle(f"{found[0].model} on {found[0].data}, {measured[0].held_out_images} held-out train images")
    cost, foretold, tested = figure.subplots(1, 3)
    _sizes(cost, measured, found)
    _predictions(foretold, [row for row in measured if row.loss_predicted is not None])
    _accuracies(tested, found, baselines)
    for axes in (cost, foretold, tested):
        axes.grid(alpha=0.25)
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13), "ncols": 4}  # where it covers no point
        if axes.get_legend_handles_labels()[0]:  # where nothing was predicted, there is nothing to name
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


def _accuracies(axes: Axes, found: Sequence[Found], baselines: Sequence[Baseline]) -> None:
    best = {row.blocks_removed: row for row in sorted(found, key=lambda row: -row.loss)}
    lines: dict[str, list[Point]] = {
        "one span": [(blocks, row.rival_accuracy, None) for blocks, row in best.items()],
        "found": [(blocks, row.accuracy_mean, row.accuracy_std) for blocks, row in best.items()],
    }
    for row in baselines:
        lines.setdefault(row.baseline, []).append((row.blocks_removed, row.accuracy_mean, row.accuracy_std))
    for (name, points), number in zip(lines.items(), (0, *range(2, 9)), strict=False):  # as in the first panel
        blocks, accuracies, deviations = zip(*sorted(points), strict=True)
        colour, marker = COLOURS[number], "D" if name == "found" else MARKERS[number]
        axes.plot(blocks, accuracies, color=colour, marker=marker, markersize=4, linewidth=1.3, label=name)
        spread = [each or 0.0 for each in deviations]
        axes.errorbar(blocks, accuracies, yerr=spread, fmt="none", ecolor=colour, elinewidth=0.7, capsize=2)
    original = found[0].accuracy_mean - found[0].accuracy_delta_mean
    axes.axhline(original, color="0.4", linewidth=0.9, linestyle="--", label="original")
    axes.set(xlabel="blocks removed", ylabel="test accuracy, ± standard deviation", xticks=sorted(best))
