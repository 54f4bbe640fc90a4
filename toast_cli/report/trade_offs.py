"""The picture of accuracy against size: every plan, the best of them with their names and intervals."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toast_cli.report.answer import Interval, taken
from toast_cli.report.figures import name_series, style, titled
from toast_cli.report.findings import Finding
from toast_cli.report.placing import Named, place
from toast_cli.report.zoom import BARS, draw_intervals, fit_to, interval, lowest_shown

_SIZES = {"GFLOPs": "gflops_ratio", "parameters": "params_ratio"}
_ALIKE = 0.02  # a second panel whose places differ by no more says nothing new


def trade_offs(series: Mapping[str, Sequence[Finding]], original: float, title: str) -> Figure:
    """Accuracy against GFLOPs, in percent, for each kind of map; and against parameters where these say something else."""
    everything = [f for findings in series.values() for f in findings]
    apart = max(abs(f.gflops_ratio - f.params_ratio) for f in everything)
    labels = ["GFLOPs"] if apart <= _ALIKE else list(_SIZES)
    figure = Figure(figsize=(9.5 if len(labels) == 1 else 15.0, 5.2), layout="constrained")
    titled(figure, f"{title}: accuracy against size")
    panels = figure.subplots(1, len(labels), sharey=True, squeeze=False)[0]
    for axes, label in zip(panels, labels, strict=True):
        _panel(axes, series, original, _SIZES[label])
        same = f"; parameters: the same within {max(100 * apart, 0.1):.1f} points" if len(labels) == 1 else ""
        axes.set_xlabel(f"{label} (% of the original's{same})")
    panels[0].set_ylabel("test accuracy (%)")
    name_series(figure, panels[0])
    for axes, label in zip(panels, labels, strict=True):  # once the legend has its room
        _name(figure, axes, everything, original, _SIZES[label])
    return figure


def _panel(axes: Axes, series: Mapping[str, Sequence[Finding]], original: float, size: str) -> None:
    everything = [f for findings in series.values() for f in findings]
    edge = lowest_shown((f.accuracy_mean for f in everything), original)
    shown = [f for f in everything if f.accuracy_mean >= edge]
    for number, (name, findings) in enumerate(series.items()):
        colour, marker = style(number)
        lost = [100 * getattr(f, size) for f in findings if f.accuracy_mean < edge]
        axes.scatter(lost, [0.065] * len(lost), s=14, color=colour, marker="v", transform=axes.get_xaxis_transform())
        kept = [f for f in findings if f.accuracy_mean >= edge]
        x, y = _places(kept, size).T
        axes.scatter(x, y, s=16, color=colour, marker=marker, alpha=0.35, linewidths=0)
        best = front(kept, size)
        x, y = _places(best, size).T
        axes.plot(x, y, color=colour, marker=marker, markersize=4.5, linewidth=1.3, label=name)
        draw_intervals(axes, x, y, best, colour, label="" if number else BARS)
    axes.axhline(100 * original, color="0.4", linewidth=0.9, linestyle="--", label=f"original, {100 * original:.1f}%")
    axes.plot(100, 100 * original, "*", color="0.2", markersize=9, zorder=3)
    answer = smallest_held(shown)
    if answer is not None:
        label = "the smallest that is not measurably worse"
        x, y = _places([answer], size).T
        axes.scatter(x, y, s=110, facecolors="none", edgecolors="black", label=label)
    _zoom(axes, shown, len(everything), original, size)
    axes.grid(alpha=0.25)


def _zoom(axes: Axes, shown: Sequence[Finding], total: int, original: float, size: str) -> None:
    x, y = (list(map(float, values)) for values in _places(shown, size).T)
    whole = [100.0] if 100 - max(x) <= max(x) - min(x) else []  # the original's size must not squeeze the others
    ends = [100 * (f.accuracy_mean + by) for f in front(shown, size) for by in (-interval(f)[0], interval(f)[1])]
    lost = f"{total - len(shown)} of {total} plans are below {min(y):.0f}%" if total > len(shown) else ""
    fit_to(axes, [*x, *whole], [*y, *ends, 100 * original], lost)


def _name(figure: Figure, axes: Axes, everything: Sequence[Finding], original: float, size: str) -> None:
    """Write the names of the plans that no other beats, as far as there is room."""
    edge = lowest_shown((f.accuracy_mean for f in everything), original)
    shown = [f for f in everything if f.accuracy_mean >= edge]
    line, answer = front(shown, size), smallest_held(shown)
    best = line if answer is None or answer in line else [*line, answer]
    # The answer first; then every eighth, fourth and second, so that names are spread evenly if not all have room.
    order = sorted(range(len(best)), key=lambda i: (best[i] is not answer, -(i & -i) if i else -len(best)))
    places = _places(best, size)
    reach = 100 * np.array([interval(f) for f in best])
    bars = [np.array([(x, y - low), (x, y + high)]) for (x, y), (low, high) in zip(places, reach, strict=True)]
    across = np.array([(limit, 100 * original) for limit in axes.get_xlim()])
    points = [Named(float(places[i, 0]), float(places[i, 1]), best[i].plan) for i in order]
    place(figure, axes, points, [_places(line, size), *bars, across], _places(shown, size))


def smallest_held(findings: Sequence[Finding]) -> Finding | None:
    """Of the best for each number of blocks, the one with the fewest operations that is not measurably worse than the original.

    It is the plan to take of a run that is reported alone. None if there is no such plan.
    """
    best: dict[float, Finding] = {}
    for f in sorted(findings, key=lambda f: (-f.accuracy_mean, f.gflops)):
        best.setdefault(f.blocks_removed, f)
    held = [f for f in best.values() if f.delta_high is not None and f.delta_high >= 0]
    return taken(held, [Interval(f.delta_low or 0.0, f.delta_high or 0.0) for f in held])


def front(findings: Sequence[Finding], size: str = "gflops_ratio") -> list[Finding]:
    """Those that no other beats in both size and accuracy, by size."""
    best, found = -math.inf, []
    for f in sorted(findings, key=lambda f: (getattr(f, size), -f.accuracy_mean)):
        if f.accuracy_mean > best:
            best = f.accuracy_mean
            found.append(f)
    return found


def _places(findings: Sequence[Finding], size: str) -> np.ndarray:
    """Sizes and accuracies in percent (findings, 2)."""
    return np.array([(100 * getattr(f, size), 100 * f.accuracy_mean) for f in findings]).reshape(-1, 2)
