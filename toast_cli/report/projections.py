"""Test images in a plane: which plans of a run are worth seeing there, and their picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toast_cli.report.answer import Measured, best, taken
from toast_cli.report.figures import drawn, style, titled
from toast_cli.report.labels import name_of
from toast_cli.report.zoom import KEPT
from toast_cli.runs.archive import CompleteRun
from toast_cli.runs.results import summarise
from toast_cli.runs.rows import Row, Summary

_CLASSES = 12  # that have a colour of their own
_NAME, _PLAN = 22, 20  # letters of a class and of a plan


@dataclass(frozen=True)
class Shown:
    """A plan in a picture: the ``role`` that it has there, its number among the run's rows and its mean accuracy."""

    role: str
    plan: str
    number: int
    accuracy: float

    @property
    def title(self) -> str:
        name = f"{self.role}: {drawn(self.plan, _PLAN)}" if self.number else self.role
        return f"{name}, {100 * self.accuracy:.1f}%"


def of_projections(runs: Sequence[CompleteRun]) -> dict[str, Figure]:
    """The test images by the original's leading components, for the original and the plans worth seeing.

    Of several runs with the same model, data set and translator, the one with the most plans is shown.
    """
    pictures = {}
    fullest = {
        (row.model, row.data, row.translator): run
        for run in sorted(runs, key=lambda run: len({row.plan for row in run.rows}))
        for row in run.rows[:1]
    }
    for run in fullest.values():
        stored, chosen = run.projection, worth_seeing(run)
        if stored is None or len(chosen) < 2:
            continue
        panels = {shown.title: stored["points"][shown.number] for shown in chosen}
        told = f"{run.rows[0].model} on {run.rows[0].data}, {run.rows[0].translator}"
        picture = projections(panels, stored["labels"], run.classes, stored["explained"].tolist(), told)
        pictures[name_of("projection", told)] = picture
    return pictures


def worth_seeing(run: CompleteRun) -> list[Shown]:
    """The original; the plan that the run's answer names; the smallest that keeps three quarters of the original's accuracy,
    or the most accurate if none does; and the worst of those that are no smaller. A plan of two roles has the first of them.
    Maps of the most fit images are shown."""
    lines = summarise(run.rows)
    most = max(line.fit_images for line in lines)
    plans = [line for line in lines if line.plan != "none" and line.fit_images == most]
    if not plans:
        return []
    kept = [line for line in plans if line.accuracy_mean >= KEPT * lines[0].accuracy_mean]
    small = min(kept, key=lambda line: (line.gflops, -line.accuracy_mean), default=None)
    small = small or max(plans, key=lambda line: line.accuracy_mean)
    worst = min((line for line in plans if line.gflops >= small.gflops), key=lambda line: line.accuracy_mean)
    answers, measured = best(lines), Measured(run.path)
    answer = taken(answers, [measured.interval(line) for line in answers])
    roles = (("original", lines[0]), ("to take", answer), ("smallest" if kept else "best", small), ("worst", worst))
    places = {_key(row): number for number, row in enumerate(run.rows) if row.seed == run.rows[0].seed}
    found: dict[int, Shown] = {}
    for role, line in roles:
        if line is not None:
            number = places[_key(line)]
            found.setdefault(number, Shown(role, line.plan, number, line.accuracy_mean))
    return list(found.values())


def _key(line: Row | Summary) -> tuple[object, ...]:
    return line.plan, line.fit_images, line.sequential, line.healed


def projections(
    panels: Mapping[str, np.ndarray],
    labels: np.ndarray,
    classes: Sequence[str],
    explained: Sequence[float],
    title: str,
) -> Figure:
    """Test images, of ``labels`` (N,), in the plane of the original's leading components: name -> points (N, 2), the
    original first. ``classes``: their names by number, if they are known.

    All panels have the limits that hold the original's points; of others' points outside it is said how many there are.
    """
    figure = Figure(figsize=(3.0 * len(panels) + 1.9, 4.6), layout="constrained")
    titled(figure, f"{title}: test images in the original's leading components")
    original = next(iter(panels.values()))
    middle = (original.min(0) + original.max(0)) / 2
    reach = 0.6 * float((original.max(0) - original.min(0)).max()) or 1.0
    all_axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (name, points) in zip(all_axes, panels.items(), strict=True):
        _panel(axes, points, labels, classes)
        axes.set(xlim=(middle[0] - reach, middle[0] + reach), ylim=(middle[1] - reach, middle[1] + reach))
        axes.set_box_aspect(1)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel(f"component 1 ({100 * explained[0]:.0f}% of variance)")
        outside = int(np.any(np.abs(points - middle) > reach, axis=1).sum())
        if outside:
            axes.text(0.02, 0.02, f"{outside} of {len(points)} images outside", transform=axes.transAxes, fontsize=7)
    all_axes[0].set_ylabel(f"component 2 ({100 * explained[1]:.0f}% of variance)")
    handles, names = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", fontsize=8, frameon=False, title="class", markerscale=1.6)
    return figure


def _panel(axes: Axes, points: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> None:
    """Draw the images; of many classes, those with the most images in colour and the others in grey."""
    numbers, counts = np.unique(labels, return_counts=True)
    own = sorted(numbers[np.argsort(-counts, kind="stable")][: _CLASSES if len(numbers) <= _CLASSES else _CLASSES - 1])
    for place, number in enumerate(own):
        colour, marker = style(place)
        name = classes[number] if number < len(classes) else str(number)
        chosen = points[labels == number]
        axes.scatter(
            chosen[:, 0],
            chosen[:, 1],
            s=12,
            color=colour,
            marker=marker,
            alpha=0.75,
            linewidths=0,
            label=drawn(name, _NAME),
        )
    others = ~np.isin(labels, own)
    if others.any():
        label = f"{len(numbers) - len(own)} other classes"
        axes.scatter(points[others, 0], points[others, 1], s=6, color="0.8", marker=".", zorder=0, label=label)
