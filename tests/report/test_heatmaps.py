"""Heatmaps: what their colours and numbers say, and that they can be read."""

import numpy as np
import pytest
from matplotlib import colormaps

from tests.report.drawn import clipped, overlapping
from toast_cli.report import heatmaps
from toast_cli.runs.measured import MEASURES


def test_spans_that_end_inside_blocks_have_rows_and_columns_of_their_own():
    whole = {"stem-0": -0.1, "0-2": -0.2, "2-3": -0.3, "0-1+2-3": -0.9}
    for deltas, side, starts, ends in (
        (whole, 4, ["stem", "0", "1", "2"], ["0", "1", "2", "3"]),
        (
            whole | {"1a-1": -0.4, "stem-0a": -0.5}, 8,
            ["stem", "0a", "0", "1a", "1", "2a", "2", "3a"], ["0a", "0", "1a", "1", "2a", "2", "3a", "3"],
        ),
    ):  # fmt: skip
        axes = heatmaps.spans(deltas, 4, "title").axes[0]
        cells = axes.images[0].get_array()
        assert cells.shape == (side, side)
        assert [label.get_text() for label in axes.get_yticklabels()] == starts
        assert [label.get_text() for label in axes.get_xticklabels()] == ends
        shown = {
            f"{starts[row]}-{ends[column]}": cells[row, column]
            for row, column in zip(*(~np.isnan(cells.filled(np.nan))).nonzero(), strict=True)
        }
        assert shown == {plan: pytest.approx(100 * delta) for plan, delta in deltas.items() if "+" not in plan}


def test_cells_and_colours_have_the_same_unit():
    figure = heatmaps.spans({"0-1": -0.025, "1-2": 0.011, "0-2": -0.9}, 3, "m on d", {"1-2"})
    axes, bar = figure.axes
    assert {text.get_text() for text in axes.texts} == {"−2.5", "+1.1≈", "−90.0"}
    assert bar.get_ylabel() == "accuracy change (points)"
    assert max(bar.get_ylim()) == 25, "what is ruined beyond that looks alike"
    assert figure.get_suptitle() == "m on d: accuracy change of every span"


def test_dark_means_alike_whatever_the_measure():
    for measure in MEASURES:
        alike, other = (0.0, 5.0) if measure == "mse" else (1.0, 0.2)
        scale = heatmaps.alike(measure, np.array([alike, 0.5, other]))
        light = [sum(colormaps[scale.colours](scale.norm(value))[:3]) for value in (alike, other)]
        assert light[0] < light[1], measure
        assert scale.dark(alike), "white letters there"
        assert not scale.dark(other)


def test_errors_of_every_size_have_colours_of_their_own():
    """Some models have latents a thousand times larger in their last blocks."""
    scale = heatmaps.alike("mse", np.array([0.0, 0.01, 0.1, 1.0, 1000.0]))
    steps = np.diff([float(scale.norm(value)) for value in (0.01, 0.1, 1.0, 1000.0)])
    assert steps == pytest.approx([0.2, 0.2, 0.6])
    assert float(scale.norm(0.0)) == 0, "no error at all is the darkest too"


def test_what_is_worse_than_a_constant_is_said_to_be_beyond_the_colours():
    scale = heatmaps.alike("r2_identity", np.array([-14.0, 0.3, 1.0]))
    assert (scale.norm.vmin, scale.norm.vmax, scale.extend) == (0.0, 1.0, "min")


@pytest.mark.parametrize("depth", [12, 48])
def test_names_of_blocks_do_not_run_into_each_other(depth: int):
    layers = ["stem", *map(str, range(depth))]
    values = {(a, b): float(abs(i - j)) for i, a in enumerate(layers) for j, b in enumerate(layers)}
    figure = heatmaps.similarities({"d": values}, "mse", "m" * 300)
    axes = figure.axes[0]
    for names in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [name.get_text() for name in names] == layers
        assert not overlapping(figure, names)
    assert clipped(figure) == []
    assert len(axes.texts) == (13 * 13 if depth == 12 else 0), "cells of so many blocks are too small for numbers"


def test_many_data_sets_stand_in_rows_of_three():
    panels = {f"set {i}": heatmaps.Panel(np.eye(2), ["a", "b"], ["写真" * 40, "b"]) for i in range(4)}
    figure = heatmaps.matrices(panels, heatmaps.alike("cka", np.eye(2)), "title", ("source", "target"))
    assert [axes.get_title() for axes in figure.axes[:4]] == list(panels)
    assert len({round(axes.get_subplotspec().rowspan.start) for axes in figure.axes[:4]}) == 2
    assert clipped(figure) == []


@pytest.mark.parametrize(
    ("value", "text"), [(0.934, ".93"), (1.0, "1"), (-3.12, "−3.1"), (120.4, "120"), (-0.001, "0"), (123456.0, "1e5")]
)
def test_numbers_are_short(value: float, text: str):
    assert heatmaps.short(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.83, "+0.8"), (-86.7, "−86.7"), (-0.01, "0.0"), (0.0, "0.0")])
def test_changes_have_a_sign(value: float, text: str):
    assert heatmaps.in_points(value) == text
