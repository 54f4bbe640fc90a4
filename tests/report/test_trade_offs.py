"""The picture of accuracy against size: what it shows, names and leaves at its edge."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from tests.report.conftest import finding
from tests.report.drawn import clipped, overlapping
from toast_cli.plans import every_span
from toast_cli.report import scatters
from toast_cli.report.findings import Finding
from toast_cli.report.scatters import Spot
from toast_cli.report.trade_offs import smallest_held, trade_offs
from toast_cli.report.zoom import lowest_shown

ORIGINAL = 0.9


def plan(text: str, accuracy: float, size: float, reach: float = 0.02, params: float | None = None) -> Finding:
    delta = accuracy - ORIGINAL
    sizes = {"gflops": size, "gflops_ratio": size, "params_ratio": size if params is None else params}
    return finding(text, accuracy, delta_low=delta - reach, delta_high=delta + reach, **sizes)


FRONT = [plan("0-1", 0.91, 0.9), plan("1-3", 0.89, 0.8), plan("0-3", 0.86, 0.7), plan("0-4", 0.80, 0.6)]
BEATEN = [plan("1-2", 0.88, 0.9), plan("2-4", 0.85, 0.8)]
LOST = [plan("stem-2", 0.4, 0.7), plan("stem-4", 0.01, 0.1)]


def names(figure: Figure) -> list[Text]:
    return [text for axes in figure.axes for text in axes.texts if isinstance(text, Annotation)]


def test_a_plan_that_lost_the_model_does_not_squeeze_the_others():
    axes = trade_offs({"linear": [*FRONT, *BEATEN, *LOST]}, ORIGINAL, "m on d").axes[0]
    low, high = axes.get_ylim()
    assert 70 < low < 78
    assert 93 < high < 95, "the whole interval of the best plan"
    assert axes.get_xlim()[0] > 50, "nor along the other axis"
    assert "▼ 2 of 8 plans are below 80%" in [text.get_text() for text in axes.texts]
    assert (axes.get_ylabel(), axes.get_xlabel().split(";")[0]) == ("test accuracy (%)", "GFLOPs (% of the original's")


def test_with_nothing_lost_nothing_is_said():
    axes = trade_offs({"linear": FRONT}, ORIGINAL, "m on d").axes[0]
    assert not [text for text in axes.texts if "below" in text.get_text()]


def test_three_plans_are_shown_whatever_they_lost():
    assert lowest_shown([0.1, 0.2, 0.3, 0.4], 0.9) == 0.2
    assert lowest_shown([0.1, 0.7, 0.8, 0.8], 0.9) == pytest.approx(0.675)
    assert lowest_shown([], 0.8) == pytest.approx(0.6)


def test_the_plans_that_no_other_beats_are_named():
    figure = trade_offs({"linear": [*FRONT, *BEATEN, *LOST]}, ORIGINAL, "m on d")
    assert {name.get_text() for name in names(figure)} == {"0-1", "1-3", "0-3", "0-4"}


def test_the_ring_is_at_the_smallest_whose_interval_reaches_no_change():
    held = smallest_held([*FRONT, *BEATEN])
    assert held is not None
    assert held.plan == "1-3", "0-3 is measurably worse, and 0-1 is larger"
    axes = trade_offs({"linear": [*FRONT, *BEATEN]}, ORIGINAL, "m on d").axes[0]
    (ring,) = [drawn for drawn in axes.collections if drawn.get_label() == "the smallest that is not measurably worse"]
    assert ring.get_offsets().tolist()[0] == pytest.approx([80, 89])
    assert smallest_held([plan("0-1", 0.5, 0.9)]) is None


def test_bars_are_the_paired_intervals():
    uneven = replace(FRONT[0], delta_low=-0.03, delta_high=0.015)  # its change is +0.01
    axes = trade_offs({"linear": [uneven, *FRONT[1:]]}, ORIGINAL, "m on d").axes[0]
    bars = [container for container in axes.containers if container.get_label() == "95% paired interval"]
    ends = [segment[:, 1].tolist() for segment in bars[0].lines[2][0].get_segments()]
    assert ends[-1] == pytest.approx([91 - 4, 91 + 0.5])
    assert ends[0] == pytest.approx([80 - 2, 80 + 2])


def test_parameters_have_a_panel_where_they_say_something_else():
    assert len(trade_offs({"linear": FRONT}, ORIGINAL, "m").axes) == 1
    other = [replace(f, params_ratio=f.params_ratio - 0.1) for f in FRONT]
    first, second = trade_offs({"linear": other}, ORIGINAL, "m").axes
    assert second.get_xlabel() == "parameters (% of the original's)"
    assert second.get_xlim()[0] < first.get_xlim()[0]


def sweep(depth: int) -> list[Finding]:
    """Every span of a model, the fewer blocks the better, with steps and noise as real ones have."""
    rng = np.random.default_rng(0)
    plans = every_span(depth)
    losses = [(p.blocks_removed / depth) ** 2 + 0.01 * rng.normal() for p in plans]
    return [
        plan(str(p), max(ORIGINAL - loss, 0.01), 1 - 0.99 * p.blocks_removed / depth)
        for p, loss in zip(plans, losses, strict=True)
    ]


@pytest.mark.parametrize("depth", [12, 48])
def test_names_cover_neither_each_other_nor_the_edge(depth: int):
    figure = trade_offs({"linear": sweep(depth)}, ORIGINAL, "m on d")
    written = names(figure)
    assert len(written) >= 3
    assert overlapping(figure, written) == []
    assert clipped(figure) == []


def test_long_names_are_cut_and_legends_keep_clear_of_points():
    long = "+".join(f"{i}-{i + 1}" for i in range(0, 40, 2))
    series = {f"lowrank rank={2**i} per_position gelsy healed": [*FRONT, plan(long, 0.85, 0.65)] for i in range(12)}
    figure = trade_offs(series, ORIGINAL, "a_model_with_a_name_" * 8 + " on " + "a_data_set_" * 9)
    assert all(len(name.get_text()) <= 26 for name in names(figure))
    assert overlapping(figure, names(figure)) == []
    assert clipped(figure) == []
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 12 + 3, "and the original, the ring and the bars"
    assert not legend.get_window_extent().overlaps(figure.axes[0].get_window_extent())
    shown = {(line.get_color(), line.get_marker()) for line in figure.axes[0].lines if "lowrank" in line.get_label()}
    assert len(shown) == 12, "no two look alike"


def test_changes_are_shown_without_those_that_are_lost():
    spots = [Spot(0.5 + 0.1 * i, plan(f"{i}-{i + 1}", 0.9 - 0.05 * i, 0.9)) for i in range(4)]
    lost = Spot(0.1, plan("stem-4", 0.05, 0.1))
    figure = scatters.guide({"linear": [*spots, lost]}, ORIGINAL, "cka", "m on d")
    axes = figure.axes[0]
    assert axes.get_ylabel() == "accuracy change (points)"
    assert -22 < axes.get_ylim()[0] < -15
    assert axes.get_xlim()[0] > 0.4
    assert "▼ 1 of 5 plans are below −15 points" in [text.get_text() for text in axes.texts]
    correlation = figure.legends[0].get_texts()[0].get_text().removeprefix("linear: ρ = ")
    assert float(correlation) == 0, "lost plans count in it"
    assert figure.get_suptitle() == "m on d: accuracy change against linear CKA"


def test_fit_sizes_are_shown_with_their_deviations_in_percent():
    lines = {"0-1": [(10, 0.8, 0.01), (100, 0.85, 0.0)], "stem-3": [(10, 0.1, 0.0), (100, 0.2, 0.0)]}
    axes = scatters.sample_sizes(lines, 0.9, "m on d").axes[0]
    band = axes.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((79, 85))
    assert axes.get_ylabel() == "test accuracy (%)"
