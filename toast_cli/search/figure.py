"""The figure of a search: what was measured and found, how well it was predicted, and how it compares on test."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toast_cli.report.answer import Interval
from toast_cli.report.figures import COLOURS, MARKERS, scatter, titled
from toast_cli.report.placing import Named, place
from toast_cli.runs.searched import Baseline, Candidate, Found

# Blocks removed, accuracy in percent, and how far its bar reaches below and above.
Point = tuple[float, float, float, float]
_FOUND = 2  # the series whose colour the plans found have in all panels


def picture(
    measured: Sequence[Candidate],
    found: Sequence[Found],
    baselines: Sequence[Baseline],
    intervals: Sequence[Interval | None] = (),
) -> Figure:
    """Held-out loss against GFLOPs, predicted against measured loss, and test accuracy against blocks removed.

    ``intervals``: those of the plans ``found``, in their order.
    """
    figure = Figure(figsize=(16.5, 5.4), layout="constrained")
    images = measured[0].held_out_images
    titled(figure, f"{found[0].model} on {found[0].data}: a search on {images} held-out train images, tested once")
    cost, foretold, tested = figure.subplots(1, 3)
    losses = _range(measured, found)
    _sizes(cost, measured, found, losses)
    _predictions(foretold, [row for row in measured if row.loss_predicted is not None], losses)
    _accuracies(tested, found, baselines, intervals)
    for axes in (cost, foretold, tested):
        axes.grid(alpha=0.25)
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13), "ncols": 3}  # where it covers no point
        if axes.get_legend_handles_labels()[0]:  # where nothing was predicted, there is nothing to name
            axes.legend(fontsize=8, frameon=False, **below)
    _name(figure, cost, measured, found)
    return figure


def _range(measured: Sequence[Candidate], found: Sequence[Found]) -> tuple[float, float]:
    """The losses that are shown: those of the original, of the plans found and as much again, and the best quarter of those measured."""
    losses = [found[0].loss_original, *(row.loss for row in found if row.best_trade_off)]
    low, quarter = min(losses), float(np.quantile([row.loss for row in measured], 0.25))
    reach = max(2 * (max(losses) - low), quarter - low, 1e-6)
    return low - 0.05 * reach, low + reach


def _sizes(axes: Axes, measured: Sequence[Candidate], found: Sequence[Found], losses: tuple[float, float]) -> None:
    for number, name in enumerate(("one span", "several spans")):
        rows = [row for row in measured if ("+" in row.plan) == (number == 1)]
        scatter(axes, [100 * row.gflops_ratio for row in rows], [row.loss for row in rows], number, name)
    axes.plot(*_front(found).T, color=COLOURS[_FOUND], marker="D", markersize=4, linewidth=1.3, label="found")
    axes.axhline(found[0].loss_original, color="0.4", linewidth=0.9, linestyle="--", label="original")
    axes.set(xlabel="GFLOPs (% of the original's)", ylabel="held-out loss (nats)", ylim=losses)
    _tell_outside(axes, len(measured), sum(row.loss > losses[1] for row in measured))


def _front(found: Sequence[Found]) -> np.ndarray:
    """Sizes and losses (plans, 2) of the best trade-offs, by size."""
    return np.array(sorted((100 * row.gflops_ratio, row.loss) for row in found if row.best_trade_off))


def _name(figure: Figure, axes: Axes, measured: Sequence[Candidate], found: Sequence[Found]) -> None:
    best = sorted((row for row in found if row.best_trade_off), key=lambda row: not row.chosen)
    points = [Named(100 * row.gflops_ratio, row.loss, row.plan) for row in best]
    across = np.array([(limit, found[0].loss_original) for limit in axes.get_xlim()])
    place(
        figure,
        axes,
        points,
        [_front(found), across],
        np.array([(100 * row.gflops_ratio, row.loss) for row in measured]),
    )


def _predictions(axes: Axes, rows: Sequence[Candidate], losses: tuple[float, float]) -> None:
    for number, which in enumerate(dict.fromkeys(row.round for row in rows)):
        own = [row for row in rows if row.round == which]
        scatter(axes, [row.loss_predicted or 0.0 for row in own], [row.loss for row in own], number, f"round {which}")
    if rows:
        axes.plot(losses, losses, color="0.4", linewidth=0.9, linestyle="--", label="as predicted")
    axes.set(xlabel="predicted loss (nats)", ylabel="measured loss (nats)", xlim=losses, ylim=losses)
    _tell_outside(axes, len(rows), sum(max(row.loss_predicted or 0.0, row.loss) > losses[1] for row in rows))


def _tell_outside(axes: Axes, total: int, outside: int) -> None:
    if outside:
        told = f"▲ {outside} of {total} plans are above"
        axes.text(0.015, 0.965, told, transform=axes.transAxes, fontsize=8, color="0.3", va="top")


def _accuracies(
    axes: Axes, found: Sequence[Found], baselines: Sequence[Baseline], intervals: Sequence[Interval | None]
) -> None:
    bars = dict(zip((row.plan for row in found), intervals, strict=False))
    best = {row.blocks_removed: row for row in sorted(found, key=lambda row: -row.loss)}
    known = any(interval is not None for interval in intervals)
    own = "found, 95% paired interval" if known else "found, ± standard deviation"
    lines: dict[str, list[Point]] = {
        "one span": [(blocks, 100 * row.rival_accuracy, 0.0, 0.0) for blocks, row in best.items()],
        own: [(blocks, 100 * row.accuracy_mean, *_reach(row, bars.get(row.plan))) for blocks, row in best.items()],
    }
    for row in baselines:
        name = row.baseline if row.accuracy_std is None else f"{row.baseline}, ± standard deviation"
        spread = 100 * (row.accuracy_std or 0.0)
        lines.setdefault(name, []).append((row.blocks_removed, 100 * row.accuracy_mean, spread, spread))
    for (name, points), number in zip(lines.items(), (0, _FOUND, *range(_FOUND + 1, 9)), strict=False):
        blocks, accuracies, below, above = zip(*sorted(points), strict=True)
        colour, marker = COLOURS[number], "D" if number == _FOUND else MARKERS[number]  # as in the first panel
        axes.plot(blocks, accuracies, color=colour, marker=marker, markersize=4, linewidth=1.3, label=name)
        axes.errorbar(blocks, accuracies, yerr=(below, above), fmt="none", ecolor=colour, elinewidth=0.7, capsize=2)
    original = 100 * (found[0].accuracy_mean - found[0].accuracy_delta_mean)
    label = f"original, {original:.1f}%"
    axes.axhline(original, color="0.4", linewidth=0.9, linestyle="--", label=label)
    ticks = sorted(best)[:: -(-len(best) // 12)]
    axes.set(xlabel="blocks removed", ylabel="test accuracy (%)", xticks=ticks)


def _reach(row: Found, interval: Interval | None) -> tuple[float, float]:
    """How far the bar of a plan found reaches below and above it, in points."""
    if interval is None:
        return 100 * (row.accuracy_std or 0.0), 100 * (row.accuracy_std or 0.0)
    delta = row.accuracy_delta_mean
    return 100 * max(delta - interval.low, 0.0), 100 * max(interval.high - delta, 0.0)
