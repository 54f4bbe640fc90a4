"""Which accuracies a picture shows: plans that have lost the model would squeeze the others, so they are counted at its edge."""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from toast_cli.report.findings import Finding

KEPT = 0.75  # share of the original's accuracy below which a plan has lost the model
BARS = "95% paired interval"
_AT_LEAST = 3  # plans that are shown, whatever they have lost


def lowest_shown(accuracies: Iterable[float], original: float) -> float:
    """Three quarters of the ``original``'s accuracy, or that of the third best plan if it is less."""
    best = sorted(accuracies, reverse=True)[:_AT_LEAST]
    return min([KEPT * original, *best])


def interval(finding: Finding) -> tuple[float, float]:
    """How far its 95% paired interval reaches below and above the finding, as matplotlib takes it; 0 where it is not known."""
    low, high = finding.delta_low, finding.delta_high
    if low is None or high is None:
        return 0.0, 0.0
    return max(finding.delta_mean - low, 0.0), max(high - finding.delta_mean, 0.0)


def draw_intervals(
    axes: Axes,
    x: ArrayLike,
    y: ArrayLike,
    findings: Sequence[Finding],
    colour: str,
    faint: bool = False,
    label: str = "",
) -> None:
    """The findings' paired intervals, in points, as bars through their places ``x`` and ``y``."""
    reach = 100 * np.array([interval(f) for f in findings]).reshape(-1, 2).T  # (2, findings)
    axes.errorbar(
        x, y, yerr=reach, fmt="none", ecolor=colour, zorder=1, label=label if reach.any() else "",
        elinewidth=0.6 if faint else 0.8, alpha=0.4 if faint else 0.7, capsize=0 if faint else 2,
    )  # fmt: skip


def fit_to(axes: Axes, x: Sequence[float], y: Sequence[float], lost: str = "", right: bool = False) -> None:
    """End both axes a little beyond these places; if plans are ``lost`` below, a strip at the lower edge says so."""
    for values, limit, strip in ((x, axes.set_xlim, 0.0), (y, axes.set_ylim, 0.08 if lost else 0.0)):
        low, high = min(values), max(values)
        reach = (high - low) or 1.0
        limit(low - (0.05 + strip) * reach, high + 0.05 * reach)
    if lost:
        place, side = (0.985, "right") if right else (0.015, "left")
        axes.text(place, 0.02, f"▼ {lost}", ha=side, transform=axes.transAxes, fontsize=8, color="0.3")
