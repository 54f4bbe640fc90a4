"""Plans as points: what goes with what they cost, and the number of fit images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toast_cli.report.figures import NAMES, name_series, scatter, style, titled
from toast_cli.report.findings import Finding
from toast_cli.report.zoom import BARS, draw_intervals, fit_to, interval, lowest_shown


@dataclass(frozen=True)
class Spot:
    """A plan in a picture of changes: what stands against its change (a similarity, or a change as a fraction), and its finding."""

    x: float
    finding: Finding

    @property
    def y(self) -> float:
        """Its accuracy change in points."""
        return 100 * self.finding.delta_mean


def guide(series: Mapping[str, Sequence[Spot]], original: float, measure: str, title: str) -> Figure:
    """Accuracy change of spans against the similarity of their ends, by translator, with Spearman's ρ over all of them."""
    from scipy.stats import spearmanr

    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    axes = figure.add_subplot()
    labels = {
        name: f"{name}: ρ = {spearmanr([s.x for s in spots], [s.y for s in spots]).statistic:.2f}"
        for name, spots in series.items()
    }
    _changes(axes, {labels[name]: list(spots) for name, spots in series.items()}, original)
    titled(figure, f"{title}: accuracy change against {NAMES[measure]}")
    axes.set(xlabel=f"{NAMES[measure]} between the span's two ends", ylabel="accuracy change (points)")
    name_series(figure, axes, "Spearman's ρ over all spans")
    return figure


def additivity(series: Mapping[str, Sequence[Spot]], original: float, title: str) -> Figure:
    """Accuracy change of plans against the sum for their single blocks, in fractions, by kind of plan."""
    figure = Figure(figsize=(8.6, 4.8), layout="constrained")
    axes = figure.add_subplot()
    in_points = {name: [Spot(100 * s.x, s.finding) for s in spots] for name, spots in series.items()}
    labels = {name: f"{name}: {np.mean([abs(s.x - s.y) for s in spots]):.1f}" for name, spots in in_points.items()}
    shown = _changes(axes, {labels[name]: spots for name, spots in in_points.items()}, original)
    ends = [limit([s.x for s in shown]) for limit in (min, max)]
    axes.plot(ends, ends, color="0.4", linewidth=0.9, linestyle="--", label="as the sum says")
    titled(figure, f"{title}: change of plans against the sum of their blocks' changes")
    axes.set(
        xlabel="sum of the single blocks' accuracy changes (points)", ylabel="accuracy change of the plan (points)"
    )
    name_series(figure, axes, "mean distance from the sum, points")
    return figure


def _changes(axes: Axes, series: Mapping[str, Sequence[Spot]], original: float) -> list[Spot]:
    """Draw changes with their intervals; returns those that are shown, and counts the others at the edge."""
    everything = [spot for spots in series.values() for spot in spots]
    edge = 100 * (lowest_shown((original + s.finding.delta_mean for s in everything), original) - original)
    shown = [spot for spot in everything if spot.y >= edge - 1e-9]
    for number, (name, spots) in enumerate(series.items()):
        own = [spot for spot in spots if spot.y >= edge - 1e-9]
        x, y = [s.x for s in own], [s.y for s in own]
        scatter(axes, x, y, number, name)
        draw_intervals(axes, x, y, [s.finding for s in own], style(number)[0], True, "" if number else BARS)
    lost, lowest = len(everything) - len(shown), f"{min(s.y for s in shown):.0f}".replace("-", "−")
    told = f"{lost} of {len(everything)} plans are below {lowest} points" if lost else ""
    bars = [s.y + 100 * by for s in shown for by in (-interval(s.finding)[0], interval(s.finding)[1])]
    fit_to(axes, [s.x for s in shown], [0.0, *bars], told, right=True)
    axes.grid(alpha=0.25)
    return shown


def approximation(points: Sequence[tuple[float, float, float]], measure: str, title: str) -> Figure:
    """The similarity of the last latents with and without each span, against that of the latents at its ends, and how many
    blocks leave: (ends, last latents, blocks)."""
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.add_subplot()
    x, y, removed = zip(*points, strict=True)
    picture = axes.scatter(x, y, c=removed, cmap="viridis", s=26, edgecolors="0.3", linewidths=0.4)
    titled(figure, f"{title}, by {NAMES[measure]}")
    axes.set(
        xlabel=f"{NAMES[measure]} between the span's two ends", ylabel=f"{NAMES[measure]} between the last latents"
    )
    axes.grid(alpha=0.25)
    figure.colorbar(picture, ax=axes, label="blocks removed")
    return figure


def sample_sizes(lines: Mapping[str, Sequence[tuple[int, float, float]]], original: float, title: str) -> Figure:
    """Accuracy against the number of fit images. ``lines``: name -> (images, mean, standard deviation), fractions."""
    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    axes = figure.add_subplot()
    edge = lowest_shown((mean for points in lines.values() for _, mean, _ in points), original)
    for number, (name, points) in enumerate(lines.items()):
        images, means, spreads = (np.array(values) for values in zip(*sorted(points), strict=True))
        colour, marker = style(number)
        below, above = 100 * (means - spreads), 100 * (means + spreads)
        axes.fill_between(images, below, above, color=colour, alpha=0.15, linewidth=0)
        axes.plot(images, 100 * means, color=colour, marker=marker, markersize=4, label=name)
    axes.axhline(100 * original, color="0.4", linewidth=0.9, linestyle="--", label=f"original, {100 * original:.1f}%")
    sizes = sorted({point[0] for points in lines.values() for point in points})
    shown = [
        100 * (mean + by) for points in lines.values() for _, mean, std in points if mean >= edge for by in (-std, std)
    ]
    lost = sum(mean < edge for points in lines.values() for _, mean, _ in points)
    axes.set(xlabel="fit images (logarithmic)", ylabel="test accuracy (%)")
    told = f"{lost} points are below {min(shown):.0f}%" if lost else ""
    fit_to(axes, sizes, [*shown, 100 * original], told, right=True)
    axes.set_xscale("log")
    axes.set_xlim(sizes[0] / 1.15, sizes[-1] * 1.15)
    axes.set_xticks(sizes, list(map(str, sizes)))
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    titled(figure, f"{title}: accuracy by number of fit images")
    name_series(figure, axes)
    return figure
