import numpy as np
import pytest

from toast_cli.report.statistics import bootstrap_interval, flip_rate, mcnemar


def test_the_interval_is_that_of_the_mean():
    """For many images the percentile interval is the normal one, mean ± 1.96 standard errors."""
    difference = np.random.default_rng(0).choice([-1, 0, 1], size=4000, p=[0.08, 0.87, 0.05])
    low, high = bootstrap_interval(difference, np.ones(4000))
    error = difference.std() / np.sqrt(len(difference))
    assert low == pytest.approx(difference.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(difference.mean() + 1.96 * error, abs=0.15 * error)
    assert bootstrap_interval(difference, np.ones(4000)) == (low, high), "the same draws every time"


def test_no_difference_is_a_point():
    assert bootstrap_interval(np.zeros(50), np.ones(50)) == (0, 0)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(100):
        low, high = bootstrap_interval(generator.choice([-1, 0, 1], size=300, p=[0.1, 0.8, 0.1]), np.ones(300))
        held += low <= 0 <= high
    assert 88 <= held <= 100


def test_mcnemar_is_the_binomial_on_the_discordant():
    right = np.array([True] * 90 + [False] * 10)
    other = right.copy()
    other[:6] = False  # six lost, none won: 2 · 2⁻⁶
    assert mcnemar(other, right) == pytest.approx(2 / 64)
    assert mcnemar(right, other) == pytest.approx(2 / 64)
    assert mcnemar(right, right) == 1
    other[90:96] = True  # six won as well
    assert mcnemar(other, right) == pytest.approx(1)


def test_flips_count_whether_right_or_wrong():
    assert flip_rate(np.array([1, 2, 3, 3]), np.array([1, 2, 2, 1])) == 0.5
