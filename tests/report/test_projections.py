"""Test images in a plane: which plans are worth seeing, and what the picture says of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.report.drawn import clipped, overlapping
from tests.runs.test_results import row
from tests.test_pinned import PINNED
from toast_cli.report import projections
from toast_cli.report.answer import Interval, Measured
from toast_cli.report.projections import of_projections, worth_seeing
from toast_cli.runs.archive import CompleteRun
from toast_cli.runs.rows import Summary

ACCURACIES = {"none": 0.9, "0-1": 0.91, "1-3": 0.89, "0-3": 0.7, "stem-2": 0.3, "stem-3": 0.1}
HELD = ("0-1", "1-3")


def run_of(accuracies: dict[str, float]) -> CompleteRun:
    """Two seeds, 0.01 below and above these accuracies; a block is a tenth of the operations."""
    removed = {"none": 0, "0-1": 1, "1-3": 2, "0-3": 3, "stem-2": 3, "stem-3": 4}
    rows = [
        replace(row(plan, seed, accuracy + off, 2 - removed[plan] / 5), blocks_removed=removed[plan], test_images=1000)
        for seed, off in ((3, -0.01), (5, 0.01))
        for plan, accuracy in accuracies.items()
    ]
    return CompleteRun(Path("here"), {}, {}, rows)


@pytest.fixture
def _intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the plans of ``HELD`` have an interval that reaches 0."""

    def interval(self: Measured, line: Summary) -> Interval | None:
        return None if line.plan == "none" else Interval(-0.1, 0.0 if line.plan in HELD else -0.05)

    monkeypatch.setattr(Measured, "__init__", lambda self, path: None)
    monkeypatch.setattr(Measured, "interval", interval)


@pytest.mark.usefixtures("_intervals")
def test_each_plan_has_a_reason_to_be_seen():
    shown = worth_seeing(run_of(ACCURACIES))
    assert [(each.role, each.plan, each.number) for each in shown] == [
        ("original", "none", 0), ("to take", "1-3", 2), ("smallest", "0-3", 3), ("worst", "stem-2", 4),
    ]  # fmt: skip
    assert [each.title for each in shown[:2]] == ["original, 90.0%", "to take: 1-3, 89.0%"], "means over seeds"


@pytest.mark.usefixtures("_intervals")
def test_of_plans_that_all_lost_the_model_the_best_is_shown():
    shown = worth_seeing(run_of({"none": 0.9, "stem-2": 0.3, "stem-3": 0.1}))
    assert [(each.role, each.plan) for each in shown] == [("original", "none"), ("to take", "stem-2")]
    assert worth_seeing(run_of({"none": 0.9})) == []


def test_a_run_of_an_earlier_version_is_shown_with_numbers_for_classes():
    run = CompleteRun.read(PINNED / "outputs" / "run" / "digits_vit-digits-affine-5317bf72")
    ((name, figure),) = of_projections([run]).items()
    assert name == "projection-digits_vit_on_digits_affine"
    original = np.mean([each.accuracy for each in run.rows if each.plan == "none"])
    assert figure.axes[0].get_title() == f"original, {100 * original:.1f}%"
    present = sorted({str(number) for number in run.projection["labels"]})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == present
    assert clipped(figure) == []


def figure_of(classes: int, names: list[str]):
    rng = np.random.default_rng(0)
    points, labels = rng.normal(size=(300, 2)), np.arange(300) % classes
    panels = {"original, 90.0%": points, "to take: 2-3+9-11, 89.0%": points, "worst: stem-11, 1.0%": 100 * points}
    return projections.projections(panels, labels, names, [0.25, 0.1], "model" * 20 + " on data")


def test_of_many_classes_some_have_colours_and_the_others_are_counted():
    figure = figure_of(100, [f"a class with a long name, number {i}" for i in range(100)])
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(told) == 12
    assert told[0].endswith("mber 0")
    assert told[-1] == "89 other classes"
    assert clipped(figure) == []


def test_few_classes_all_have_names_and_looks_of_their_own():
    figure = figure_of(12, [])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(map(str, range(12)))
    looks = [(tuple(drawn.get_facecolor()[0]), drawn.get_paths()[0].vertices.tobytes()) for drawn in figure.axes[0].collections]  # fmt: skip
    assert len(set(looks)) == 12


def test_a_broken_plan_leaves_the_limits_to_the_original():
    figure = figure_of(3, ["cat", "dog", "owl"])
    first, *_, last = figure.axes
    assert first.get_xlim() == last.get_xlim()
    assert first.get_xlim()[1] - first.get_xlim()[0] < 12
    assert [text.get_text() for text in first.texts] == []
    outside = int(last.texts[0].get_text().split()[0])
    assert 290 <= outside <= 300
    assert last.texts[0].get_text().endswith("of 300 images outside")
    assert overlapping(figure, [axes.title for axes in figure.axes]) == []
