"""The figure of a search: its units, intervals, names and what it leaves at its edge."""

from dataclasses import fields
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from tests.report.drawn import clipped, overlapping
from toast_cli.report.answer import Interval
from toast_cli.runs.searched import Baseline, Candidate, Found
from toast_cli.search.figure import picture


def row(kind: type, **values: object) -> Any:
    """A row with 0 wherever ``values`` say nothing."""
    return kind(**{field.name: 0 for field in fields(kind)} | values)


LONG = "1a-1+2a-2+3a-3+4a-5+6a-6+7a-7:identity+8a-8:identity"
FOUND = [
    row(
        Found, model="m", data="d", plan=plan, blocks_removed=n, gflops_ratio=1 - n / 10, loss=0.1 * n, accuracy_mean=0.9 - n / 100,
        accuracy_delta_mean=-n / 100, rival_accuracy=0.8, best_trade_off=True,
    )
    for n, plan in enumerate(("0-1", "0-1+2-3", LONG), start=1)
]  # fmt: skip
MEASURED = [
    row(Candidate, plan=f.plan, round=1, loss=f.loss, loss_predicted=0.11, gflops_ratio=f.gflops_ratio) for f in FOUND
] + [row(Candidate, plan="stem-3", round=0, loss=5.0, loss_predicted=None, gflops_ratio=0.6)]


@pytest.fixture(scope="module")
def figure() -> Figure:
    baselines = [row(Baseline, baseline="random", blocks_removed=2, accuracy_mean=0.5, accuracy_std=0.1)]
    return picture(MEASURED, FOUND, baselines, [Interval(-0.03, 0.005), None, Interval(-0.06, -0.01)])


def test_accuracies_are_percentages_with_their_intervals(figure: Figure):
    tested = figure.axes[2]
    assert tested.get_ylabel() == "test accuracy (%)"
    lines = {line.get_label(): list(line.get_ydata()) for line in tested.lines}
    assert lines["found, 95% paired interval"] == pytest.approx([89, 88, 87])
    assert "original, 90.0%" in lines
    assert "random, ± standard deviation" in lines
    bars = [segment[:, 1].tolist() for segment in tested.containers[1].lines[2][0].get_segments()]
    assert bars[0] == pytest.approx([87, 90.5])
    assert bars[1] == pytest.approx([88, 88]), "not known"
    assert bars[2] == pytest.approx([84, 89])


def test_ruinous_plans_are_counted_at_the_edge(figure: Figure):
    cost = figure.axes[0]
    assert cost.get_ylim()[1] < 1
    assert "▲ 1 of 4 plans are above" in [text.get_text() for text in cost.texts]
    assert [axes.get_ylabel() for axes in figure.axes[:2]] == ["held-out loss (nats)", "measured loss (nats)"]


def test_plans_found_are_named_without_overlap(figure: Figure):
    names = [text for text in figure.axes[0].texts if isinstance(text, Annotation)]
    assert {"0-1", "0-1+2-3"} <= {name.get_text() for name in names}
    assert overlapping(figure, names) == []
    assert clipped(figure) == []
